"""The raw-table contract, and what a warehouse must be able to do.

Ten columns in every raw table, one table per resource, shared tables for descriptors, deletes and key changes:
the shape that edu_edfi_airflow writes and the dbt packages read. ``_meta_change_versions`` is the ledger: a row
there says that a pull's rows are committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

LEASES = "_meta_leases"


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


class Connection(Protocol):
    """One session with a warehouse. Names in SQL are qualified by ``table``; values are bound with ``?``."""

    names: TableNames

    def table(self, name: str) -> str:
        """The quoted, schema-qualified name."""
        ...

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Execute a statement; the number of rows it inserted, updated or deleted."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Commits at the end of the block, rolls back on any error."""
        ...

    def stage(self, name: str, files: Sequence[PulledFile]) -> None:
        """Make temporary table or view ``name`` (v, filename, file_row_number, read_order) of files of the lake.

        ``read_order`` rises over the files in their order and over the lines of each. Made outside of transactions.
        """
        ...

    def text(self, path: str, column: str = "v") -> str:
        """SQL for the text of a JSON value, NULL where there is none; ``path`` is like ``schoolReference.schoolId``."""
        ...

    def texts(self, paths: Sequence[str], column: str = "v") -> str:
        """SQL for an array of the texts at ``paths``, counted from 1, each as ``text`` gives it; parses once."""
        ...

    def replace_partition(self, name: str, frame: pd.DataFrame, pair: TenantYear) -> None:
        """Replace the pair's rows of a downstream table by a frame with ``tenant_code`` and ``api_year``; makes the table."""
        ...

    def same(self, left: str, right: str) -> str:
        """SQL that tells whether two JSON columns hold the same record."""
        ...


class Warehouse(Protocol):
    """A place for raw tables. ``connected`` may be entered from several threads; each gets a session of its own."""

    def connected(self) -> AbstractContextManager[Connection]: ...

    def prepare(self, tables: Sequence[RawTable]) -> list[str]:
        """Make the schema, tables and views that are missing; the names of the tables that were made."""
        ...


Waiting = Callable[[str], None]
"""Told, in a sentence, what is being waited for."""
