"""What the last runs of a pair made of each endpoint, from the ``run.json`` they left in the lake."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.extract.work import Result
from edfi_dagster.lake import paths
from edfi_dagster.lake.sealed import read_sealed
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.ods.pages import RECORDS, RecordKind

# A run may be of a few endpoints; what became of the others is told by one of those before it.
_RUNS_LOOKED_AT = 5


@dataclass(frozen=True)
class Outcome:
    """What came of one endpoint in its latest run: of its records, and the kinds that did not go well with why."""

    stamp: datetime
    result: Result | None = None
    troubles: Mapping[RecordKind, tuple[Result, str]] = field(default_factory=dict)

    @property
    def is_skipped(self) -> bool:
        """Whether its ODS does not offer it, or not to this key."""
        return self.result in {Result.NOT_OFFERED, Result.NOT_PERMITTED}

    @property
    def failure(self) -> str:
        """Why it failed, of the first kind that did; empty where none did."""
        return next((cause for result, cause in self.troubles.values() if result == Result.FAILED), "")


@dataclass(frozen=True)
class LastRuns:
    """``latest`` is the stamp of the last run; ``has_ended`` is false for one that goes on, or was killed."""

    latest: datetime | None = None
    has_ended: bool = True
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)


class _Row(msgspec.Struct):
    name: str
    kind: RecordKind
    result: Result
    cause: str = ""


class _Summary(msgspec.Struct):
    endpoints: list[_Row]


def last_runs(lake: LakeStore, pair: TenantYear, names: Collection[str]) -> LastRuns:
    """The outcomes of ``names``, each of the latest run it was part of. Raises LakeError."""
    latest: datetime | None = None
    has_ended = True
    outcomes: dict[str, Outcome] = {}
    for stamp in islice(_newest_stamps(lake, pair), _RUNS_LOOKED_AT):
        summary = _summary(lake, pair, stamp)
        if latest is None:
            latest, has_ended = stamp, summary is not None
        for name, outcome in _outcomes(summary, stamp).items() if summary else ():
            outcomes.setdefault(name, outcome)
        if outcomes.keys() >= set(names):
            break
    return LastRuns(latest, has_ended, outcomes)


def _newest_stamps(lake: LakeStore, pair: TenantYear) -> Iterator[datetime]:
    """Newest first, listing no more days than are looked at."""
    folder = paths.pair_folder(pair)
    for day in reversed(lake.children(folder)):
        found = (paths.parse_stamp(name) for name in lake.children(f"{folder}/{day}"))
        yield from sorted((stamp for stamp in found if stamp), reverse=True)


def _summary(lake: LakeStore, pair: TenantYear, stamp: datetime) -> _Summary | None:
    path = f"{paths.run_folder(pair, stamp)}/run.json"
    if not lake.exists(path):
        return None
    return read_sealed(lake, path, _Summary, what="run.json", remedy="restore the file or take it away")


def _outcomes(summary: _Summary, stamp: datetime) -> Mapping[str, Outcome]:
    results: dict[str, dict[RecordKind, tuple[Result, str]]] = {}
    for row in summary.endpoints:
        results.setdefault(row.name, {})[row.kind] = row.result, row.cause
    troubled = {Result.FAILED, Result.NOT_OFFERED, Result.NOT_PERMITTED}
    return {
        name: Outcome(
            stamp,
            of_kinds[RECORDS][0] if RECORDS in of_kinds else None,
            {kind: found for kind, found in of_kinds.items() if found[0] in troubled},
        )
        for name, of_kinds in results.items()
    }
