"""The raw-table contract, and what a warehouse must be able to do.

Ten columns in every raw table, one table per resource, shared tables for descriptors, deletes and key changes:
the shape that edu_edfi_airflow writes and the dbt packages read. ``_meta_change_versions`` is the ledger: a row
there says that a pull's rows are committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edfi_dagster.config import TenantYear
from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.manifest import PulledFile

if TYPE_CHECKING:
    import pandas as pd

RAW_COLUMNS = (
    "tenant_code",
    "api_year",
    "pull_date",
    "pull_timestamp",
    "file_row_number",
    "filename",
    "name",
    "ods_version",
    "data_model_version",
    "v",
)

LEDGER_ADDITIONS = {"is_key_changes": "BOOLEAN", "source": "VARCHAR"}
"""Columns of the ledger, and their types, that edu_edfi_airflow's table lacks; it names those it writes."""

LEASES = "_meta_leases"
COUNT_CHECKS = "_meta_count_checks"

ROLES = "_meta_tables"
"""Which shared table has which role; see ``table_roles``."""

LONGEST_WAIT_SECONDS = 600.0
"""How long a run waits for another process to let a DuckDB file go."""

_LEDGER = """tenant_code VARCHAR, api_year INTEGER, name VARCHAR, pull_date DATE, pull_timestamp {timestamp},
max_version BIGINT, is_active BOOLEAN, is_deletes BOOLEAN, is_key_changes BOOLEAN, source VARCHAR"""
_TOTAL_COUNTS = """tenant_code VARCHAR, api_year INTEGER, name VARCHAR, pull_date DATE, pull_timestamp {timestamp},
total_count BIGINT"""
_RUN_LOG = """tenant_code VARCHAR, api_year INTEGER, grain_update VARCHAR, run_type VARCHAR, run_date DATE,
run_timestamp {timestamp}, result {json}"""
_MATCH_RATES = """tenant_code VARCHAR, api_year INTEGER, assessment_name VARCHAR, source_column_name VARCHAR,
edfi_column_name VARCHAR, num_matches BIGINT, num_rows BIGINT, match_rate DOUBLE"""
_LEASES = (
    "tenant_code VARCHAR, api_year INTEGER, holder VARCHAR, renewed_at {timestamp}, last_stamp {timestamp}"
)
_COUNT_CHECKS = """tenant_code VARCHAR, api_year INTEGER, name VARCHAR, pull_date DATE, pull_timestamp {timestamp},
ods_count BIGINT, current_rows BIGINT"""


def side_tables(names: TableNames, **types: str) -> dict[str, str]:
    """Table → column definitions of the tables beside the raw ones: those edu_edfi_airflow has, the leases, and
    when which counts were compared.

    ``types`` are the warehouse's names for ``json`` and ``timestamp`` (without zone).
    """
    columns = {
        names.change_versions: _LEDGER,
        names.total_counts: _TOTAL_COUNTS,
        names.run_log: _RUN_LOG,
        names.student_id_match_rates: _MATCH_RATES,
        LEASES: _LEASES,
        COUNT_CHECKS: _COUNT_CHECKS,
        ROLES: "role VARCHAR, name VARCHAR",
    }
    return {table: definition.format(**types) for table, definition in columns.items()}


class WarehouseError(Exception):
    """The warehouse refused or could not be reached; the message says what to do."""


class NotCommitted(WarehouseError):
    """A transaction was given up because the pair is no longer this run's, or its watermark has moved."""


@dataclass(frozen=True)
class RawTable:
    """A raw table to be set up. ``key`` holds the JSON paths of its natural key, empty if not known."""

    name: str
    key: tuple[str, ...]
    applies_deletes: bool = True


def raw_tables(tables: Sequence[RawTable], names: TableNames) -> list[RawTable]:
    """``tables`` and the raw tables that every warehouse has."""
    descriptors = RawTable(names.descriptors, ("namespace", "codeValue"), applies_deletes=False)
    return [*tables, descriptors, RawTable(names.deletes, ()), RawTable(names.key_changes, ())]


