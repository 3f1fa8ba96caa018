"""The bundle ops: one for each configured bundle, run for one tenant and year at a time, and one file of a grain.

A run is always of the whole bundle, from the file to the ODS or the raw tables, whatever of its assets is selected: an
output that is not sent, or sent without being made, means nothing. What was done before, of the same files with the same
bundle, is not done again, and then nothing is materialized.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg
from pydantic import Field

from edfi_dagster.assets.bundle_events import BundleEvents, failed, failure_of
from edfi_dagster.assets.bundle_specs import BundleAssets
from edfi_dagster.assets.keys import AssetKeys, pair_of
from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.earthbeam import BundleJob, EarthbeamError, run_bundle
from edfi_dagster.lake.store import LakeError, open_lake
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.sandbox.embedded import base_urls
from edfi_dagster.warehouse.contract import Warehouse, WarehouseError
from edfi_dagster.warehouse.opening import open_warehouse

POOL = "earthmover"


class BundleRun(dg.Config):
    """What one run of a bundle is of; ``ops.earthbeam__<bundle>.config`` in the launchpad."""

    grain: str | None = Field(
        default=None, description="Which of the bundle's grains, e.g. SAT; only if it has any."
    )
    files: dict[str, str] = Field(
        default={},
        description="Variable → file, e.g. INPUT_FILE: /incoming/fall.csv; else what the configuration says. "
        "Relative paths start at the configuration's folder.",
    )
    parameters: dict[str, str] = Field(
        default={}, description="Parameters of the bundle, above the configured ones."
    )
    force: bool = Field(
        default=False, description="Run also what was done before, and send also what was sent before."
    )


def build_bundles(
    platform: Platform, bundles: Iterable[BundleAssets], keys: AssetKeys, partitions: dg.PartitionsDefinition
) -> list[dg.AssetsDefinition]:
    """One multi-asset for each bundle of ``bundles_of``."""
    return [_bundle(platform, assets, keys, partitions) for assets in bundles]


def run_config(assets: BundleAssets, config: BundleRun) -> dict[str, object]:
    """The run configuration that hands ``config`` to the bundle's op."""
    return {"ops": {assets.op_name: {"config": config.model_dump(exclude_none=True)}}}


def _bundle(
    platform: Platform, assets: BundleAssets, keys: AssetKeys, partitions: dg.PartitionsDefinition
) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=assets.op_name,
        description=f"Bundle {assets.name}: {assets.title}.",
        specs=assets.specs(),
        check_specs=list(assets.check_specs()),
        partitions_def=partitions,
        # A check that a run did not get to is only left out where outputs may be.
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        pool=POOL,
    )
    def bundle(
        context: dg.AssetExecutionContext, config: BundleRun
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        pair = pair_of(context.partition_key)
        with _told_as_failure(pair, assets.name), _open_job(context, platform, assets, pair, config) as job:
            result = run_bundle(job)
            events = BundleEvents(assets, keys, result, job.lake)
        yield from _reported(context, events)
        if not result.is_done:
            raise failed(result)
        if result.unchanged:
            context.log.info(
                f"{pair}: {assets.name}: nothing to do, the same files were done with the same bundle before; force runs "
                "them again"
            )

    return bundle


def _reported(
    context: dg.AssetExecutionContext, events: BundleEvents
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """What is selected as outputs, so that assets downstream in the same run go on; the rest as events."""
    for event in events.materializations():
        if event.asset_key in context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=event.asset_key, metadata=event.metadata)
        else:
            context.log_event(event)
    for check in events.checks():
        assert check.asset_key is not None and check.check_name is not None
        if dg.AssetCheckKey(check.asset_key, check.check_name) in context.selected_asset_check_keys:
            yield check


@contextmanager
def _told_as_failure(pair: TenantYear, bundle: str) -> Iterator[None]:
    """What keeps a run from beginning as one sentence, without the stack that led to it."""
    try:
        yield
    except (ConfigError, EarthbeamError, EdFiError, LakeError, WarehouseError) as error:
        raise failure_of(pair, bundle, "begin", str(error)) from None


@contextmanager
def _open_job(
    context: dg.AssetExecutionContext,
    platform: Platform,
    assets: BundleAssets,
    pair: TenantYear,
    config: BundleRun,
) -> Iterator[BundleJob]:
    """Everything a run of a bundle works with. Raises ConfigError, BundleError for a pair or grain that is none of it."""
    platform.ods(pair)
    log = context.log
    lake = open_lake(platform.lake, platform.extract.tmp_dir)
    tag = {"tenant": pair.tenant, "year": pair.year, "run": context.run.run_id}
    with ExitStack() as opened:
        warehouse = opened.enter_context(closing(open_warehouse(platform, lake, log.info, tag=tag)))
        job = BundleJob(
            platform,
            pair,
            assets.name,
            lake,
            warehouse,
            grain=config.grain,
            inputs={name: platform.folder / Path(file) for name, file in config.files.items()},
            parameters=config.parameters,
            force=config.force,
            tell=log.info,
            warn=log.warning,
        )
        settings = job.settings
        roster = _roster_platform(platform, assets)
        other: Warehouse | None = None
        if roster is not None:
            other = opened.enter_context(closing(open_warehouse(roster, lake, log.info, tag=tag)))
        url = None
        if settings.destination != "none":
            url = opened.enter_context(base_urls(platform, [pair]))[pair]
        yield replace(job, base_url=url, roster_warehouse=other)


def _roster_platform(platform: Platform, assets: BundleAssets) -> Platform | None:
    """The platform as it is, but in the warehouse that the roster is read from, where that is another one."""
    ids = assets.settings.student_ids
    if ids is None or ids.roster_warehouse is None:
        return None
    return platform.model_copy(update={"warehouse": ids.roster_warehouse})
