"""Manifests → raw tables: every load is one transaction that commits rows and ledger together or not at all.

A delta inserts what is new and removes what it supersedes; a refresh replaces. Each transaction first checks that
the lease is still this run's and that the watermark is the one its pull started from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from edfi_dagster.config import TenantYear
from edfi_dagster.lake.manifest import PulledFile
from edfi_dagster.lake.proof import DamagedFile
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.errors import OdsRestored
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.warehouse import ledger, supersede
from edfi_dagster.warehouse.contract import RAW_COLUMNS, Connection, WarehouseError
from edfi_dagster.warehouse.current import current_sql, identity, keyed, raw_table
from edfi_dagster.warehouse.lease import Lease
from edfi_dagster.warehouse.ledger import Reading

_SCOPE = "tenant_code = ? AND api_year = ? AND name = ?"


@dataclass
class Loaded:
    """Rows a load inserted per kind, and raw rows it removed because they were superseded or replaced."""

    inserted: dict[RecordKind, int] = field(default_factory=dict)
    removed: int = 0

    @property
    def changed(self) -> bool:
        return bool(self.removed or any(self.inserted.values()))


def load_delta(
    connection: Connection, lease: Lease, endpoint: Endpoint, readings: Sequence[Reading]
) -> Loaded:
    """Commit one endpoint's delta: its records, then deletes and key changes, and their watermarks.

    Raises NotCommitted; OdsRestored when a record lives whose id has an earlier tombstone.
    """
    read = {reading.entry.kind: reading for reading in readings}
    _stage(connection, endpoint, read)
    keyed_changes = bool(endpoint.key_can_change and endpoint.key)
    if keyed_changes or any(read[kind].manifest for kind in (DELETES, KEY_CHANGES) if kind in read):
        supersede.make_room(connection)
    loaded = Loaded()
    with connection.transaction():
        lease.check(connection)
        entries = ledger.not_loaded(connection, [reading.entry for reading in readings])
        read = {entry.kind: read[entry.kind] for entry in entries}
        if RECORDS in read and read[RECORDS].manifest:
            _check_not_restored(connection, endpoint, read[RECORDS])
            loaded.inserted[RECORDS] = _insert_records(connection, endpoint, read[RECORDS])
        if keyed_changes and _may_supersede(read, loaded):
            loaded.removed += supersede.remove_superseded(connection, lease.pair, endpoint, read)
        if DELETES in read and read[DELETES].manifest:
            loaded.inserted[DELETES] = _insert_changes(connection, endpoint, read[DELETES])
            if loaded.inserted[DELETES]:
                loaded.removed += supersede.remove_replaced(connection, lease.pair, endpoint)
        if KEY_CHANGES in read and (key_changes := read[KEY_CHANGES].manifest):
            loaded.removed += supersede.remove_gone(connection, lease.pair, endpoint, key_changes.gone)
            loaded.inserted[KEY_CHANGES] = _insert_changes(connection, endpoint, read[KEY_CHANGES])
        ledger.record(connection, entries)
    return loaded


def _may_supersede(read: Mapping[RecordKind, Reading], loaded: Loaded) -> bool:
    """Whether a raw row may have become untrue: a row came, or what lay there before was never looked at."""
    never_looked = KEY_CHANGES in read and read[KEY_CHANGES].entry.low is None
    return bool(loaded.inserted.get(RECORDS)) or never_looked


def load_refresh(connection: Connection, lease: Lease, reading: Reading) -> Loaded:
    """Replace one resource's rows of the pair, also by nothing, and deactivate its watermarks.

    Without ``close_refreshes`` the endpoint has no watermark, so whatever runs next refreshes it again.
    """
    endpoint = reading.entry.endpoint
    _stage(connection, endpoint, {RECORDS: reading})
    with connection.transaction():
        lease.check(connection)
        ledger.check_unmoved(connection, [reading.entry])
        removed = _delete_named(connection, endpoint.snake, lease.pair, [endpoint.snake])
        inserted = _insert_all(connection, endpoint, reading)
        ledger.deactivate(connection, lease.pair, [endpoint.snake])
    return Loaded({RECORDS: inserted}, sum(removed.values()))


def close_refreshes(connection: Connection, lease: Lease, entries: Sequence[ledger.Entry]) -> None:
    """The closing transaction of a run's refreshes: clear their deletes and key changes, write their watermarks."""
    names = sorted({entry.endpoint.snake for entry in entries})
    with connection.transaction():
        lease.check(connection)
        ledger.check_unmoved(connection, [replace(entry, low=None) for entry in entries])
        for table in (connection.names.deletes, connection.names.key_changes):
            _delete_named(connection, table, lease.pair, names)
        ledger.record(connection, entries)


