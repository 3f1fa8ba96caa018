"""The raw tables in one DuckDB file.

DuckDB lets one process at a time write a file. So the file is open only while somebody works with it, under a
lock file whose wait is bounded and told: ``status``, a second run or a notebook work beside a run.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from edfi_dagster.config import TenantYear
from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.manifest import PulledFile
from edfi_dagster.lake.proof import local_copies
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.warehouse.contract import (
    LEDGER_ADDITIONS,
    LONGEST_WAIT_SECONDS,
    LeaseTerms,
    RawTable,
    Texts,
    Waiting,
    WarehouseError,
    has_current_view,
    raw_tables,
    side_tables,
)
from edfi_dagster.warehouse.current import view_sql
from edfi_dagster.warehouse.table_roles import check_names, drop_stale_views, note_names

if TYPE_CHECKING:
    import pandas as pd

_TELL_AFTER_SECONDS = 5.0
_FETCHED_AT_ONCE = 2000
_WILD = re.compile(r"[*?\[]")

_RAW = """(tenant_code VARCHAR, api_year INTEGER, pull_date DATE, pull_timestamp TIMESTAMP, file_row_number BIGINT,
filename VARCHAR, name VARCHAR, ods_version VARCHAR, data_model_version VARCHAR, v JSON)"""


class DuckDBConnection:
    """A session with an open DuckDB file."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, schema: str, names: TableNames, lake: LakeStore
    ) -> None:
        self.names = names
        self._cursor = cursor
        self._schema = schema
        self._lake = lake

    def table(self, name: str) -> str:
        return f"{_quoted(self._schema)}.{_quoted(name)}"

    def renaming(self, name: str, to: str) -> str:
        return f"ALTER TABLE {self.table(name)} RENAME TO {_quoted(to)}"

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._execute(sql, parameters).fetchall()

    def each(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        found = self._execute(sql, parameters)
        while batch := found.fetchmany(_FETCHED_AT_ONCE):
            yield from batch

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        result = self._execute(sql, parameters).fetchone()
        return int(result[0]) if result and isinstance(result[0], int) else 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._execute("BEGIN")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            self._rollback()
            raise

    def stage(self, name: str, files: Sequence[PulledFile]) -> int:
        empty = "SELECT NULL::JSON AS v, NULL::VARCHAR AS path, 0::BIGINT AS read_order WHERE FALSE"
        lines, paths = _quoted(f"{name}_lines"), _quoted(f"{name}_paths")
        names = [file.path for file in files]
        with local_copies(self._lake, files) as local:
            places = [str(place) for place in local]
            source = _lines(places) if places else empty
            self._execute(f"CREATE OR REPLACE TEMP TABLE {lines} AS {source}")
        self._execute(f"CREATE OR REPLACE TEMP TABLE {paths} (path VARCHAR, filename VARCHAR, first BIGINT)")
        if files:
            self._execute(
                f"INSERT INTO {paths} SELECT n.path, n.filename, min(l.read_order) "
                f"FROM (VALUES {', '.join(['(?, ?)'] * len(files))}) n(path, filename) "
                f"JOIN {lines} l ON l.path = n.path GROUP BY ALL",
                [value for pair in zip(places, names, strict=True) for value in pair],
            )
        self._execute(
            f"""CREATE OR REPLACE TEMP VIEW {_quoted(name)} AS
            SELECT l.v, p.filename, l.read_order, l.read_order - p.first + 1 AS file_row_number
            FROM {lines} l JOIN {paths} p USING (path)"""
        )
        ((staged,),) = self.rows(f"SELECT count(*) FROM {_quoted(name)}")
        return int(staged)

    def text(self, path: str, column: str = "v") -> str:
        return f"json_extract_string({column}, {_json_path(path)})"

    def texts(self, paths: Sequence[str], column: str = "v") -> Texts:
        select = f"json_extract_string({column}, [{', '.join(map(_json_path, paths))}]) AS texts"
        return Texts(select, tuple(f"texts[{n + 1}]" for n in range(len(paths))))

    def json(self, column: str = "v") -> str:
        return f"{column}::VARCHAR"

    def parsed(self, text: str) -> str:
        return f"CAST({text} AS JSON)"

    def same(self, left: str, right: str) -> str:
        return f"{left}::VARCHAR = {right}::VARCHAR"

    def now(self) -> str:
        return f"TIMESTAMP '{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}'"

    def replace_partition(self, name: str, frame: pd.DataFrame, pair: TenantYear) -> None:
        table = self.table(name)
        self._cursor.register("replacing_frame", frame)
        try:
            with self.transaction():
                self.run(f"CREATE TABLE IF NOT EXISTS {table} AS SELECT * FROM replacing_frame LIMIT 0")
                self.run(f"DELETE FROM {table} WHERE tenant_code = ? AND api_year = ?", list(pair))
                self.run(f"INSERT INTO {table} BY NAME SELECT * FROM replacing_frame")
        finally:
            self._cursor.unregister("replacing_frame")

    def _execute(self, sql: str, parameters: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
        try:
            return self._cursor.execute(sql, list(parameters))
        except duckdb.Error as error:
            raise _explained(error) from None

    def _rollback(self) -> None:
        try:
            self._cursor.execute("ROLLBACK")
        except duckdb.TransactionException:
            return  # the failed statement has already ended the transaction


class DuckDBWarehouse:
    """Raw tables in one schema of one DuckDB file."""

    lease_terms = LeaseTerms()
    loads_at_once = 1  # one process writes the file, and each of its statements has all cores

    def __init__(
        self,
        path: Path,
        schema: str,
        names: TableNames,
        lake: LakeStore,
        *,
        waiting: Waiting | None = None,
        longest_wait: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        self._path = path
        self._schema = schema
        self._names = names
        self._lake = lake
        self._waiting = waiting or (lambda sentence: None)
        self._longest_wait = longest_wait
        self._guard = threading.Lock()
        self._users = 0
        self._database: duckdb.DuckDBPyConnection | None = None
        self._lock_file: int | None = None

    @contextmanager
    def connected(self) -> Iterator[DuckDBConnection]:
        """A session; the file is opened for the first user of this process and closed after the last.

        Raises WarehouseError when another process keeps the file longer than ``longest_wait`` seconds.
        """
        with self._guard:
            if self._users == 0:
                self._open()
            self._users += 1
            assert self._database is not None
            cursor = self._database.cursor()
        try:
            yield DuckDBConnection(cursor, self._schema, self._names, self._lake)
        finally:
            cursor.close()
            with self._guard:
                self._users -= 1
                if self._users == 0:
                    self._close()

    def prepare(self, tables: Sequence[RawTable]) -> list[str]:
        with self.connected() as connection:
            found = self._found(connection, all_must_exist=True)
            found = drop_stale_views(connection, self._names, found)
            raw = raw_tables(tables, self._names)
            beside = side_tables(self._names, json="JSON", timestamp="TIMESTAMP")
            views = {f"{table.name}_current" for table in raw if has_current_view(table, self._names)}
            if not found >= {*(table.name for table in raw), *views, *beside, *LEDGER_ADDITIONS}:
                self._make(connection, tables)
            note_names(connection, self._names)
            return [table.name for table in raw if table.name not in found]

    def setup(self, tables: Sequence[RawTable]) -> None:
        with self.connected() as connection:
            self._found(connection, all_must_exist=False)
            self._make(connection, tables)

    def _make(self, connection: DuckDBConnection, tables: Sequence[RawTable]) -> None:
        with connection.transaction():
            for statement in self._makings(connection, tables):
                connection.run(statement)

    def _found(self, connection: DuckDBConnection, *, all_must_exist: bool) -> set[str]:
        """The names of tables and views in the schema, and the columns of the ledger.

        Raises WarehouseError where the rows of a shared table lie under another name.
        """
        found = connection.rows(
            """SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = ?
            UNION ALL SELECT column_name, 'COLUMN' FROM information_schema.columns
            WHERE table_schema = ? AND table_name = ?""",
            [self._schema, self._schema, self._names.change_versions],
        )
        made = {str(name).lower() for name, kind in found if kind == "BASE TABLE"}
        check_names(connection, self._names, made, all_must_exist=all_must_exist)
        return {str(name) for name, _ in found}

    def setup_statements(self, tables: Sequence[RawTable]) -> list[str]:
        with closing(duckdb.connect()) as nowhere:
            dialect = DuckDBConnection(nowhere, self._schema, self._names, self._lake)
            return list(self._makings(dialect, tables))

    def close(self) -> None:
        """The file is closed already: after its last user."""

    def _makings(self, dialect: DuckDBConnection, tables: Sequence[RawTable]) -> Iterator[str]:
        names, raw = self._names, raw_tables(tables, self._names)
        yield f"CREATE SCHEMA IF NOT EXISTS {_quoted(self._schema)}"
        for table in raw:
            yield f"CREATE TABLE IF NOT EXISTS {dialect.table(table.name)} {_RAW}"
        for name, columns in side_tables(names, json="JSON", timestamp="TIMESTAMP").items():
            yield f"CREATE TABLE IF NOT EXISTS {dialect.table(name)} ({columns})"
        versions = dialect.table(names.change_versions)
        for column, kind in LEDGER_ADDITIONS.items():
            yield f"ALTER TABLE {versions} ADD COLUMN IF NOT EXISTS {column} {kind}"
        for table in raw:
            if has_current_view(table, names):
                yield view_sql(dialect, table)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        lock = self._locked(started)
        try:
            self._database = self._connect(started)
        except BaseException:
            os.close(lock)
            raise
        self._lock_file = lock

    def _connect(self, started: float) -> duckdb.DuckDBPyConnection:
        """Open the file, waiting for a program that is none of ours (a notebook, a shell) to close it."""
        told = False
        while True:
            try:
                return duckdb.connect(str(self._path))
            except duckdb.Error as error:
                if "Could not set lock" not in str(error) or time.monotonic() - started > self._longest_wait:
                    raise WarehouseError(
                        f"warehouse {self._path} cannot be opened: {_first_line(error)}; "
                        "close the program that has it open, or check the disk"
                    ) from None
            told = told or self._tell_waiting(time.monotonic() - started)
            time.sleep(0.25)

    def _locked(self, started: float) -> int:
        """The lock of the file, taken in the order of asking: who holds the turn is next, so nobody is starved."""
        opened: list[int] = []
        try:
            for suffix in ("turn", "lock"):
                path = self._path.with_name(f"{self._path.name}.{suffix}")
                opened.append(os.open(path, os.O_CREAT | os.O_RDWR, 0o644))
                self._wait_for(opened[-1], started)
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise
        turn, lock = opened
        os.close(turn)
        return lock

    def _wait_for(self, lock: int, started: float) -> None:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                waited = time.monotonic() - started
            if waited > self._longest_wait:
                raise WarehouseError(
                    f"another process has kept warehouse {self._path} for {waited:.0f} s; "
                    "end it, or use Snowflake where many runs must write at once"
                )
            told = told or self._tell_waiting(waited)
            time.sleep(0.05)

    def _tell_waiting(self, waited: float) -> bool:
        """Say once, after a while, what is being waited for."""
        if waited > _TELL_AFTER_SECONDS:
            self._waiting(f"waiting for another process to finish with warehouse {self._path}")
            return True
        return False

    def _close(self) -> None:
        database, self._database = self._database, None
        lock, self._lock_file = self._lock_file, None
        try:
            if database is not None:
                database.close()
        finally:
            if lock is not None:
                os.close(lock)


def _lines(places: Sequence[str]) -> str:
    # In brackets, what would stand for other files stands for itself.
    listed = ", ".join(_literal(_WILD.sub(r"[\g<0>]", place)) for place in places)
    compression = "zstd" if places[0].endswith(".zst") else "gzip"
    return (
        "SELECT json AS v, filename AS path, row_number() OVER () AS read_order "
        f"FROM read_json_objects([{listed}], format='newline_delimited', compression='{compression}', "
        "filename=true, hive_partitioning=false, maximum_object_size=268435456)"
    )


def _json_path(path: str) -> str:
    return _literal("$." + ".".join(f'"{step}"' for step in path.split(".")))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _explained(error: duckdb.Error) -> WarehouseError:
    """Our error for one of DuckDB's, which may quote the row it stumbled over and so is not passed on."""
    speaks_of_rows = isinstance(error, (duckdb.DataError, duckdb.InvalidInputException))
    return WarehouseError(
        f"DuckDB: {type(error).__name__}" + ("" if speaks_of_rows else f": {_first_line(error)}")
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
