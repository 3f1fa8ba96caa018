"""The extract ops: every endpoint and raw table, run for one tenant and year at a time, in one of two shapes.

``bulk`` (and ``dynamic``, which is bulk launched for only what changed) is one op over everything. ``default`` is one op,
and so one step, per endpoint family: its records, deletes, key changes and their load. Both run the same extract, which
pulls everything that is selected side by side; any subset can be selected.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys, pair_of, partition_key
from edfi_dagster.assets.materializations import Event, Materializations, log, summary_metadata
from edfi_dagster.assets.outcome import complete, report, told_as_failure
from edfi_dagster.assets.selection import Selection
from edfi_dagster.assets.specs import Specs
from edfi_dagster.checks.counts import evaluations
from edfi_dagster.checks.tenant_years import TENANT_YEARS
from edfi_dagster.config import Platform
from edfi_dagster.extract import (
    EndpointResult,
    Job,
    SharedExtract,
    count_rows,
    extract,
    load_stored,
)
from edfi_dagster.extract.comparison import Comparison, compare
from edfi_dagster.ods.catalogue import endpoints_of
from edfi_dagster.resources import EdfiRun, open_job
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.ledger import latest_loaded

OP_NAME = "edfi"
UNREFRESHED_TAG = "edfi/unrefreshed"
"""How many endpoints a run that found its ODS restored left to others, as it was not to read them."""


def build_extract(
    platform: Platform, keys: AssetKeys, partitions: dg.PartitionsDefinition
) -> list[dg.AssetsDefinition]:
    """The multi-assets of one platform, in the shape of its ``run_type``."""
    specs = list(Specs(platform, keys, partitions).executable())
    if platform.extract.run_type != "default":
        return [_bulk(platform, keys, partitions, specs)]
    families: dict[str, list[dg.AssetSpec]] = defaultdict(list)
    names = _family_names(keys)
    for spec in specs:
        families[names[spec.key]].append(spec)
    return [_family(platform, keys, partitions, name, members) for name, members in families.items()]


class PairRun:
    """What one run does with one pair, and what it reports."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        platform: Platform,
        keys: AssetKeys,
        selected: Collection[dg.AssetKey],
    ) -> None:
        self._context = context
        self._platform = platform
        self._keys = keys
        self.pair = pair_of(context.partition_key)
        self._endpoints = endpoints_of(
            platform, self.pair
        )  # an undeclared pair fails here, before any request
        self.selection = Selection(keys, self._endpoints, selected)
        self._materializations: Materializations | None = None
        self._counts: dict[str, int] = {}
        self._comparisons: list[Comparison] = []
        self._done: list[EndpointResult] = []

    def results(self, *, full_refresh: bool) -> Iterator[EndpointResult]:
        """Pull, store and load; what the ODS counts afterwards is kept for ``closing_events``."""
        log, run_id = self._context.log, self._context.run.run_id
        with open_job(
            self._platform, self.pair, self._endpoints, tell=log.info, warn=log.warning, run_id=run_id
        ) as opened:
            job = replace(opened, restored=lambda: self._tag_unrefreshed(opened))
            self._materializations = Materializations(
                self._platform, self._keys, self.pair, job.lake, job.warehouse
            )
            streams = []
            if self.selection.works:
                streams.append(extract(job, self.selection.works, full_refresh=full_refresh))
            if self.selection.stored:
                stored = load_stored(
                    self._platform, job.lake, job.warehouse, self.pair, self.selection.stored, tell=job.tell
                )
                streams.append(stored)
            for stream in streams:
                for result in stream:
                    self._done.append(result)
                    yield result
            if job.session.settings.extract.pull_total_counts:
                self._counts = count_rows(job, complete(self._done))
                try:
                    self._comparisons = compare(job, self._counts)
                except WarehouseError as error:  # the rows are committed; only the comparison is missing
                    job.warn(f"{self.pair}: {error}; not compared with what the ODS counts")

    def _tag_unrefreshed(self, job: Job) -> None:
        """Tag the run with what it leaves unrefreshed after a restore, so that the change sensor asks for that."""
        with job.warehouse.connected() as connection:
            loaded = set(latest_loaded(connection, self.pair))
        mine = {work.endpoint.snake for work in self.selection.works}
        if left := loaded & {endpoint.snake for endpoint in self._endpoints} - mine:
            self._context.instance.add_run_tags(self._context.run.run_id, {UNREFRESHED_TAG: str(len(left))})

    def events(self, result: EndpointResult) -> Iterator[dg.AssetMaterialization]:
        """The materializations of what changed of one endpoint, as far as it was selected."""
        assert self._materializations is not None
        path = result.endpoint.path
        kinds, table = self.selection.kinds[path], path in self.selection.tables
        yield from self._materializations.of_endpoint(result, kinds, table=table)

    def closing_events(self) -> Iterator[Event]:
        """Of the tables that all endpoints share, of the run as a whole, and whether tables match what the ODS counts."""
        if self._materializations is not None:
            yield from self._materializations.of_shared_tables()
            if self._counts:
                yield self._materializations.of_total_counts(self._counts)
            yield dg.AssetObservation(
                TENANT_YEARS, partition=partition_key(self.pair), metadata=summary_metadata(self._done)
            )
            yield from self._materializations.of_differences(self._done)
            instance, run_id = self._context.instance, self._context.run.run_id
            yield from evaluations(instance, run_id, self._keys, self.pair, self._comparisons)


