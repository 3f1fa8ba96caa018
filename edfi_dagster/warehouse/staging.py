"""Pulled files → temporary tables, and the account of the records in them, before a load's transaction.

``staged_<kind>_lines`` holds the lines, ``staged_<kind>`` which of them count: of every id the last that was read.
``staged_records`` also tells which records are equal to their id's current row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edfi_dagster.lake.manifest import PulledFile
from edfi_dagster.lake.proof import DamagedFile
from edfi_dagster.ods.errors import OdsRestored
from edfi_dagster.ods.pages import RECORDS, RecordKind
from edfi_dagster.warehouse.contract import Connection, WarehouseError
from edfi_dagster.warehouse.current import identity, keyed
from edfi_dagster.warehouse.ledger import Entry, Reading

SCOPE = "tenant_code = ? AND api_year = ? AND name = ?"
_RECORDS = (
    """read_order BIGINT, name VARCHAR, id VARCHAR, natural_key VARCHAR, folded VARCHAR, is_equal BOOLEAN"""
)
_IDS_OF_A_QUERY = 500


@dataclass(frozen=True)
class Account:
    """Where the records of one pull go: to be inserted, equal to their current rows, or ``gone`` from the ODS.

    ``is_clear`` says that no natural key of a record that was read is held by another id, here or in the raw table.
    """

    entry: Entry
    read: int
    equal: int
    gone: int
    is_clear: bool

    def check(self, inserted: int) -> None:
        """Raises WarehouseError where a record that was read is in none of the three places."""
        missing = self.read - inserted - self.equal - self.gone
        if missing:
            raise WarehouseError(
                f"{self.entry.pair} {self.entry.endpoint.path}: of {self.read} records read, {inserted} were inserted, "
                f"{self.equal} were there already and {self.gone} are gone from the ODS, which leaves {missing}; nothing "
                "was committed, run again with full_refresh"
            )


def stage_changes(connection: Connection, kind: RecordKind, reading: Reading) -> None:
    """Stage tombstones or key changes."""
    assert reading.manifest is not None
    with _named([reading]):
        _stage_lines(connection, kind, reading.manifest.files)
    lines = keyed(connection, f"staged_{kind}_lines", (), ("read_order",))
    connection.run(
        f"CREATE OR REPLACE TEMPORARY TABLE staged_{kind} AS SELECT *, CAST(NULL AS VARCHAR) AS name FROM ({lines}) l"
    )
    if any(connection.rows(f"SELECT 1 FROM staged_{kind} GROUP BY id HAVING count(*) > 1 LIMIT 1")):
        _keep_last_reads(connection, f"staged_{kind}")


def stage_delta(
    connection: Connection, reading: Reading, gone: Sequence[str], *, has_key_changes: bool
) -> Account:
    """Stage the records of a delta, beside the rows that its endpoint has.

    Without key changes nothing else tells of an older key in the raw table, so all of it is looked at.
    Raises OdsRestored when a record lives whose id has an earlier tombstone.
    """
    assert reading.manifest is not None
    entry = reading.entry
    with _named([reading]):
        _stage_lines(connection, RECORDS, reading.manifest.files)
    table, key = connection.table(entry.endpoint.snake), tuple(entry.endpoint.key.values())
    lines = keyed(connection, "staged_records_lines", key, ("read_order", "v"))
    current = f"""SELECT id, max_by(v, pull_timestamp) AS v FROM (
        SELECT {identity(connection)} AS id, v, pull_timestamp FROM {table} WHERE {SCOPE}) scoped
      WHERE id IN (SELECT id FROM read_now) GROUP BY id"""
    connection.run(f"CREATE OR REPLACE TEMPORARY TABLE staged_records ({_RECORDS})")
    connection.run(
        f"""INSERT INTO staged_records WITH read_now AS ({lines})
        SELECT l.read_order, NULL, l.id, l.natural_key, l.folded, coalesce({connection.same("c.v", "l.v")}, FALSE)
        FROM read_now l LEFT JOIN ({current}) c ON c.id = l.id""",
        [*entry.pair, entry.endpoint.snake],
    )
    return _look(connection, reading, _drop(connection, gone), whole=not has_key_changes)


def stage_refresh(connection: Connection, reading: Reading) -> Account:
    """Stage the records of a full pull, which replaces what is there."""
    manifest = reading.manifest
    files, gone = (manifest.files, manifest.gone) if manifest else ((), ())
    with _named([reading]):
        _stage_lines(connection, RECORDS, files)
    _stage_unequal(
        connection,
        "(SELECT *, CAST(NULL AS VARCHAR) AS name FROM staged_records_lines)",
        tuple(reading.entry.endpoint.key.values()),
    )
    return _account_of_names(connection, [reading], _drop(connection, gone))[0]


def stage_descriptors(connection: Connection, readings: Sequence[Reading]) -> list[Account]:
    """Stage the records of several descriptor endpoints, each under its name."""
    files = {
        file.path: (reading.entry.endpoint.snake, file)
        for reading in readings
        if reading.manifest
        for file in (stored.loadable for stored in reading.manifest.files)
    }
    with _named(readings):
        _stage_lines(connection, RECORDS, [file for _, file in files.values()])
    connection.run("CREATE OR REPLACE TEMPORARY TABLE staged_names (filename VARCHAR, name VARCHAR)")
    if files:
        connection.run(
            f"INSERT INTO staged_names VALUES {', '.join(['(?, ?)'] * len(files))}",
            [value for path, (name, _) in files.items() for value in (path, name)],
        )
    source = "(SELECT l.*, n.name FROM staged_records_lines l JOIN staged_names n ON n.filename = l.filename)"
    _stage_unequal(connection, source, ("namespace", "codeValue"))
    gone = [record_id for reading in readings if reading.manifest for record_id in reading.manifest.gone]
    return _account_of_names(connection, readings, _drop(connection, gone))


def staged(kind: RecordKind) -> str:
    """SQL for the staged lines that count, with the columns of ``staged_<kind>``."""
    return (
        f"(SELECT l.v, l.filename, l.file_row_number, k.* FROM staged_{kind}_lines l "
        f"JOIN staged_{kind} k ON k.read_order = l.read_order)"
    )


def batches(ids: Sequence[str]) -> Iterator[list[str]]:
    """Ids for one statement after the other."""
    for start in range(0, len(ids), _IDS_OF_A_QUERY):
        yield list(ids[start : start + _IDS_OF_A_QUERY])


def marks(values: Sequence[str]) -> str:
    """As many ``?`` as there are values."""
    return ", ".join("?" * len(values))


# -- inside -----------------------------------------------------------------------------------------------


def _stage_lines(connection: Connection, kind: RecordKind, files: Sequence[PulledFile]) -> None:
    """Stage files. Raises WarehouseError when they no longer hold what their manifest says."""
    found = connection.stage(f"staged_{kind}_lines", [file.loadable for file in files])
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


def _stage_unequal(connection: Connection, source: str, key: Sequence[str]) -> None:
    lines = keyed(connection, source, key, ("read_order", "name"))
    connection.run(
        f"CREATE OR REPLACE TEMPORARY TABLE staged_records AS SELECT *, FALSE AS is_equal FROM ({lines}) l"
    )


def _drop(connection: Connection, gone: Sequence[str]) -> Mapping[str | None, int]:
    """Take the ids that are gone out of the staged records; name → how many of them were there."""
    dropped: dict[str | None, int] = {}
    for batch in batches(gone):
        where = f"id IN ({marks(batch)})"
        for name, count in connection.rows(
            f"SELECT name, count(DISTINCT id) FROM staged_records WHERE {where} GROUP BY 1", batch
        ):
            dropped[name] = dropped.get(name, 0) + int(count)
        connection.run(f"DELETE FROM staged_records WHERE {where}", batch)
    return dropped


def _keep_last_reads(connection: Connection, table: str) -> None:
    """Of every staged id keep the last read."""
    connection.run(
        f"""DELETE FROM {table} WHERE read_order IN (SELECT read_order FROM (
            SELECT read_order, row_number() OVER (PARTITION BY name, id ORDER BY read_order DESC) AS place
            FROM {table}) placed WHERE place > 1)"""
    )


def _look(
    connection: Connection, reading: Reading, dropped: Mapping[str | None, int], *, whole: bool
) -> Account:
    """The account of a delta, and whether its natural keys are its own; one query where all is plain."""
    entry, manifest = reading.entry, reading.manifest
    assert manifest is not None
    scope = [*entry.pair, entry.endpoint.snake]
    raw = keyed(
        connection,
        connection.table(entry.endpoint.snake),
        tuple(entry.endpoint.key.values()),
        ("pull_timestamp",),
        where=f"WHERE {SCOPE}",
    )
    outdated = f"SELECT 1 FROM ({raw}) r GROUP BY id HAVING count(DISTINCT natural_key) > 1"
    sql = f"""SELECT
      (SELECT count(*) FROM staged_records), (SELECT count(DISTINCT id) FROM staged_records),
      (SELECT count(*) FROM staged_records WHERE is_equal),
      (SELECT count(*) FROM (SELECT 1 FROM staged_records GROUP BY folded HAVING count(DISTINCT id) > 1) t),
      (SELECT count(*) FROM {connection.table(connection.names.deletes)} d WHERE {SCOPE} AND pull_timestamp < ?
        AND {identity(connection, "d.v")} IN (SELECT id FROM staged_records)),
      (SELECT count(*) FROM ({raw}) r
        LEFT JOIN (SELECT id, max(natural_key) AS natural_key FROM staged_records GROUP BY 1) i ON i.id = r.id
        LEFT JOIN (SELECT folded, max(id) AS id FROM staged_records GROUP BY 1) k ON k.folded = r.folded
        WHERE i.natural_key <> r.natural_key OR k.id <> r.id),
      {f"(SELECT count(*) FROM ({outdated}) o)" if whole else "0"}"""
    parameters = [*scope, entry.stamp.replace(tzinfo=None), *scope, *(scope if whole else [])]
    ((lines, ids, equal, shared, living, held, old),) = connection.rows(sql, parameters)
    if lines > ids:
        _keep_last_reads(connection, "staged_records")
        ((lines, ids, equal, shared, living, held, old),) = connection.rows(sql, parameters)
    if living:
        raise OdsRestored(
            f"{living} records live that were deleted before, and ids never return: the ODS was restored",
            pair=entry.pair,
            endpoint=entry.endpoint.path,
        )
    return _account(reading, ids, equal, sum(dropped.values()), is_clear=not (shared or held or old))


def _account_of_names(
    connection: Connection, readings: Sequence[Reading], dropped: Mapping[str | None, int]
) -> list[Account]:
    """The accounts of full pulls, in their order."""
    sql = (
        """SELECT name, count(*), count(DISTINCT id), count(DISTINCT folded) FROM staged_records GROUP BY 1"""
    )
    found = {name: counts for name, *counts in connection.rows(sql)}
    if any(lines > ids for lines, ids, _ in found.values()):
        _keep_last_reads(connection, "staged_records")
        found = {name: counts for name, *counts in connection.rows(sql)}
    accounts = []
    for reading in readings:
        name = reading.entry.endpoint.snake if reading.entry.endpoint.is_descriptor else None
        _, ids, keys = found.get(name, (0, 0, 0))
        accounts.append(_account(reading, ids, 0, dropped.get(name, 0), is_clear=ids == keys))
    return accounts


def _account(reading: Reading, ids: int, equal: int, gone: int, *, is_clear: bool) -> Account:
    """Raises WarehouseError where the lines hold other records than the manifest says."""
    entry, manifest = reading.entry, reading.manifest
    read = manifest.rows if manifest else 0
    if ids + gone != read:
        raise WarehouseError(
            f"{entry.pair} {entry.endpoint.path}: the lake holds {ids + gone} different records, the manifest of its pull "
            f"says {read}; nothing was committed, run again with full_refresh to pull them anew"
        )
    return Account(entry, read, equal, gone, is_clear)
