"""The extract op: one multi-asset over every endpoint and raw table, run for one tenant and year at a time.

Any subset can be selected. Selected endpoints are pulled; they are loaded when their raw table is selected too
(descriptors, whose table is shared, always). A raw table selected alone loads what the lake holds for it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys, pair_of
from edfi_dagster.assets.materializations import Materializations
from edfi_dagster.assets.specs import Specs
from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.extract import EndpointResult, Result, Work, count_rows, extract, load_stored
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.resources import EdfiRun, open_job
from edfi_dagster.warehouse.contract import WarehouseError

OP_NAME = "edfi"
_KINDS: tuple[RecordKind, ...] = (RECORDS, DELETES, KEY_CHANGES)
_TOLD_FAILURES = 20


class Selection:
    """What the selected asset keys ask of each of a tenant-year's endpoints; those of other data standards ask nothing."""

    def __init__(
        self, keys: AssetKeys, endpoints: Iterable[Endpoint], selected: Collection[dg.AssetKey]
    ) -> None:
        self.kinds: dict[str, set[RecordKind]] = {}
        self.tables: set[str] = set()
        self.works: list[Work] = []
        self.stored: list[Endpoint] = []
        for endpoint in endpoints:
            kinds = {kind for kind in _KINDS if keys.endpoint(endpoint, kind) in selected}
            table = keys.table(endpoint) in selected
            self.kinds[endpoint.path] = kinds
            if table:
                self.tables.add(endpoint.path)
            if kinds:
                self.works.append(Work(endpoint, frozenset(kinds), load=table or endpoint.is_descriptor))
            elif table:
                self.stored.append(endpoint)


def build_extract(
    platform: Platform, keys: AssetKeys, partitions: dg.PartitionsDefinition
) -> dg.AssetsDefinition:
    """The multi-asset of one platform."""
    specs = Specs(platform, keys, partitions)

    @dg.multi_asset(
        name=OP_NAME,
        specs=list(specs.executable()),
        partitions_def=partitions,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
    )
    def edfi(context: dg.AssetExecutionContext, edfi_run: EdfiRun) -> Iterator[dg.MaterializeResult[None]]:
        pair = pair_of(context.partition_key)
        try:
            _run(context, platform, keys, pair, full_refresh=edfi_run.full_refresh)
        except (ConfigError, EdFiError, LakeError, WarehouseError) as error:
            raise dg.Failure(_placed(pair, "", str(error)), allow_retries=False) from None
        yield from ()

    return edfi


def _run(
    context: dg.AssetExecutionContext,
    platform: Platform,
    keys: AssetKeys,
    pair: TenantYear,
    *,
    full_refresh: bool,
) -> None:
    endpoints = endpoints_of(platform, pair)  # an undeclared pair fails here, before any request
    selection = Selection(keys, endpoints, context.selected_asset_keys)
    results: list[EndpointResult] = []
    say = {"tell": context.log.info, "warn": context.log.warning}
    with open_job(platform, pair, endpoints, **say, run_id=context.run.run_id) as job:
        told = Materializations(platform, keys, pair, job.lake)
        streams = []
        if selection.works:
            streams.append(extract(job, selection.works, full_refresh=full_refresh))
        if selection.stored:
            streams.append(load_stored(job.lake, job.warehouse, pair, selection.stored, tell=job.tell))
        for stream in streams:
            for result in stream:
                results.append(result)
                path = result.endpoint.path
                for event in told.of_endpoint(result, selection.kinds[path], table=path in selection.tables):
                    # Logged, not yielded as an output: the same materialization at less than half the events.
                    context.log_event(event)
        for event in told.of_shared_tables():
            context.log_event(event)
        if job.session.settings.extract.pull_total_counts and (counts := count_rows(job, _complete(results))):
            context.log_event(told.of_total_counts(counts))
    _report(context, pair, results)


def _complete(results: Iterable[EndpointResult]) -> list[Endpoint]:
    """The endpoints whose records are in the warehouse as they are in the ODS."""
    committed = {Result.LOADED, Result.UNCHANGED}
    return [
        r.endpoint
        for r in results
        if RECORDS in r.kinds and r.kinds[RECORDS].result in committed and not r.kinds[RECORDS].cause
    ]


def _report(context: dg.AssetExecutionContext, pair: TenantYear, results: list[EndpointResult]) -> None:
    """One line of what came of the run; ONE failure that lists every endpoint and its cause."""
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
            context.log.warning(f"{pair}: {skipped}, skipped: {', '.join(named)}")
    failures = {_label(result, kind): cause for result in results for kind, cause in result.failures.items()}
    if failures:
        raise dg.Failure(
            f"{pair}: {len(failures)} of {sum(counts.values())} failed; the rest is committed, and a new run does only "
            "what is left.\n" + "\n".join(f"- {cause}" for cause in list(failures.values())[:_TOLD_FAILURES]),
            metadata={"edfi/failures": dg.MetadataValue.json(failures)},
            allow_retries=False,
        )


def _label(result: EndpointResult, kind: RecordKind) -> str:
    """``ed-fi/students``, ``ed-fi/students/deletes``."""
    return result.endpoint.path if kind == RECORDS else f"{result.endpoint.path}/{kind}"


def _placed(pair: TenantYear, label: str, cause: str) -> str:
    """The cause with tenant, year and endpoint in front, where it does not name them itself."""
    if str(pair) in cause.partition(":")[0]:
        return cause
    return f"{pair} {label}: {cause}" if label else f"{pair}: {cause}"
