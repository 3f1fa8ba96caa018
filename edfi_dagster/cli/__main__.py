"""``python -m edfi_dagster.cli``."""

from edfi_dagster.cli.app import main

main()
