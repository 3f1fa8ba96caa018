"""What the lake tells of a pair's runs: what each did with an endpoint, and whether the ODS went back in time since.

A pull that found nothing left no manifest, only its line in ``run.json``; together they show whether anything is missing
in between. A run that found its ODS restored left ``restored.json`` before it forgot any watermark, so that a run which
was killed then is known too. Lakes of before have no such file: there a run that read a lower ``newest`` than one before
it tells the same, if not for sure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.extract.work import Result
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest, manifests_by_name, stamps
from edfi_dagster.lake.sealed import read_sealed, write_sealed
from edfi_dagster.lake.store import LakeError, LakeStore
from edfi_dagster.ods.pages import RECORDS, RecordKind

_REMEDY = "restore the file or take it away"


@dataclass
class Step:
    """What one run did with one endpoint.

    ``covered`` are the kinds its full pull stands for as well; ``settled`` those it read and found without news, with
    the watermark it read them from. ``unreadable`` is why a manifest cannot be read.
    """

    stamp: datetime
    newest: int | None
    manifests: dict[RecordKind, Manifest] = field(default_factory=dict)
    covered: set[RecordKind] = field(default_factory=set)
    settled: dict[RecordKind, int | None] = field(default_factory=dict)
    unreadable: LakeError | None = None

    @property
    def is_full(self) -> bool:
        return RECORDS in self.manifests and self.manifests[RECORDS].full


@dataclass(frozen=True)
class Chain:
    """The steps to be replayed for one endpoint, oldest first: from its latest full pull on, if there is one.

    ``restored`` is when the ODS was found to have gone back since they began; what they read may be no longer true then.
    """

    steps: Sequence[Step] = ()
    restored: datetime | None = None


class _SummaryRow(msgspec.Struct):
    """One line of ``run.json``. ``rows`` are those of its manifest."""

    name: str
    kind: RecordKind
    result: str
    cause: str = ""
    low: int | None = None
    rows: int = 0


class _Summary(msgspec.Struct):
    newest: int | None
    endpoints: list[_SummaryRow]


class _Restored(msgspec.Struct):
    """``newest`` is what the ODS said then; None where the restore was seen by a row, not by that."""

    newest: int | None


@dataclass
class _Run:
    """What one run left: ``newest`` None where it read none, or left nothing that tells."""

    stamp: datetime
    newest: int | None = None
    was_restored: bool = False
    steps: dict[str, Step] = field(default_factory=dict)


def note_restored(lake: LakeStore, pair: TenantYear, stamp: datetime, newest: int | None) -> None:
    """Leave in the lake that the ODS was found restored. ``stamp`` is of no run. Raises LakeError."""
    write_sealed(lake, _restored_path(pair, stamp), _Restored(newest))


def chains(
    lake: LakeStore, pair: TenantYear, after: Mapping[str, datetime], names: set[str]
) -> Mapping[str, Chain]:
    """Endpoint name → what runs later than ``after`` did with it and is to be replayed. Raises LakeError."""
    earliest = datetime.min.replace(tzinfo=UTC)
    begin = min((after.get(name, earliest) for name in names), default=earliest)
    runs = [_run(lake, pair, stamp) for stamp in stamps(lake, pair) if stamp > begin]
    restores, undone = _restores(runs), _undone(runs)
    found: dict[str, list[Step]] = defaultdict(list)
    for run in runs:
        for name, step in run.steps.items():
            if name in names and run.stamp > after.get(name, earliest) and run.stamp not in undone:
                found[name].append(step)
    return {
        name: _chain(found[name], [r for r in restores if r > after.get(name, earliest)]) for name in names
    }


def _chain(steps: Sequence[Step], restores: Sequence[datetime]) -> Chain:
    fulls = [n for n, step in enumerate(steps) if step.is_full]
    if fulls:
        steps = steps[fulls[-1] :]
        restores = [restored for restored in restores if restored > steps[0].stamp]
    return Chain(steps, restores[0] if restores else None)


def _restores(runs: Sequence[_Run]) -> list[datetime]:
    """When the ODS was found to have gone back."""
    found, highest = [], -1
    for run in runs:
        if run.was_restored or (run.newest is not None and run.newest < highest):
            found.append(run.stamp)
        highest = max(highest, -1 if run.newest is None else run.newest)
    return found


def _undone(runs: Sequence[_Run]) -> set[datetime]:
    """The runs that read what the ODS took back later: up to a higher change version than a later run found."""
    found, lowest = set(), None
    for run in reversed(runs):
        if run.newest is None:
            continue
        if lowest is not None and run.newest > lowest:
            found.add(run.stamp)
        lowest = run.newest if lowest is None else min(lowest, run.newest)
    return found


def _run(lake: LakeStore, pair: TenantYear, stamp: datetime) -> _Run:
    run = _Run(stamp)
    for name, manifest in manifests_by_name(lake, pair, stamp):
        step = run.steps.setdefault(name, Step(stamp, None))
        if isinstance(manifest, LakeError):
            step.unreadable = manifest
            continue
        step.manifests[manifest.kind] = manifest
        if manifest.newest is not None:  # none of a sideload
            step.newest = run.newest = manifest.newest
    inside = lake.children(paths.run_folder(pair, stamp))
    if "run.json" in inside:
        _add_summary(run, _summary(lake, pair, stamp))
    if "restored.json" in inside:
        noted = read_sealed(
            lake, _restored_path(pair, stamp), _Restored, what="restored.json", remedy=_REMEDY
        )
        run.was_restored, run.newest = True, noted.newest
    return run


def _add_summary(run: _Run, summary: _Summary) -> None:
    """What ``run.json`` tells besides the manifests. Rows without their manifest are gone, and settle nothing."""
    run.newest = summary.newest if run.newest is None else run.newest
    for row in summary.endpoints:
        step = run.steps.setdefault(row.name, Step(run.stamp, summary.newest))
        if row.result == Result.COVERED:
            step.covered.add(row.kind)
        elif (
            row.result in {Result.LOADED, Result.UNCHANGED}
            and not (row.cause or row.rows)
            and row.kind not in step.manifests
        ):
            step.settled[row.kind] = row.low


def _summary(lake: LakeStore, pair: TenantYear, stamp: datetime) -> _Summary:
    path = f"{paths.run_folder(pair, stamp)}/run.json"
    return read_sealed(lake, path, _Summary, what="run.json", remedy=_REMEDY)


def _restored_path(pair: TenantYear, stamp: datetime) -> str:
    return f"{paths.run_folder(pair, stamp)}/restored.json"
