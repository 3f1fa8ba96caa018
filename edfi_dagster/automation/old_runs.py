"""The job ``forget_old_runs``: Dagster keeps every run for ever, and each adds to its database."""

# No "from __future__ import annotations" here: Dagster reads the annotation of an op's config itself.
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from edfi_dagster.config import Platform

_FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]
_AT_ONCE = 200


class OldRuns(dg.Config):
    keep_days: int = Field(default=90, gt=0, description="Runs that ended later than so many days ago stay.")


@dg.op
def forget(context: dg.OpExecutionContext, config: OldRuns) -> None:
    """The one step of the job."""
    before = datetime.now(UTC) - timedelta(days=config.keep_days)
    forgotten, kept = forget_runs(context.instance, before)
    context.log.info(
        f"{forgotten} runs of before {before:%Y-%m-%d} forgotten; {kept} kept, for an asset was last materialized in them"
    )
    context.add_output_metadata({"edfi/runs_forgotten": forgotten, "edfi/runs_kept": kept})


@dg.job(
    executor_def=dg.in_process_executor,
    description="Delete old runs and their events from Dagster's own database, but for those that an asset's partition was "
    "last materialized in. Warehouse and lake are not touched.",
)
def forget_old_runs() -> None:
    """The job; it asks nothing of tenants and years."""
    forget()


def build_forget_schedule(platform: Platform) -> dg.ScheduleDefinition:
    """Sundays at noon, when few nights are under way; off like everything until it is turned on."""
    return dg.ScheduleDefinition(
        name="forget_old_runs",
        job=forget_old_runs,
        cron_schedule="0 12 * * sun",
        execution_timezone=platform.timezone,
    )


def forget_runs(instance: dg.DagsterInstance, before: datetime) -> tuple[int, int]:
    """Delete finished runs created before ``before``; how many went, and how many stay because they are the last word.

    A run that an asset's partition was last materialized, or observed, in stays: without it the UI would show the partition as
    never filled. On SQLite the deleted rows' room is used again, but the files do not shrink.
    """
    needed = set(_latest(instance))
    old = list(_run_ids(instance, dg.RunsFilter(statuses=_FINISHED, created_before=before)))
    for run_id in old:
        if run_id not in needed:
            instance.delete_run(run_id)
    return sum(run_id not in needed for run_id in old), sum(run_id in needed for run_id in old)


def _latest(instance: dg.DagsterInstance) -> Iterator[str]:
    """The run of the newest materialization, and observation, of each asset and of each of its partitions."""
    keys = instance.get_asset_keys()
    yield from (event.run_id for event in instance.get_latest_materialization_events(keys).values() if event)
    kinds = (
        (dg.DagsterEventType.ASSET_MATERIALIZATION, instance.fetch_materializations),
        (dg.DagsterEventType.ASSET_OBSERVATION, instance.fetch_observations),
    )
    for key in keys:
        for kind, fetch in kinds:
            found = list(instance.get_latest_storage_id_by_partition(key, kind).values())
            for start in range(0, len(found), _AT_ONCE):
                wanted = dg.AssetRecordsFilter(key, storage_ids=found[start : start + _AT_ONCE])
                yield from (record.run_id for record in fetch(wanted, limit=_AT_ONCE).records)


def _run_ids(instance: dg.DagsterInstance, wanted: dg.RunsFilter) -> Iterator[str]:
    cursor = None
    while found := instance.get_run_ids(wanted, cursor=cursor, limit=_AT_ONCE):
        yield from found
        cursor = found[-1]
