"""Which raw rows a delta makes untrue, and their removal.

dbt tells records apart by natural key and applies a tombstone to every row of its id for ever; it does not read
``_key_changes``. So after a key change or a re-creation only taking the superseded raw rows away leaves the truth
(measured: a synthetic delete removes both sessions, none leaves both).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.warehouse.contract import Connection
from edfi_dagster.warehouse.current import identity, keyed
from edfi_dagster.warehouse.ledger import Reading

_SCOPE = "tenant_code = ? AND api_year = ? AND name = ?"


def make_room(connection: Connection) -> None:
    """Make the temporary table of doomed rows; before a transaction, as DDL would commit it on Snowflake."""
    connection.run("CREATE OR REPLACE TEMPORARY TABLE doomed (id VARCHAR, pull_timestamp TIMESTAMP)")


def remove_superseded(
    connection: Connection, pair: TenantYear, endpoint: Endpoint, read: Mapping[RecordKind, Reading]
) -> int:
    """Remove rows whose natural key their id no longer has, and older ids' rows of a key that a newer row holds.

    Looks at the ids that were read; at all rows of the name when its key changes were never committed before, as
    after a switch from a pipeline that did not handle them. Returns the rows removed.
    """
    touched = _touched(read)
    doomed = connection.run(
        f"""INSERT INTO doomed
        WITH raw AS (
            SELECT id, natural_key, pull_timestamp FROM ({_keyed(connection, endpoint)}) rows_),
        latest AS (
            SELECT * FROM raw {touched} QUALIFY row_number() OVER (PARTITION BY id ORDER BY pull_timestamp DESC) = 1)
        SELECT raw.id, raw.pull_timestamp FROM raw JOIN latest ON raw.id = latest.id
        WHERE raw.natural_key <> latest.natural_key AND raw.pull_timestamp < latest.pull_timestamp
        UNION
        SELECT raw.id, raw.pull_timestamp FROM raw JOIN latest ON raw.natural_key = latest.natural_key
        WHERE raw.id <> latest.id AND raw.pull_timestamp < latest.pull_timestamp""",
        [*pair, endpoint.snake],
    )
    return _remove_doomed(connection, pair, endpoint, doomed)


def remove_replaced(connection: Connection, pair: TenantYear, endpoint: Endpoint) -> int:
    """Remove rows of tombstoned ids whose natural key another id's row of the same or a later stamp holds.

    Such an id was replaced, not deleted: its tombstone would win over the living row. Returns the rows removed.
    """
    doomed = connection.run(
        f"""INSERT INTO doomed
        WITH raw AS (SELECT id, natural_key, pull_timestamp FROM ({_keyed(connection, endpoint)}) rows_)
        SELECT DISTINCT raw.id, raw.pull_timestamp FROM raw JOIN raw AS other
          ON other.natural_key = raw.natural_key AND other.id <> raw.id
        WHERE raw.id IN (SELECT id FROM staged_deletes) AND other.pull_timestamp >= raw.pull_timestamp""",
        [*pair, endpoint.snake],
    )
    return _remove_doomed(connection, pair, endpoint, doomed)


def remove_gone(connection: Connection, pair: TenantYear, endpoint: Endpoint, ids: Sequence[str]) -> int:
    """Remove rows of ids that had their key changed and then left the ODS without a visible tombstone."""
    doomed = 0
    for start in range(0, len(ids), 500):
        batch = ids[start : start + 500]
        doomed += connection.run(
            f"""INSERT INTO doomed SELECT id, pull_timestamp FROM ({_keyed(connection, endpoint)}) keyed
            WHERE id IN ({", ".join("?" * len(batch))})""",
            [*pair, endpoint.snake, *batch],
        )
    return _remove_doomed(connection, pair, endpoint, doomed)


def _touched(read: Mapping[RecordKind, Reading]) -> str:
    """A WHERE clause on ``id``, or nothing where every row must be looked at."""
    if KEY_CHANGES not in read or read[KEY_CHANGES].entry.low is None:
        return ""
    staged = [
        f"SELECT id FROM staged_{kind}"
        for kind in (RECORDS, KEY_CHANGES)
        if kind in read and read[kind].manifest
    ]
    return f"WHERE id IN ({' UNION '.join(staged)})" if staged else "WHERE FALSE"


def _keyed(connection: Connection, endpoint: Endpoint) -> str:
    key = tuple(endpoint.key.values())
    return keyed(
        connection, connection.table(endpoint.snake), key, ("pull_timestamp",), where=f"WHERE {_SCOPE}"
    )


def _remove_doomed(connection: Connection, pair: TenantYear, endpoint: Endpoint, doomed: int) -> int:
    """Remove the ``doomed`` rows, if any: a DELETE that hits nothing still locks the table on Snowflake."""
    if not doomed:
        return 0
    removed = connection.run(
        f"DELETE FROM {connection.table(endpoint.snake)} WHERE {_SCOPE} "
        f"AND ({identity(connection)}, pull_timestamp) IN (SELECT id, pull_timestamp FROM doomed)",
        [*pair, endpoint.snake],
    )
    connection.run("DELETE FROM doomed")
    return removed
