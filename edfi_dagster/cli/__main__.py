"""``python -m edfi_dagster.cli``."""

from edfi_dagster.cli import main

main()
