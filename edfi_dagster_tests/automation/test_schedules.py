"""Schedules as the configuration has them, tick by tick."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._utils.tags import TagConcurrencyLimitsCounter

from edfi_dagster.assets.keys import partition_key
from edfi_dagster.automation.run_history import Trigger, run_request
from edfi_dagster.automation.schedules import schedule_prefixes
from edfi_dagster.config import TenantYear
from edfi_dagster.definitions import build
from edfi_dagster_tests.automation.daemon import Clock, Daemon
from edfi_dagster_tests.automation.platforms import GRAND_BEND, LAKEVIEW, platform_of

CHICAGO = ZoneInfo("America/Chicago")
STARTED, QUEUED = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED


def daemon_of(
    folder: Path,
    instance: dg.DagsterInstance,
    years: Mapping[TenantYear, Mapping[str, Any]],
    now: datetime = datetime(2025, 11, 3, 2, tzinfo=CHICAGO),
) -> Daemon:
    platform = platform_of(folder, years, timezone="America/Chicago")
    return Daemon(build(platform), instance, Clock(now))


def test_each_cron_of_each_pair_is_a_schedule_of_its_own_and_off(tmp_path: Path) -> None:
    years = {
        GRAND_BEND: {"schedule": "0 2 * * *", "schedule_full_refresh": "0 3 * * sat"},
        LAKEVIEW: {"schedule_resources": "0 2 * * *", "schedule_descriptors": "0 1 * * sun"},
        TenantYear("lakeview", 2026): {"schedule": "0 4 * * *", "schedule_descriptors": "0 1 * * sun"},
        TenantYear("quiet", 2025): {},
    }
    defs = build(platform_of(tmp_path, years, timezone="America/Chicago"))
    found = defs.get_repository_def().schedule_defs
    schedules = {s.name: s for s in found if not s.name.startswith("check_")}
    assert {name: (s.cron_schedule, s.job_name) for name, s in schedules.items()} == {
        "grand_bend_2025_full_refresh": ("0 3 * * sat", "extract_and_load"),
        "grand_bend_2025": ("0 2 * * *", "extract_and_load"),
        "lakeview_2025_resources": ("0 2 * * *", "extract_resources"),
        "lakeview_2025_descriptors": ("0 1 * * sun", "extract_descriptors"),
        "lakeview_2026_resources": ("0 4 * * *", "extract_resources"),
        "lakeview_2026_descriptors": ("0 1 * * sun", "extract_descriptors"),
        "forget_old_runs": ("0 12 * * sun", "forget_old_runs"),
    }
    for schedule in schedules.values():
        assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
        assert schedule.execution_timezone == "America/Chicago"
    assert schedules["lakeview_2026_resources"].tags == {"edfi/tenant": "lakeview", "edfi/year": "2026"}
    assert "what changed of resources (0 4 * * *; America/Chicago)" in (
        schedules["lakeview_2026_resources"].description or ""
    )


def test_the_jobs_of_parts_divide_the_assets(tmp_path: Path) -> None:
    years = {GRAND_BEND: {"schedule_resources": "0 2 * * *", "schedule_descriptors": "0 1 * * *"}}
    repository = build(platform_of(tmp_path, years)).get_repository_def()
    selected = {
        name: {key.to_user_string() for key in repository.get_job(name).asset_layer.selected_asset_keys}
        for name in ("extract_and_load", "extract_resources", "extract_descriptors")
    }
    assert selected["extract_resources"] == {
        "ed_fi/students",
        "ed_fi/students/deletes",
        "ed_fi/students/key_changes",
        "raw_edfi_3/students",
    }
    assert selected["extract_descriptors"] == {"ed_fi/sex_descriptors"}
    assert selected["extract_and_load"] == selected["extract_resources"] | selected["extract_descriptors"]


def test_a_tick_asks_for_one_run_of_its_partition_with_tags_to_find_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    daemon = daemon_of(tmp_path, instance, {GRAND_BEND: {"schedule": "0 2 * * *"}})
    (request,) = daemon.schedule("grand_bend_2025").requests
    assert request.partition_key == partition_key(GRAND_BEND)
    assert request.run_config == {}
    assert {
        "edfi/tenant": "grand_bend",
        "edfi/year": "2025",
        "edfi/trigger": "schedule",
        "dagster/partition": "grand_bend|2025",
        "dagster/partition/tenant": "grand_bend",
        "dagster/partition/year": "2025",
        "dagster/schedule_name": "grand_bend_2025",
    }.items() <= request.tags.items()


@pytest.mark.parametrize("status", [QUEUED, STARTED])
def test_a_tick_is_left_out_while_the_pairs_last_run_is_queued_or_in_progress(
    tmp_path: Path, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    years = {pair: {"schedule": "0 2 * * *"} for pair in (GRAND_BEND, LAKEVIEW)}
    daemon = daemon_of(tmp_path, instance, years)
    run = daemon.note(daemon.schedule("grand_bend_2025").requests[0], status)
    daemon.clock.pass_(days=1)
    tick = daemon.schedule("grand_bend_2025")
    assert tick.requests == []
    assert (
        f"grand_bend/2025: run {run.run_id[:8]} is {status.value.lower()} since 2025-11-03 08:00 UTC"
        in tick.skipped
    )
    assert daemon.schedule("lakeview_2025").requests

    daemon.end(run, dg.DagsterRunStatus.FAILURE)
    assert daemon.schedule("grand_bend_2025").requests


def test_resources_and_descriptors_of_one_minute_both_go(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    same = {"schedule_resources": "0 2 * * *", "schedule_descriptors": "0 2 * * *"}
    daemon = daemon_of(tmp_path, instance, {GRAND_BEND: same})
    daemon.note(daemon.schedule("grand_bend_2025_resources").requests[0], QUEUED, "extract_resources")
    assert daemon.schedule("grand_bend_2025_descriptors").requests
    assert "no other is put behind it" in daemon.schedule("grand_bend_2025_resources").skipped


def test_crons_that_meet_a_first_pull_put_at_most_one_run_behind_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """It takes several nights' crons: of each part one run waits in Dagster's queue, and no tick of it is lost for good."""
    apart = {"schedule_resources": "0 2 * * *", "schedule_descriptors": "0 3 * * *"}
    daemon = daemon_of(tmp_path, instance, {GRAND_BEND: apart})
    first = daemon.note(
        daemon.schedule("grand_bend_2025_resources").requests[0], STARTED, "extract_resources"
    )
    for night in range(3):
        assert "is started" in daemon.schedule("grand_bend_2025_resources").skipped
        tick = daemon.schedule("grand_bend_2025_descriptors")
        assert len(tick.requests) == (night == 0)
        for request in tick.requests:
            tags = {"dagster/partition": "grand_bend|2025"}
            queued = daemon.note(request, QUEUED, "extract_descriptors", tags=tags)
            limits = [{"key": "dagster/partition", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}]
            assert TagConcurrencyLimitsCounter(limits, [first]).is_blocked(queued)
        daemon.clock.pass_(days=1)
    daemon.end(first, dg.DagsterRunStatus.SUCCESS)
    assert daemon.schedule("grand_bend_2025_resources").requests


def test_a_run_of_something_else_does_not_displace_the_night(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    daemon = daemon_of(tmp_path, instance, {GRAND_BEND: {"schedule": "0 2 * * *"}})
    (request,) = daemon.schedule("grand_bend_2025").requests
    by_hand = request.with_replaced_attrs(tags={"dagster/partition": "grand_bend|2025"})
    daemon.note(by_hand, STARTED, asset_selection=frozenset({dg.AssetKey(["ed_fi", "students"])}))
    daemon.note(by_hand, STARTED, job="psat_bundle")
    assert daemon.schedule("grand_bend_2025").requests

    everything = daemon.repository.get_job("extract_and_load").asset_layer.selected_asset_keys
    daemon.note(by_hand, STARTED, job="__ASSET_JOB", asset_selection=frozenset(everything))
    assert "is started" in daemon.schedule("grand_bend_2025").skipped


def test_full_refresh_is_run_config_and_not_put_off_by_an_ordinary_run(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    daemon = daemon_of(tmp_path, instance, {GRAND_BEND: {"schedule_full_refresh": "0 2 * * mon"}})
    daemon.note(
        run_request(GRAND_BEND, Trigger.SENSOR), STARTED, tags={"dagster/partition": "grand_bend|2025"}
    )
    (request,) = daemon.schedule("grand_bend_2025_full_refresh").requests
    assert request.run_config == {"resources": {"edfi_run": {"config": {"full_refresh": True}}}}
    assert request.tags["edfi/trigger"] == "full_refresh"
    daemon.note(request, QUEUED)
    assert "is queued" in daemon.schedule("grand_bend_2025_full_refresh").skipped


def test_only_the_full_refresh_goes_when_both_fire_at_one_minute(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    years = {GRAND_BEND: {"schedule": "0 2 * * *", "schedule_full_refresh": "0 2 * * mon"}}
    daemon = daemon_of(tmp_path, instance, years)
    assert daemon.schedule("grand_bend_2025").requests, "its full refresh is off: the night must not be lost"

    daemon.turn_on("grand_bend_2025_full_refresh", InstigatorType.SCHEDULE)
    assert (
        daemon.schedule("grand_bend_2025").skipped
        == "grand_bend/2025: grand_bend_2025_full_refresh goes at the same minute, and does all of it"
    )
    assert daemon.schedule("grand_bend_2025_full_refresh").requests
    daemon.clock.pass_(days=1)
    assert daemon.schedule("grand_bend_2025").requests


def test_a_full_refresh_means_day_of_the_month_and_weekday_both(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    years = {GRAND_BEND: {"schedule": "0 3 * * *", "schedule_full_refresh": "0 3 1-7 * sat"}}
    daemon = daemon_of(tmp_path, instance, years)
    daemon.turn_on("grand_bend_2025_full_refresh", InstigatorType.SCHEDULE)
    gone: dict[str, list[int]] = {"grand_bend_2025": [], "grand_bend_2025_full_refresh": []}
    for day in (1, 2, 6, 7, 8):
        daemon.clock.now = datetime(2025, 11, day, 3, tzinfo=CHICAGO)
        for name, days in gone.items():
            days += [day] if daemon.schedule(name).requests else []
    assert gone["grand_bend_2025_full_refresh"] == [1], "1 November 2025 is the month's first Saturday"
    assert gone["grand_bend_2025"] == [2, 6, 7, 8]
    daemon.clock.now = datetime(2025, 11, 3, 3, tzinfo=CHICAGO)
    assert "and this day is not both" in daemon.schedule("grand_bend_2025_full_refresh").skipped


def test_a_moment_is_judged_in_the_time_zone_of_the_configuration(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    years = {GRAND_BEND: {"schedule_full_refresh": "30 20 1-7 * sat"}}
    daemon = daemon_of(tmp_path, instance, years)
    daemon.clock.now = datetime(2025, 11, 2, 1, 30, tzinfo=UTC)  # still Saturday the first in Chicago
    assert daemon.schedule("grand_bend_2025_full_refresh").requests


def test_tenants_that_dagsters_names_cannot_tell_apart_keep_names_of_their_own() -> None:
    pairs = [TenantYear(tenant, 2025) for tenant in ("lake_view", "lake-view", "lake.view", "north-end")]
    names = schedule_prefixes(pairs)
    assert names[pairs[0]] == "lake_view_2025"
    assert names[pairs[3]] == "north_end_2025"
    assert len(set(names.values())) == 4
    assert schedule_prefixes(pairs[1:3]) == {pair: names[pair] for pair in pairs[1:3]}
