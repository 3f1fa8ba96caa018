"""How many rows of each endpoint the warehouse holds, and how many records its ODS counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.warehouse.contract import COUNT_CHECKS, Connection, RawTable, Warehouse
from edfi_dagster.warehouse.current import current_sql, raw_table

# Raw rows that are looked into, all tables together: telling which are current takes parsing them, a few seconds for
# a million. Who asks about one tenant-year waits for more.
MOST_PARSED, MOST_PARSED_OF_ONE = 300_000, 5_000_000

_TABLES_OF_A_QUERY = 40
_QUERIES_AT_ONCE = 4


@dataclass(frozen=True)
class Rows:
    """Current rows; where ``is_exact`` is false, raw rows, which are at least as many."""

    count: int
    is_exact: bool

    def __str__(self) -> str:
        return f"{'' if self.is_exact else '≤'}{self.count:,}"


Counts = Mapping[TenantYear, Mapping[str, Rows]]
OdsCounts = Mapping[TenantYear, Mapping[str, tuple[datetime, int]]]
"""pair → name → (stamp in UTC, records) as the ODS counted them last."""
_Found = Iterator[tuple[TenantYear, str, int]]


def count_rows(
    warehouse: Warehouse,
    endpoints: Mapping[TenantYear, Sequence[Endpoint]],
    existing: Iterable[str],
    *,
    most_parsed: int | None = None,
) -> Counts:
    """pair → name → rows. One query per table, however many pairs; small tables are looked into first.

    ``existing`` are the tables that are there, in lower case. Raises WarehouseError.
    """
    pair = next(iter(endpoints)) if len(endpoints) == 1 else None
    if most_parsed is None:
        most_parsed = MOST_PARSED_OF_ONE if pair else MOST_PARSED
    counts: dict[TenantYear, dict[str, Rows]] = {at: {} for at in endpoints}
    with warehouse.connected() as connection:
        tables = _tables(connection, endpoints, set(existing))
        raw_rows: Counter[str] = Counter()
        for place, at, name, count in _raw(connection, list({t.name for t in tables}), pair):
            raw_rows[place] += count
            if at in counts:
                counts[at][name] = Rows(count, is_exact=False)
        chosen = list(_affordable(tables, raw_rows, most_parsed))
        with ThreadPoolExecutor(_QUERIES_AT_ONCE, "count") as counting:
            found = counting.map(lambda table: _current(warehouse, table, pair), chosen)
            for table, rows in zip(chosen, found, strict=True):
                _settle(counts, tables[table], rows)
    return counts


def latest_totals(connection: Connection, pair: TenantYear | None) -> OdsCounts:
    """The total counts, by the stamp of their run."""
    return _latest(connection, pair, connection.names.total_counts, "total_count")


def latest_compared(connection: Connection, pair: TenantYear | None) -> OdsCounts:
    """What runs compared with the current rows, by the stamp of the endpoint's pull."""
    return _latest(connection, pair, COUNT_CHECKS, "ods_count")


def _latest(connection: Connection, pair: TenantYear | None, table: str, count: str) -> OdsCounts:
    found = connection.rows(
        f"SELECT tenant_code, api_year, name, max(pull_timestamp), max_by({count}, pull_timestamp) "  # noqa: S608
        f"FROM (SELECT * FROM {connection.table(table)} WHERE {count} IS NOT NULL) counted{_of_pair(pair)} "
        "GROUP BY 1, 2, 3",
        list(pair or ()),
    )
    totals: dict[TenantYear, dict[str, tuple[datetime, int]]] = {}
    for tenant, year, name, stamp, count in found:
        of_pair = totals.setdefault(TenantYear(str(tenant), int(year)), {})
        of_pair[str(name)] = stamp.replace(tzinfo=UTC), int(count)
    return totals


def _tables(
    connection: Connection, endpoints: Mapping[TenantYear, Sequence[Endpoint]], existing: set[str]
) -> dict[RawTable, dict[TenantYear, set[str]]]:
    """Table, with the natural key by which its rows are told apart → the names in it, per pair.

    One table is here twice where the data standards of two pairs differ in the key.
    """
    tables: dict[RawTable, dict[TenantYear, set[str]]] = {}
    for pair, chosen in endpoints.items():
        for endpoint in chosen:
            table = raw_table(connection, endpoint)
            if table.name.lower() in existing:
                tables.setdefault(table, {}).setdefault(pair, set()).add(endpoint.snake)
    return tables


def _affordable(
    tables: Iterable[RawTable], raw_rows: Mapping[str, int], most_parsed: int
) -> Iterator[RawTable]:
    for table in sorted(tables, key=lambda table: raw_rows.get(table.name, 0)):
        most_parsed -= raw_rows.get(table.name, 0)
        if most_parsed < 0:
            return
        if table.name in raw_rows:
            yield table


def _raw(
    connection: Connection, tables: Sequence[str], pair: TenantYear | None
) -> Iterator[tuple[str, TenantYear, str, int]]:
    """(table, pair, name, raw rows)."""
    for start in range(0, len(tables), _TABLES_OF_A_QUERY):
        batch = tables[start : start + _TABLES_OF_A_QUERY]
        query = " UNION ALL ".join(
            f"SELECT {n}, tenant_code, api_year, name, count(*) "  # noqa: S608
            f"FROM {connection.table(table)}{_of_pair(pair)} GROUP BY 2, 3, 4"
            for n, table in enumerate(batch)
        )
        for n, tenant, year, name, count in connection.rows(query, list(pair or ()) * len(batch)):
            yield batch[n], TenantYear(str(tenant), int(year)), str(name), int(count)


def _current(
    warehouse: Warehouse, table: RawTable, pair: TenantYear | None
) -> list[tuple[TenantYear, str, int]]:
    where, parameters = _of_pair(pair), list(pair or ())
    if table.applies_deletes:
        # All names of interest are this one; said so, tombstones of other tables need not be parsed.
        where, parameters = f"{where} {'AND' if where else 'WHERE'} name = ?", [*parameters, table.name]
    with warehouse.connected() as connection:
        found = connection.rows(
            "SELECT tenant_code, api_year, name, count(*) "  # noqa: S608
            f"FROM ({current_sql(connection, table)}) c{where} GROUP BY 1, 2, 3",
            parameters,
        )
    return [(TenantYear(str(tenant), int(year)), str(name), int(n)) for tenant, year, name, n in found]


def _settle(
    counts: dict[TenantYear, dict[str, Rows]],
    names: Mapping[TenantYear, set[str]],
    found: Iterable[tuple[TenantYear, str, int]],
) -> None:
    """Put exact counts where they were asked; a name that has raw rows but no current one has none."""
    current = {(pair, name): count for pair, name, count in found}
    for pair, asked in names.items():
        for name in asked & counts[pair].keys():
            counts[pair][name] = Rows(current.get((pair, name), 0), is_exact=True)


def _of_pair(pair: TenantYear | None) -> str:
    return " WHERE tenant_code = ? AND api_year = ?" if pair else ""
