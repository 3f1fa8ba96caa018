"""``status``: how fresh every tenant-year and endpoint is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.table import Table
from rich.text import Text

from edfi_dagster.cli.app import comma_separated, platform_and_pairs, told
from edfi_dagster.cli.screen import Screen

if TYPE_CHECKING:
    from edfi_dagster.health.freshness import EndpointStatus, PairStatus, Stored

# Endpoints of several tenant-years that are listed one by one.
_LISTED = 40
# Of more endpoints, what is the same for all of them is told above the table.
_SUMMED_UP = 10
# Failures that are told below the table.
_TOLD = 10
_UNKNOWN, _NONE = "?", "–"


@click.command(short_help="How fresh every tenant, year and endpoint is.")
@click.option("--tenant", help="Only this tenant.")
@click.option("--year", type=int, help="Only this school year.")
@click.option("--endpoints", callback=comma_separated, help="Only these, e.g. students,tpdm/candidates.")
@click.option("--late", is_flag=True, help="Only what was not pulled within late_after_hours.")
@click.option("--offline", is_flag=True, help="Ask no ODS; how far behind an endpoint is stays unknown.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_context
@told
def status(
    context: click.Context,
    tenant: str | None,
    year: int | None,
    endpoints: list[str],
    late: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """How fresh every tenant-year and endpoint is: version, rows, last pull, behind by, last result, drift.

    Works beside a run. Rows are current ones; ≤ where there are so many that only raw rows were counted.

    Example: edfi-dagster status --tenant grand_bend --year 2025
    """
    from edfi_dagster.health.freshness import freshness
    from edfi_dagster.health.pairs import chosen_endpoints

    platform, pairs = platform_and_pairs(context, tenant, year)
    waiting = Screen(stderr=True)
    with waiting.status(f"looking at {len(pairs)} tenant-years"):
        stored, found = freshness(
            platform, chosen_endpoints(platform, pairs, endpoints), offline=offline, tell=waiting.print
        )
    now = datetime.now(UTC)
    shown = [_only_late(pair) for pair in found if pair.late] if late else found
    if as_json:
        document = {"at": now.isoformat(), "partitions": [_pair_document(pair) for pair in shown]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    console = Screen()
    if late and not shown:
        console.print("nothing is late")
    elif len(shown) == 1 or sum(len(pair.endpoints) for pair in shown) <= _LISTED:
        for pair in shown:
            _print_endpoints(console, pair, now)
    else:
        _print_pairs(console, shown, now)
    _print_troubles(console, shown)
    _print_next_step(console, stored, shown)


def _only_late(pair: PairStatus) -> PairStatus:
    from dataclasses import replace

    return replace(pair, endpoints=pair.late)


# -- tables -----------------------------------------------------------------------------------------------


def _print_pairs(console: Screen, pairs: Sequence[PairStatus], now: datetime) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("tenant/year", overflow="fold")
    for heading in ("loaded", "rows", "version", "behind"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("last pull (UTC)", no_wrap=True)
    table.add_column("", overflow="fold")
    for pair in pairs:
        table.add_row(
            str(pair.pair),
            f"{len(pair.loaded)}/{len(pair.endpoints)}",
            str(pair.rows or 0),
            _number(pair.version),
            _behind(pair.version, pair.behind),
            _when(pair.last_pull, now),
            _remarks(pair),
        )
    console.print(table)


def _remarks(pair: PairStatus) -> Text:
    """What a person should know of a pair, in a few words."""
    counted = {
        "failed": (len(pair.failed), "red"),
        "late": (sum(status.is_loaded for status in pair.late), "yellow"),
        "drifted": (len(pair.drifted), "yellow"),
        "skipped": (len(pair.skipped), ""),
    }
    words = [Text(f"{count} {word}", colour) for word, (count, colour) in counted.items() if count]
    if not pair.has_ended:
        words.insert(0, Text("running, or killed", "yellow"))
    if pair.problem:
        words.insert(0, Text("see below", "red"))
    return Text(", ").join(words)


@dataclass(frozen=True)
class _Column:
    """``value`` gives a cell; a column whose cells are all the same is told above the table instead."""

    heading: str
    value: Callable[[EndpointStatus], str]


def _print_endpoints(console: Screen, pair: PairStatus, now: datetime) -> None:
    """The endpoints of one pair; what is the same for all of them stands in the line above."""
    columns = [
        _Column("version", lambda status: _number(status.version)),
        _Column("rows", lambda status: str(status.rows) if status.rows else _NONE),
        _Column("behind", lambda status: _behind(status.version, status.behind)),
        _Column("drift", lambda status: _NONE if status.drift is None else f"{status.drift:+,}"),
        _Column("last pull", lambda status: _when(status.last_pull, now)),
        _Column("result", _result),
    ]
    cells = {column.heading: [column.value(status) for status in pair.endpoints] for column in columns}
    same = {
        heading: values[0]
        for heading, values in cells.items()
        if len(values) > _SUMMED_UP and len(set(values)) == 1 and heading != "rows"
    }
    console.print(_caption(pair, same), soft_wrap=False)
    kept = [h for h, values in cells.items() if h not in same and set(values) != {_NONE}]
    if not kept:
        return  # such as a pair that was never loaded: the names alone say nothing
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("endpoint", overflow="fold", ratio=1)
    for heading in kept:
        justify: Literal["left", "right"] = "left" if heading in {"last pull", "result"} else "right"
        table.add_column(heading, justify=justify, no_wrap=heading != "result")
    for number, status in enumerate(pair.endpoints):
        style = "red" if status.outcome and status.outcome.failure else "yellow" if status.is_late else ""
        table.add_row(_short(status), *(cells[heading][number] for heading in kept), style=style)
    console.print(table)


def _caption(pair: PairStatus, same: Mapping[str, str]) -> Text:
    told = [f"{heading} {value}" for heading, value in same.items() if value != _NONE]
    newest = f"ODS at {pair.newest:,}" if pair.newest is not None else ""
    loaded = f"{len(pair.loaded)} of {len(pair.endpoints)} loaded"
    return Text.assemble((str(pair.pair), "bold"), "  ", ", ".join(filter(None, (loaded, newest, *told))))


def _short(status: EndpointStatus) -> str:
    return status.endpoint.path.removeprefix("ed-fi/")


def _result(status: EndpointStatus) -> str:
    """The records' result in a word or two, and that of deletes or key changes where they went otherwise."""
    outcome = status.outcome
    words = ["late"] if status.is_late and status.is_loaded else []
    if outcome is not None:
        if outcome.result is not None:
            words.append(_WORDS[outcome.result])
        words += [
            f"{kind.replace('_', ' ')} {_WORDS[result]}"
            for kind, (result, _) in outcome.troubles.items()
            if kind != "records"
        ]
    return ", ".join(words) or _NONE


