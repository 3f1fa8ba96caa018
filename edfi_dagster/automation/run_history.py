"""Runs of a tenant and year: how one is asked for, and what is known of those before it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import dagster as dg

from edfi_dagster.assets.keys import partition_key
from edfi_dagster.automation.cadence import Part
from edfi_dagster.automation.jobs import EXTRACT_JOB, JOB_OF
from edfi_dagster.config import TenantYear
from edfi_dagster.dagster_private import NOT_FINISHED_STATUSES

TENANT_TAG = "edfi/tenant"
YEAR_TAG = "edfi/year"
TRIGGER_TAG = "edfi/trigger"
PARTITION_TAG = "dagster/partition"


class Trigger(StrEnum):
    """What asked for a run: the value of the tag ``edfi/trigger``."""

    SCHEDULE = "schedule"
    FULL_REFRESH = "full_refresh"
    SENSOR = "sensor"


def run_request(
    pair: TenantYear,
    trigger: Trigger,
    *,
    select: Sequence[dg.AssetKey] | None = None,
    run_key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> dg.RunRequest:
    """One run of the pair's partition, of everything in its job or of ``select``, tagged so that a person finds it."""
    is_full_refresh = trigger is Trigger.FULL_REFRESH
    config = {"resources": {"edfi_run": {"config": {"full_refresh": True}}}} if is_full_refresh else {}
    return dg.RunRequest(
        run_key=run_key,
        partition_key=partition_key(pair),
        asset_selection=select,
        run_config=config,
        tags={**definition_tags(pair), TRIGGER_TAG: trigger.value, **(tags or {})},
    )


def definition_tags(pair: TenantYear) -> dict[str, str]:
    """Tags of what belongs to the pair."""
    return {TENANT_TAG: pair.tenant, YEAR_TAG: str(pair.year)}


def unfinished(instance: dg.DagsterInstance, pair: TenantYear | None = None) -> list[dg.RunRecord]:
    """The runs queued or in progress, of the pair or of all partitions, newest first."""
    tags = {} if pair is None else {PARTITION_TAG: str(partition_key(pair))}
    return list(instance.get_run_records(dg.RunsFilter(statuses=list(NOT_FINISHED_STATUSES), tags=tags)))


def covers(
    run: dg.DagsterRun, part: Part, wanted: Collection[dg.AssetKey], *, full_refresh: bool = False
) -> bool:
    """Whether a run of the same partition does all that a run of ``part``, whose assets are ``wanted``, would do.

    A run that a schedule or sensor asked for was meant for the whole of its job, also where what did not change was
    left out of it.
    """
    if full_refresh and not _is_full_refresh(run):
        return False
    if run.asset_selection is None or TRIGGER_TAG in run.tags:
        return run.job_name in {EXTRACT_JOB, JOB_OF[part]}
    return run.asset_selection >= set(wanted)


def described(record: dg.RunRecord) -> str:
    """``run 1f0c9a2e is started since 2025-11-03 08:00 UTC``."""
    run = record.dagster_run
    since = record.start_time
    began = record.create_timestamp if since is None else datetime.fromtimestamp(since, UTC)
    return f"run {run.run_id[:8]} is {run.status.value.lower()} since {utc_text(began)}"


def utc_text(moment: datetime) -> str:
    """A moment as people compare it, whatever zone it came in; without one it is UTC, as Dagster stores it."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{aware.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _is_full_refresh(run: dg.DagsterRun) -> bool:
    config: Any = run.run_config
    for step in ("resources", "edfi_run", "config", "full_refresh"):
        config = config.get(step) if isinstance(config, Mapping) else None
    return config is True
