"""The run of one (tenant, year): readers pull side by side, loaders commit what they bring, results come as they are durable."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from queue import Queue

from edfi_dagster.extract.endpoint_read import Before, EndpointRead, before_a_run
from edfi_dagster.extract.read import Reader
from edfi_dagster.extract.restored import caught_up, forget, highest_committed
from edfi_dagster.extract.sources import Sources, forget_changed
from edfi_dagster.extract.verification import Verification
from edfi_dagster.extract.work import EndpointResult, Job, KindResult, Result, Work
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import latest_stamp
from edfi_dagster.lake.proof import DamagedFile
from edfi_dagster.lake.pull import PullRun, newest_to_read
from edfi_dagster.lake.sealed import write_sealed
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.errors import (
    EdFiError,
    OdsDown,
    OdsRestored,
    SnapshotGone,
    WrongCredentials,
)
from edfi_dagster.ods.pages import RECORDS
from edfi_dagster.warehouse import ledger, load
from edfi_dagster.warehouse.contract import Connection, WarehouseError
from edfi_dagster.warehouse.lease import Lease, holding
from edfi_dagster.warehouse.supersede import Suspected, Suspects

# Endpoints read side by side beyond the requests in flight, so that one that waits for its load leaves no gap.
_SPARE_READERS = 4
# After so many endpoints in a row without any answer the ODS is down, and the others need not find out too.
_UNANSWERED_ENDPOINTS = 3
# How long one run keeps a warehouse that others may be waiting for.
_LONGEST_BURST_SECONDS = 5.0


def extract(job: Job, works: Sequence[Work], *, full_refresh: bool = False) -> Iterator[EndpointResult]:
    """Pull and load what ``works`` says, yielding each endpoint's result once it is durable.

    A pull without a watermark is a full one. When the ODS turns out to have been restored, everything that was
    asked for is refreshed, and the pair's other watermarks are forgotten, as what another source left is; when the snapshot that was read is taken away,
    what is left is read from the next one. At the end counts are compared; an endpoint that is refreshed because of that
    has a second result. Raises WrongCredentials, OdsUnreachable, OdsNotReady, SnapshotGone, LakeError
    or WarehouseError where nothing can be done at all; the failure of one endpoint is in its result instead.
    """
    with holding(job.warehouse, job.pair, waiting=job.tell) as lease:
        job.lake.check_writable()
        done: dict[str, EndpointResult] = {}
        verification = Verification(job, works, done)
        yield from _noted(_passes(job, lease, works, full_refresh=full_refresh), done)
        if differing := verification.to_refresh():
            yield from _noted(_passes(job, lease, differing, full_refresh=True), done)
        verification.conclude()


def _noted(
    results: Generator[EndpointResult, None, None], done: dict[str, EndpointResult]
) -> Iterator[EndpointResult]:
    """The results as they come, the last of each endpoint kept in ``done`` by its path."""
    with closing(results):
        for result in results:
            done[result.endpoint.path] = result
            yield result


def _passes(
    job: Job, lease: Lease, works: Sequence[Work], *, full_refresh: bool
) -> Generator[EndpointResult, None, None]:
    """One pass over the works, and more where the ODS was restored or its snapshot taken away meanwhile."""
    for last in (False, False, True):
        newest = newest_to_read(job.session)
        sources = Sources(job.platform, job.session, job.tell, job.warn)
        foreign = forget_changed(job, lease, sources, [work.endpoint for work in works])
        if newest is not None:
            committed = highest_committed(job)
            newest = caught_up(job, newest, committed)
            if newest < committed:
                forget(job, lease, sources, newest, anything_read=False)
                full_refresh = True
        before = before_a_run(job, foreign)
        run = _PairRun(job, lease, newest, sources, before, full_refresh=full_refresh)
        with closing(run.results(works)) as results:
            yield from results
        if run.interrupted is None:
            break
        if last:
            raise run.interrupted
        if isinstance(run.interrupted, OdsRestored):
            forget(job, lease, sources, None, anything_read=True)
            full_refresh = True
        else:
            job.warn(f"{run.interrupted}; reading what is left from the next one")
            works = [work for work in works if work.endpoint not in run.durable]
    ods_version = job.session.discovery.ods_version
    reached = "" if newest is None else f" up to change version {newest}"
    job.tell(f"{job.pair}: done with ODS/API {ods_version}{reached}")


class _PairRun:
    """One pass over the works, under one stamp. ``durable`` are the endpoints that need no other."""

    def __init__(
        self,
        job: Job,
        lease: Lease,
        newest: int | None,
        sources: Sources,
        before: Before,
        *,
        full_refresh: bool,
    ) -> None:
        self.interrupted: OdsRestored | SnapshotGone | None = None
        self.durable: set[Endpoint] = set()
        self._job = job
        self._lease = lease
        self._full_refresh = full_refresh
        self._sources = sources
        discovery = job.session.discovery
        self._pull_run = PullRun(
            lake=job.lake,
            pair=job.pair,
            stamp=lease.next_stamp(after=latest_stamp(job.lake, job.pair)),
            newest=newest,
            ods_version=discovery.ods_version,
            data_model_version=discovery.data_model_version,
            threads=job.session.settings.extract.max_concurrent_requests,
            compression=job.platform.lake.compression,
            tmp_dir=job.platform.extract.tmp_dir,
        )
        self._reader = Reader(job, self._pull_run, before, sources, full_refresh=full_refresh)
        self._to_load: Queue[EndpointRead | None] = Queue()
        self._done: Queue[EndpointResult | BaseException] = Queue()
        self._stop = threading.Event()
        self._descriptors: list[EndpointRead] = []
        self._refreshed: list[ledger.Entry] = []
        self._settled: list[ledger.Entry] = []
        self._unanswered = 0

    def results(self, works: Sequence[Work]) -> Generator[EndpointResult, None, None]:
        """Results in the order they become durable; descriptors, which share one transaction, at the end."""
        summary: list[EndpointResult] = []
        with closing(self._pulled_and_loaded(works)) as results:
            for found in results:
                summary.append(found)
                self.durable.add(found.endpoint)
                yield found
        if not self._is_restored:
            self._check_still_there()
        if not self._is_restored:
            for found in self._finish(summary):
                self.durable.add(found.endpoint)
                yield found

    def _pulled_and_loaded(self, works: Sequence[Work]) -> Generator[EndpointResult, None, None]:
        """Results that are final once their endpoint was pulled and, where that was asked for, loaded."""
        readers = self._job.session.settings.extract.max_concurrent_requests + _SPARE_READERS
        loaders = self._job.warehouse.loads_at_once
        with ThreadPoolExecutor(readers, "read") as reading, ThreadPoolExecutor(loaders, "load") as loading:
            self._asking = reading
            try:
                for _ in range(loaders):
                    loading.submit(self._load_all)
                for work in works:
                    reading.submit(self._read, work)
                for _ in works:
                    found = self._done.get()
                    if isinstance(found, BaseException):
                        raise found
                    # One without kinds waits for the descriptors' transaction, or for another pass.
                    if found.kinds and not self._is_restored:
                        yield found
            finally:
                self._stop.set()
                for _ in range(loaders):
                    self._to_load.put(None)

    @property
    def _is_restored(self) -> bool:
        return isinstance(self.interrupted, OdsRestored)

    def _check_still_there(self) -> None:
        """An ODS that was restored while it was read would be noticed later only if it stayed behind until then."""
        newest = self._pull_run.newest
        if newest is None or self.interrupted is not None:
            return
        try:
            now = caught_up(self._job, self._job.session.newest_change_version(), newest)
        except EdFiError as error:  # what was read is read; the next run asks again before anything else
            self._job.warn(
                f"{error}; asked only whether the ODS is still the same, and what was read is committed"
            )
            return
        if now < newest:
            self.interrupted = OdsRestored("it went back while it was read", pair=self._job.pair)

    # -- reading --------------------------------------------------------------------------------------

    def _read(self, work: Work) -> None:
        try:
            if self.interrupted is not None:
                self._done.put(EndpointResult(work.endpoint))
                return
            if self._stop.is_set() or self._unanswered >= _UNANSWERED_ENDPOINTS:
                self._done.put(self._not_tried(work))
                return
            read = self._reader.read(work)
            self._note_answer(read)
            if read.endpoint.is_descriptor and read.readings and read.work.load:
                self._descriptors.append(read)
                self._done.put(EndpointResult(read.endpoint))
            elif read.readings and read.work.load and RECORDS in read.work.kinds:
                self._to_load.put(read)
            else:
                self._done.put(read.stored())
        except SnapshotGone as error:
            self.interrupted = self.interrupted or error
            self._done.put(EndpointResult(work.endpoint))
        except WrongCredentials as error:
            self._stop.set()
            self._done.put(error)
        except Exception as error:  # noqa: BLE001 - whatever a thread dies of must reach the one who waits for it
            self._done.put(error)

    def _not_tried(self, work: Work) -> EndpointResult:
        cause = f"{self._job.pair} {work.endpoint.path}: not tried, because the ODS stopped answering"
        return EndpointResult(work.endpoint, kinds={RECORDS: KindResult(Result.FAILED, cause=cause)})

    def _note_answer(self, read: EndpointRead) -> None:
        causes = [result for result in read.results.values() if result.result == Result.FAILED]
        unanswered = any(result.error == OdsDown.__name__ for result in causes)
        self._unanswered = self._unanswered + 1 if unanswered and not read.readings else 0

    # -- loading --------------------------------------------------------------------------------------

    def _load_all(self) -> None:
        """Load what the readers bring, in bursts: the warehouse is let go whenever there is nothing to load."""
        while (read := self._next_to_load()) is not None:
            try:
                with self._job.warehouse.connected() as connection:
                    until = time.monotonic() + _LONGEST_BURST_SECONDS
                    self._load_or_ask(connection, read)
                    while time.monotonic() < until and not self._to_load.empty():
                        if (read := self._next_to_load()) is None:
                            return
                        self._load_or_ask(connection, read)
            except Exception as error:  # noqa: BLE001 - must reach the one who waits for it
                self._done.put(error)
                return

    def _next_to_load(self) -> EndpointRead | None:
        """The next endpoint, waiting for it; None when the run stops."""
        read = self._to_load.get()
        return None if self._stop.is_set() else read

    def _load_or_ask(self, connection: Connection, read: EndpointRead) -> None:
        """Load an endpoint, or hand it to a reader first: the ODS may take long, and the warehouse is not kept for it."""
        try:
            self._done.put(self._load(connection, read))
        except Suspected as question:
            self._asking.submit(self._ask, read, question.suspects[read.endpoint.snake])

    def _ask(self, read: EndpointRead, suspects: Suspects) -> None:
        try:
            failed = self._judge(read, suspects)
            if failed is None:
                self._to_load.put(read)
            else:
                self._done.put(failed)
        except SnapshotGone as error:
            self.interrupted = self.interrupted or error
            self._done.put(EndpointResult(read.endpoint))
        except Exception as error:  # noqa: BLE001 - must reach the one who waits for it
            self._stop.set()
            self._done.put(error)

    def _judge(self, read: EndpointRead, suspects: Suspects) -> EndpointResult | None:
        """Have the ODS say which suspects live; the endpoint's failure where it does not."""
        try:
            self._reader.judge(read, suspects)
        except (WrongCredentials, SnapshotGone):
            raise
        except (EdFiError, LakeError, WarehouseError) as error:
            return read.failed(error)
        return None

    def _load(self, connection: Connection, read: EndpointRead) -> EndpointResult:
        judged = {read.endpoint.snake: read.judged}
        try:
            if self._is_restored:
                return read.stored()
            if read.full:
                reading = read.readings[RECORDS]
                loaded = load.load_refresh(connection, self._lease, reading, judged=judged)
                self._refreshed += [reading.entry for reading in read.readings.values()]
            elif read.has_rows or read.is_first_look:
                readings = list(read.readings.values())
                loaded = load.load_delta(connection, self._lease, read.endpoint, readings, judged=judged)
            else:
                loaded = load.Loaded()
                self._settled += [reading.entry for reading in read.readings.values()]
            return read.loaded(loaded)
        except OdsRestored as error:
            self.interrupted = error
            return read.stored()
        except (WarehouseError, LakeError) as error:
            return read.failed(error)

    def _finish(self, loaded_before: Sequence[EndpointResult]) -> list[EndpointResult]:
        """The run's closing transactions: descriptors, refreshed watermarks, watermarks without news.

        ``run.json`` comes before the last one: a rebuild learns only there that an endpoint was read and had no news.
        """
        changed = [read for read in self._descriptors if read.has_rows]
        unchanged = [read for read in self._descriptors if not read.has_rows]
        self._settled += [read.readings[RECORDS].entry for read in unchanged]
        others = [read.loaded(load.Loaded()) for read in unchanged]
        while True:
            try:
                with self._job.warehouse.connected() as connection:
                    results = [*self._load_descriptors(connection, changed), *others]
                    if self._refreshed:
                        load.close_refreshes(connection, self._lease, self._refreshed)
                    self._write_summary([*loaded_before, *results])
                    load.settle(connection, self._lease, self._settled)
                return results
            except Suspected as question:  # by the first statement: nothing is written yet
                for read in list(changed):
                    suspects = question.suspects.get(read.endpoint.snake)
                    if suspects and (failed := self._judge(read, suspects)):
                        changed.remove(read)
                        others.append(failed)

    def _load_descriptors(
        self, connection: Connection, reads: Sequence[EndpointRead]
    ) -> list[EndpointResult]:
        """Load them in one transaction; one whose file is damaged fails and stops no other."""
        if not reads:
            return []
        try:
            loaded = load.load_descriptors(
                connection,
                self._lease,
                [read.readings[RECORDS] for read in reads],
                judged={read.endpoint.snake: read.judged for read in reads},
            )
        except DamagedFile as error:
            of_file = [read for read in reads if error.path in read.files]
            others = [read for read in reads if read not in of_file]
            return [*(read.failed(error) for read in of_file), *self._load_descriptors(connection, others)]
        except (WarehouseError, LakeError) as error:
            return [read.failed(error) for read in reads]
        return [read.loaded(loaded.get(read.endpoint.snake, load.Loaded())) for read in reads]

    def _write_summary(self, results: Sequence[EndpointResult]) -> None:
        """``run.json``: every endpoint of the run and what came of it."""
        run = self._pull_run
        document = {
            "tenant": run.pair.tenant,
            "year": run.pair.year,
            "pull_timestamp": run.stamp,
            "newest": run.newest,
            "ods_version": run.ods_version,
            "data_model_version": run.data_model_version,
            "full_refresh": self._full_refresh,
            "source": self._sources.ods,
            "endpoints": [
                {
                    "endpoint": result.endpoint.path,
                    "name": result.endpoint.snake,
                    **(source.of_endpoint() if (source := self._sources.known(result.endpoint)) else {}),
                    "kind": kind,
                    "result": str(of_kind.result),
                    "rows": of_kind.manifest.rows if of_kind.manifest else 0,
                    "rows_loaded": of_kind.rows_loaded,
                    "low": of_kind.low,
                    "cause": of_kind.cause,
                }
                for result in results
                for kind, of_kind in result.kinds.items()
            ],
        }
        write_sealed(run.lake, f"{paths.run_folder(run.pair, run.stamp)}/run.json", document)
