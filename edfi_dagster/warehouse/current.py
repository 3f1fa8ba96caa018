"""Current rows: what a consumer should see of an endpoint.

The latest row of every id that has no tombstone. A load takes away the rows of ids that the ODS replaced, so no natural
key is needed to tell records apart, and none can be wrong: not that of another data standard, and not ours. Rows
without an id, as sideloads have them, are told apart by natural key. The dbt packages stage the same rows
(warehouse.md 1.4), because an id's rows of an older natural key are taken away as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.warehouse.contract import RAW_COLUMNS, Connection, Dialect, RawTable

_ID_SPELLINGS = ("id", "Id", "ID")
_SAID_AT_ONCE = 100
# Of more values only the property is looked for: every hundred of them is a scan of the table.
_MOST_SAID = 1_000
# Snowflake takes 16,384 values in one list.
_IDS_OF_A_QUERY = 500


def identity(dialect: Dialect, column: str = "v") -> str:
    """SQL for a record's or tombstone's id: 32 lower-case hex digits, however it is written."""
    return _identity([dialect.text(spelling, column) for spelling in _ID_SPELLINGS])


def keyed(dialect: Dialect, source: str, key: Sequence[str], keep: Sequence[str], *, where: str = "") -> str:
    """A query of ``source``: the columns ``keep``, ``id``, ``natural_key`` and ``folded``.

    ``key`` holds the JSON paths of the natural key, which becomes one text, compared exactly; the id where it is
    not known. ``folded`` is the same without case and trailing blanks: two keys that a database may take for one.
    Each record is parsed once, however many parts its key has.
    """
    texts = dialect.texts([*_ID_SPELLINGS, *key])
    own = _identity(texts.each[:3])
    natural_key = folded = own
    if key:
        parts = texts.each[3:]
        missing = " OR ".join(f"{part} IS NULL" for part in parts)
        # A part that is missing means that the record is not of the shape we know: then no two may be taken for one.
        natural_key = f"CASE WHEN {missing} THEN {own} ELSE concat_ws(chr(31), {', '.join(parts)}) END"
        trimmed = ", ".join(f"rtrim({part})" for part in parts)
        folded = f"CASE WHEN {missing} THEN {own} ELSE lower(concat_ws(chr(31), {trimmed})) END"
    columns = ", ".join(keep)
    return f"""SELECT {columns}, {own} AS id, {natural_key} AS natural_key, {folded} AS folded
        FROM (SELECT {columns}, {texts.select} FROM {source} {where}) parsed"""


def _identity(spellings: Sequence[str]) -> str:
    return f"lower(replace(coalesce({', '.join(spellings)}), '-', ''))"


def current_sql(dialect: Dialect, table: RawTable) -> str:
    """A query for the current rows of all pairs and names in a raw table: the ten columns."""
    columns = ", ".join(f"r.{column}" for column in RAW_COLUMNS)
    rows = keyed(dialect, dialect.table(table.name), table.key, RAW_COLUMNS)
    # No tombstone, but of the right type.
    tombstones, deleted = "", "CASE WHEN FALSE THEN r.pull_timestamp END"
    if table.applies_deletes:
        deleted = "d.deleted_at"
        tombstones = f"""LEFT JOIN (
            SELECT tenant_code, api_year, name, {identity(dialect)} AS id, max(pull_timestamp) AS deleted_at
            FROM {dialect.table(dialect.names.deletes)} GROUP BY 1, 2, 3, 4) d
          ON d.tenant_code = r.tenant_code AND d.api_year = r.api_year AND d.name = r.name AND d.id = r.id"""
    return f"""SELECT {", ".join(RAW_COLUMNS)} FROM (
        SELECT *, row_number() OVER (
            PARTITION BY tenant_code, api_year, name, record ORDER BY pull_timestamp DESC) AS recency
        FROM (SELECT {columns}, coalesce(r.id, r.natural_key, {dialect.json("r.v")}) AS record, {deleted} AS deleted_at
              FROM ({rows}) r {tombstones}) stamped) ranked
      WHERE recency = 1 AND deleted_at IS NULL"""


def view_sql(dialect: Dialect, table: RawTable, *, options: str = "") -> str:
    """The view ``<table>_current``, for people and notebooks; ``options`` stand between its name and AS."""
    name = dialect.table(f"{table.name}_current")
    return f"CREATE OR REPLACE VIEW {name} {options} AS {current_sql(dialect, table)}"


def raw_table(connection: Connection, endpoint: Endpoint) -> RawTable:
    """The raw table that an endpoint's records land in."""
    if endpoint.is_descriptor:
        return RawTable(connection.names.descriptors, tuple(endpoint.key.values()), applies_deletes=False)
    return RawTable(endpoint.snake, tuple(endpoint.key.values()))


def current_rows(
    connection: Connection, pair: TenantYear, endpoint: Endpoint, *, sideloads: bool = False
) -> Iterator[tuple[str, str]]:
    """(name, record as JSON text) of one endpoint's current rows; with ``sideloads`` also those bundles put there."""
    prefix = f"{endpoint.snake}__"
    named = f"(name = ? OR left(name, {len(prefix)}) = ?)" if sideloads else "name = ?"
    for name, value in connection.each(
        f"SELECT name, {connection.json()} FROM ({current_sql(connection, raw_table(connection, endpoint))}) c "
        f"WHERE tenant_code = ? AND api_year = ? AND {named}",
        [*pair, endpoint.snake, *([prefix] if sideloads else [])],
    ):
        yield str(name), str(value)


