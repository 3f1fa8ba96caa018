"""All that starts runs by itself, or speaks of them: the jobs, schedules and sensors of one platform."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg

from edfi_dagster.assets.bundle_specs import BundleAssets
from edfi_dagster.assets.keys import AssetKeys
from edfi_dagster.automation.cadence import Part
from edfi_dagster.automation.change_sensor import Narrow, build_change_sensor
from edfi_dagster.automation.counting import ChangeCounts, CountChanges
from edfi_dagster.automation.file_drop import build_bundle_job, build_file_drop_sensor, is_watched
from edfi_dagster.automation.inquiry import Ask, OdsSessions
from edfi_dagster.automation.jobs import build_extract_job, parts_of, selections_of
from edfi_dagster.automation.lateness import Lateness, build_late_sensor
from edfi_dagster.automation.notifications import build_notifications
from edfi_dagster.automation.old_runs import build_forget_schedule, forget_old_runs
from edfi_dagster.automation.schedules import build_schedules
from edfi_dagster.automation.slack import Channel
from edfi_dagster.config import Platform
from edfi_dagster.dagster_private import UnresolvedAssetJobDefinition


@dataclass(frozen=True)
class Outside:
    """What sensors meet outside: the ODSs, Slack, and the time of day (seconds since 1970).

    ``ask`` and ``channel`` are the platform's own where they are None.
    """

    ask: Ask | None = None
    channel: Channel | None = None
    clock: Callable[[], float] = time.time


@dataclass(frozen=True)
class Automation:
    """What ``dg.Definitions`` takes, by its names."""

    jobs: list[UnresolvedAssetJobDefinition | dg.JobDefinition]
    schedules: list[dg.ScheduleDefinition]
    sensors: list[dg.SensorDefinition]
    lateness: Lateness


def build_automation(
    platform: Platform,
    keys: AssetKeys,
    outside: Outside | None = None,
    bundles: Sequence[BundleAssets] = (),
) -> Automation:
    """The automation of one platform, all of it off but for what the ``slack`` block asks for."""
    world = outside or Outside()
    ask = world.ask or OdsSessions(platform).newest
    selections = selections_of(keys)
    jobs = {part: build_extract_job(selections, part) for part in parts_of(platform)}
    count: CountChanges | None = None
    narrow: Narrow | None = None
    if platform.extract.run_type == "dynamic":
        counts, everything = ChangeCounts(platform, keys), selections[Part.EVERYTHING]
        count, narrow = counts.changed, lambda requests: counts.narrowed(requests, everything)
    sensors = [
        build_change_sensor(platform, jobs[Part.EVERYTHING], ask=ask, narrow=narrow, clock=world.clock)
    ]
    lateness = Lateness(platform, selections, ask)
    if platform.slack is not None:
        channel = world.channel or Channel(platform.slack)
        sensors += build_notifications(platform, channel, platform.slack.ui_url)
        if "late" in platform.slack.events:
            sensors.append(
                build_late_sensor(platform, lateness, channel, platform.slack.ui_url, clock=world.clock)
            )
    bundle_jobs = [build_bundle_job(bundles)] if bundles else []
    if watched := [assets for assets in bundles if is_watched(assets)]:
        sensors.append(build_file_drop_sensor(platform, watched, *bundle_jobs))
    return Automation(
        [*jobs.values(), *bundle_jobs, forget_old_runs],
        [*build_schedules(platform, jobs, selections, count), build_forget_schedule(platform)],
        sensors,
        lateness,
    )
