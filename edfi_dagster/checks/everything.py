"""All the checks of one platform, with the asset and the jobs that belong to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys
from edfi_dagster.checks.counts import build_counts_check
from edfi_dagster.checks.resync import build_resync_job
from edfi_dagster.checks.tenant_years import (
    WhoIsLate,
    build_jobs,
    build_lateness_check,
    build_schedules,
    build_schema_check,
    tenant_years_spec,
)
from edfi_dagster.config import Platform
from edfi_dagster.dagster_private import UnresolvedAssetJobDefinition


@dataclass(frozen=True)
class Checks:
    """What ``dg.Definitions`` takes, by its names."""

    assets: list[dg.AssetSpec]
    asset_checks: list[dg.AssetChecksDefinition]
    jobs: list[UnresolvedAssetJobDefinition | dg.JobDefinition]
    schedules: list[dg.ScheduleDefinition]


def build_checks(
    platform: Platform,
    keys: AssetKeys,
    partitions: dg.PartitionsDefinition,
    who_is_late: WhoIsLate,
    *,
    clock: Callable[[], float] = time.time,
) -> Checks:
    """The checks of one platform, their schedules off; raw tables have one only where total counts are pulled."""
    pairs = platform.pairs()
    jobs = build_jobs()
    checks = [build_lateness_check(who_is_late, pairs, clock), build_schema_check(platform)]
    if any(platform.ods(pair).extract.pull_total_counts for pair in pairs):
        checks.append(build_counts_check(platform, keys, partitions))
    return Checks(
        [tenant_years_spec(platform, partitions)],
        checks,
        [*jobs, build_resync_job(platform, keys, partitions)],
        build_schedules(platform, jobs),
    )
