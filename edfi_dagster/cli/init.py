"""``init``: a configuration to start from, by a few questions or by options."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edfi_dagster.cli.app import told
from edfi_dagster.cli.new_files import ENV_EXAMPLE, check_free, write_start
from edfi_dagster.cli.screen import Screen
from edfi_dagster.config import Platform, parse_platform
from edfi_dagster.config.environment import variables
from edfi_dagster.config.load import CONFIG_FILE

if TYPE_CHECKING:
    from edfi_dagster.cli.starting import Start


@click.command(short_help="Write a configuration to start from.")
@click.option(
    "--tenant", "tenants", multiple=True, help="Tenant code, as it is to be in tenant_code; repeatable."
)
@click.option(
    "--year", "years", multiple=True, type=int, help="School year, named by its spring; repeatable."
)
@click.option("--base-url", help="Root of the API; {tenant} and {year} are filled in.")
@click.option("--bucket", help="Keep the lake in this S3 bucket, not in data/lake.")
@click.option("--account", help="Load into this Snowflake account, not into DuckDB.")
@click.option("--user", default="EDFI_LOADER", show_default=True, help="The Snowflake user who loads.")
@click.option("--offline", is_flag=True, help="Do not ask the ODS for its data standard.")
@click.option("--deploy", type=click.Choice(["kubernetes", "compose"]), help="Also write deploy/ for this.")
@click.option("--force", is_flag=True, help="Write over what an earlier init wrote.")
@click.pass_context
@told
def init(
    context: click.Context,
    tenants: tuple[str, ...],
    years: tuple[int, ...],
    base_url: str | None,
    bucket: str | None,
    account: str | None,
    user: str,
    offline: bool,
    deploy: Literal["kubernetes", "compose"] | None,
    force: bool,
) -> None:
    """Write edfi_dagster.yaml, .env.example and what `dagster dev` needs here.

    In a terminal, it asks for what is missing. It neither asks for secrets nor writes them: the file names
    environment variables.

    Example: edfi-dagster init --tenant grand_bend --year 2025 --base-url https://ods.example.org/v7.3/api
    """
    from edfi_dagster.cli.starting import Start, text_of

    config = Path(context.obj or CONFIG_FILE).absolute()
    check_free([config, config.parent / ENV_EXAMPLE], force=force)
    start = _asked(Start(tenants, years, base_url or "", bucket, account, user))
    if deploy == "kubernetes" and not (start.bucket and start.account):
        raise click.UsageError(
            "--deploy kubernetes: its pods share no disk; give --bucket and --account too, or choose --deploy compose."
        )
    platform = _parsed(start, config)
    if not offline:
        start = _with_standards(start, platform)
    written = write_start(config, text_of(start), platform, force=force)
    if deploy:
        from edfi_dagster.deploy import write_deployment

        written += write_deployment(config.parent / "deploy", deploy, force=force)
    _print_next(platform, config, written)


def _asked(start: Start) -> Start:
    """``start`` with what was not given by options. Raises UsageError where nobody can be asked."""
    given = {"--tenant": start.tenants, "--year": start.years, "--base-url": start.base_url}
    missing = [option for option, value in given.items() if not value]
    if not missing:
        return start
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{', '.join(missing)}: missing; give them, or run this in a terminal to be asked."
        )
    tenants = start.tenants or _several("Tenant codes, as they are to be in the raw tables' tenant_code")
    years = start.years or tuple(
        map(_year, _several("School years, named by their spring (2025 is 2024-25)"))
    )
    many = " ({tenant} and {year} are filled in)" if len(tenants) * len(years) > 1 else ""
    base_url = start.base_url or click.prompt(f"Root of the API, before /data/v3{many}").strip()
    start = replace(start, tenants=tenants, years=years, base_url=base_url)
    if start.bucket is None and _choice("Lake", "local", "s3") == "s3":
        start = replace(start, bucket=click.prompt("Bucket").strip())
    if start.account is None and _choice("Warehouse", "duckdb", "snowflake") == "snowflake":
        account, user = (
            click.prompt("Snowflake account (org-account)"),
            click.prompt("User", default=start.user),
        )
        start = replace(start, account=account.strip(), user=user.strip())
    return start


def _several(question: str) -> tuple[str, ...]:
    answer: str = click.prompt(f"{question}; several with commas")
    return tuple(part.strip() for part in answer.split(",") if part.strip())


def _year(text: str) -> int:
    if not text.isdecimal():
        raise click.UsageError(f"{text!r} is not a school year; 2024-25 is written 2025.")
    return int(text)


def _choice(question: str, *kinds: str) -> str:
    chosen: str = click.prompt(question, type=click.Choice(kinds), default=kinds[0])
    return chosen


def _parsed(start: Start, config: Path) -> Platform:
    """Raises ConfigError for an answer that cannot be; nothing is written yet."""
    from edfi_dagster.cli.starting import text_of

    return parse_platform(text_of(start), f"the new {config.name}", config.parent)


def _with_standards(start: Start, platform: Platform) -> Start:
    from edfi_dagster.cli.starting import ask_standards

    stderr = Screen(stderr=True)
    with Screen(stderr=True).status(f"asking {len(platform.pairs())} ODSs for their data standard"):
        standards = ask_standards(platform, stderr.print, lambda text: stderr.print(f"Warning: {text}"))
    return replace(start, standards=standards)


def _print_next(platform: Platform, config: Path, written: Sequence[Path]) -> None:
    """What was written, and the next two commands."""
    here = Path.cwd()
    names = [str(path.relative_to(here) if path.is_relative_to(here) else path) for path in written]
    console = Screen()
    console.print(f"Written: {', '.join(name for name in names if not name.startswith('.dagster'))}")
    env = config.parent / ENV_EXAMPLE
    option = "" if config == here / CONFIG_FILE else f" --config {config}"
    console.print(f"Next, copy {env.name} to .env and fill in {_some(variables(platform))}; then:")
    tenant, year = platform.pairs()[0]
    click.echo(f"  edfi-dagster{option} check")
    click.echo(f"  edfi-dagster{option} materialize --tenant {shlex.quote(tenant)} --year {year}")


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return " and ".join(names) if len(names) == 2 else ", ".join(names[:2]) + rest