# -- bulk -----------------------------------------------------------------------------------------------------


def _bulk(
    platform: Platform,
    keys: AssetKeys,
    partitions: dg.PartitionsDefinition,
    specs: Iterable[dg.AssetSpec],
) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=OP_NAME,
        specs=list(specs),
        partitions_def=partitions,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
    )
    def edfi(context: dg.AssetExecutionContext, edfi_run: EdfiRun) -> Iterator[dg.MaterializeResult[None]]:
        with told_as_failure(pair_of(context.partition_key)):
            run = PairRun(context, platform, keys, context.selected_asset_keys)
            results = []
            for result in run.results(full_refresh=edfi_run.full_refresh):
                results.append(result)
                for event in run.events(result):
                    # Logged, not yielded as an output: the same materialization at less than half the events.
                    context.log_event(event)
            for closing in run.closing_events():
                log(context, closing)
        report(context, run.pair, results)
        yield from ()

    return edfi


# -- default --------------------------------------------------------------------------------------------------


def _family_names(keys: AssetKeys) -> dict[dg.AssetKey, str]:
    """Asset → its family: endpoints that share a raw table are one, a descriptor endpoint is its own."""
    return {key: endpoint.snake for endpoint in keys.endpoints for key in keys.family(endpoint)}


def _family(
    platform: Platform,
    keys: AssetKeys,
    partitions: dg.PartitionsDefinition,
    name: str,
    specs: Iterable[dg.AssetSpec],
) -> dg.AssetsDefinition:
    """One endpoint family. The first family of a run starts the extract of them all, the last one closes it."""

    @dg.multi_asset(
        name=name,
        specs=list(specs),
        partitions_def=partitions,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
    )
    def family(
        context: dg.AssetExecutionContext, edfi_run: EdfiRun
    ) -> Iterator[dg.MaterializeResult[object]]:
        with told_as_failure(pair_of(context.partition_key)):
            run, shared = edfi_run.shared(lambda: _start(context, platform, keys, edfi_run))
            mine = Selection(keys, endpoints_of(platform, run.pair), context.selected_asset_keys)
            results, is_last = shared.take(mine.paths)
        for result in results:
            for event in run.events(result):
                if event.asset_key in context.selected_asset_keys:
                    yield _output(event, keys, result)
                else:
                    context.log_event(event)
        if is_last:
            for closing in run.closing_events():
                log(context, closing)
        report(context, run.pair, results)

    return family


def _start(
    context: dg.AssetExecutionContext, platform: Platform, keys: AssetKeys, edfi_run: EdfiRun
) -> tuple[PairRun, SharedExtract]:
    steps = set(context.run.step_keys_to_execute or ())
    names = _family_names(keys)
    selected = {key for key in context.job_def.asset_layer.selected_asset_keys if names.get(key) in steps}
    run = PairRun(context, platform, keys, selected)
    takers = len({names[key] for key in selected})
    return run, SharedExtract(lambda: run.results(full_refresh=edfi_run.full_refresh), takers)


def _output(
    event: dg.AssetMaterialization, keys: AssetKeys, result: EndpointResult
) -> dg.MaterializeResult[object]:
    """A materialization as an output, which the IO manager of its layer gets: a manifest, or a result that is loaded."""
    manifests = {keys.endpoint(result.endpoint, kind): of.manifest for kind, of in result.kinds.items()}
    return dg.MaterializeResult(
        asset_key=event.asset_key, metadata=event.metadata, value=manifests.get(event.asset_key, result)
    )
