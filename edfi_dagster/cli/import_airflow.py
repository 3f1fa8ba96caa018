"""``import-airflow``: a configuration from that of the Airflow project."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from edfi_dagster.cli.app import told
from edfi_dagster.cli.new_files import ENV_EXAMPLE, SCHEMA_HINT, check_free, write_start
from edfi_dagster.cli.screen import Screen
from edfi_dagster.config import Platform, TenantYear, parse_platform
from edfi_dagster.config.errors import printable
from edfi_dagster.config.load import CONFIG_FILE
from edfi_dagster.config.shown import dump_yaml

if TYPE_CHECKING:
    from edfi_dagster.airflow import Report, Translation

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_UNTIL_WRITTEN = {"lake": "the folder data/lake", "warehouse": "data/warehouse.duckdb"}


def _print_arguments(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    from edfi_dagster.airflow.arguments import markdown

    if is_wanted:
        click.echo(markdown(), nl=False)
        context.exit()


@click.command("import-airflow", short_help="Write a configuration from edu_edfi_airflow's.")
@click.argument("airflow_config", type=_FILE)
@click.option("--resources", type=_FILE, help="Else edfi_resources.yml beside it.")
@click.option("--descriptors", type=_FILE, help="Else edfi_descriptors.yml beside it.")
@click.option("--connections", type=_FILE, help="Export of Airflow's connections (JSON, YAML or .env).")
@click.option("--local", is_flag=True, help="Lake in a folder and DuckDB, to try it beside Airflow.")
@click.option("--offline", is_flag=True, help="Do not ask the ODSs for their data standard.")
@click.option("--force", is_flag=True, help="Write over what an earlier import wrote.")
@click.option(
    "--arguments",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_arguments,
    help="Print every argument of Airflow's and its place here.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_context
@told
def import_airflow(
    context: click.Context,
    airflow_config: Path,
    resources: Path | None,
    descriptors: Path | None,
    connections: Path | None,
    local: bool,
    offline: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Turn AIRFLOW_CONFIG (airflow_config_*.yml of the EDU project template) into edfi_dagster.yaml, and list what could
    not be carried over and what to do.

    Logins and passwords are not written: the file names environment variables, and what belongs in them is listed.

    Example: edfi-dagster import-airflow airflow/configs/airflow_config_prod.yml --connections connections.json
    """
    from edfi_dagster.airflow import Airflow, read_connections, read_yaml, translate

    config = Path(context.obj or CONFIG_FILE).absolute()
    check_free([config, config.parent / ENV_EXAMPLE], force=force)
    beside = airflow_config.parent
    files = {
        "config": airflow_config,
        "resources": resources or beside / "edfi_resources.yml",
        "descriptors": descriptors or beside / "edfi_descriptors.yml",
        "connections": connections or Path("connections"),
    }
    airflow = Airflow(
        read_yaml(airflow_config),
        _listed(files["resources"], resources),
        _listed(files["descriptors"], descriptors),
        read_connections(connections) if connections else {},
        {part: path.name for part, path in files.items()},
    )
    translation = translate(airflow, local=local)
    platform = _parsed(translation, airflow_config, config)
    if connections and not offline:
        _add_standards(translation, platform)
        platform = _parsed(translation, airflow_config, config)
    written = write_start(config, _text(translation, airflow_config), platform, force=force)
    if as_json:
        names = [str(path) for path in written]
        click.echo(
            json.dumps({"written": names, **translation.report.document()}, indent=2, ensure_ascii=False)
        )
    else:
        _print(translation.report, config, platform)


def _listed(path: Path, given: Path | None) -> Mapping[Any, Any] | None:
    from edfi_dagster.airflow import read_yaml

    return read_yaml(path) if given or path.is_file() else None


def _text(translation: Translation, origin: Path) -> str:
    """The configuration file: each block on its own, readable as one written by hand; at its end what is missing."""
    left = list(translation.report.comments())
    head = [
        SCHEMA_HINT,
        f"# From {printable(origin.name)}, by edfi-dagster import-airflow. What is meant in the end: edfi-dagster config show.",
    ]
    if left:
        head.append("# What could not be carried over is listed at the end.")
    for block, meanwhile in _UNTIL_WRITTEN.items():
        if block not in translation.document:
            head.append(f"# Write {block} by hand; until then it is {meanwhile}.")
    blocks = [dump_yaml({name: block}) for name, block in translation.document.items()]
    tail = (
        [
            "# Could not be carried over from Airflow (import-airflow --json lists every path). Take a line out once it is done.",
            *left,
        ]
        if left
        else []
    )
    return "\n".join([*head, "", *blocks, *tail]) + ("\n" if tail else "")


def _parsed(translation: Translation, origin: Path, config: Path) -> Platform:
    return parse_platform(_text(translation, origin), f"the configuration from {origin}", config.parent)


def _add_standards(translation: Translation, platform: Platform) -> None:
    """Write the data standard of each ODS that answers: the most frequent for all, others for their year."""
    from edfi_dagster.cli.starting import ask_standards

    stderr = Screen(stderr=True)
    with Screen(stderr=True).status(f"asking {len(platform.pairs())} ODSs for their data standard"):
        found = ask_standards(platform, stderr.print, lambda text: stderr.print(f"Warning: {text}"))
    if not found:
        return
    common = Counter(offered.standard for offered in found.values()).most_common(1)[0][0]
    translation.document["extract"] = {"data_standard": common, **translation.document["extract"]}
    for pair, offered in found.items():
        if offered.standard != common:
            _year(translation, pair).setdefault("extract", {})["data_standard"] = offered.standard


def _year(translation: Translation, pair: TenantYear) -> dict[str, Any]:
    year: dict[str, Any] = translation.document["tenants"][pair.tenant]["years"][pair.year]
    return year


# -- what is said -------------------------------------------------------------------------------------------


def _print(report: Report, config: Path, platform: Platform) -> None:
    from edfi_dagster.airflow.report import some

    console = Screen()
    taken = ((old, new, _counted(at)) for (old, new), at in report.taken.items())
    _table(console, "Taken over", ("Airflow", "here", "where"), taken)
    if report.remarks:
        console.print(Text("\nTo look at", "bold"))
    for text, at in report.remarks.items():
        console.print(Text(f"- {some(at)}: {text}"))
    secrets = report.secrets.items()
    _table(console, "Into .env, by the example beside the file", ("variable", "Airflow connection"), secrets)
    left = list(report.comments())
    if left:
        console.print(Text("\nCould not be carried over", "bold"))
    for line in left:
        console.print(Text(f"- {line.removeprefix('# ')}"))
    here = Path.cwd()
    option = "" if config == here / CONFIG_FILE else f" --config {config}"
    tenants, years = len(platform.tenants), len(platform.pairs())
    name = config.relative_to(here) if config.is_relative_to(here) else config
    click.echo(f"\nWritten: {name}, {tenants} tenants, {years} tenant-years. Next:")
    click.echo(f"  edfi-dagster{option} config show")
    click.echo(f"  edfi-dagster{option} check")


def _table(console: Screen, title: str, headings: Sequence[str], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for position, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=position != 1)
    for row in rows:
        table.add_row(*map(Text, row))
    if table.row_count:
        console.print(f"\n{title}", style="bold")
        console.print(table)


def _counted(places: Sequence[str]) -> str:
    return places[0] if len(places) == 1 else f"{len(places)} tenant-years"
