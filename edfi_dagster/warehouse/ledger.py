"""Change versions: what is committed, per (tenant, year, endpoint, kind).

The ledger is the table that edu_edfi_airflow writes (``_meta_change_versions``), with the same meaning, so a
deployment continues from its own. A row is written in the transaction that commits the rows it covers, and
nowhere else: it is the watermark, and the proof that a pull was loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from edfi_dagster.config import TenantYear
from edfi_dagster.lake.manifest import Manifest
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RecordKind
from edfi_dagster.ods.source import Source
from edfi_dagster.warehouse.contract import Connection, NotCommitted


@dataclass(frozen=True)
class Entry:
    """One pull, as the ledger knows it. ``low`` is the watermark it started from (None: there was none).

    ``newest`` is the watermark it leaves; None for a pull without change versions, which leaves a row but no watermark.
    ``source`` is where its rows come from; None if that is not known, as for what a bundle made.
    """

    pair: TenantYear
    endpoint: Endpoint
    kind: RecordKind
    stamp: datetime
    low: int | None
    newest: int | None
    source: Source | None = None


@dataclass(frozen=True)
class Reading:
    """What a run read of one endpoint and kind: its ledger entry, and its manifest if it brought rows."""

    entry: Entry
    manifest: Manifest | None = None


Watermarks = Mapping[tuple[str, RecordKind], int]
"""(name, kind) → the change version up to which everything is committed."""

_KIND = """CASE WHEN coalesce(is_deletes, FALSE) THEN 'deletes'
WHEN coalesce(is_key_changes, FALSE) THEN 'key_changes' ELSE 'records' END"""
_PAIR = "tenant_code = ? AND api_year = ?"


def watermarks(connection: Connection, pair: TenantYear, name: str | None = None) -> Watermarks:
    """The active watermarks of a pair, or of one name in it."""
    found = connection.rows(
        f"SELECT name, {_KIND}, max(max_version) FROM {connection.table(connection.names.change_versions)} "
        f"WHERE {_PAIR} AND is_active AND max_version IS NOT NULL{' AND name = ?' if name else ''} GROUP BY 1, 2",
        [*pair, *([name] if name else [])],
    )
    return {(str(name), kind): int(version) for name, kind, version in found}


@dataclass(frozen=True)
class Noted:
    """The sources of a pair's names; None where none is noted. Those of sideloads have none to speak of.

    ``active``: of the active watermarks of each name; of each kind the latest row counts, for every pull leaves one.
    ``latest``: of the latest pull of every name that was ever loaded.
    """

    active: Mapping[str, list[Source | None]]
    latest: Mapping[str, Source | None]


def noted_sources(connection: Connection, pair: TenantYear) -> Noted:
    """One query for them all."""
    is_active = "CASE WHEN is_active AND max_version IS NOT NULL THEN {} END"
    source = "coalesce(source, '')"
    found = connection.rows(
        f"""SELECT name, {_KIND}, max_by({source}, pull_timestamp),
          max_by({is_active.format(source)}, {is_active.format("pull_timestamp")})
        FROM {connection.table(connection.names.change_versions)} WHERE {_PAIR}
        GROUP BY 1, 2 ORDER BY max(pull_timestamp)""",
        list(pair),
    )
    active: dict[str, list[Source | None]] = {}
    latest: dict[str, Source | None] = {}
    for name, _, last, of_watermark in found:
        if not is_sideload(str(name)):
            latest[str(name)] = Source.decode(last) if last else None
            if of_watermark is not None:
                noted = Source.decode(of_watermark) if of_watermark else None
                active.setdefault(str(name), []).append(noted)
    return Noted(active, latest)


def is_sideload(name: str) -> bool:
    """Whether a bundle gave rows of this name to the warehouse: ``student_assessments__psat``."""
    return "__" in name


def watermark_before(
    connection: Connection, pair: TenantYear, name: str, kind: RecordKind, version: int
) -> int | None:
    """The active watermark that ``version`` followed; None where a full pull began with it."""
    ((earlier,),) = connection.rows(
        f"SELECT max(max_version) FROM {connection.table(connection.names.change_versions)} "
        f"WHERE {_PAIR} AND is_active AND name = ? AND {_KIND} = ? AND max_version < ?",
        [*pair, name, kind, version],
    )
    return None if earlier is None else int(earlier)


def ever_loaded(connection: Connection, pair: TenantYear) -> set[tuple[str, RecordKind]]:
    """The (name, kind)s that were ever loaded for the pair, whether or not their watermark is still active."""
    found = connection.rows(
        f"SELECT DISTINCT name, {_KIND} FROM {connection.table(connection.names.change_versions)} WHERE {_PAIR}",
        list(pair),
    )
    return {(str(name), kind) for name, kind in found}


def latest_loaded(connection: Connection, pair: TenantYear) -> Mapping[str, datetime]:
    """name → stamp (UTC) of its latest committed pull of records."""
    found = connection.rows(
        f"SELECT name, max(pull_timestamp) FROM {connection.table(connection.names.change_versions)} "
        f"WHERE {_PAIR} AND {_KIND} = 'records' GROUP BY 1",
        list(pair),
    )
    return {str(name): stamp.replace(tzinfo=UTC) for name, stamp in found}


@dataclass(frozen=True)
class Standing:
    """How far an endpoint's records are: the active watermark, None without one, and the stamp (UTC) of the last pull."""

    version: int | None
    last_pull: datetime


