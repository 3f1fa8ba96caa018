"""Snowflake's SQL: names, JSON, staged files, and the statements that set a schema up.

Tables are named as Airflow and dbt name them, unquoted and so in capitals. What cannot be bound is a name, which is
quoted, a literal, which is escaped, or a place in a stage, whose characters are from a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edfi_dagster.config.warehouse import UNQUOTED, TableNames, stage_parts
from edfi_dagster.config.warehouse import SnowflakeWarehouse as SnowflakeConfig
from edfi_dagster.warehouse.contract import (
    LEASES,
    LEDGER_ADDITIONS,
    RawTable,
    Texts,
    WarehouseError,
    has_current_view,
    raw_tables,
    side_tables,
)
from edfi_dagster.warehouse.current import view_sql

FILE_FORMAT = "EDFI_DAGSTER_JSON"
INTERNAL_STAGE = "EDFI_DAGSTER_FILES"
FILES_OF_A_COPY = 1000
KEY_CHANGES_COLUMN = "is_key_changes"
LEDGER_COLUMN = "column {} of the change versions"

_RAW_COLUMNS = """tenant_code VARCHAR, api_year INTEGER, pull_date DATE, pull_timestamp TIMESTAMP_NTZ,
file_row_number INTEGER, filename VARCHAR, name VARCHAR, ods_version VARCHAR, data_model_version VARCHAR, v VARIANT"""
_PLACE = re.compile(r"[A-Za-z0-9_.=/-]+")
_PLAIN_STAGE = re.compile(r"""[A-Za-z0-9_$."]*""")
# In a path that PUT reads, * and ? stand for other files.
_WILD = re.compile(r"[*?\[\]\x00-\x1f]")


class SnowflakeDialect:
    """What Snowflake says in its own way; every name is in one database and schema."""

    def __init__(self, database: str, schema: str, names: TableNames) -> None:
        self.names = names
        self._place = f"{identifier(database)}.{identifier(schema)}"
        self.schema = f"{_exactly(stored(database))}.{_exactly(stored(schema))}"

    def table(self, name: str) -> str:
        return f"{self.schema}.{quoted(name)}"

    def qualified(self, name: str) -> str:
        """The name of something that is ours, such as the file format, in quotes only if database or schema need them."""
        return f"{self._place}.{name}"

    def renaming(self, name: str, to: str) -> str:
        return f"ALTER TABLE {self.table(name)} RENAME TO {self.table(to)}"

    def text(self, path: str, column: str = "v") -> str:
        steps = ".".join(_exactly(step) for step in path.split("."))
        return f"{column}:{steps}::VARCHAR"

    def texts(self, paths: Sequence[str], column: str = "v") -> Texts:
        names = tuple(f"text_{n}" for n in range(len(paths)))
        named = (f"{self.text(path, column)} AS {name}" for path, name in zip(paths, names, strict=True))
        return Texts(", ".join(named), names)

    def json(self, column: str = "v") -> str:
        return f"TO_JSON({column})"

    def parsed(self, text: str) -> str:
        return f"PARSE_JSON({text})"

    def same(self, left: str, right: str) -> str:
        return f"TO_JSON({left}) = TO_JSON({right})"

    def now(self) -> str:
        return "SYSDATE()"


def quoted(name: str) -> str:
    """A name that Airflow and dbt write unquoted."""
    return _exactly(name.upper())


def stored(name: str) -> str:
    """What Snowflake calls a database, schema or stage of the configuration: in capitals, if SQL needs no quotes for it."""
    if UNQUOTED.fullmatch(name):
        return name.upper()
    return name[1:-1] if name.startswith('"') else name


def identifier(name: str) -> str:
    """That name for SQL and for signing in, in quotes only if it needs them."""
    found = stored(name)
    return found if UNQUOTED.fullmatch(found) and found == found.upper() else _exactly(found)


