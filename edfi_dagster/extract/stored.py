"""What already lies in the lake → warehouse, without one request to the ODS.

Loads what a run stored but did not load (a table selected without its endpoints), and rebuilds an empty warehouse:
both replay an endpoint's pulls in stamp order, from its latest full pull on. A pull that found nothing left no
manifest, only its line in ``run.json``; together they show whether anything is missing in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.extract.work import EndpointResult, KindResult, Result
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest, manifests, stamps
from edfi_dagster.lake.store import LakeError, LakeStore
from edfi_dagster.ods.answers import NO_JSON
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.errors import OdsRestored
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.warehouse import ledger, load
from edfi_dagster.warehouse.contract import Connection, Warehouse, WarehouseError
from edfi_dagster.warehouse.lease import Lease, holding

_KINDS: tuple[RecordKind, ...] = (RECORDS, DELETES, KEY_CHANGES)


@dataclass
class _Step:
    """What one run did with one endpoint.

    ``covered`` are the kinds its full pull stands for as well; ``settled`` those it read and found without news, with
    the watermark it read them from.
    """

    stamp: datetime
    newest: int | None
    manifests: dict[RecordKind, Manifest] = field(default_factory=dict)
    covered: set[RecordKind] = field(default_factory=set)
    settled: dict[RecordKind, int | None] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        return RECORDS in self.manifests and self.manifests[RECORDS].full


class _SummaryRow(msgspec.Struct):
    """One line of ``run.json``."""

    name: str
    kind: RecordKind
    result: str
    cause: str = ""
    low: int | None = None


class _Summary(msgspec.Struct):
    newest: int | None
    endpoints: list[_SummaryRow]


def load_stored(
    lake: LakeStore,
    warehouse: Warehouse,
    pair: TenantYear,
    endpoints: Sequence[Endpoint],
    *,
    tell: Callable[[str], None],
) -> Iterator[EndpointResult]:
    """Load what the lake holds of ``endpoints`` beyond what is committed; each endpoint's failure is its own.

    Into an empty warehouse this is a rebuild. Run again after a kill, it goes on.
    """
    with holding(warehouse, pair, waiting=tell) as lease, warehouse.connected() as connection:
        after = ledger.latest_loaded(connection, pair)
        history = _history(lake, pair, after, {endpoint.snake for endpoint in endpoints})
        for endpoint in endpoints:
            steps = history.get(endpoint.snake, [])
            fulls = [n for n, step in enumerate(steps) if step.is_full]
            chain = steps[fulls[-1] :] if fulls else steps
            try:
                yield _replay(connection, lease, endpoint, chain)
            except (WarehouseError, LakeError, OdsRestored) as error:
                yield _result(endpoint, Result.FAILED, str(error))


def _history(
    lake: LakeStore, pair: TenantYear, after: Mapping[str, datetime], names: set[str]
) -> Mapping[str, list[_Step]]:
    """Endpoint name → what runs later than ``after`` did with it, oldest first."""
    history: dict[str, list[_Step]] = defaultdict(list)
    earliest = datetime.min.replace(tzinfo=UTC)
    for stamp in stamps(lake, pair):
        wanted = {name for name in names if stamp > after.get(name, earliest)}
        if wanted:
            for name, step in _steps(lake, pair, stamp).items():
                if name in wanted:
                    history[name].append(step)
    return history


def _steps(lake: LakeStore, pair: TenantYear, stamp: datetime) -> Mapping[str, _Step]:
    """Endpoint name → what one run did with it."""
    steps: dict[str, _Step] = {}
    for manifest in manifests(lake, pair, stamp):
        step = steps.setdefault(manifest.name, _Step(stamp, manifest.newest))
        step.manifests[manifest.kind] = manifest
    summary = _summary(lake, pair, stamp)
    for row in summary.endpoints:
        step = steps.setdefault(row.name, _Step(stamp, summary.newest))
        if row.result == Result.COVERED:
            step.covered.add(row.kind)
        elif (
            row.result in {Result.LOADED, Result.UNCHANGED}
            and not row.cause
            and row.kind not in step.manifests
        ):
            step.settled[row.kind] = row.low
    return steps


def _summary(lake: LakeStore, pair: TenantYear, stamp: datetime) -> _Summary:
    """The run's ``run.json``; empty where the run was killed before it wrote one."""
    path = f"{paths.run_folder(pair, stamp)}/run.json"
    if not lake.exists(path):
        return _Summary(0, [])
    try:
        return msgspec.json.decode(lake.read(path), type=_Summary)
    except NO_JSON as error:
        raise LakeError(
            f"{lake.uri(path)} is no run.json of this version ({type(error).__name__}); restore the file or take it away"
        ) from None


