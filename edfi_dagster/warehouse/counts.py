"""How many rows there are: current rows here, and what the ODS said it holds. The tables of counts are only added to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.warehouse.contract import COUNT_CHECKS, Connection
from edfi_dagster.warehouse.current import current_sql, descriptor_counts, identity, raw_table

_ROWS_OF_AN_INSERT = 500
_TABLES_OF_A_QUERY = 40
_IDS_AT_ONCE = 10_000


# -- what the ODS counted -------------------------------------------------------------------------------------


def record_counts(
    connection: Connection, pair: TenantYear, stamp: datetime, counts: Mapping[str, int]
) -> None:
    """Add one total count per name; ``stamp`` is that of the run which counted."""
    rows = [[*pair, name, stamp.date(), stamp.replace(tzinfo=None), count] for name, count in counts.items()]
    columns = ("tenant_code", "api_year", "name", "pull_date", "pull_timestamp", "total_count")
    _insert(connection, connection.names.total_counts, columns, rows)


def latest_counts(connection: Connection, pair: TenantYear) -> dict[str, tuple[datetime, int]]:
    """name → (stamp in UTC, records) as counted last."""
    found = connection.rows(
        f"SELECT name, max(pull_timestamp), max_by(total_count, pull_timestamp) "
        f"FROM {connection.table(connection.names.total_counts)} "
        "WHERE tenant_code = ? AND api_year = ? GROUP BY 1",
        list(pair),
    )
    return {str(name): (stamp.replace(tzinfo=UTC), int(count)) for name, stamp, count in found}


# -- comparisons of both --------------------------------------------------------------------------------------


def record_comparisons(
    connection: Connection,
    pair: TenantYear,
    stamps: Mapping[str, datetime],
    counts: Mapping[str, tuple[int, int] | None],
) -> None:
    """Remember that names were compared: name → (records the ODS counted, current rows). Needs no lease.

    None stands for what the ODS did not count.

    ``stamps`` holds the stamp of each name's last pull, so that a later one makes the comparison old.
    """
    rows = [
        [*pair, name, stamps[name].date(), stamps[name].replace(tzinfo=None), *(both or (None, None))]
        for name, both in counts.items()
    ]
    columns = ("tenant_code", "api_year", "name", "pull_date", "pull_timestamp", "ods_count", "current_rows")
    _insert(connection, COUNT_CHECKS, columns, rows)


def last_compared(connection: Connection, pair: TenantYear) -> dict[str, datetime]:
    """name → stamp (UTC) of the last pull that was compared."""
    found = connection.rows(
        f"SELECT name, max(pull_timestamp) FROM {connection.table(COUNT_CHECKS)} "
        "WHERE tenant_code = ? AND api_year = ? GROUP BY 1",
        list(pair),
    )
    return {str(name): when.replace(tzinfo=UTC) for name, when in found}


# -- current rows ---------------------------------------------------------------------------------------------


def current_counts(connection: Connection, pair: TenantYear, endpoints: Sequence[Endpoint]) -> dict[str, int]:
    """name → current rows, where there are any; one query for the descriptors, two for every 40 resources."""
    counts = descriptor_counts(connection, pair) if any(e.is_descriptor for e in endpoints) else {}
    resources = [e for e in endpoints if not e.is_descriptor]
    for start in range(0, len(resources), _TABLES_OF_A_QUERY):
        batch = resources[start : start + _TABLES_OF_A_QUERY]
        tables = {e: connection.table(e.snake) for e in batch}
        raw = _counted(connection, pair, tables)
        # To tell which rows are current takes parsing them all.
        looked_into = {
            e: f"({current_sql(connection, raw_table(connection, e))})" for e in batch if raw[e.snake]
        }
        counts |= _counted(connection, pair, looked_into)
    return counts


def current_ids(connection: Connection, pair: TenantYear, endpoint: Endpoint) -> Iterator[list[str]]:
    """The ids of an endpoint's current rows, some thousands at a time."""
    current = current_sql(connection, raw_table(connection, endpoint))
    found = connection.each(
        f"SELECT {identity(connection)} FROM ({current}) c WHERE tenant_code = ? AND api_year = ? AND name = ?",
        [*pair, endpoint.snake],
    )
    ids: list[str] = []
    for (record_id,) in found:
        ids.append(str(record_id))
        if len(ids) == _IDS_AT_ONCE:
            yield ids
            ids = []
    if ids:
        yield ids


def _counted(connection: Connection, pair: TenantYear, sources: Mapping[Endpoint, str]) -> dict[str, int]:
    """name → rows of the pair in what the endpoint stands for: a table, or a query in parentheses."""
    if not sources:
        return {}
    query = " UNION ALL ".join(
        f"SELECT {n}, count(*) FROM {source} c WHERE tenant_code = ? AND api_year = ? AND name = ?"
        for n, source in enumerate(sources.values())
    )
    names = [endpoint.snake for endpoint in sources]
    found = connection.rows(query, [value for name in names for value in (*pair, name)])
    return {names[n]: int(count) for n, count in found}


def _insert(
    connection: Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    places = f"({', '.join('?' * len(columns))})"
    for start in range(0, len(rows), _ROWS_OF_AN_INSERT):
        batch = rows[start : start + _ROWS_OF_AN_INSERT]
        connection.run(
            f"INSERT INTO {connection.table(table)} ({', '.join(columns)}) "
            f"VALUES {', '.join([places] * len(batch))}",
            [value for row in batch for value in row],
        )