def _exactly(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


# -- staged files -----------------------------------------------------------------------------------------


def stage_place(stage: str, path: str) -> str:
    """``@stage/path``, in quotes if the stage's name needs them.

    Raises WarehouseError for a character in ``path`` that would need quotes, which no path of the lake holds.
    """
    if not _PLACE.fullmatch(path) or ".." in path:
        raise WarehouseError(
            f"Snowflake: {path!r} cannot be a path in a stage; use letters, digits, _, . and -"
        )
    place = f"@{stage}/{path}"
    return place if _PLAIN_STAGE.fullmatch(stage) else literal(place)


def stage_name(stage: str) -> str:
    """The stage of the configuration, for SQL. Raises WarehouseError if that is not a name."""
    try:
        return ".".join(map(identifier, stage_parts(stage)))
    except ValueError:
        raise WarehouseError(
            f"Snowflake: {stage!r} is no stage's name; write database.schema.stage"
        ) from None


def put_sql(file: str, place: str) -> str:
    """Upload one local file as it is. Raises WarehouseError for a path that PUT would read as a pattern."""
    if _WILD.search(file):
        raise WarehouseError(
            f"Snowflake: {file!r} cannot be uploaded, because * ? [ ] stand for other files there; rename the folder"
        )
    compression = "ZSTD" if file.endswith(".zst") else "GZIP"
    escaped = file.replace("\\", "\\\\").replace("'", "\\'")
    return f"PUT 'file://{escaped}' {place} AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = {compression} OVERWRITE = TRUE"


def copy_sql(into: str, place: str, files: Sequence[str], file_format: str) -> str:
    """Load the lines of at most 1000 files below ``place`` into ``into`` (v, filename, file_row_number)."""
    assert len(files) <= FILES_OF_A_COPY
    for file in files:
        stage_place("", file)
    return f"""COPY INTO {into} (v, filename, file_row_number)
FROM (SELECT $1, metadata$filename, metadata$file_row_number FROM {place})
FILES = ({", ".join(map(literal, files))})
FILE_FORMAT = (FORMAT_NAME = {literal(file_format)})
ON_ERROR = ABORT_STATEMENT FORCE = TRUE"""


def staged_view_sql(name: str, lines: str, paths: Mapping[str, str], orders: Mapping[str, int]) -> str:
    """View ``name`` of the loaded ``lines``; ``paths``: name in the stage → path in the lake, → its place in ``orders``."""
    if not paths:
        return (
            f"CREATE OR REPLACE TEMPORARY VIEW {name} AS SELECT v, filename, file_row_number, "
            f"file_row_number AS read_order FROM {lines}"
        )
    known = ", ".join(
        f"({literal(staged)}, {literal(path)}, {orders[path]})" for staged, path in paths.items()
    )
    return f"""CREATE OR REPLACE TEMPORARY VIEW {name} AS
SELECT l.v, p.path AS filename, l.file_row_number, p.place * 10000000000 + l.file_row_number AS read_order
FROM {lines} l
JOIN (SELECT column1 AS staged, column2 AS path, column3 AS place FROM VALUES {known}) p ON p.staged = l.filename"""


# -- setting up -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Making:
    """A statement that makes table or view ``name``, or what belongs with it; harmless where that is there already."""

    name: str
    statement: str


def makings(
    dialect: SnowflakeDialect, tables: Sequence[RawTable], *, is_local_lake: bool
) -> Iterator[Making]:
    """What makes the schema and all that is in it, in order. What no table is for belongs with the leases."""
    yield Making(LEASES, f"CREATE SCHEMA IF NOT EXISTS {dialect.schema}")
    yield Making(
        LEASES,
        f"CREATE FILE FORMAT IF NOT EXISTS {dialect.table(FILE_FORMAT)} TYPE = JSON COMPRESSION = AUTO "
        "STRIP_OUTER_ARRAY = FALSE STRIP_NULL_VALUES = FALSE",
    )
    if is_local_lake:
        yield Making(LEASES, f"CREATE STAGE IF NOT EXISTS {dialect.table(INTERNAL_STAGE)}")
    wanted = raw_tables(tables, dialect.names)
    columns = {table.name: _RAW_COLUMNS for table in wanted} | side_tables(
        dialect.names, json="VARIANT", timestamp="TIMESTAMP_NTZ"
    )
    for name, definition in columns.items():
        yield Making(name, f"CREATE TABLE IF NOT EXISTS {dialect.table(name)} ({definition})")
    versions = dialect.table(dialect.names.change_versions)
    for column, kind in LEDGER_ADDITIONS.items():
        adding = f"ALTER TABLE {versions} ADD COLUMN IF NOT EXISTS {column} {kind}"
        yield Making(LEDGER_COLUMN.format(column), adding)
    for table in wanted:
        if has_current_view(table, dialect.names):
            yield Making(f"{table.name}_current", view_sql(dialect, table, options="COPY GRANTS"))


def grant_comments(
    config: SnowflakeConfig, dialect: SnowflakeDialect, lake_uri: str, *, is_local_lake: bool
) -> Iterator[str]:
    """What an administrator does once, as comments: the stage of a remote lake, and what the loading role needs."""
    role = quoted(config.role or "<role>")
    yield f"-- GRANT USAGE ON WAREHOUSE {quoted(config.warehouse or '<warehouse>')} TO ROLE {role}"
    database = _exactly(stored(config.database))
    yield f"-- GRANT USAGE ON DATABASE {database} TO ROLE {role}"
    yield f"-- GRANT USAGE, CREATE TABLE, CREATE VIEW ON SCHEMA {dialect.schema} TO ROLE {role}"
    for which in ("ALL", "FUTURE"):
        rights = "SELECT, INSERT, UPDATE, DELETE"
        yield f"-- GRANT {rights} ON {which} TABLES IN SCHEMA {dialect.schema} TO ROLE {role}"
        # A view that a role may not read is not in its information_schema, and would seem to be missing.
        yield f"-- GRANT SELECT ON {which} VIEWS IN SCHEMA {dialect.schema} TO ROLE {role}"
    yield f"-- GRANT USAGE ON FILE FORMAT {dialect.table(FILE_FORMAT)} TO ROLE {role}"
    if is_local_lake:
        yield f"-- GRANT READ, WRITE ON STAGE {dialect.table(INTERNAL_STAGE)} TO ROLE {role}"
        return
    stage, parts = stage_name(config.stage), list(map(identifier, stage_parts(config.stage)))
    yield (
        f"-- CREATE STAGE IF NOT EXISTS {stage} URL = {literal(lake_uri.rstrip('/') + '/')} "
        "STORAGE_INTEGRATION = <integration>"
    )
    if len(parts) == 3 and parts[0] != identifier(config.database):
        yield f"-- GRANT USAGE ON DATABASE {parts[0]} TO ROLE {role}"
    if len(parts) > 1:
        yield f"-- GRANT USAGE ON SCHEMA {'.'.join(parts[:-1])} TO ROLE {role}"
    yield f"-- GRANT USAGE ON STAGE {stage} TO ROLE {role}"
