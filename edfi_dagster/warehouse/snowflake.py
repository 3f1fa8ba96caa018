"""The raw tables in one schema of a Snowflake account.

The same SQL as in DuckDB, but for what ``SnowflakeDialect`` says. Files are loaded by COPY from a stage at the lake's
root; those of a local lake are uploaded to an internal stage first. Sessions are few and reused.
"""

from __future__ import annotations

import json
import posixpath
import threading
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edfi_dagster.config import TenantYear
from edfi_dagster.config.warehouse import SnowflakeWarehouse as SnowflakeConfig
from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.manifest import PulledFile
from edfi_dagster.lake.proof import local_copies, unchanged
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.warehouse import snowflake_sql as sql
from edfi_dagster.warehouse.contract import (
    LeaseTerms,
    RawTable,
    WarehouseError,
    raw_tables,
)
from edfi_dagster.warehouse.snowflake_session import COMMIT_SECONDS, Session
from edfi_dagster.warehouse.snowflake_sign_in import sign_in, statement_seconds
from edfi_dagster.warehouse.snowflake_sql import SnowflakeDialect
from edfi_dagster.warehouse.table_roles import check_names, drop_stale_views, note_names

if TYPE_CHECKING:
    import pandas as pd

_IDLE_SESSIONS = 4
_RENEWED_EVERY = 60.0
_ASKED_EVERY = 10.0
# Renewals that may fail, or clocks' drift, before a run must stop writing.
_LEASE_TO_SPARE = 4 * _RENEWED_EVERY


