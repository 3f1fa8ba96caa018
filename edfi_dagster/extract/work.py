"""The words of a run: what is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.lake.manifest import Manifest
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.warehouse.contract import Warehouse

if TYPE_CHECKING:
    from edfi_dagster.extract.comparison import Comparison


@dataclass(frozen=True)
class Job:
    """What a run works with.

    ``tell`` takes one sentence for whoever watches, ``warn`` one that somebody should act on; never a student's value.
    ``restored`` is called when the ODS turns out to have been restored, once the pair's watermarks are forgotten.
    """

    platform: Platform
    pair: TenantYear
    session: OdsSession
    lake: LakeStore
    warehouse: Warehouse
    tell: Callable[[str], None]
    warn: Callable[[str], None]
    restored: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Work:
    """What a run does for one endpoint: which kinds it pulls, and whether it loads them."""

    endpoint: Endpoint
    kinds: frozenset[RecordKind] = frozenset({RECORDS, DELETES, KEY_CHANGES})
    load: bool = True


class Result(StrEnum):
    """What came of one endpoint and kind."""

    LOADED = "loaded"
    STORED = "stored in the lake"
    UNCHANGED = "unchanged"
    COVERED = "covered by the full pull"
    NOT_OFFERED = "not offered by this ODS"
    NOT_PERMITTED = "not permitted to this key"
    FAILED = "failed"


@dataclass(frozen=True)
class KindResult:
    """``cause`` says why, where the result needs a reason, ``error`` names its class; ``rows_loaded`` counts inserts.

    ``low`` is the watermark it was read from (None: there was none, or it was not read).
    """

    result: Result
    manifest: Manifest | None = None
    rows_loaded: int = 0
    cause: str = ""
    error: str = ""
    low: int | None = None


@dataclass
class EndpointResult:
    """What came of one endpoint: per kind, and for its raw table.

    ``comparison`` is set once the run has compared it with what the ODS counts, after all results were given.
    """

    endpoint: Endpoint
    full: bool = False
    kinds: dict[RecordKind, KindResult] = field(default_factory=dict)
    rows_inserted: int = 0
    rows_removed: int = 0
    comparison: Comparison | None = None

    @property
    def table_changed(self) -> bool:
        return bool(self.rows_inserted or self.rows_removed)

    @property
    def is_committed(self) -> bool:
        """Whether its records are in the warehouse as they were in the ODS."""
        records = self.kinds.get(RECORDS)
        return (
            records is not None and records.result in {Result.LOADED, Result.UNCHANGED} and not records.cause
        )

    @property
    def failures(self) -> dict[RecordKind, str]:
        return {kind: r.cause for kind, r in self.kinds.items() if r.result == Result.FAILED}
