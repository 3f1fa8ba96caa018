"""The command's root: the configuration, and errors told in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar

import click
from rich.status import Status

from edfi_dagster.cli.screen import Screen
from edfi_dagster.config import ConfigError, Platform, TenantYear, load_platform
from edfi_dagster.config.env_file import take_env_file
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.warehouse.contract import WarehouseError

P = ParamSpec("P")
T = TypeVar("T")

FAILED = 1
WRONG_USE = 2


class Sections(click.Group):
    """A group whose help lists its commands by what they are for."""

    titles: ClassVar[dict[str, tuple[str, ...]]] = {
        "Begin": ("demo", "docs", "init", "import-airflow", "sandbox"),
        "Look": ("check", "config", "discover", "pull", "status"),
        "Run": ("bundle", "materialize", "rebuild", "resync", "setup-warehouse"),
    }

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections; a command that is in none comes under the last."""
        listed = {name for names in self.titles.values() for name in names}
        others = tuple(name for name in self.list_commands(context) if name not in listed)
        for title, names in self.titles.items():
            known = [*names, *(others if title == [*self.titles][-1] else ())]
            found = [(name, command) for name in known if (command := self.get_command(context, name))]
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(60)) for name, command in found])


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file; else $EDFI_DAGSTER_CONFIG, else edfi_dagster.yaml here, else the embedded default.",
)
@click.version_option(package_name="edfi-dagster")
@click.pass_context
def cli(context: click.Context, config: Path | None) -> None:
    """Every endpoint of every Ed-Fi ODS in your warehouse, provably complete.

    Try `edfi-dagster demo`: a sandbox ODS, two tenants, two school years, no configuration. Your own ODS begins with
    `edfi-dagster init`. Exit codes: 0 done, 1 failed, 2 wrong use.

    \b
    Completion in bash (zsh_source, fish_source for others):
      eval "$(_EDFI_DAGSTER_COMPLETE=bash_source edfi-dagster)"
    """
    context.obj = config
    try:
        take_env_file(Path.cwd() / ".env")
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def told(command: Callable[P, T]) -> Callable[P, T]:
    """Turn our errors into one sentence on standard error and the right exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except ConfigError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(WRONG_USE)
        except (EdFiError, LakeError, WarehouseError) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(FAILED)

    return run


def platform_and_pair(context: click.Context, tenant: str, year: int) -> tuple[Platform, TenantYear]:
    """The configuration and a declared pair of it. Raises ConfigError, UndeclaredPair."""
    platform = load_platform(context.obj)
    pair = TenantYear(tenant, year)
    platform.ods(pair)
    return platform, pair


def platform_and_pairs(
    context: click.Context, tenant: str | None, year: int | None
) -> tuple[Platform, list[TenantYear]]:
    """The configuration and its declared pairs, of one tenant or year where that is given. Raises ConfigError."""
    platform = load_platform(context.obj)
    pairs = list(platform.pairs())
    chosen = [pair for pair in pairs if tenant in {None, pair.tenant} and year in {None, pair.year}]
    if not chosen:
        wanted = ".".join(str(part) for part in (tenant, year) if part is not None)
        raise ConfigError(
            f"{platform.source}: {wanted} is not declared; declared are {', '.join(map(str, pairs))}"
        )
    return platform, chosen


def comma_separated(_: click.Context, __: click.Parameter, value: str | None) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()] if value else []


def waiting(words: str) -> Status:
    """A line on standard error, while a block runs, that says what is being waited for; only in a terminal."""
    return Screen(stderr=True).status(words)