def standings(
    connection: Connection, pair: TenantYear | None = None
) -> Mapping[TenantYear, Mapping[str, Standing]]:
    """name → standing, for every pair that was ever loaded or for one: one query for them all."""
    found = connection.rows(
        f"""SELECT tenant_code, api_year, name, max(CASE WHEN is_active THEN max_version END), max(pull_timestamp)
        FROM {connection.table(connection.names.change_versions)}
        WHERE {_KIND} = 'records'{f" AND {_PAIR}" if pair else ""} GROUP BY 1, 2, 3""",
        list(pair or ()),
    )
    standing: dict[TenantYear, dict[str, Standing]] = {}
    for tenant, year, name, version, stamp in found:
        known = standing.setdefault(TenantYear(str(tenant), int(year)), {})
        known[str(name)] = Standing(None if version is None else int(version), stamp.replace(tzinfo=UTC))
    return standing


def check_unmoved(connection: Connection, entries: Sequence[Entry]) -> None:
    """Raises NotCommitted when a watermark is no longer the one its pull started from. All entries are of one run."""
    now, _ = _standing(connection, entries)
    _compare(now, entries)


def not_loaded(connection: Connection, entries: Sequence[Entry]) -> list[Entry]:
    """Those of one run's entries whose very pull (stamp and kind) is not committed yet.

    Raises NotCommitted when the watermark of one of these is no longer the one its pull started from.
    """
    now, loaded = _standing(connection, entries)
    left = [entry for entry in entries if (entry.endpoint.snake, entry.kind) not in loaded]
    _compare(now, left)
    return left


def _compare(now: Watermarks, entries: Sequence[Entry]) -> None:
    for entry in entries:
        standing = now.get((entry.endpoint.snake, entry.kind))
        if standing != entry.low:
            raise NotCommitted(
                f"{entry.pair} {entry.endpoint.path}: its change version was {entry.low} when the pull began and is "
                f"{standing} now; another run has loaded it, run again"
            )


def _standing(
    connection: Connection, entries: Sequence[Entry]
) -> tuple[Watermarks, set[tuple[str, RecordKind]]]:
    """The watermarks of the entries' names, and the (name, kind)s loaded under their stamp: one query for them all."""
    if not entries:
        return {}, set()
    names = sorted({entry.endpoint.snake for entry in entries})
    found = connection.rows(
        f"""SELECT name, {_KIND}, max(CASE WHEN is_active THEN max_version END),
          max(CASE WHEN pull_timestamp = ? THEN 1 ELSE 0 END)
        FROM {connection.table(connection.names.change_versions)}
        WHERE {_PAIR} AND name IN ({", ".join("?" * len(names))}) GROUP BY 1, 2""",
        [entries[0].stamp.replace(tzinfo=None), *entries[0].pair, *names],
    )
    now = {(name, kind): int(version) for name, kind, version, _ in found if version is not None}
    return now, {(name, kind) for name, kind, _, is_loaded in found if is_loaded}


def record(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write the ledger rows of committed pulls; part of the caller's transaction."""
    for start in range(0, len(entries), 200):
        batch = entries[start : start + 200]
        connection.run(
            f"INSERT INTO {connection.table(connection.names.change_versions)} "
            "(tenant_code, api_year, name, pull_date, pull_timestamp, max_version, is_active, is_deletes, "
            f"is_key_changes, source) VALUES {', '.join(['(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'] * len(batch))}",
            [value for entry in batch for value in _row(entry)],
        )


def deactivate(
    connection: Connection,
    pair: TenantYear,
    names: Iterable[str] | None = None,
    *,
    kind: RecordKind | None = None,
    above: int | None = None,
) -> None:
    """Forget the watermarks of some names, or of the whole pair: whatever runs next refreshes them.

    With ``kind`` only those of that kind, with ``above`` only those beyond that change version. Looks first: an UPDATE locks the table, also one that hits
    nothing, and all tenants share it.
    """
    wanted = None if names is None else list(names)
    if wanted == []:
        return
    table = connection.table(connection.names.change_versions)
    where = f"{_PAIR} AND is_active"
    if wanted is not None:
        where += f" AND name IN ({', '.join('?' * len(wanted))})"
    parameters: list[object] = [*pair, *(wanted or [])]
    for clause, value in ((f"{_KIND} = ?", kind), ("max_version > ?", above)):
        if value is not None:
            where += f" AND {clause}"
            parameters.append(value)
    ((count,),) = connection.rows(f"SELECT count(*) FROM {table} WHERE {where}", parameters)
    if count:
        connection.run(f"UPDATE {table} SET is_active = FALSE WHERE {where}", parameters)


def _row(entry: Entry) -> list[object]:
    stamp = entry.stamp.replace(tzinfo=None)
    return [
        entry.pair.tenant,
        entry.pair.year,
        entry.endpoint.snake,
        stamp.date(),
        stamp,
        entry.newest,
        entry.newest is not None,
        entry.kind == DELETES,
        entry.kind == KEY_CHANGES,
        entry.source.encode() if entry.source else None,
    ]
