"""What came of a run, as people read it: one line, warnings, and ONE failure that lists every endpoint and its cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

from edfi_dagster.config import ConfigError, TenantYear
from edfi_dagster.extract import EndpointResult, Result
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.pages import RECORDS, RecordKind
from edfi_dagster.warehouse.contract import WarehouseError

_TOLD_FAILURES = 20


@contextmanager
def told_as_failure(pair: TenantYear) -> Iterator[None]:
    """Our errors as one sentence, without the stack that led to them."""
    try:
        yield
    except (ConfigError, EdFiError, LakeError, WarehouseError) as error:
        raise dg.Failure(_placed(pair, str(error)), allow_retries=False) from None


def report(context: dg.AssetExecutionContext, pair: TenantYear, results: Sequence[EndpointResult]) -> None:
    """Say what came of the endpoints. Raises dagster.Failure, with endpoint → cause in its metadata, if any failed."""
    counts = Counter(kind.result for result in results for kind in result.kinds.values())
    context.log.info(f"{pair}: " + ", ".join(f"{count} {result}" for result, count in sorted(counts.items())))
    for skipped in (Result.NOT_OFFERED, Result.NOT_PERMITTED):
        named = [
            _label(result, kind)
            for result in results
            for kind, of_kind in result.kinds.items()
            if of_kind.result == skipped
        ]
        if named:
            # An endpoint that is read and then refreshed has two results.
            context.log.warning(f"{pair}: {skipped}, skipped: {', '.join(dict.fromkeys(named))}")
    failures = {_label(result, kind): cause for result in results for kind, cause in result.failures.items()}
    if failures:
        raise dg.Failure(
            f"{pair}: {len(failures)} of {sum(counts.values())} failed; the rest is committed, and a new run does only "
            "what is left.\n" + "\n".join(f"- {cause}" for cause in list(failures.values())[:_TOLD_FAILURES]),
            metadata={"edfi/failures": dg.MetadataValue.json(failures)},
            allow_retries=False,
        )


def complete(results: Iterable[EndpointResult]) -> list[Endpoint]:
    """The endpoints whose records are in the warehouse as they are in the ODS."""
    return list({r.endpoint.path: r.endpoint for r in results if r.is_committed}.values())


def _label(result: EndpointResult, kind: RecordKind) -> str:
    """``ed-fi/students``, ``ed-fi/students/deletes``."""
    return result.endpoint.path if kind == RECORDS else f"{result.endpoint.path}/{kind}"


def _placed(pair: TenantYear, cause: str) -> str:
    """The cause with tenant and year in front, where it does not name them itself."""
    return cause if str(pair) in cause.partition(":")[0] else f"{pair}: {cause}"