def has_current_view(table: RawTable, names: TableNames) -> bool:
    """Whether a raw table has a view of its current rows: tombstones and key changes are never superseded."""
    return table.name not in {names.deletes, names.key_changes}


@dataclass(frozen=True)
class LeaseTerms:
    """Seconds a lease lasts without renewal, between renewals, and between the questions of who waits for it.

    ``longest_transaction``: what must be left of it when a transaction starts, so that nobody else can hold it before
    the transaction is over. 0 where no other run can write between a transaction's check and its commit.
    """

    lasts: float = 90.0
    renewed_every: float = 20.0
    asked_every: float = 0.5
    longest_transaction: float = 0.0


@dataclass(frozen=True)
class Texts:
    """Several JSON values as texts: ``select`` for a SELECT list, and the expressions for ``each`` above it."""

    select: str
    each: tuple[str, ...]


class Dialect(Protocol):
    """How one kind of warehouse says what the others say as well. Names of columns are ours, never a user's."""

    names: TableNames

    def table(self, name: str) -> str:
        """The quoted, fully qualified name."""
        ...

    def renaming(self, name: str, to: str) -> str:
        """The statement that renames a table."""
        ...

    def text(self, path: str, column: str = "v") -> str:
        """SQL for the text of a JSON value, NULL where there is none; ``path`` is like ``schoolReference.schoolId``."""
        ...

    def texts(self, paths: Sequence[str], column: str = "v") -> Texts:
        """SQL for the texts at ``paths``, each as ``text`` gives it; parses each record once."""
        ...

    def json(self, column: str = "v") -> str:
        """SQL for a JSON column as JSON text."""
        ...

    def parsed(self, text: str) -> str:
        """SQL for JSON text as a JSON value."""
        ...

    def same(self, left: str, right: str) -> str:
        """SQL that tells whether two JSON columns hold the same record."""
        ...

    def now(self) -> str:
        """SQL for the time in UTC, without zone, by the clock that all runs on this warehouse share."""
        ...


class Connection(Dialect, Protocol):
    """One session with a warehouse. Names in SQL are qualified by ``table``; values are bound with ``?``."""

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...

    def each(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows one by one, without all of them in memory. No other statement before the last of them."""
        ...

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Execute a statement; the number of rows it inserted, updated or deleted."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Commits at the end of the block, rolls back on any error. Holds no DDL: that would commit it on Snowflake."""
        ...

    def stage(self, name: str, files: Sequence[PulledFile]) -> int:
        """Make temporary table or view ``name`` (v, filename, file_row_number, read_order) of files of the lake.

        ``read_order`` rises over the files in their order and over the lines of each. Made outside of transactions.
        Returns how many lines the files hold. Raises DamagedFile where one is not what its manifest lists, also where it
        was replaced while it was read; LakeError.
        """
        ...

    def replace_partition(self, name: str, frame: pd.DataFrame, pair: TenantYear) -> None:
        """Replace the pair's rows of a downstream table by a frame with ``tenant_code`` and ``api_year``; makes the table."""
        ...


class Warehouse(Protocol):
    """A place for raw tables. ``connected`` may be entered from several threads; each gets a session of its own."""

    @property
    def lease_terms(self) -> LeaseTerms: ...

    @property
    def loads_at_once(self) -> int:
        """How many tables may usefully be loaded side by side."""
        ...

    def connected(self) -> AbstractContextManager[Connection]: ...

    def prepare(self, tables: Sequence[RawTable]) -> list[str]:
        """Make the schema, tables and views that are missing; the names of the tables that were made."""
        ...

    def setup(self, tables: Sequence[RawTable]) -> None:
        """Make, as the owner of the schema, all that loading needs; what is there already stays."""
        ...

    def setup_statements(self, tables: Sequence[RawTable]) -> list[str]:
        """The SQL of ``setup``, and comments on what an administrator does besides. Contacts nothing."""
        ...

    def close(self) -> None:
        """End every session; one that is asked for later is opened anew."""
        ...


Waiting = Callable[[str], None]
"""Told, in a sentence, what is being waited for."""