class SnowflakeConnection(SnowflakeDialect):
    """A session lent to one piece of work."""

    def __init__(self, session: Session, config: SnowflakeConfig, names: TableNames, lake: LakeStore) -> None:
        super().__init__(config.database, config.schema_name, names)
        self._session = session
        self._config = config
        self._lake = lake

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return list(self._session.each(sql, parameters))

    def each(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        return self._session.each(sql, parameters)

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return self._session.execute(sql, parameters).rowcount or 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            self._session.begin()
            yield
            self._session.commit()
        except BaseException:
            self._session.rollback()
            raise

    def stage(self, name: str, files: Sequence[PulledFile]) -> int:
        """As the contract says. Raises WarehouseError where a loaded file is none of those asked for, LakeError."""
        lines = f"{name}_files"
        columns = "v VARIANT, filename VARCHAR, file_row_number INTEGER"
        self.run(f"CREATE OR REPLACE TEMPORARY TABLE {lines} ({columns})")
        paths = [file.path for file in files]
        if paths:
            self._load(lines, files)
        counted = self.rows(f"SELECT filename, count(*) FROM {lines} GROUP BY 1") if paths else []
        names = {str(staged): _lake_path(str(staged), paths) for staged, _ in counted}
        self.run(sql.staged_view_sql(name, lines, names, {path: n for n, path in enumerate(paths)}))
        return sum(int(count) for _, count in counted)

    def _load(self, lines: str, files: Sequence[PulledFile]) -> None:
        paths = [file.path for file in files]
        if not is_local(self._lake):
            with unchanged(self._lake, files):
                self._copy_all(lines, sql.stage_name(self._config.stage), "", paths)
            return
        stage, folder = self.table(sql.INTERNAL_STAGE), f"{uuid.uuid4().hex}/"
        try:
            with local_copies(self._lake, files) as local:
                for path, file in zip(paths, local, strict=True):
                    place = sql.stage_place(stage, f"{folder}{posixpath.dirname(path)}/")
                    self._put(sql.put_sql(str(file), place))
            self._copy_all(lines, stage, folder, paths)
        finally:
            # What stays behind costs room, but the load is as good or bad without it.
            with suppress(WarehouseError):
                self.run(f"REMOVE {sql.stage_place(stage, folder)}")

    def _put(self, statement: str) -> None:
        try:
            self.run(statement)
        except WarehouseError as error:
            if "does not exist" not in str(error):
                raise
            raise WarehouseError(
                f"{error}; a schema made for a lake on S3 has no stage for local files: run edfi-dagster setup-warehouse"
            ) from None

    def _copy_all(self, lines: str, stage: str, folder: str, paths: Sequence[str]) -> None:
        root = posixpath.commonpath([posixpath.dirname(path) for path in paths])
        place = sql.stage_place(stage, f"{folder}{root}/")
        file_format = self.qualified(sql.FILE_FORMAT)
        files = [posixpath.relpath(path, root) for path in paths]
        for start in range(0, len(files), sql.FILES_OF_A_COPY):
            batch = files[start : start + sql.FILES_OF_A_COPY]
            self.run(sql.copy_sql(lines, place, batch, file_format))

    def replace_partition(self, name: str, frame: pd.DataFrame, pair: TenantYear) -> None:
        table, incoming = self.table(name), "incoming_frame"
        types = {sql.quoted(str(column)): _column_type(frame[column]) for column in frame.columns}
        columns = ", ".join(f"{column} {kind}" for column, kind in types.items())
        listed = ", ".join(types)
        self.run(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
        self.run(f"CREATE OR REPLACE TEMPORARY TABLE {incoming} ({columns})")
        if len(frame):
            marks = ", ".join("?" * len(types))
            self._session.execute_many(
                f"INSERT INTO {incoming} ({listed}) VALUES ({marks})", _bound_rows(frame)
            )
        with self.transaction():
            self.run(f"DELETE FROM {table} WHERE tenant_code = ? AND api_year = ?", list(pair))
            self.run(f"INSERT INTO {table} ({listed}) SELECT {listed} FROM {incoming}")


class SnowflakeWarehouse:
    """Raw tables in one schema. ``tag`` (tenant, year, run) is on every statement in QUERY_HISTORY.

    A statement, and a transaction until its commit, may take as long as STATEMENT_TIMEOUT_IN_SECONDS of the session
    parameters says, ten minutes without it; a lease outlasts that, so that it is still held when a commit is answered.
    """

    def __init__(
        self,
        config: SnowflakeConfig,
        names: TableNames,
        lake: LakeStore,
        *,
        tag: Mapping[str, object] | None = None,
    ) -> None:
        self._config = config
        self._names = names
        self._lake = lake
        self._tag = dict(tag or {})
        self._seconds = statement_seconds(config)
        self._dialect = SnowflakeDialect(config.database, config.schema_name, names)
        self._guard = threading.Lock()
        self._idle: list[Session] = []
        self._ended = weakref.finalize(self, _close_all, self._idle)

    @property
    def lease_terms(self) -> LeaseTerms:
        # A commit is sent again for as long as it may take, and may take that long when it has arrived.
        longest = float(self._seconds + 2 * COMMIT_SECONDS)
        return LeaseTerms(longest + _LEASE_TO_SPARE, _RENEWED_EVERY, _ASKED_EVERY, longest)

    @property
    def loads_at_once(self) -> int:
        return _IDLE_SESSIONS

    @contextmanager
    def connected(self) -> Iterator[SnowflakeConnection]:
        """A session of its own, signed in to with its first statement. Raises WarehouseError from there on."""
        with self._guard:
            session = self._idle.pop() if self._idle else Session(self._sign_in, self._seconds)
        session.borrow()
        try:
            yield SnowflakeConnection(session, self._config, self._names, self._lake)
        finally:
            self._give_back(session)

    def prepare(self, tables: Sequence[RawTable]) -> list[str]:
        """Make the tables and views that are missing; the names of the tables made.

        Raises WarehouseError where ``_meta_change_versions`` is one that Airflow made without ``is_key_changes``, as
        its owner adds that (``setup``), where the role may not make what is missing, or where rows lie under another name.
        """
        with self.connected() as connection:
            found = self._found(connection, all_must_exist=True)
            found = drop_stale_views(connection, self._names, found)
            versions = self._names.change_versions
            key_changes = sql.LEDGER_COLUMN.format(sql.KEY_CHANGES_COLUMN)
            if versions.lower() in found and key_changes not in found:
                raise WarehouseError(
                    f"table {self._dialect.table(versions)} has no column is_key_changes; run edfi-dagster "
                    "setup-warehouse, which adds it"
                )
            self._make(connection, tables, found | {key_changes})
            note_names(connection, self._names)
            return [t.name for t in raw_tables(tables, self._names) if t.name.lower() not in found]

    def setup(self, tables: Sequence[RawTable]) -> None:
        with self.connected() as connection:
            self._found(connection, all_must_exist=False)
            self._make(connection, tables, set())

    def setup_statements(self, tables: Sequence[RawTable]) -> list[str]:
        local = is_local(self._lake)
        uri = self._lake.uri("")
        return [
            *(making.statement for making in sql.makings(self._dialect, tables, is_local_lake=local)),
            *sql.grant_comments(self._config, self._dialect, uri, is_local_lake=local),
        ]

    def close(self) -> None:
        with self._guard:
            sessions, self._idle[:] = list(self._idle), []
        _close_all(sessions)

    def _make(self, connection: SnowflakeConnection, tables: Sequence[RawTable], found: set[str]) -> None:
        """Make what is not ``found``."""
        for making in sql.makings(self._dialect, tables, is_local_lake=is_local(self._lake)):
            if making.name.lower() in found:
                continue
            try:
                _run_ddl(connection, making.statement)
            except WarehouseError as error:
                raise WarehouseError(
                    f"{error}; run edfi-dagster setup-warehouse with a role that may make {making.name}"
                ) from None

    def _found(self, connection: SnowflakeConnection, *, all_must_exist: bool) -> set[str]:
        """The names of tables and views in the schema, and the columns of the ledger.

        Raises WarehouseError where the rows of a shared table lie under another name.
        """
        catalogue = f"{sql.identifier(self._config.database)}.information_schema"
        schema = sql.stored(self._config.schema_name)
        found = connection.rows(
            f"""SELECT lower(table_name), table_type FROM {catalogue}.tables WHERE table_schema = ?
            UNION ALL SELECT lower(table_name), 'VIEW' FROM {catalogue}.views WHERE table_schema = ?
            UNION ALL SELECT lower(column_name), 'COLUMN' FROM {catalogue}.columns
            WHERE table_schema = ? AND table_name = ?""",
            [*[schema] * 3, self._names.change_versions.upper()],
        )
        made = {str(name) for name, kind in found if kind == "BASE TABLE"}
        check_names(connection, self._names, made, all_must_exist=all_must_exist)
        return {sql.LEDGER_COLUMN.format(name) if kind == "COLUMN" else str(name) for name, kind in found}

    def _sign_in(self) -> Any:
        return sign_in(self._config, self._tag)

    def _give_back(self, session: Session) -> None:
        with self._guard:
            if session.is_reusable and len(self._idle) < _IDLE_SESSIONS:
                self._idle.append(session)
                return
        session.close()


def _run_ddl(connection: SnowflakeConnection, statement: str) -> None:
    """Run a statement that makes something, again where another run has made it in the same moment."""
    try:
        connection.run(statement)
    except WarehouseError as error:
        # IF NOT EXISTS does not see that; the second time it does, or says that the role may not use what is there.
        if "already exists" not in str(error):
            raise
        connection.run(statement)


def is_local(lake: LakeStore) -> bool:
    """Whether the lake's files are this machine's, where no stage can reach them."""
    return "://" not in lake.uri("x")


def _close_all(sessions: Sequence[Session]) -> None:
    for session in sessions:
        session.close()


def _lake_path(staged: str, paths: Sequence[str]) -> str:
    """The one of ``paths`` that a file in a stage holds; its name there has the stage's own folder in front."""
    for path in paths:
        if staged == path or staged.endswith(f"/{path}"):
            return path
    raise WarehouseError(
        f"Snowflake: rows came from {staged}, which was not asked for; see where the stage points"
    )


def _column_type(column: pd.Series[Any]) -> str:
    kinds = {"i": "INTEGER", "u": "INTEGER", "f": "FLOAT", "b": "BOOLEAN", "M": "TIMESTAMP_NTZ"}
    return kinds.get(column.dtype.kind, "VARCHAR")


def _bound_rows(frame: pd.DataFrame) -> list[list[tuple[str, str | None]]]:
    """Every value as text, which the column's type then reads: one type of binding for all rows, NULL included."""
    missing = frame.isna()
    return [
        [("TEXT", None if gone else _bound(value)) for value, gone in zip(row, lacks, strict=True)]
        for row, lacks in zip(frame.itertuples(index=False), missing.itertuples(index=False), strict=True)
    ]


def _bound(value: Any) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)  # a TIMESTAMP_NTZ would just leave the zone out
    return json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)