def load_descriptors(connection: Connection, lease: Lease, readings: Sequence[Reading]) -> dict[str, Loaded]:
    """Commit the descriptor endpoints of one run in one transaction; one is replaced only if it differs.

    All readings are of one stamp. Returns name → rows, for those that differed.
    """
    names = [reading.entry.endpoint.snake for reading in readings]
    newest = readings[0].entry.newest
    _stage_descriptors(connection, readings)
    with connection.transaction():
        lease.check(connection)
        ledger.check_unmoved(connection, [reading.entry for reading in readings])
        differing = _differing_descriptors(connection, lease.pair, readings)
        removed = _delete_named(connection, connection.names.descriptors, lease.pair, differing)
        inserted = _insert_descriptors(connection, readings[0], differing) if differing else {}
        ledger.deactivate(connection, lease.pair, names, above=newest)
        ledger.record(connection, [reading.entry for reading in readings])
    return {name: Loaded({RECORDS: inserted.get(name, 0)}, removed.get(name, 0)) for name in differing}


def settle(connection: Connection, lease: Lease, entries: Sequence[ledger.Entry]) -> None:
    """Move the watermarks of endpoints that had nothing new, in one transaction."""
    if not entries:
        return
    with connection.transaction():
        lease.check(connection)
        now = ledger.watermarks(connection, lease.pair)
        unmoved = [e for e in entries if now.get((e.endpoint.snake, e.kind)) == e.low]
        ledger.record(connection, unmoved)


def _stage(connection: Connection, endpoint: Endpoint, read: dict[RecordKind, Reading]) -> None:
    """Stage the lines of each manifest, and in ``staged_<kind>`` which of them count."""
    for kind, reading in read.items():
        if reading.manifest is not None:
            with _named([reading]):
                files = [file.loadable for file in reading.manifest.files]
                _stage_lines(connection, f"staged_{kind}_lines", files)
            key = tuple(endpoint.key.values()) if kind == RECORDS else ()
            source = f"(SELECT *, CAST(NULL AS VARCHAR) AS name FROM staged_{kind}_lines)"
            _keep_last_reads(connection, kind, source, key)


def _stage_lines(connection: Connection, name: str, files: Sequence[PulledFile]) -> None:
    """Stage files. Raises WarehouseError when they no longer hold what their manifest says."""
    found = connection.stage(name, files)
    expected = sum(file.rows for file in files)
    if found != expected:
        raise WarehouseError(
            f"the lake holds {found} rows at {files[0].path} and beside it, its manifest says {expected}; "
            "run again with full_refresh to pull them anew"
        )


@contextmanager
def _named(readings: Sequence[Reading]) -> Iterator[None]:
    """Say of a damaged file which tenant, year and endpoint it is of."""
    try:
        yield
    except DamagedFile as error:
        entry = next(r.entry for r in readings if r.manifest and error.path in r.manifest.paths)
        raise error.of(f"{entry.pair} {entry.endpoint.path}") from None


