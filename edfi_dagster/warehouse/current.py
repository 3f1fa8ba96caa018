"""Current rows: what a consumer should see of an endpoint.

The latest row of every natural key, by the later of its own stamp and its tombstone's, and only if it is not
deleted: the rule by which the dbt packages stage raw rows (warehouse.md 1.4), with keys compared exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.warehouse.contract import RAW_COLUMNS, Connection, RawTable


def identity(connection: Connection, column: str = "v") -> str:
    """SQL for a record's or tombstone's id: 32 lower-case hex digits, however it is written."""
    spellings = ", ".join(connection.text(spelling, column) for spelling in ("id", "Id", "ID"))
    return f"lower(replace(coalesce({spellings}), '-', ''))"


def natural_key(connection: Connection, paths: tuple[str, ...], column: str = "v") -> str:
    """SQL for the natural key as one text, compared exactly; the id where the key is not known."""
    own = identity(connection, column)
    if not paths:
        return own
    parts = [connection.text(path, column) for path in paths]
    missing = " OR ".join(f"{part} IS NULL" for part in parts)
    # A part that is missing means that the record is not of the shape we know: then no two may be taken for one.
    return f"CASE WHEN {missing} THEN {own} ELSE concat_ws(chr(31), {', '.join(parts)}) END"


def current_sql(connection: Connection, table: RawTable) -> str:
    """A query for the current rows of all pairs and names in a raw table: the ten columns."""
    columns = ", ".join(f"r.{column}" for column in RAW_COLUMNS)
    ranked = "tenant_code, api_year, name, natural_key"
    key = natural_key(connection, table.key, "r.v")
    if not table.applies_deletes:
        tombstones, deleted = "", "CAST(NULL AS TIMESTAMP)"
    else:
        deleted = "d.deleted_at"
        tombstones = f"""LEFT JOIN (
            SELECT tenant_code, api_year, name, {identity(connection)} AS id, max(pull_timestamp) AS deleted_at
            FROM {connection.table(connection.names.deletes)} GROUP BY 1, 2, 3, 4) d
          ON d.tenant_code = r.tenant_code AND d.api_year = r.api_year AND d.name = r.name
          AND d.id = {identity(connection, "r.v")}"""
    return f"""SELECT {", ".join(RAW_COLUMNS)} FROM (
        SELECT *, row_number() OVER (
            PARTITION BY {ranked}
            ORDER BY coalesce(deleted_at, pull_timestamp) DESC, pull_timestamp DESC) AS recency
        FROM (SELECT {columns}, {key} AS natural_key, {deleted} AS deleted_at
              FROM {connection.table(table.name)} r {tombstones}) keyed) ranked
      WHERE recency = 1 AND deleted_at IS NULL"""


def view_sql(connection: Connection, table: RawTable) -> str:
    """The view ``<table>_current``, for people and notebooks."""
    name = connection.table(f"{table.name}_current")
    return f"CREATE OR REPLACE VIEW {name} AS {current_sql(connection, table)}"


def raw_table(connection: Connection, endpoint: Endpoint) -> RawTable:
    """The raw table that an endpoint's records land in."""
    if endpoint.is_descriptor:
        return RawTable(connection.names.descriptors, tuple(endpoint.key.values()), applies_deletes=False)
    return RawTable(endpoint.snake, tuple(endpoint.key.values()))


def current_rows(
    connection: Connection, pair: TenantYear, endpoint: Endpoint, *, sideloads: bool = False
) -> list[tuple[str, str]]:
    """(name, record as JSON text) of one endpoint's current rows; with ``sideloads`` also those bundles put there."""
    where = "tenant_code = ? AND api_year = ? AND " + (
        "(name = ? OR left(name, ?) = ?)" if sideloads else "name = ?"
    )
    prefix = f"{endpoint.snake}__"
    parameters = [*pair, endpoint.snake, *([len(prefix), prefix] if sideloads else [])]
    return [
        (str(name), str(value))
        for name, value in connection.rows(
            f"SELECT name, v FROM ({current_sql(connection, raw_table(connection, endpoint))}) c WHERE {where}",
            parameters,
        )
    ]


def latest_keys(
    connection: Connection, pair: TenantYear, endpoint: Endpoint, ids: Sequence[str]
) -> dict[str, list[str | None]]:
    """id → the parts of the natural key in its latest raw row, for those of ``ids`` that have one."""
    parts = ", ".join(f"{connection.text(path)} AS part_{n}" for n, path in enumerate(endpoint.key.values()))
    found = connection.rows(
        f"""SELECT * EXCLUDE (pull_timestamp) FROM (
            SELECT {identity(connection)} AS id, {parts}, pull_timestamp
            FROM {connection.table(endpoint.snake)} WHERE tenant_code = ? AND api_year = ? AND name = ?) keyed
        WHERE id IN ({", ".join("?" * len(ids))})
        QUALIFY row_number() OVER (PARTITION BY id ORDER BY pull_timestamp DESC) = 1""",
        [*pair, endpoint.snake, *ids],
    )
    return {str(row[0]): list(row[1:]) for row in found}


def descriptor_counts(connection: Connection, pair: TenantYear) -> dict[str, int]:
    """name → current rows of each descriptor endpoint."""
    table = RawTable(connection.names.descriptors, ("namespace", "codeValue"), applies_deletes=False)
    found = connection.rows(
        f"SELECT name, count(*) FROM ({current_sql(connection, table)}) c "
        "WHERE tenant_code = ? AND api_year = ? GROUP BY 1",
        list(pair),
    )
    return {str(name): int(count) for name, count in found}