def _replay(
    connection: Connection, lease: Lease, endpoint: Endpoint, chain: Sequence[_Step]
) -> EndpointResult:
    if not any(step.manifests for step in chain):
        return _result(endpoint, Result.UNCHANGED, "the lake holds nothing that is not loaded")
    first = next(step for step in chain if step.manifests)
    if not first.is_full and not ledger.watermarks(connection, lease.pair, endpoint.snake):
        return _result(
            endpoint,
            Result.FAILED,
            f"{lease.pair} {endpoint.path}: the lake's chain begins with a delta of {first.stamp:%Y-%m-%d %H:%M:%S}, "
            "not with a full pull; materialize it with full_refresh instead",
        )
    result = EndpointResult(endpoint, full=first.is_full)
    for step in chain:
        manifest = step.manifests.get(RECORDS)
        keyed = _with_key(endpoint, manifest) if manifest and not endpoint.is_descriptor else endpoint
        loaded = _load_step(connection, lease, keyed, step)
        result.rows_inserted += loaded.inserted.get(RECORDS, 0)
        result.rows_removed += loaded.removed
        for kind, manifest in step.manifests.items():
            rows = loaded.inserted.get(kind, 0)
            result.kinds[kind] = KindResult(Result.LOADED if rows else Result.UNCHANGED, manifest, rows)
    return result


def _load_step(connection: Connection, lease: Lease, endpoint: Endpoint, step: _Step) -> load.Loaded:
    now = ledger.watermarks(connection, lease.pair, endpoint.snake)
    readings = {kind: _reading(lease.pair, endpoint, m, now) for kind, m in step.manifests.items()}
    if endpoint.is_descriptor and RECORDS in readings:
        loaded = load.load_descriptors(connection, lease, [readings[RECORDS]])
        return loaded.get(endpoint.snake, load.Loaded())
    if step.is_full:
        refreshed = load.load_refresh(connection, lease, readings[RECORDS])
        kinds = [kind for kind in _KINDS if kind == RECORDS or kind in step.covered]
        entries = [ledger.Entry(lease.pair, endpoint, kind, step.stamp, None, step.newest) for kind in kinds]
        load.close_refreshes(connection, lease, entries)
        return refreshed
    if not now:  # an unfinished chain before the full pull that begins it
        return load.Loaded()
    settled = [
        ledger.Reading(
            ledger.Entry(lease.pair, endpoint, kind, step.stamp, now.get((endpoint.snake, kind)), step.newest)
        )
        for kind, low in step.settled.items()
        if _reaches(low, now.get((endpoint.snake, kind)))
    ]
    return load.load_delta(connection, lease, endpoint, [*_continuing(readings, now), *settled])


def _reading(
    pair: TenantYear, endpoint: Endpoint, manifest: Manifest, now: ledger.Watermarks
) -> ledger.Reading:
    low = now.get((endpoint.snake, manifest.kind))
    entry = ledger.Entry(pair, endpoint, manifest.kind, manifest.pull_timestamp, low, manifest.newest)
    return ledger.Reading(entry, manifest)


def _continuing(
    readings: Mapping[RecordKind, ledger.Reading], now: ledger.Watermarks
) -> Iterator[ledger.Reading]:
    """The readings that begin at or before what is committed and end after it.

    Raises WarehouseError where records that were pulled in between are missing in the lake; deletes and key changes
    with a gap are left out, and the next run reads them again from the watermark that stays.
    """
    for kind, reading in readings.items():
        manifest, entry = reading.manifest, reading.entry
        assert manifest is not None
        committed = now.get((entry.endpoint.snake, kind))
        of_a_run = manifest.max_change_version == manifest.newest
        from_the_start = manifest.min_change_version == 0
        if of_a_run and (from_the_start or (manifest.low is not None and _reaches(manifest.low, committed))):
            if committed is None or (entry.newest or 0) >= committed:
                yield reading
        elif kind == RECORDS:
            raise WarehouseError(
                f"{entry.pair} {entry.endpoint.path}: the lake has no pull between change versions {committed} and "
                f"{manifest.low if manifest.low is not None else manifest.min_change_version}; materialize it with "
                "full_refresh instead"
            )


def _reaches(low: int | None, committed: int | None) -> bool:
    """Whether a pull that was read from watermark ``low`` leaves no gap after what is committed."""
    return low is None or (committed is not None and low <= committed)


def _with_key(endpoint: Endpoint, manifest: Manifest) -> Endpoint:
    """The endpoint with the natural key that the pull knew, which may be the ODS's own."""
    if not manifest.key or manifest.key == dict(endpoint.key):
        return endpoint
    return replace(endpoint, key=manifest.key, key_can_change=True)


def _result(endpoint: Endpoint, result: Result, cause: str) -> EndpointResult:
    return EndpointResult(endpoint, kinds={RECORDS: KindResult(result, cause=cause)})
