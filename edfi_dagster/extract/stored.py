"""What already lies in the lake → warehouse, without one request to the ODS.

Loads what a run stored but did not load (a table selected without its endpoints), and rebuilds an empty warehouse:
both replay an endpoint's manifests in stamp order, from its latest full pull on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.extract.work import EndpointResult, KindResult, Result
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest, manifests, stamps
from edfi_dagster.lake.store import LakeError, LakeStore
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.errors import OdsRestored
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.warehouse import ledger, load
from edfi_dagster.warehouse.contract import Connection, Warehouse, WarehouseError
from edfi_dagster.warehouse.lease import Lease, holding

_KINDS: tuple[RecordKind, ...] = (RECORDS, DELETES, KEY_CHANGES)


@dataclass(frozen=True)
class _Step:
    """What one run left of one endpoint. ``covered`` are the kinds its full pull stands for as well."""

    stamp: datetime
    manifests: Mapping[RecordKind, Manifest]
    covered: frozenset[RecordKind] = frozenset()

    @property
    def is_full(self) -> bool:
        return RECORDS in self.manifests and self.manifests[RECORDS].full


@dataclass
class _History:
    """Endpoint name → the steps that runs left of it, oldest first."""

    steps: dict[str, list[_Step]] = field(default_factory=lambda: defaultdict(list))


def load_stored(
    lake: LakeStore,
    warehouse: Warehouse,
    pair: TenantYear,
    endpoints: Sequence[Endpoint],
    *,
    tell: Callable[[str], None],
) -> Iterator[EndpointResult]:
    """Load what the lake holds of ``endpoints`` beyond what was committed; each endpoint's failure is its own."""
    with holding(warehouse, pair, waiting=tell) as lease, warehouse.connected() as connection:
        after = ledger.latest_loaded(connection, pair)
        history = _history(lake, pair, after, {endpoint.snake for endpoint in endpoints})
        for endpoint in endpoints:
            steps = history.steps[endpoint.snake]
            fulls = [n for n, step in enumerate(steps) if step.is_full]
            chain = steps[fulls[-1] :] if fulls else steps
            try:
                yield _replay(connection, lease, endpoint, chain)
            except (WarehouseError, LakeError, OdsRestored) as error:
                yield _result(endpoint, Result.FAILED, str(error))


def rebuild(
    lake: LakeStore,
    warehouse: Warehouse,
    pair: TenantYear,
    endpoints: Sequence[Endpoint],
    *,
    tell: Callable[[str], None],
) -> Iterator[EndpointResult]:
    """Fill an empty warehouse with everything the lake holds of a pair. Run again after a kill, it goes on."""
    yield from load_stored(lake, warehouse, pair, endpoints, tell=tell)


def _history(lake: LakeStore, pair: TenantYear, after: Mapping[str, datetime], names: set[str]) -> _History:
    history = _History()
    earliest = datetime.min.replace(tzinfo=UTC)
    for stamp in stamps(lake, pair):
        if names and all(stamp <= after.get(name, earliest) for name in names):
            continue
        found: dict[str, dict[RecordKind, Manifest]] = defaultdict(dict)
        for manifest in manifests(lake, pair, stamp):
            if manifest.name in names and stamp > after.get(manifest.name, earliest):
                found[manifest.name][manifest.kind] = manifest
        covered = _covered(lake, pair, stamp) if found else {}
        for name, of_kinds in found.items():
            history.steps[name].append(_Step(stamp, of_kinds, frozenset(covered.get(name, ()))))
    return history


def _covered(lake: LakeStore, pair: TenantYear, stamp: datetime) -> Mapping[str, set[RecordKind]]:
    """name → kinds that the run's full pulls covered, as its ``run.json`` tells; nothing if it was killed."""
    path = f"{paths.run_folder(pair, stamp)}/run.json"
    if not lake.exists(path):
        return {}
    document = msgspec.json.decode(lake.read(path))
    covered: dict[str, set[RecordKind]] = defaultdict(set)
    for row in document["endpoints"]:
        if row["result"] == Result.COVERED:
            covered[row["name"]].add(row["kind"])
    return covered


def _replay(
    connection: Connection, lease: Lease, endpoint: Endpoint, chain: Sequence[_Step]
) -> EndpointResult:
    if not chain:
        return _result(endpoint, Result.UNCHANGED, "the lake holds nothing that is not loaded")
    if not chain[0].is_full and not ledger.watermarks(connection, lease.pair, endpoint.snake):
        return _result(
            endpoint,
            Result.FAILED,
            f"{lease.pair} {endpoint.path}: the lake's chain begins with a delta of {chain[0].stamp:%Y-%m-%d %H:%M:%S}, "
            "not with a full pull; materialize it with full_refresh instead",
        )
    result = EndpointResult(endpoint, full=chain[0].is_full)
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
    if endpoint.is_descriptor:
        loaded = load.load_descriptors(connection, lease, [readings[RECORDS]])
        return loaded.get(endpoint.snake, load.Loaded())
    if step.is_full:
        loaded_refresh = load.load_refresh(connection, lease, readings[RECORDS])
        newest = step.manifests[RECORDS].newest
        entries = [
            ledger.Entry(lease.pair, endpoint, kind, step.stamp, None, newest)
            for kind in _KINDS
            if kind == RECORDS or kind in step.covered
        ]
        load.close_refreshes(connection, lease, entries)
        return loaded_refresh
    if RECORDS not in readings and not ledger.watermarks(connection, lease.pair, endpoint.snake):
        return load.Loaded()
    return load.load_delta(connection, lease, endpoint, list(_continuing(readings.values(), now)))


def _reading(
    pair: TenantYear, endpoint: Endpoint, manifest: Manifest, now: ledger.Watermarks
) -> ledger.Reading:
    low = now.get((endpoint.snake, manifest.kind))
    entry = ledger.Entry(pair, endpoint, manifest.kind, manifest.pull_timestamp, low, manifest.newest)
    return ledger.Reading(entry, manifest)


def _continuing(readings: Iterable[ledger.Reading], now: ledger.Watermarks) -> Iterator[ledger.Reading]:
    """The readings that do not end before what is committed.

    None leaves a gap, however much later it begins: runs that found nothing left no manifest, and every pull began
    at a watermark that the pulls before it had reached.
    """
    for reading in readings:
        committed = now.get((reading.entry.endpoint.snake, reading.entry.kind), -1)
        if reading.entry.newest >= committed:
            yield reading


def _with_key(endpoint: Endpoint, manifest: Manifest) -> Endpoint:
    """The endpoint with the natural key that the pull knew, which may be the ODS's own."""
    if not manifest.key or manifest.key == dict(endpoint.key):
        return endpoint
    return replace(endpoint, key=manifest.key, key_can_change=True)


def _result(endpoint: Endpoint, result: Result, cause: str) -> EndpointResult:
    return EndpointResult(endpoint, kinds={RECORDS: KindResult(result, cause=cause)})
