"""Manifests → raw tables: every load is one transaction that commits rows and ledger together or not at all.

A delta inserts what is new and removes what it supersedes; a refresh replaces. Each transaction first checks that
the lease is still this run's and that the watermark is the one its pull started from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.warehouse import ledger, staging, supersede
from edfi_dagster.warehouse.contract import RAW_COLUMNS, Connection, WarehouseError
from edfi_dagster.warehouse.current import current_sql, identity, raw_table
from edfi_dagster.warehouse.lease import Lease
from edfi_dagster.warehouse.ledger import Reading
from edfi_dagster.warehouse.staging import SCOPE, Account
from edfi_dagster.warehouse.supersede import Judged


@dataclass
class Loaded:
    """Rows a load inserted per kind, and raw rows it removed because they were superseded or replaced.

    ``undecided`` are ids that share a natural key with another and stay, because nobody could say which of them live.
    """

    inserted: dict[RecordKind, int] = field(default_factory=dict)
    removed: int = 0
    undecided: frozenset[str] = frozenset()

    @property
    def changed(self) -> bool:
        return bool(self.removed or any(self.inserted.values()))


def load_delta(
    connection: Connection,
    lease: Lease,
    endpoint: Endpoint,
    readings: Sequence[Reading],
    *,
    judged: Mapping[str, Judged] | None = None,
) -> Loaded:
    """Commit one endpoint's delta: its records, then deletes and key changes, and their watermarks.

    ``judged`` is what the ODS said of suspects; None where it cannot be asked. Raises NotCommitted; Suspected before
    anything is written; OdsRestored when a record lives whose id has an earlier tombstone.
    """
    read = {reading.entry.kind: reading for reading in readings}
    gone = [record_id for r in readings if r.manifest for record_id in r.manifest.gone]
    account = _stage(connection, endpoint, read, gone)
    loaded = Loaded()
    superseded = _superseded(connection, endpoint, read, account, gone)
    if superseded is not None:
        loaded.undecided = supersede.undecided({endpoint.snake: superseded}, judged)
    elif gone or any(read[kind].manifest for kind in (DELETES, KEY_CHANGES) if kind in read):
        supersede.make_room(connection)
    supersede.doom_gone(connection, gone, lease.pair, endpoint)
    with connection.transaction():
        lease.check(connection)
        entries = ledger.not_loaded(connection, [reading.entry for reading in readings])
        read = {entry.kind: read[entry.kind] for entry in entries}
        if RECORDS in read and account:
            loaded.inserted[RECORDS] = _insert_records(connection, read[RECORDS])
            account.check(loaded.inserted[RECORDS])
        if read and (gone or superseded is not None):
            loaded.removed += supersede.remove_superseded(connection, lease.pair, endpoint)
        if DELETES in read and read[DELETES].manifest:
            loaded.inserted[DELETES] = _insert_changes(connection, endpoint, read[DELETES])
            if loaded.inserted[DELETES]:
                loaded.removed += supersede.remove_replaced(connection, lease.pair, endpoint)
        if KEY_CHANGES in read and read[KEY_CHANGES].manifest:
            loaded.inserted[KEY_CHANGES] = _insert_changes(connection, endpoint, read[KEY_CHANGES])
        ledger.record(connection, entries)
        if loaded.undecided and judged is not None:
            look_again(connection, lease.pair, endpoint)
    return loaded


def look_again(connection: Connection, pair: TenantYear, endpoint: Endpoint) -> None:
    """Have the next run look for ids that share a natural key in the whole table; part of a transaction."""
    ledger.deactivate(connection, pair, [endpoint.snake], kind=KEY_CHANGES)


def is_first_look(endpoint: Endpoint, readings: Mapping[RecordKind, Reading]) -> bool:
    """Whether the raw rows were never searched for superseded ones, as after a switch from Airflow."""
    changes = readings.get(KEY_CHANGES)
    return bool(endpoint.key) and changes is not None and changes.entry.low is None


def _superseded(
    connection: Connection,
    endpoint: Endpoint,
    read: Mapping[RecordKind, Reading],
    account: Account | None,
    gone: Sequence[str],
) -> supersede.Suspects | None:
    """The suspects, where rows must be superseded or ids suspected; None where all is plain."""
    whole = is_first_look(endpoint, read)
    if not endpoint.key or (not whole and (account is None or account.is_clear)):
        return None
    pair = next(iter(read.values())).entry.pair
    has_deletes = DELETES in read and read[DELETES].manifest is not None
    search = supersede.Search(gone, account is not None, has_deletes, whole)
    return supersede.find_superseded(connection, pair, endpoint, search)


def load_refresh(
    connection: Connection,
    lease: Lease,
    reading: Reading,
    *,
    judged: Mapping[str, Judged] | None = None,
) -> Loaded:
    """Replace one resource's rows of the pair, also by nothing, and deactivate its watermarks.

    Without ``close_refreshes`` the endpoint has no watermark, so whatever runs next refreshes it again. ``judged`` as in
    ``load_delta``.
    """
    endpoint = reading.entry.endpoint
    account = staging.stage_refresh(connection, reading)
    suspects = supersede.Suspects() if account.is_clear else supersede.suspects_read(connection)[None]
    undecided = supersede.undecided({endpoint.snake: suspects}, judged)
    with connection.transaction():
        lease.check(connection)
        ledger.check_unmoved(connection, [reading.entry])
        removed = _delete_named(connection, endpoint.snake, lease.pair, [endpoint.snake])
        inserted = _insert_all(connection, endpoint, reading)
        account.check(inserted)
        ledger.deactivate(connection, lease.pair, [endpoint.snake])
    return Loaded({RECORDS: inserted}, sum(removed.values()), undecided)


def close_refreshes(connection: Connection, lease: Lease, entries: Sequence[ledger.Entry]) -> None:
    """The closing transaction of a run's refreshes: clear their deletes and key changes, write their watermarks."""
    names = sorted({entry.endpoint.snake for entry in entries})
    with connection.transaction():
        lease.check(connection)
        ledger.check_unmoved(connection, [replace(entry, low=None) for entry in entries])
        for table in (connection.names.deletes, connection.names.key_changes):
            _delete_named(connection, table, lease.pair, names)
        ledger.record(connection, entries)


