"""The command ``edfi-dagster``. Exit codes: 0 done, 1 failed, 2 wrong use."""


def main() -> None:
    """Entry point."""
    from edfi_dagster.cli.app import cli
    from edfi_dagster.cli.commands import register

    register(cli)
    cli(prog_name="edfi-dagster")
