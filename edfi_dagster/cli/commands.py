"""The commands. Whatever needs Dagster is imported by the command that needs it, so the others start at once."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from edfi_dagster.cli.app import FAILED, comma_separated, platform_and_pair, platform_and_pairs, told, waiting
from edfi_dagster.cli.bundle import bundle
from edfi_dagster.cli.check import check
from edfi_dagster.cli.config import config
from edfi_dagster.cli.discover import discover
from edfi_dagster.cli.docs import docs
from edfi_dagster.cli.import_airflow import import_airflow
from edfi_dagster.cli.init import init
from edfi_dagster.cli.resync import resync
from edfi_dagster.cli.status import status

_tenant = click.option("--tenant", required=True, help="Tenant code, as in the configuration.")
_year = click.option("--year", required=True, type=int, help="School year, named by its spring.")
_any_tenant = click.option("--tenant", help="Tenant code; else all that are declared.")
_any_year = click.option("--year", type=int, help="School year; else all that are declared.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")


def register(group: click.Group) -> None:
    """Add every command to the root."""
    for command in (
        bundle,
        check,
        config,
        demo,
        discover,
        docs,
        import_airflow,
        init,
        materialize,
        pull,
        rebuild,
        resync,
        sandbox,
        setup_warehouse,
        status,
    ):
        group.add_command(command)


@click.command(short_help="See it all work, from a sandbox ODS into DuckDB.")
@click.option("--no-ui", is_flag=True, help="Stop after the comparison.")
@click.option("--port", type=int, default=3000, show_default=True, help="Port of the UI.")
@told
def demo(no_ui: bool, port: int) -> None:
    """Two tenants, two years, from a sandbox ODS into DuckDB, then compared record by record.

    Full pulls, changes of every sort, deltas, a refresh, a file of results through a bundle; then the Dagster UI over
    what was done.

    Example: edfi-dagster demo --no-ui
    """
    from edfi_dagster.cli.demo import run_demo

    sys.exit(run_demo(port=None if no_ui else port))


@click.command(short_help="Run one tenant and year.")
@_tenant
@_year
@click.option(
    "--endpoints",
    callback=comma_separated,
    help="Endpoints with their tables, e.g. students,tpdm/candidates.",
)
@click.option(
    "--select", multiple=True, help="An asset key, e.g. ed_fi/students or raw_edfi_3/students; repeatable."
)
@click.option("--full-refresh", is_flag=True, help="Pull everything selected again and replace it.")
@_json
@click.pass_context
@told
def materialize(
    context: click.Context,
    tenant: str,
    year: int,
    endpoints: list[str],
    select: tuple[str, ...],
    full_refresh: bool,
    as_json: bool,
) -> None:
    """Run one tenant and year in this process: the Dagster run that the UI would start.

    Example: edfi-dagster materialize --tenant grand_bend --year 2025 --endpoints students,sections
    """
    platform, pair = platform_and_pair(context, tenant, year)
    if not select:  # which may be tables alone, and those need no key
        for secret in (platform.ods(pair).client_id, platform.ods(pair).client_secret):
            secret.read()
    from edfi_dagster.cli.runs import materialize_pair, print_report

    report = materialize_pair(platform, pair, endpoints=endpoints, select=select, full_refresh=full_refresh)
    if as_json:
        _print_json(report.document())
    else:
        print_report(report)
    if not report.success:
        sys.exit(FAILED)


@click.command(short_help="Pull endpoints into files, and nothing else.")
@_tenant
@_year
@click.option(
    "--endpoints", callback=comma_separated, required=True, help="Endpoints, e.g. students,tpdm/candidates."
)
@click.option("--out", required=True, help="Folder to write as a lake; - for JSON lines on standard output.")
@click.option(
    "--kind",
    type=click.Choice(["records", "deletes", "key_changes"]),
    default="records",
    show_default=True,
    help="What is pulled of each endpoint.",
)
@click.option("--min-change-version", type=click.IntRange(0), help="Lowest change version, inclusive.")
@click.option("--max-change-version", type=click.IntRange(0), help="Highest change version, inclusive.")
@click.option("--max-concurrent-requests", type=click.IntRange(1), help="Instead of the configured number.")
@_json
@click.pass_context
@told
def pull(
    context: click.Context,
    tenant: str,
    year: int,
    endpoints: list[str],
    out: str,
    kind: str,
    min_change_version: int | None,
    max_change_version: int | None,
    max_concurrent_requests: int | None,
    as_json: bool,
) -> None:
    """Pull endpoints from an ODS into files: no warehouse, no instance, no watermark.

    Example: edfi-dagster pull --tenant grand_bend --year 2025 --endpoints students --out - | head
    """
    from edfi_dagster.cli.pull import PullRequest, run_pull

    platform, pair = platform_and_pair(context, tenant, year)
    if not endpoints:
        raise click.UsageError(
            "--endpoints names none; write for example --endpoints students,tpdm/candidates."
        )
    if out == "-" and (len(endpoints) != 1 or as_json):
        raise click.UsageError("--out - takes one endpoint and no --json; give a folder for several.")
    if min_change_version and max_change_version is not None and min_change_version > max_change_version:
        raise click.UsageError("--min-change-version is above --max-change-version.")
    request = PullRequest(
        platform, pair, endpoints, kind, min_change_version, max_change_version, max_concurrent_requests
    )
    folder = None if out == "-" else Path(out)
    with waiting(f"pulling {len(endpoints)} endpoints of {pair}") if folder else nullcontext():
        manifests, failures = run_pull(request, folder)
    if as_json:
        _print_json({"pulled": manifests, "failures": failures})
    elif manifests and folder:
        for manifest in manifests:
            click.echo(f"{manifest['namespace']}/{manifest['endpoint']}: {manifest['rows']:,} rows")
        click.echo(f"Written to {folder}, laid out like a lake")
    elif folder and not failures:
        click.echo("no rows in the window")
    for failure in failures:
        click.echo(f"Error: {failure}", err=True)
    if failures:
        sys.exit(FAILED)


@click.command(short_help="Fill an empty warehouse from the lake.")
@_any_tenant
@_any_year
@_json
@click.pass_context
@told
def rebuild(context: click.Context, tenant: str | None, year: int | None, as_json: bool) -> None:
    """Fill an empty warehouse from the lake, without one request to the ODS.

    Example: edfi-dagster rebuild --tenant grand_bend --year 2025
    """
    platform, pairs = platform_and_pairs(context, tenant, year)
    from edfi_dagster.cli.stores import rebuild as rebuild_pair

    with waiting(f"loading {len(pairs)} tenant-years from the lake"):
        rebuilt = [rebuild_pair(platform, pair) for pair in pairs]
    if as_json:
        _print_json({"partitions": [one.document() for one in rebuilt]})
    for one in rebuilt:
        if not as_json and one.endpoints:
            click.echo(f"{one.pair}: {one.rows:,} rows of {one.endpoints} endpoints loaded from the lake")
        elif not as_json and not one.failures:
            click.echo(f"{one.pair}: nothing to load, the warehouse already holds all that the lake has")
        for failure in one.failures:
            click.echo(f"Error: {failure}", err=True)
    if any(one.failures for one in rebuilt):
        sys.exit(FAILED)


@click.command("setup-warehouse", short_help="Make schema, tables, views and stage.")
@_any_tenant
@_any_year
@click.option(
    "--print", "only_print", is_flag=True, help="Print the SQL, for somebody with the rights to run it."
)
@_json
@click.pass_context
@told
def setup_warehouse(
    context: click.Context, tenant: str | None, year: int | None, only_print: bool, as_json: bool
) -> None:
    """Make the schema, raw tables, views, stage and file format that loading needs; what is there stays.

    Adds the columns is_key_changes and source to a table of change versions that lacks them, such as Airflow's.

    Example: edfi-dagster setup-warehouse --print > setup.sql
    """
    platform, pairs = platform_and_pairs(context, tenant, year)
    from edfi_dagster.cli import stores

    if only_print:
        statements = stores.setup_statements(platform, pairs)
        if as_json:
            _print_json({"statements": statements})
        else:
            click.echo("\n".join(s if s.startswith("--") else f"{s};" for s in statements))
        return
    with waiting(f"making what is missing in {platform.warehouse.kind}"):
        tables = [table.name for table in stores.setup_warehouse(platform, pairs)]
    if as_json:
        _print_json({"tables": tables})
    else:
        click.echo(
            f"{platform.warehouse.kind}: ready for {len(tables)} resources, descriptors, deletes and key changes"
        )


@click.command(short_help="Serve a local ODS to play with.")
@click.option(
    "--port", type=int, default=8765, show_default=True, help="Port on 127.0.0.1; 0 for any free one."
)
@click.option("--port-file", type=click.Path(path_type=Path), help="Written with the port once it serves.")
@click.option("--ods-version", default="7.3", show_default=True, help="2, 5.3, 6.1, 7.0, 7.1, 7.2 or 7.3.")
@click.option("--mode", help="API mode of a version before 7.0, e.g. year_specific.")
@click.option("--rows", default="", help="Rows by endpoint, e.g. students=20000,sections=900.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same data.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder that keeps its state over restarts.")
@click.option(
    "--ods", multiple=True, help="ODS to serve as <tenant>/<year>; repeatable. Else two tenants in two years."
)
@told
def sandbox(
    port: int,
    port_file: Path | None,
    ods_version: str,
    mode: str | None,
    rows: str,
    seed: int,
    data: Path | None,
    ods: tuple[str, ...],
) -> None:
    """Serve a local ODS: a faithful Ed-Fi API over generated data, on 127.0.0.1.

    Example: edfi-dagster sandbox --port 8765 --rows students=2000
    """
    from edfi_dagster.sandbox.__main__ import row_counts
    from edfi_dagster.sandbox.server import DEFAULT_ODS, serve

    try:
        counts = row_counts(rows)
        serve(
            ods or DEFAULT_ODS,
            port=port,
            port_file=port_file,
            ods_version=ods_version,
            mode=mode,
            rows=counts,
            seed=seed,
            data=data,
        )
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, default=str))