_WORDS: Mapping[str, str] = {
    "loaded": "loaded",
    "stored in the lake": "stored",
    "unchanged": "unchanged",
    "covered by the full pull": "covered",
    "not offered by this ODS": "not offered",
    "not permitted to this key": "not permitted",
    "failed": "failed",
}


# -- below the tables -------------------------------------------------------------------------------------


def _print_troubles(console: Screen, pairs: Sequence[PairStatus]) -> None:
    """Why something failed or could not be asked, the first few of each sort."""
    troubles = list(_troubles(pairs))
    for trouble in troubles[:_TOLD]:
        console.print(Text(trouble, "red"))
    if len(troubles) > _TOLD:
        console.print(f"… and {len(troubles) - _TOLD} more; all with --json")


def _troubles(pairs: Sequence[PairStatus]) -> Iterator[str]:
    for pair in pairs:
        if pair.problem:
            yield f"✗ {pair.pair}: {pair.problem}"
    for pair in pairs:
        for status in pair.failed:
            assert status.outcome is not None
            yield f"✗ {status.outcome.failure.removeprefix('✗ ')}"


def _print_next_step(console: Screen, stored: Stored, pairs: Sequence[PairStatus]) -> None:
    never = [pair for pair in pairs if not pair.loaded]
    if not stored.is_set_up:
        console.print("The warehouse has no tables yet; nothing has been loaded into it.")
    if never:
        tenant, year = never[0].pair
        console.print(f"Load with: edfi-dagster materialize --tenant {quote(tenant)} --year {year}")


# -- words ------------------------------------------------------------------------------------------------


def _number(value: int | None) -> str:
    return _NONE if value is None else f"{value:,}"


def _behind(version: int | None, behind: int | None) -> str:
    """Nothing is behind where there are no change versions; and who was not asked is not known to be."""
    if behind is not None:
        return f"{behind:,}"
    return _NONE if version is None else _UNKNOWN


def _when(stamp: datetime | None, now: datetime) -> str:
    """``07-26 02:00 (6 h)``."""
    if stamp is None:
        return "never"
    hours = (now - stamp).total_seconds() / 3600
    ago = f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} d"
    return f"{stamp:%m-%d %H:%M} ({ago})"


def _pair_document(pair: PairStatus) -> dict[str, Any]:
    rows = pair.rows
    return {
        "tenant": pair.pair.tenant,
        "year": pair.pair.year,
        "newest": pair.newest,
        "version": pair.version,
        "behind": pair.behind,
        "loaded": len(pair.loaded),
        "declared": len(pair.endpoints),
        "rows": rows.count if rows else 0,
        "rows_exact": rows.is_exact if rows else True,
        "last_pull": _iso(pair.last_pull),
        "late": len(pair.late),
        "failed": len(pair.failed),
        "skipped": len(pair.skipped),
        "drifted": len(pair.drifted),
        "last_run": _iso(pair.latest_run),
        "last_run_ended": pair.has_ended,
        "problem": pair.problem or None,
        "endpoints": [_endpoint_document(status) for status in pair.endpoints],
    }


def _endpoint_document(status: EndpointStatus) -> dict[str, Any]:
    outcome = status.outcome
    return {
        "endpoint": status.endpoint.path,
        "name": status.endpoint.snake,
        "version": status.version,
        "rows": status.rows.count if status.rows else None,
        "rows_exact": status.rows.is_exact if status.rows else None,
        "last_pull": _iso(status.last_pull),
        "behind": status.behind,
        "drift": status.drift,
        "late": status.is_late,
        "result": str(outcome.result) if outcome and outcome.result else None,
        "result_of_run": _iso(outcome.stamp) if outcome else None,
        "troubles": {
            kind: {"result": str(result), "cause": cause}
            for kind, (result, cause) in outcome.troubles.items()
        }
        if outcome
        else {},
    }


def _iso(stamp: datetime | None) -> str | None:
    return stamp.isoformat() if stamp else None