def latest_keys(
    connection: Connection, pair: TenantYear, endpoint: Endpoint, ids: Sequence[str]
) -> dict[str, list[str | None]]:
    """id → the parts of the natural key in its latest raw row, for those of ``ids`` that have one."""
    names = [f"part_{n}" for n in range(len(endpoint.key))]
    parts = [
        f"{connection.text(path)} AS {name}" for path, name in zip(endpoint.key.values(), names, strict=True)
    ]
    found = connection.rows(
        f"""SELECT {", ".join(["id", *names])} FROM (
            SELECT {", ".join([f"{identity(connection)} AS id", *parts, "pull_timestamp"])}
            FROM {connection.table(endpoint.snake)} WHERE tenant_code = ? AND api_year = ? AND name = ?) keyed
        WHERE id IN ({", ".join("?" * len(ids))})
        QUALIFY row_number() OVER (PARTITION BY id ORDER BY pull_timestamp DESC) = 1""",
        [*pair, endpoint.snake, *ids],
    )
    return {str(row[0]): list(row[1:]) for row in found}


def settled_ids(
    connection: Connection, pair: TenantYear, endpoint: Endpoint, key_changes: Mapping[str, int]
) -> set[str]:
    """Those ids (id → change version of the key change) that have a tombstone, or whose key change was loaded before."""
    ids = list(key_changes)
    where = f"tenant_code = ? AND api_year = ? AND name = ? AND {identity(connection)} IN ({', '.join('?' * len(ids))})"
    names = connection.names
    found = connection.rows(
        f"""SELECT {identity(connection)}, NULL FROM {connection.table(names.deletes)} WHERE {where}
        UNION ALL SELECT {identity(connection)}, {connection.text("changeVersion")}
        FROM {connection.table(names.key_changes)} WHERE {where}""",
        [*pair, endpoint.snake, *ids] * 2,
    )
    return {
        record_id for record_id, version in found if version is None or int(version) == key_changes[record_id]
    }


def seen_key_changes(
    connection: Connection, pair: TenantYear, changed: Endpoint, ids: Sequence[str], *, by: Endpoint
) -> set[tuple[str, int]]:
    """(id, change version) of key changes loaded no later than another endpoint's last key changes were."""
    names = connection.names
    found: set[tuple[str, int]] = set()
    for start in range(0, len(ids), _IDS_OF_A_QUERY):
        batch = ids[start : start + _IDS_OF_A_QUERY]
        rows = connection.rows(
            f"""SELECT {identity(connection)}, {connection.text("changeVersion")}
            FROM {connection.table(names.key_changes)} WHERE tenant_code = ? AND api_year = ? AND name = ?
              AND {identity(connection)} IN ({", ".join("?" * len(batch))})
              AND pull_timestamp <= (SELECT max(pull_timestamp) FROM {connection.table(names.change_versions)}
                WHERE tenant_code = ? AND api_year = ? AND name = ? AND is_key_changes)""",
            [*pair, changed.snake, *batch, *pair, by.snake],
        )
        found.update((str(record_id), int(version)) for record_id, version in rows)
    return found


def ids_that_say(
    connection: Connection, pair: TenantYear, endpoint: Endpoint, said: Sequence[tuple[str, str]]
) -> list[str]:
    """The ids whose latest raw row says one of these (property, JSON text) anywhere in it.

    Of very many values, the ids whose latest raw row has the property.
    """
    texts = [f'"{name}":{value}' for name, value in said]
    if len(said) > _MOST_SAID:
        texts = [f'"{name}":' for name in sorted({name for name, _ in said})]
    text = f"replace({connection.json()}, '\": ', '\":')"
    latest = f"""SELECT {identity(connection)} AS id, {text} AS said FROM {connection.table(endpoint.snake)}
      WHERE tenant_code = ? AND api_year = ? AND name = ?
      QUALIFY row_number() OVER (PARTITION BY {identity(connection)} ORDER BY pull_timestamp DESC) = 1"""
    found: set[str] = set()
    for start in range(0, len(texts), _SAID_AT_ONCE):
        batch = texts[start : start + _SAID_AT_ONCE]
        where = " OR ".join(["contains(said, ?)"] * len(batch))
        rows = connection.rows(f"SELECT id FROM ({latest}) l WHERE {where}", [*pair, endpoint.snake, *batch])
        found.update(str(record_id) for (record_id,) in rows)
    return sorted(found)


def descriptor_counts(connection: Connection, pair: TenantYear) -> dict[str, int]:
    """name → current rows of each descriptor endpoint."""
    table = RawTable(connection.names.descriptors, ("namespace", "codeValue"), applies_deletes=False)
    found = connection.rows(
        f"SELECT name, count(*) FROM ({current_sql(connection, table)}) c "
        "WHERE tenant_code = ? AND api_year = ? GROUP BY 1",
        list(pair),
    )
    return {str(name): int(count) for name, count in found}
