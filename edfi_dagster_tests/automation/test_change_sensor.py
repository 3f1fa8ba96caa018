"""The change sensor, tick by tick: what it asks for, when it waits, and what its cursor holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from edfi_dagster.automation.change_sensor import CHANGE_SENSOR, MOST_ATTEMPTS
from edfi_dagster.automation.everything import Outside
from edfi_dagster.automation.run_history import Trigger, run_request
from edfi_dagster.config import TenantYear
from edfi_dagster.definitions import build
from edfi_dagster_tests.automation.daemon import Clock, Daemon, Tick
from edfi_dagster_tests.automation.platforms import GRAND_BEND, LAKEVIEW, FakeOds, platform_of

SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
CANCELED, STARTED, QUEUED = (
    dg.DagsterRunStatus.CANCELED,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.QUEUED,
)
MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def make_daemon(tmp_path: Path, instance: dg.DagsterInstance) -> MakeDaemon:
    """``make_daemon(ods, *pairs)``."""

    def make(ods: FakeOds, *pairs: TenantYear) -> Daemon:
        clock = Clock()
        platform = platform_of(tmp_path, {pair: {} for pair in pairs or (GRAND_BEND,)})
        return Daemon(build(platform, Outside(ask=ods, clock=clock)), instance, clock)

    return make


def tick(daemon: Daemon) -> Tick:
    return daemon.sensor(CHANGE_SENSOR)


def keys(found: Tick) -> list[str | None]:
    return [request.run_key for request in found.requests]


def cursor(daemon: Daemon) -> dict[str, int]:
    text = daemon.cursors[CHANGE_SENSOR]
    assert text is not None and " " not in text
    return dict(json.loads(text))


def test_the_sensor_is_off_until_turned_on(make_daemon: MakeDaemon) -> None:
    sensor = make_daemon(FakeOds()).repository.get_sensor_def(CHANGE_SENSOR)
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    assert sensor.job_name == "extract_and_load"


def test_a_first_run_is_asked_for_once_and_the_cursor_moves_after_its_success(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon(FakeOds(grand_bend=700))
    first = tick(daemon)
    assert keys(first) == ["grand_bend|2025|700|1"]
    assert {
        "edfi/trigger": "sensor",
        "edfi/change_version": "700",
        "edfi/tenant": "grand_bend",
        "dagster/partition": "grand_bend|2025",
        "dagster/sensor_name": CHANGE_SENSOR,
    }.items() <= first.requests[0].tags.items()
    assert cursor(daemon) == {}

    run = daemon.note(first.requests[0], QUEUED)
    waiting = tick(daemon)
    assert waiting.requests == []
    assert f"grand_bend/2025: run {run.run_id[:8]} is queued" in waiting.skipped
    assert cursor(daemon) == {}

    daemon.end(run, SUCCESS)
    assert tick(daemon).skipped == "1 of 1 ODSs answered"
    assert cursor(daemon) == {"grand_bend/2025": 700}
    assert tick(daemon).requests == []


def test_what_changes_during_a_run_is_asked_for_after_it(make_daemon: MakeDaemon) -> None:
    ods = FakeOds(grand_bend=700)
    daemon = make_daemon(ods)
    run = daemon.note(tick(daemon).requests[0], STARTED)
    ods.newest[GRAND_BEND] = 705
    assert tick(daemon).requests == []
    daemon.end(run, SUCCESS)
    assert keys(tick(daemon)) == ["grand_bend|2025|705|1"]
    assert cursor(daemon) == {"grand_bend/2025": 700}


@pytest.mark.parametrize("end", [FAILURE, CANCELED])
def test_a_failure_on_a_quiet_ods_is_tried_again_later_each_time_and_not_for_ever(
    make_daemon: MakeDaemon, end: dg.DagsterRunStatus
) -> None:
    daemon = make_daemon(FakeOds(grand_bend=700))
    asked = []
    for minute in range(0, 150, 5):
        found = tick(daemon)
        if found.requests:
            asked.append((minute, keys(found)[0]))
            daemon.note(found.requests[0], end)
        elif minute == 10:
            assert "grand_bend/2025: failed 2 times, tried again after 2025-11-03 00:20 UTC" in found.skipped
        daemon.clock.pass_(minutes=5)
    assert asked == [
        (0, "grand_bend|2025|700|1"),
        (5, "grand_bend|2025|700|2"),
        (20, "grand_bend|2025|700|3"),
    ]
    assert len(asked) == MOST_ATTEMPTS
    assert "failed 3 times at change version 700; left to its schedule" in tick(daemon).skipped
    assert cursor(daemon) == {}


def test_a_busy_ods_whose_runs_fail_is_not_run_at_every_tick(make_daemon: MakeDaemon) -> None:
    ods = FakeOds(grand_bend=700)
    daemon = make_daemon(ods)
    asked = []
    for minute in range(0, 240, 5):
        ods.newest[GRAND_BEND] = 700 + minute
        if (found := tick(daemon)).requests:
            asked.append(minute)
            daemon.note(found.requests[0], FAILURE)
        daemon.clock.pass_(minutes=5)
    assert asked == [0, 5, 20, 80, 140, 200]
    daemon.clock.pass_(hours=1)
    daemon.note(tick(daemon).requests[0], SUCCESS)
    tick(daemon)
    assert cursor(daemon) == {"grand_bend/2025": 935}


def test_a_run_that_dagster_will_run_again_is_left_to_dagster(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(FakeOds(grand_bend=700))
    daemon.note(tick(daemon).requests[0], FAILURE, tags={"dagster/will_retry": "true"})
    daemon.clock.pass_(hours=2)
    found = tick(daemon)
    assert found.requests == []
    assert "crashed and will be run again" in found.skipped


def test_a_success_by_any_retry_counts_whatever_failed_before(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(FakeOds(grand_bend=700))
    (request,) = tick(daemon).requests
    daemon.note(request, FAILURE)
    daemon.clock.pass_(minutes=1)
    daemon.note(request, SUCCESS)  # re-executed from the UI, which keeps the tags
    assert tick(daemon).requests == []
    assert cursor(daemon) == {"grand_bend/2025": 700}


def test_any_unfinished_run_of_the_pair_is_waited_for(make_daemon: MakeDaemon) -> None:
    ods = FakeOds(grand_bend=700, lakeview=10)
    daemon = make_daemon(ods, GRAND_BEND, LAKEVIEW)
    bundle = run_request(GRAND_BEND, Trigger.SCHEDULE, tags={"dagster/partition": "grand_bend|2025"})
    run = daemon.note(bundle, STARTED, "psat_bundle")
    assert keys(tick(daemon)) == ["lakeview|2025|10|1"]
    daemon.end(run, SUCCESS)
    assert "grand_bend|2025|700|1" in keys(tick(daemon))


def test_odss_that_are_down_are_named_and_stop_no_other(make_daemon: MakeDaemon) -> None:
    ods = FakeOds(grand_bend=700)
    daemon = make_daemon(ods, GRAND_BEND, LAKEVIEW)
    daemon.note(tick(daemon).requests[0], SUCCESS)
    found = tick(daemon)
    assert found.skipped == (
        "1 of 2 ODSs answered; no answer: lakeview/2025: no connection from ods.example.org, 1 attempt"
    )
    assert cursor(daemon) == {"grand_bend/2025": 700}

    ods.newest[LAKEVIEW] = 3
    assert keys(tick(daemon)) == ["lakeview|2025|3|1"]


def test_a_down_ods_keeps_its_place_in_the_cursor(make_daemon: MakeDaemon) -> None:
    ods = FakeOds(grand_bend=700)
    daemon = make_daemon(ods)
    daemon.note(tick(daemon).requests[0], SUCCESS)
    tick(daemon)
    del ods.newest[GRAND_BEND]
    tick(daemon)
    assert cursor(daemon) == {"grand_bend/2025": 700}
    ods.newest[GRAND_BEND] = 700
    assert tick(daemon).requests == []


def test_an_ods_without_change_versions_is_left_to_its_schedule(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    ods = FakeOds(grand_bend=700, lakeview=10)
    ods.newest[GRAND_BEND] = None  # found out
    declared = {"extract": {"use_change_version": False}}
    platform = platform_of(tmp_path, {GRAND_BEND: {}, LAKEVIEW: declared})
    daemon = Daemon(build(platform, Outside(ask=ods)), instance, Clock())
    assert tick(daemon).requests == []
    assert ods.asked == [GRAND_BEND]


def test_a_version_that_goes_back_is_believed_at_the_second_tick(make_daemon: MakeDaemon) -> None:
    ods = FakeOds(grand_bend=50)
    daemon = make_daemon(ods)
    daemon.note(tick(daemon).requests[0], SUCCESS)
    ods.newest[GRAND_BEND] = 90
    daemon.note(tick(daemon).requests[0], SUCCESS)
    tick(daemon)

    ods.newest[GRAND_BEND] = 89  # a replica that lags
    assert "went back to 89; asked again" in tick(daemon).skipped
    ods.newest[GRAND_BEND] = 90
    assert tick(daemon).skipped == "1 of 1 ODSs answered"

    ods.newest[GRAND_BEND] = 50  # restored: a version that was run before
    assert tick(daemon).requests == []
    restored = tick(daemon)
    assert keys(restored) == ["grand_bend|2025|50|2"], "Dagster would drop a key it has seen"
    daemon.note(restored.requests[0], SUCCESS)
    tick(daemon)
    assert cursor(daemon) == {"grand_bend/2025": 50}


def test_15_a_version_is_asked_for_again_though_old_runs_were_forgotten(make_daemon: MakeDaemon) -> None:
    """Of three runs for a version the first is forgotten; the key of the third must not be used again."""
    ods = FakeOds(grand_bend=50)
    daemon = make_daemon(ods)
    runs = []
    for version in (50, 90, 50, 90, 50, 90):
        ods.newest[GRAND_BEND] = version
        found = tick(daemon).requests or tick(daemon).requests
        run_key = {"dagster/run_key": str(found[0].run_key)}
        runs.append(daemon.note(found[0], SUCCESS, tags=run_key))
    daemon.instance.delete_run(runs[0].run_id)
    ods.newest[GRAND_BEND] = 50
    tick(daemon)
    assert keys(tick(daemon)) == ["grand_bend|2025|50|4"]


def test_a_tick_that_was_lost_costs_nothing(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(FakeOds(grand_bend=700))
    (request,) = tick(daemon).requests
    daemon.cursors.clear()
    again = daemon.repository.get_sensor_def(CHANGE_SENSOR)
    assert again and tick(daemon).requests == [], "asked for under the same key, which Dagster drops"
    daemon.note(request, SUCCESS)
    assert tick(daemon).requests == []
    assert cursor(daemon) == {"grand_bend/2025": 700}


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"grand_bend/2025": "x", "gone/2024": 5}', "7"])
def test_the_cursor_survives_other_configurations_and_hands(make_daemon: MakeDaemon, text: str) -> None:
    daemon = make_daemon(FakeOds(grand_bend=700))
    daemon.cursors[CHANGE_SENSOR] = text
    assert keys(tick(daemon)) == ["grand_bend|2025|700|1"]
    assert cursor(daemon) == {}


def test_pairs_that_went_away_leave_the_cursor(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(FakeOds(grand_bend=700))
    daemon.cursors[CHANGE_SENSOR] = '{"gone/2024":5,"grand_bend/2025":700}'
    assert tick(daemon).requests == []
    assert cursor(daemon) == {"grand_bend/2025": 700}


def test_another_source_is_run_although_the_ods_counts_no_change(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """An address or filter that was corrected, and one that was put back: each time once."""

    def reloaded(**year: Any) -> Daemon:
        clock = Clock()
        platform = platform_of(tmp_path, {GRAND_BEND: year})
        daemon = Daemon(build(platform, Outside(ask=FakeOds(grand_bend=700), clock=clock)), instance, clock)
        daemon.cursors = cursors
        return daemon

    cursors: dict[str, str | None] = {}
    filtered = {"extract": {"resources": {"students": {"query_parameters": {"a": "1"}}}}}
    sources: list[dict[str, Any]] = [{}, {"base_url": "https://right.example.org"}, {}, filtered]
    for attempt, source in enumerate(sources, 1):
        daemon = reloaded(**source)
        found = tick(daemon)
        assert keys(found) == [f"grand_bend|2025|700|{attempt}"]
        daemon.note(found.requests[0], SUCCESS)
        assert tick(daemon).requests == []
        assert cursor(daemon) == {"grand_bend/2025": 700}
        assert tick(reloaded(**source)).requests == []
    assert tick(reloaded(**filtered, schedule="0 2 * * *")).requests == []


def test_a_run_of_an_earlier_version_which_tells_no_source_is_gone_on_from(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(FakeOds(grand_bend=700))
    tags = {"edfi/change_version": "700", "dagster/partition": "grand_bend|2025"}
    daemon.note(run_request(GRAND_BEND, Trigger.SENSOR, run_key="earlier", tags=tags), SUCCESS)
    assert tick(daemon).requests == []
    assert cursor(daemon) == {"grand_bend/2025": 700}
