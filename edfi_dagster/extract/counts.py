"""What the ODS counts per endpoint, to be compared with what the warehouse holds."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from edfi_dagster.extract.collections import Collections
from edfi_dagster.extract.work import Job
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.changes import EVERYTHING
from edfi_dagster.ods.errors import EdFiError, NotOffered, NotPermitted
from edfi_dagster.warehouse.counts import record_counts
from edfi_dagster.warehouse.ledger import latest_loaded


def count_rows(job: Job, endpoints: Iterable[Endpoint]) -> dict[str, int]:
    """Ask the ODS how many records each endpoint has now, and add that to the total counts under the pair's latest stamp.

    Returns name → records. What cannot be counted is warned of and left out: a count is a check, not the data.
    """
    if not job.session.abilities.counts:
        job.warn(f"{job.pair}: this ODS gives no counts; write pull_total_counts: false")
        return {}
    collections = Collections(job.platform, job.session, lambda _: None)

    def count(endpoint: Endpoint) -> tuple[str, int | None]:
        try:
            return endpoint.snake, collections.open(endpoint).count(EVERYTHING)
        except (NotOffered, NotPermitted):
            return endpoint.snake, None
        except EdFiError as error:
            job.warn(f"{error}; not counted")
            return endpoint.snake, None

    with ThreadPoolExecutor(job.session.settings.extract.max_concurrent_requests, "count") as counting:
        counted = {name: rows for name, rows in counting.map(count, endpoints) if rows is not None}
    with job.warehouse.connected() as connection:
        stamps = latest_loaded(connection, job.pair).values()
        if stamps:
            record_counts(connection, job.pair, max(stamps), counted)
    return counted
