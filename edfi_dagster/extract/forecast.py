"""Which endpoints a delta would find something of, without reading any."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from edfi_dagster.extract.endpoint_read import before_a_run
from edfi_dagster.extract.read import Reader
from edfi_dagster.extract.restored import caught_up
from edfi_dagster.extract.sources import Sources, changes, of_other_ods
from edfi_dagster.extract.work import Job, Work
from edfi_dagster.lake.pull import PullRun, newest_to_read
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.warehouse import ledger


def changed_endpoints(job: Job, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """The endpoints of which a delta's own windows, overlap included, count any record, delete or key change.

    Also those that were never loaded and may be read, those whose source changed, and those that were loaded and may no
    longer be: a run tells of these. All of them where the ODS has no change versions. All that were ever loaded where its
    newest change version, asked twice, is below one that is committed: it was restored, and its windows would count
    nothing. Raises EdFiError, WarehouseError.
    """
    chosen = list(endpoints)
    newest = newest_to_read(job.session)
    if newest is None:
        return chosen
    sources = Sources(job.platform, job.session, job.tell, job.warn)
    with job.warehouse.connected() as connection:
        noted = ledger.noted_sources(connection, job.pair)
    changed = changes(noted.active, sources, chosen).names
    before = before_a_run(job, of_other_ods(noted, sources)).without(changed)
    highest = max(before.watermarks.values(), default=0)
    newest = caught_up(job, newest, highest)
    loaded = {name for name, _ in before.ever_loaded} if newest < highest else set()
    threads = job.session.settings.extract.max_concurrent_requests
    discovery = job.session.discovery
    asking = PullRun(
        lake=job.lake,
        pair=job.pair,
        stamp=datetime.now(UTC),  # of no pull: nothing is written
        newest=newest,
        ods_version=discovery.ods_version,
        data_model_version=discovery.data_model_version,
        threads=threads,
    )
    reader = Reader(job, asking, before, sources, full_refresh=False)

    def is_needed(endpoint: Endpoint) -> bool:
        return endpoint.snake in loaded or reader.has_news(Work(endpoint))

    with ThreadPoolExecutor(threads, "count") as counting:
        has_news = counting.map(is_needed, chosen)
        return [endpoint for endpoint, is_changed in zip(chosen, has_news, strict=True) if is_changed]
