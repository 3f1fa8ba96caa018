"""The command ``edfi-dagster``. Exit codes: 0 done, 1 failed, 2 wrong use."""

from edfi_dagster.cli.app import main

__all__ = ["main"]