def _keep_last_reads(connection: Connection, kind: RecordKind, source: str, key: Sequence[str]) -> None:
    """Of the staged lines, keep the last read of every id and, where the key is known, of every natural key.

    Two ids that were read with one natural key under one stamp are a record that was replaced while the pull went
    on; the one the ODS modified last is alive. Rows are sorted only where any id or key comes twice.
    """
    staged = f"staged_{kind}"
    lines = keyed(connection, source, key, ("read_order", "name"))
    connection.run(f"CREATE OR REPLACE TEMPORARY TABLE {staged} AS {lines}")
    orders = {"id": "read_order DESC"}
    if key:
        orders["natural_key"] = "modified DESC, read_order DESC"
    twice = ", ".join(
        f"(SELECT count(*) FROM (SELECT 1 FROM {staged} GROUP BY name, {column} HAVING count(*) > 1) {column}s)"
        for column in orders
    )
    (counts,) = connection.rows(f"SELECT {twice}")
    for (column, order), count in zip(orders.items(), counts, strict=True):
        if count:
            _keep_last(connection, staged, column, order)


def _keep_last(connection: Connection, staged: str, column: str, order: str) -> None:
    connection.run(
        f"""DELETE FROM {staged} WHERE read_order IN (SELECT read_order FROM (
            SELECT read_order, row_number() OVER (PARTITION BY name, {column} ORDER BY {order}) AS place
            FROM {staged}) placed WHERE place > 1)"""
    )


def _staged(kind: RecordKind) -> str:
    """SQL for the staged lines that count, with their id, natural key and name."""
    return (
        "(SELECT l.v, l.filename, l.file_row_number, k.id, k.natural_key, k.name "
        f"FROM staged_{kind}_lines l JOIN staged_{kind} k ON k.read_order = l.read_order)"
    )


def _stage_descriptors(connection: Connection, readings: Sequence[Reading]) -> None:
    files = {
        file.path: (reading.entry.endpoint.snake, file)
        for reading in readings
        if reading.manifest
        for file in (stored.loadable for stored in reading.manifest.files)
    }
    with _named(readings):
        _stage_lines(connection, "staged_records_lines", [file for _, file in files.values()])
    connection.run("CREATE OR REPLACE TEMPORARY TABLE staged_names (filename VARCHAR, name VARCHAR)")
    if files:
        connection.run(
            f"INSERT INTO staged_names VALUES {', '.join(['(?, ?)'] * len(files))}",
            [value for path, (name, _) in files.items() for value in (path, name)],
        )
    source = "(SELECT l.*, n.name FROM staged_records_lines l JOIN staged_names n ON n.filename = l.filename)"
    _keep_last_reads(connection, RECORDS, source, ("namespace", "codeValue"))


def _check_not_restored(connection: Connection, endpoint: Endpoint, reading: Reading) -> None:
    pair = reading.entry.pair
    ((living,),) = connection.rows(
        f"SELECT count(*) FROM {connection.table(connection.names.deletes)} d WHERE {_SCOPE} AND pull_timestamp < ? "
        f"AND {identity(connection, 'd.v')} IN (SELECT id FROM staged_records)",
        [*pair, endpoint.snake, reading.entry.stamp.replace(tzinfo=None)],
    )
    if living:
        raise OdsRestored(
            f"{living} records live that were deleted before, and ids never return: the ODS was restored",
            pair=pair,
            endpoint=endpoint.path,
        )


def _insert_records(connection: Connection, endpoint: Endpoint, reading: Reading) -> int:
    """Insert what differs from its id's current row."""
    table = connection.table(endpoint.snake)
    current = f"""SELECT id, max_by(v, pull_timestamp) AS v FROM (
        SELECT {identity(connection)} AS id, v, pull_timestamp FROM {table} WHERE {_SCOPE}) scoped
      WHERE id IN (SELECT id FROM staged_records) GROUP BY id"""
    return connection.run(
        f"""INSERT INTO {table} ({", ".join(RAW_COLUMNS)})
        SELECT {_raw_values("s")} FROM {_staged(RECORDS)} s LEFT JOIN ({current}) c ON c.id = s.id
        WHERE c.id IS NULL OR NOT ({connection.same("c.v", "s.v")})""",
        [*_raw_parameters(reading), *reading.entry.pair, endpoint.snake],
    )


def _insert_all(connection: Connection, endpoint: Endpoint, reading: Reading) -> int:
    if reading.manifest is None or not reading.manifest.files:
        return 0
    table = connection.table(endpoint.snake)
    return connection.run(
        f"INSERT INTO {table} ({', '.join(RAW_COLUMNS)}) SELECT {_raw_values('s')} FROM {_staged(RECORDS)} s",
        _raw_parameters(reading),
    )