def load_descriptors(
    connection: Connection,
    lease: Lease,
    readings: Sequence[Reading],
    *,
    judged: Mapping[str, Judged] | None = None,
) -> dict[str, Loaded]:
    """Commit the descriptor endpoints of one run in one transaction; one is replaced only if it differs.

    All readings are of one stamp. Returns name → rows, for those that differed. ``judged`` as in ``load_delta``.
    """
    names = [reading.entry.endpoint.snake for reading in readings]
    newest = readings[0].entry.newest
    accounts = staging.stage_descriptors(connection, readings)
    if not all(account.is_clear for account in accounts):
        found = supersede.suspects_read(connection)
        supersede.undecided({str(name): suspects for name, suspects in found.items()}, judged)
    with connection.transaction():
        lease.check(connection)
        ledger.check_unmoved(connection, [reading.entry for reading in readings])
        differing = _differing_descriptors(connection, lease.pair, readings)
        removed = _delete_named(connection, connection.names.descriptors, lease.pair, differing)
        inserted = _insert_descriptors(connection, readings[0], accounts, differing)
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


def _stage(
    connection: Connection, endpoint: Endpoint, read: Mapping[RecordKind, Reading], gone: Sequence[str]
) -> Account | None:
    """Stage what was read; the account of the records, if any were."""
    account = None
    for kind, reading in read.items():
        if reading.manifest is None:
            continue
        if kind == RECORDS:
            account = staging.stage_delta(connection, reading, gone, has_key_changes=KEY_CHANGES in read)
        else:
            staging.stage_changes(connection, kind, reading)
    return account


def _insert_records(connection: Connection, reading: Reading) -> int:
    """Insert what differs from its id's current row."""
    return connection.run(
        f"""INSERT INTO {connection.table(reading.entry.endpoint.snake)} ({", ".join(RAW_COLUMNS)})
        SELECT {_raw_values("s")} FROM {staging.staged(RECORDS)} s WHERE NOT s.is_equal""",
        _raw_parameters(reading),
    )


def _insert_all(connection: Connection, endpoint: Endpoint, reading: Reading) -> int:
    if reading.manifest is None or not reading.manifest.files:
        return 0
    table = connection.table(endpoint.snake)
    return connection.run(
        f"INSERT INTO {table} ({', '.join(RAW_COLUMNS)}) SELECT {_raw_values('s')} FROM {staging.staged(RECORDS)} s",
        _raw_parameters(reading),
    )


def _insert_descriptors(
    connection: Connection, reading: Reading, accounts: Sequence[Account], names: Sequence[str]
) -> dict[str, int]:
    """Insert the staged rows of ``names``; ``reading`` is any of the run's, for its stamp and versions."""
    if not names:
        return {}
    chosen = {a.entry.endpoint.snake: a for a in accounts if a.entry.endpoint.snake in names}
    inserted = connection.run(
        f"INSERT INTO {connection.table(connection.names.descriptors)} ({', '.join(RAW_COLUMNS)}) "
        f"SELECT {_raw_values('s', name='s.name')} FROM {staging.staged(RECORDS)} s "
        f"WHERE s.name IN ({', '.join('?' * len(names))})",
        [*_raw_parameters(reading, named=False), *names],
    )
    counts = {name: account.read - account.gone for name, account in chosen.items()}
    if inserted != sum(counts.values()):
        for name, account in chosen.items():
            counted = "SELECT count(*) FROM staged_records WHERE name = ?"
            account.check(connection.rows(counted, [name])[0][0])
        raise WarehouseError(
            f"{reading.entry.pair} descriptors: {inserted} of {sum(counts.values())} rows were inserted; nothing was "
            "committed, run again with full_refresh"
        )
    return counts


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
        SELECT {_raw_values("s")} FROM {staging.staged(kind)} s
        WHERE NOT EXISTS (SELECT 1 FROM {table} d WHERE {SCOPE} AND {identity(connection, "d.v")} = s.id{same_change})""",
        [*_raw_parameters(reading), *reading.entry.pair, endpoint.snake],
    )


def _differing_descriptors(
    connection: Connection, pair: TenantYear, readings: Sequence[Reading]
) -> list[str]:
    """The names whose staged rows are not their current rows."""
    names = [reading.entry.endpoint.snake for reading in readings]
    current = current_sql(connection, raw_table(connection, readings[0].entry.endpoint))
    found = connection.rows(
        f"""SELECT DISTINCT coalesce(s.name, c.name) FROM {staging.staged(RECORDS)} s
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
