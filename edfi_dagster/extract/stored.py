"""What already lies in the lake → warehouse, without one request to the ODS.

Loads what a run stored but did not load (a table selected without its endpoints), and rebuilds an empty warehouse:
both replay an endpoint's pulls in stamp order, from its latest full pull on. Where the ODS was restored after that pull,
its rows come back without a change version, so that the next run reads the endpoint whole; what was read of a state that
the ODS took back does not come back at all. Pulls of another source than the configured one are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from edfi_dagster.config import EndpointKind, Platform, TenantYear
from edfi_dagster.extract.history import Chain, Step, Wanted, chains
from edfi_dagster.extract.work import EndpointResult, KindResult, Result
from edfi_dagster.lake.manifest import Manifest
from edfi_dagster.lake.store import LakeError, LakeStore
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of
from edfi_dagster.ods.errors import OdsRestored
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.ods.source import Configured, Source, normal_path
from edfi_dagster.warehouse import ledger, load
from edfi_dagster.warehouse.contract import Connection, Warehouse, WarehouseError
from edfi_dagster.warehouse.lease import Lease, holding
from edfi_dagster.warehouse.renamed import move_renamed

_KINDS: tuple[RecordKind, ...] = (RECORDS, DELETES, KEY_CHANGES)


class _Gap(WarehouseError):
    """Records that were pulled between two replayed pulls are missing in the lake."""


def load_stored(
    platform: Platform,
    lake: LakeStore,
    warehouse: Warehouse,
    pair: TenantYear,
    endpoints: Sequence[Endpoint],
    *,
    tell: Callable[[str], None],
) -> Iterator[EndpointResult]:
    """Load what the lake holds of ``endpoints`` beyond what is committed; each endpoint's failure is its own.

    Into an empty warehouse this is a rebuild. Run again after a kill, it goes on. ``tell`` hears of endpoints that the
    next run reads whole. Raises LakeError, WarehouseError where nothing can be done at all.
    """
    with holding(warehouse, pair, waiting=tell) as lease, warehouse.connected() as connection:
        noted = ledger.noted_sources(connection, pair)
        standard = platform.ods(pair).extract.data_standard
        for sentence in move_renamed(connection, lease, noted, endpoints_of(platform, pair), standard):
            tell(sentence)
        configured = Configured(platform.ods(pair))
        wanted = _wanted(platform, connection, configured, endpoints)
        found = chains(lake, pair, configured, wanted)
        for endpoint in endpoints:
            chain = found[normal_path(endpoint.path)]
            try:
                yield _Replay(connection, lease, endpoint, chain, tell).result()
            except (WarehouseError, LakeError, OdsRestored) as error:
                yield _result(endpoint, Result.FAILED, str(error))


def _wanted(
    platform: Platform, connection: Connection, configured: Configured, endpoints: Sequence[Endpoint]
) -> Mapping[str, Wanted]:
    """Normal path of an endpoint → what is to be replayed of it."""
    after = ledger.latest_loaded(connection, configured.pair)
    noted = ledger.noted_sources(connection, configured.pair).active
    return {
        normal_path(e.path): Wanted(
            e.snake,
            partial(_foreign, platform, configured, e),
            after.get(e.snake),
            next(filter(None, noted.get(e.snake, [])), None),
        )
        for e in endpoints
    }


def _foreign(platform: Platform, configured: Configured, endpoint: Endpoint, source: Source) -> str:
    kind: EndpointKind = "descriptors" if endpoint.is_descriptor else "resources"
    options = platform.endpoint_options(configured.pair, endpoint.namespace, endpoint.name, kind)
    changed = configured.changes_since(source, endpoint.path, options.query_parameters, options.profile or "")
    return " and ".join(changed)


@dataclass
class _Replay:
    """One endpoint's chain. ``reached`` is how far it is replayed, where the ledger gets no watermark of it.

    ``undecided`` are ids that share a natural key, and of which no manifest says which are gone.
    """

    connection: Connection
    lease: Lease
    endpoint: Endpoint
    chain: Chain
    tell: Callable[[str], None]
    reached: dict[RecordKind, int] = field(default_factory=dict)
    undecided: frozenset[str] = frozenset()

    def result(self) -> EndpointResult:
        steps, endpoint = self.chain.steps, self.endpoint
        first = next((step for step in steps if step.manifests or step.unreadable), None)
        if first is None:
            return self._nothing()
        if not (first.is_full or first.unreadable):
            self._check_may_begin(first)
        result = EndpointResult(endpoint, full=first.is_full)
        for step in steps:
            if not self._add(step, result):
                break
        if self.chain.restored:
            self.tell(f"{self._doubt}; the next run reads it whole")
        elif self.undecided:  # only the ODS can say which of them live: the next run asks it
            with self.connection.transaction():
                self.lease.check(self.connection)
                load.look_again(self.connection, self.lease.pair, endpoint)
        return result

    def _add(self, step: Step, result: EndpointResult) -> bool:
        """Replay a step; False where a chain that is not to be trusted to its end has ended."""
        if step.unreadable is not None:
            raise step.unreadable
        try:
            loaded = self._load(step)
        except (_Gap, OdsRestored):
            if self.chain.restored:
                return False
            raise
        result.rows_inserted += loaded.inserted.get(RECORDS, 0)
        result.rows_removed += loaded.removed
        self.undecided = (self.undecided | loaded.undecided) - {
            record_id for manifest in step.manifests.values() for record_id in manifest.gone
        }
        for kind, manifest in step.manifests.items():
            rows = loaded.inserted.get(kind, 0)
            result.kinds[kind] = KindResult(Result.LOADED if rows else Result.UNCHANGED, manifest, rows)
        return True

    @property
    def _label(self) -> str:
        return f"{self.lease.pair} {self.endpoint.path}"

    @property
    def _doubt(self) -> str:
        return (
            f"{self._label}: the lake tells that the ODS was restored before {self.chain.restored:%Y-%m-%d %H:%M:%S}, and "
            "has no full pull since"
        )

    def _nothing(self) -> EndpointResult:
        cause = "the lake holds nothing that is not loaded"
        if self.chain.foreign:
            told = f"{self._label}: the lake holds pulls of another source, which are not loaded ({self.chain.foreign})"
            if not self._committed():
                raise WarehouseError(f"{told}; materialize it with full_refresh instead")
            self.tell(told)
        if self.chain.restored and not self._committed():
            cause = f"{self._doubt}; the next run reads it whole"
            self.tell(cause)
        return _result(self.endpoint, Result.UNCHANGED, cause)

    def _check_may_begin(self, first: Step) -> None:
        """Raises WarehouseError where a chain that begins with a delta has nothing to go on from."""
        if not self._committed():
            raise WarehouseError(
                f"{self._label}: the lake's chain begins with a delta of {first.stamp:%Y-%m-%d %H:%M:%S}, not with a full "
                "pull; materialize it with full_refresh instead"
            )
        if self.chain.restored:
            raise WarehouseError(f"{self._doubt}; materialize it with full_refresh instead")

    def _committed(self) -> Mapping[RecordKind, int]:
        """Kind → the change version up to which everything is replayed."""
        if self.chain.restored and self.chain.steps and self.chain.steps[0].is_full:
            return self.reached
        found = ledger.watermarks(self.connection, self.lease.pair, self.endpoint.snake)
        return {kind: version for (_, kind), version in found.items()}

    # -- one step -------------------------------------------------------------------------------------

    def _load(self, step: Step) -> load.Loaded:
        connection, lease, now = self.connection, self.lease, self._committed()
        endpoint = _with_key(self.endpoint, step.manifests.get(RECORDS))
        readings = {
            kind: ledger.Reading(self._entry(kind, step, now.get(kind)), manifest)
            for kind, manifest in step.manifests.items()
        }
        if endpoint.is_descriptor and RECORDS in readings:
            loaded = load.load_descriptors(connection, lease, [readings[RECORDS]])
            return loaded.get(endpoint.snake, load.Loaded())
        if step.is_full:
            refreshed = load.load_refresh(connection, lease, readings[RECORDS])
            kinds = [kind for kind in _KINDS if kind == RECORDS or kind in step.covered]
            load.close_refreshes(connection, lease, [self._entry(kind, step, None) for kind in kinds])
            self._note(kinds, step)
            return refreshed
        if not now:  # an unfinished chain before the full pull that begins it
            return load.Loaded()
        settled = [
            ledger.Reading(self._entry(kind, step, now.get(kind)))
            for kind, low in step.settled.items()
            if _reaches(low, now.get(kind))
        ]
        loading = [*self._continuing(readings, now), *settled]
        loaded_now = load.load_delta(connection, lease, endpoint, loading)
        self._note([reading.entry.kind for reading in loading], step)
        return loaded_now

    def _entry(self, kind: RecordKind, step: Step, low: int | None) -> ledger.Entry:
        """As the run that pulled it wrote it, but without a watermark after a restore."""
        newest = step.newest
        if self.chain.restored:
            low = newest = None
        endpoint = _with_key(self.endpoint, step.manifests.get(RECORDS))
        return ledger.Entry(self.lease.pair, endpoint, kind, step.stamp, low, newest, step.source)

    def _note(self, kinds: Sequence[RecordKind], step: Step) -> None:
        if step.newest is not None:
            self.reached |= dict.fromkeys(kinds, step.newest)

    def _continuing(
        self, readings: Mapping[RecordKind, ledger.Reading], now: Mapping[RecordKind, int]
    ) -> Iterator[ledger.Reading]:
        """The readings that begin at or before what is committed and end after it.

        Raises _Gap where records that were pulled in between are missing in the lake; deletes and key changes with a gap
        are left out, and the next run reads them again from the watermark that stays.
        """
        for kind, reading in readings.items():
            manifest, committed = reading.manifest, now.get(kind)
            assert manifest is not None
            of_a_run = manifest.max_change_version == manifest.newest
            from_the_start = manifest.min_change_version == 0
            continues = manifest.low is not None and _reaches(manifest.low, committed)
            if of_a_run and (from_the_start or continues):
                if committed is None or (manifest.newest or 0) >= committed:
                    yield reading
            elif kind == RECORDS:
                begins = manifest.low if manifest.low is not None else manifest.min_change_version
                raise _Gap(
                    f"{self._label}: the lake has no pull between change versions {committed} and {begins}; materialize it "
                    "with full_refresh instead"
                )


def _reaches(low: int | None, committed: int | None) -> bool:
    """Whether a pull that was read from watermark ``low`` leaves no gap after what is committed."""
    return low is None or (committed is not None and low <= committed)


def _with_key(endpoint: Endpoint, manifest: Manifest | None) -> Endpoint:
    """The endpoint with the natural key that the pull knew, which may be the ODS's own."""
    if endpoint.is_descriptor or not manifest or not manifest.key or manifest.key == dict(endpoint.key):
        return endpoint
    return replace(endpoint, key=manifest.key)


def _result(endpoint: Endpoint, result: Result, cause: str) -> EndpointResult:
    return EndpointResult(endpoint, kinds={RECORDS: KindResult(result, cause=cause)})
