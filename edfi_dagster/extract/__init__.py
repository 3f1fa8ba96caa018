"""One (tenant, year), end to end, without Dagster: what to pull, pull → store → load, results as they become durable."""

from edfi_dagster.extract.counts import count_rows
from edfi_dagster.extract.forecast import changed_endpoints
from edfi_dagster.extract.run import extract
from edfi_dagster.extract.shared import SharedExtract
from edfi_dagster.extract.stored import load_stored
from edfi_dagster.extract.work import EndpointResult, Job, KindResult, Result, Work

__all__ = [
    "EndpointResult",
    "Job",
    "KindResult",
    "Result",
    "SharedExtract",
    "Work",
    "changed_endpoints",
    "count_rows",
    "extract",
    "load_stored",
]
