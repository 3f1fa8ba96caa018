"""What the lake tells of a pair's runs: what each did with an endpoint, and whether the ODS went back in time since.

A pull that found nothing left no manifest, only its line in ``run.json``; together they show whether anything is missing
in between. A run that found its ODS restored left ``restored.json`` before it forgot any watermark, so that a run which
was killed then is known too. Lakes of before have no such file: there a run that read a lower ``newest`` than one before
it tells the same, if not for sure.

A lake may also hold runs of a former source, and those of another deployment that shares it. What is not of the
configured source counts for nothing here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.extract.work import Result
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest, manifests_by_name, stamps
from edfi_dagster.lake.sealed import read_sealed, write_sealed
from edfi_dagster.lake.store import LakeError, LakeStore
from edfi_dagster.ods.pages import RECORDS, RecordKind
from edfi_dagster.ods.source import Configured, Ods, Source, normal_path
from edfi_dagster.warehouse.ledger import is_sideload

_REMEDY = "restore the file or take it away"


@dataclass
class Step:
    """What one run did with one endpoint.

    ``covered`` are the kinds its full pull stands for as well; ``settled`` those it read and found without news, with
    the watermark it read them from. ``unreadable`` is why a manifest cannot be read; ``source`` is None where it is not
    noted.
    """

    stamp: datetime
    newest: int | None
    manifests: dict[RecordKind, Manifest] = field(default_factory=dict)
    covered: set[RecordKind] = field(default_factory=set)
    settled: dict[RecordKind, int | None] = field(default_factory=dict)
    unreadable: LakeError | None = None
    source: Source | None = None

    @property
    def is_full(self) -> bool:
        return RECORDS in self.manifests and self.manifests[RECORDS].full


@dataclass(frozen=True)
class Chain:
    """The steps to be replayed for one endpoint, oldest first: from its latest full pull on, if there is one.

    ``restored`` is when the ODS was found to have gone back since they began; what they read may be no longer true then.
    ``foreign`` says why the latest of other pulls is not of the configured source; empty if there are none.
    """

    steps: Sequence[Step] = ()
    restored: datetime | None = None
    foreign: str = ""


@dataclass(frozen=True)
class Wanted:
    """What is to be replayed of one endpoint: runs after ``after``, which continue what was loaded from ``loaded``.

    ``foreign`` says why a source is not the configured one of the endpoint; nothing if it may be.
    """

    name: str
    foreign: Callable[[Source], str]
    after: datetime | None = None
    loaded: Source | None = None


class _SummaryRow(msgspec.Struct):
    """One line of ``run.json``. ``rows`` are those of its manifest."""

    endpoint: Annotated[str, msgspec.Meta(pattern=r"^[^/]+/[^/]+$")]
    name: str
    kind: RecordKind
    result: str
    cause: str = ""
    low: int | None = None
    rows: int = 0
    filters: dict[str, str] = {}
    profile: str = ""


class _Summary(msgspec.Struct):
    newest: int | None
    endpoints: list[_SummaryRow]
    source: Ods | None = None


class _Restored(msgspec.Struct):
    """``newest`` is what the ODS said then; None where the restore was seen by a row, not by that."""

    newest: int | None
    source: Ods | None = None


@dataclass
class _Run:
    """What one run left: ``newest`` None where it read none, or left nothing that tells. ``steps`` are by normal path."""

    stamp: datetime
    newest: int | None = None
    was_restored: bool = False
    ods: Ods | None = None
    steps: dict[str, Step] = field(default_factory=dict)


def note_restored(
    lake: LakeStore, pair: TenantYear, stamp: datetime, newest: int | None, source: Ods
) -> None:
    """Leave in the lake that the ODS was found restored. ``stamp`` is of no run. Raises LakeError."""
    write_sealed(lake, _restored_path(pair, stamp), _Restored(newest, source))


def chains(
    lake: LakeStore, pair: TenantYear, configured: Configured, wanted: Mapping[str, Wanted]
) -> Mapping[str, Chain]:
    """Normal path of an endpoint → what is to be replayed of it, under whatever name it was pulled. Raises LakeError."""
    earliest = datetime.min.replace(tzinfo=UTC)
    begin = min((endpoint.after or earliest for endpoint in wanted.values()), default=earliest)
    names = {endpoint.name: path for path, endpoint in wanted.items()}
    every = [_run(lake, pair, stamp, names) for stamp in stamps(lake, pair) if stamp > begin]
    runs = [run for run in every if run.ods is None or not configured.ods_changes_since(run.ods)]
    restores, undone = _restores(runs), _undone(runs)
    found: dict[str, list[Step]] = defaultdict(list)
    for run in every:
        for path, step in run.steps.items():
            if path in wanted and run.stamp > (wanted[path].after or earliest) and run.stamp not in undone:
                found[path].append(step)
    return {
        path: _chain(found[path], [r for r in restores if r > (endpoint.after or earliest)], endpoint)
        for path, endpoint in wanted.items()
    }


def _chain(every: Sequence[Step], restores: Sequence[datetime], endpoint: Wanted) -> Chain:
    """From the latest full pull on, else all as they continue what is loaded; of one source only."""
    reasons = [endpoint.foreign(step.source) if step.source else "" for step in every]
    steps = [step for step, reason in zip(every, reasons, strict=True) if not reason]
    fulls = [n for n, step in enumerate(steps) if step.is_full]
    origin = endpoint.loaded
    if fulls:
        steps = steps[fulls[-1] :]
        origin = steps[0].source
        restores = [restored for restored in restores if restored > steps[0].stamp]
    if origin:
        steps = [step for step in steps if not (step.source and step.source.changes_since(origin))]
    return Chain(steps, restores[0] if restores else None, next(filter(None, reversed(reasons)), ""))


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


def _run(lake: LakeStore, pair: TenantYear, stamp: datetime, names: Mapping[str, str]) -> _Run:
    """``names``: name → normal path, for manifests that cannot be read."""
    run = _Run(stamp)
    for name, manifest in manifests_by_name(lake, pair, stamp):
        if isinstance(manifest, LakeError):
            run.steps.setdefault(names.get(name, name), Step(stamp, None)).unreadable = manifest
        elif not is_sideload(name):
            step = run.steps.setdefault(normal_path(manifest.path), Step(stamp, manifest.newest))
            step.manifests[manifest.kind] = manifest
            step.newest = run.newest = manifest.newest
            step.source = manifest.source
            run.ods = manifest.source.ods if manifest.source else None
    inside = lake.children(paths.run_folder(pair, stamp))
    if "run.json" in inside:
        _add_summary(run, _summary(lake, pair, stamp))
    if "restored.json" in inside:
        noted = read_sealed(
            lake, _restored_path(pair, stamp), _Restored, what="restored.json", remedy=_REMEDY
        )
        run.was_restored, run.newest, run.ods = True, noted.newest, noted.source
    return run


def _add_summary(run: _Run, summary: _Summary) -> None:
    """What ``run.json`` tells besides the manifests. Rows without their manifest are gone, and settle nothing."""
    run.newest = summary.newest if run.newest is None else run.newest
    run.ods = summary.source or run.ods
    for row in summary.endpoints:
        step = run.steps.setdefault(normal_path(row.endpoint), Step(run.stamp, summary.newest))
        if summary.source and step.source is None:
            step.source = Source(summary.source, row.endpoint, row.filters, row.profile)
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
