"""One endpoint on its way through a run: what was there before, what was read of it, and what came of that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from edfi_dagster.extract.work import EndpointResult, Job, KindResult, Result, Work
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import RECORDS, RecordKind
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.current import descriptor_counts
from edfi_dagster.warehouse.ledger import Reading, Watermarks
from edfi_dagster.warehouse.load import Loaded, is_first_look
from edfi_dagster.warehouse.supersede import Judged


@dataclass(frozen=True)
class Before:
    """What the warehouse held of the pair when the run began. ``descriptor_rows`` counts current rows by name.

    ``of_other_ods`` are the names whose latest rows came from another ODS than the run reads.
    """

    watermarks: Watermarks
    ever_loaded: set[tuple[str, RecordKind]]
    descriptor_rows: Mapping[str, int]
    of_other_ods: frozenset[str] = frozenset()

    def without(self, names: Collection[str]) -> Before:
        """The same without the watermarks of some names."""
        kept = {of: version for of, version in self.watermarks.items() if of[0] not in names}
        return replace(self, watermarks=kept)


def before_a_run(job: Job, foreign: frozenset[str]) -> Before:
    """What the warehouse holds of the pair now; ``foreign`` are the names whose rows are of another ODS."""
    with job.warehouse.connected() as connection:
        return Before(
            ledger.watermarks(connection, job.pair),
            ledger.ever_loaded(connection, job.pair),
            descriptor_counts(connection, job.pair),
            foreign,
        )


@dataclass
class EndpointRead:
    """What was read of one endpoint. ``readings`` are to be committed; ``results`` are final already.

    ``corrected`` are ids whose raw row shows a person's old UniqueId, ``judged`` the suspects that the ODS was asked for.
    """

    work: Work
    full: bool = False
    readings: dict[RecordKind, Reading] = field(default_factory=dict)
    results: dict[RecordKind, KindResult] = field(default_factory=dict)
    corrected: list[str] = field(default_factory=list)
    judged: Judged = field(default_factory=Judged)

    @property
    def endpoint(self) -> Endpoint:
        return self.work.endpoint

    @property
    def has_rows(self) -> bool:
        return any(reading.manifest for reading in self.readings.values())

    @property
    def is_first_look(self) -> bool:
        """Whether the raw rows were never searched for superseded ones, as after a switch from Airflow."""
        return is_first_look(self.endpoint, self.readings)

    @property
    def files(self) -> list[str]:
        """The files of its records."""
        manifest = self.readings[RECORDS].manifest
        return manifest.paths if manifest else []

    # -- what came of it ------------------------------------------------------------------------------

    def stored(self) -> EndpointResult:
        """Read but not loaded."""
        result = EndpointResult(self.endpoint, self.full, dict(self.results))
        for kind, reading in self.readings.items():
            if kind not in result.kinds:
                found = Result.STORED if reading.manifest else Result.UNCHANGED
                result.kinds[kind] = KindResult(found, reading.manifest, low=reading.entry.low)
        return result

    def loaded(self, loaded: Loaded) -> EndpointResult:
        result = EndpointResult(self.endpoint, self.full, dict(self.results))
        for kind, reading in self.readings.items():
            rows = loaded.inserted.get(kind, 0)
            changed = rows or (kind == RECORDS and loaded.removed)
            if kind not in result.kinds:
                found = Result.LOADED if changed else Result.UNCHANGED
                result.kinds[kind] = KindResult(found, reading.manifest, rows, low=reading.entry.low)
        result.rows_inserted = loaded.inserted.get(RECORDS, 0)
        result.rows_removed = loaded.removed
        return result

    def failed(self, error: Exception) -> EndpointResult:
        result = EndpointResult(self.endpoint, self.full, dict(self.results))
        for kind in self.readings:
            result.kinds[kind] = KindResult(Result.FAILED, cause=str(error), error=type(error).__name__)
        return result
