"""``resync``: repair what differs from the ODS, and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.table import Table

from edfi_dagster.cli.app import FAILED, comma_separated, platform_and_pairs, told
from edfi_dagster.cli.screen import Screen
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.warehouse.contract import WarehouseError

if TYPE_CHECKING:
    from edfi_dagster.checks.resync import Resynced
    from edfi_dagster.config import Platform, TenantYear
    from edfi_dagster.extract.comparison import Comparison
    from edfi_dagster.ods.catalogue import Endpoint

_LISTED = 40


@click.command(short_help="Refresh what differs from the ODS.")
@click.option("--tenant", help="Only this tenant.")
@click.option("--year", type=int, help="Only this school year.")
@click.option("--endpoints", callback=comma_separated, help="Only these, e.g. students,tpdm/candidates.")
@click.option("--dry-run", is_flag=True, help="Count and compare, and load nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_context
@told
def resync(
    context: click.Context,
    tenant: str | None,
    year: int | None,
    endpoints: list[str],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Bring tenant-years up to date, compare counts with the ODS, and fully refresh only what still differs.

    Ends with 0 when all counts are equal, with 1 when some differ or something failed. Records that the ODS wrote after the
    last pull are no reason to refresh; run again when it is quiet, or let the next run bring them.

    Example: edfi-dagster resync --tenant grand_bend --year 2025 --dry-run
    """
    from edfi_dagster.health.pairs import chosen_endpoints

    platform, pairs = platform_and_pairs(context, tenant, year)
    chosen = chosen_endpoints(platform, pairs, endpoints)
    done = [
        _resync(platform, pair, of_pair, has_all=not endpoints, dry_run=dry_run)
        for pair, of_pair in chosen.items()
        if of_pair
    ]
    if as_json:
        document = {"dry_run": dry_run, "partitions": [one.document() for one in done]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    for one in done:
        if not as_json:
            _print(one, dry_run=dry_run)
        for failure in one.failures:
            click.echo(f"Error: {failure}", err=True)
    if not all(one.is_equal for one in done):
        sys.exit(FAILED)


def _resync(
    platform: Platform, pair: TenantYear, endpoints: Sequence[Endpoint], *, has_all: bool, dry_run: bool
) -> Resynced:
    from edfi_dagster.checks.counts import counted_and_compared
    from edfi_dagster.checks.resync import Resynced, resync
    from edfi_dagster.cli.runs import materialize_pair

    stderr = Screen(stderr=True)

    def pull(wanted: Sequence[Endpoint], full_refresh: bool) -> Sequence[str]:
        names = [] if has_all and len(wanted) == len(endpoints) else [e.path for e in wanted]
        report = materialize_pair(platform, pair, endpoints=names, full_refresh=full_refresh)
        return [] if report.success else [report.failure]

    def compare(wanted: Sequence[Endpoint]) -> Sequence[Comparison]:
        def warn(sentence: str) -> None:
            stderr.print(f"Warning: {sentence}")

        return counted_and_compared(platform, pair, wanted, tell=stderr.print, warn=warn, run_id="resync")

    try:
        return resync(pair, endpoints, pull, compare, dry_run=dry_run)
    except (EdFiError, LakeError, WarehouseError) as error:  # of this one; others may be asked for as well
        return Resynced(pair, (), (), (), [str(error)])


def _print(done: Resynced, *, dry_run: bool) -> None:
    console = Screen()
    console.print(done.sentence)
    if done.uncounted:
        console.print(f"{len(done.uncounted)} were not counted: the ODS does not offer, permit or count them")
    refreshed = {endpoint.path for endpoint in done.refreshed}
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("endpoint", overflow="fold")
    for heading in ("ODS", "here", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    shown = [c for c in done.compared if c.difference or c.endpoint.path in refreshed]
    for c in shown[:_LISTED]:
        meaning = "refreshed" if c.endpoint.path in refreshed and not c.difference else _meaning(c, dry_run)
        numbers = f"{c.counted:,}", f"{c.rows:,}", f"{c.difference:+,}"
        table.add_row(c.endpoint.path.removeprefix("ed-fi/"), *numbers, meaning)
    if shown:
        console.print(table)
    if len(shown) > _LISTED:
        console.print(f"… and {len(shown) - _LISTED} more; all with --json")


def _meaning(comparison: Comparison, dry_run: bool) -> str:
    if dry_run and comparison.pulled is None:
        return "never loaded"
    if comparison.verdict == "moving":
        return "written to since the last pull" if dry_run else "is being written to"
    return "needs a full refresh" if dry_run else "differs still"