def _insert_descriptors(connection: Connection, reading: Reading, names: Sequence[str]) -> dict[str, int]:
    """Insert the staged rows of ``names``; ``reading`` is any of the run's, for its stamp and versions."""
    table = connection.table(connection.names.descriptors)
    chosen = f"s.name IN ({', '.join('?' * len(names))})"
    connection.run(
        f"INSERT INTO {table} ({', '.join(RAW_COLUMNS)}) SELECT {_raw_values('s', name='s.name')} "
        f"FROM {_staged(RECORDS)} s WHERE {chosen}",
        [*_raw_parameters(reading, named=False), *names],
    )
    return dict(connection.rows("SELECT name, count(*) FROM staged_records GROUP BY 1"))


def _insert_changes(connection: Connection, endpoint: Endpoint, reading: Reading) -> int:
    """Insert tombstones or key changes that are not there yet: one that is re-read never gets a later stamp."""
    kind = reading.entry.kind
    names = connection.names
    table = connection.table(names.deletes if kind == DELETES else names.key_changes)
    same_change = (
        ""
        if kind == DELETES
        else f" AND {connection.text('changeVersion', 'd.v')} = {connection.text('changeVersion', 's.v')}"
    )
    return connection.run(
        f"""INSERT INTO {table} ({", ".join(RAW_COLUMNS)})
        SELECT {_raw_values("s")} FROM {_staged(kind)} s
        WHERE NOT EXISTS (SELECT 1 FROM {table} d WHERE {_SCOPE} AND {identity(connection, "d.v")} = s.id{same_change})""",
        [*_raw_parameters(reading), *reading.entry.pair, endpoint.snake],
    )


def _differing_descriptors(
    connection: Connection, pair: TenantYear, readings: Sequence[Reading]
) -> list[str]:
    """The names whose staged rows are not their current rows."""
    names = [reading.entry.endpoint.snake for reading in readings]
    current = current_sql(connection, raw_table(connection, readings[0].entry.endpoint))
    found = connection.rows(
        f"""SELECT DISTINCT coalesce(s.name, c.name) FROM {_staged(RECORDS)} s
        FULL JOIN (SELECT r.name, {identity(connection, "r.v")} AS id, r.v FROM ({current}) r
                   WHERE tenant_code = ? AND api_year = ? AND name IN ({", ".join("?" * len(names))})) c
          ON c.name = s.name AND c.id = s.id
        WHERE s.id IS NULL OR c.id IS NULL OR NOT ({connection.same("c.v", "s.v")})""",
        [*pair, *names],
    )
    return sorted(str(name) for (name,) in found)


def _delete_named(
    connection: Connection, table: str, pair: TenantYear, names: Sequence[str]
) -> dict[str, int]:
    """Name → rows removed. A SELECT looks first: a DELETE that hits nothing still locks the table on Snowflake."""
    if not names:
        return {}
    where = f"tenant_code = ? AND api_year = ? AND name IN ({', '.join('?' * len(names))})"
    qualified = connection.table(table)
    found: dict[str, int] = dict(
        connection.rows(f"SELECT name, count(*) FROM {qualified} WHERE {where} GROUP BY 1", [*pair, *names])
    )
    if found:
        connection.run(f"DELETE FROM {qualified} WHERE {where}", [*pair, *names])
    return found


def _raw_values(alias: str, name: str = "?") -> str:
    return f"?, ?, ?, ?, {alias}.file_row_number, {alias}.filename, {name}, ?, ?, {alias}.v"


def _raw_parameters(reading: Reading, *, named: bool = True) -> list[object]:
    manifest = reading.manifest
    assert manifest is not None
    stamp = reading.entry.stamp.replace(tzinfo=None)
    return [
        *reading.entry.pair,
        stamp.date(),
        stamp,
        *([reading.entry.endpoint.snake] if named else []),
        manifest.ods_version,
        manifest.data_model_version,
    ]
