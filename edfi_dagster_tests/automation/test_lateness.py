"""Who is late by its own schedule, and that it is told once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType

from edfi_dagster.automation.change_sensor import CHANGE_SENSOR
from edfi_dagster.automation.everything import Outside
from edfi_dagster.automation.lateness import LATE_SENSOR
from edfi_dagster.automation.run_history import Trigger, run_request
from edfi_dagster.automation.slack import Channel
from edfi_dagster.config import TenantYear
from edfi_dagster.definitions import build
from edfi_dagster_tests.automation.daemon import MONDAY, Clock, Daemon
from edfi_dagster_tests.automation.platforms import GRAND_BEND, LAKEVIEW, FakeOds, platform_of
from edfi_dagster_tests.automation.slack_stand_in import SlackStandIn

SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
NIGHTLY = {"schedule": "0 2 * * *"}
MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def make_daemon(tmp_path: Path, instance: dg.DagsterInstance, slack: SlackStandIn) -> MakeDaemon:
    """``make_daemon({pair: settings}, ods)``: at midnight of a Monday, UTC, late after 24 hours."""

    def make(years: Mapping[TenantYear, Mapping[str, Any]], ods: FakeOds | None = None) -> Daemon:
        clock = Clock()
        block = {"token": {"env": "SLACK_TOKEN"}, "channel": "#edfi", "events": ["late"]}
        platform = platform_of(tmp_path, years, slack=block)
        assert platform.slack
        outside = Outside(ask=ods or FakeOds(), channel=Channel(platform.slack, api=slack.api), clock=clock)
        return Daemon(build(platform, outside), instance, clock)

    return make


def run(
    daemon: Daemon,
    pair: TenantYear = GRAND_BEND,
    status: dg.DagsterRunStatus = SUCCESS,
    job: str = "extract_and_load",
    **options: Any,
) -> None:
    key = f"{pair.tenant}|{pair.year}"
    request = run_request(pair, Trigger.SCHEDULE, tags={"dagster/partition": key})
    daemon.note(request, status, job, **options)


def test_a_night_without_success_is_late_a_day_after_it_was_due(
    make_daemon: MakeDaemon, slack: SlackStandIn
) -> None:
    daemon = make_daemon({GRAND_BEND: NIGHTLY, LAKEVIEW: NIGHTLY})
    daemon.clock.pass_(hours=2)  # Monday at two: both succeed
    for pair in (GRAND_BEND, LAKEVIEW):
        run(daemon, pair)
    assert daemon.sensor(LATE_SENSOR).skipped == "nothing is late"
    daemon.clock.pass_(days=1)  # Tuesday: one fails
    run(daemon, GRAND_BEND, FAILURE)
    run(daemon, LAKEVIEW)
    daemon.clock.pass_(hours=23, minutes=59)
    assert daemon.sensor(LATE_SENSOR).skipped == "nothing is late"
    daemon.clock.pass_(minutes=1)
    run(daemon, LAKEVIEW)
    sentence = (
        "grand_bend/2025: last success 2025-11-03 02:00 UTC, due since 2025-11-04 02:00 UTC (0 2 * * *)"
    )
    assert daemon.sensor(LATE_SENSOR).skipped == sentence
    assert slack.messages == [("#edfi", f":hourglass: late\n• {sentence}\n<http://127.0.0.1:3000/runs|runs>")]


def test_lateness_is_told_when_it_begins_and_again_only_after_it_ended(
    make_daemon: MakeDaemon, slack: SlackStandIn
) -> None:
    daemon = make_daemon({GRAND_BEND: NIGHTLY})
    run(daemon)
    told = []
    for hour in range(24 * 8):
        daemon.clock.pass_(hours=1)
        if hour == 24 * 4:
            run(daemon)
        if hour % 4 == 0:
            daemon.sensor(LATE_SENSOR)
            told.append(len(slack.messages))
    assert told[-1] == 2
    assert told.index(1) < 24 * 4 / 4 < told.index(2)


def test_those_that_become_late_together_share_a_message(
    make_daemon: MakeDaemon, slack: SlackStandIn
) -> None:
    pairs = {TenantYear(f"tenant_{n}", 2025): NIGHTLY for n in range(11)}
    daemon = make_daemon(pairs)
    for pair in pairs:
        run(daemon, pair)
    daemon.clock.pass_(days=3)
    daemon.sensor(LATE_SENSOR)
    ((_, text),) = slack.messages
    assert text.startswith(":hourglass: 11 late\n• tenant_0/2025: last success")
    assert "… and 1 more" in text


def test_a_message_that_slack_did_not_take_is_sent_at_a_later_tick(
    make_daemon: MakeDaemon, slack: SlackStandIn
) -> None:
    daemon = make_daemon({GRAND_BEND: NIGHTLY})
    run(daemon)
    daemon.clock.pass_(days=3)
    slack.mood = "refuse"
    daemon.sensor(LATE_SENSOR)
    assert slack.messages == []
    slack.mood = "ok"
    daemon.sensor(LATE_SENSOR)
    daemon.sensor(LATE_SENSOR)
    assert len(slack.messages) == 1


def test_a_weekly_pair_is_not_late_on_wednesday(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({GRAND_BEND: {"schedule": "0 2 * * sun"}})
    run(daemon)
    daemon.clock.pass_(days=6)
    assert daemon.sensor(LATE_SENSOR).skipped == "nothing is late"
    daemon.clock.pass_(days=2)
    assert "due since 2025-11-09 02:00 UTC (0 2 * * sun)" in daemon.sensor(LATE_SENSOR).skipped


def test_parts_are_late_by_their_own_crons_whatever_the_other_does(make_daemon: MakeDaemon) -> None:
    apart = {"schedule_resources": "0 2 * * *", "schedule_descriptors": "*/30 * * * *"}
    daemon = make_daemon({GRAND_BEND: apart})
    run(daemon)
    daemon.clock.pass_(days=2, hours=3)
    for _ in range(3):
        run(daemon, job="extract_descriptors")
    assert daemon.sensor(LATE_SENSOR).skipped.startswith(
        "grand_bend/2025 resources: last success 2025-11-03 00:00 UTC"
    )
    run(daemon, asset_selection=frozenset({dg.AssetKey(["ed_fi", "students"])}))
    assert daemon.sensor(LATE_SENSOR).skipped == "nothing is late", "a schedule's run was meant for all of it"


def test_a_run_by_hand_counts_if_it_did_all_of_it(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({GRAND_BEND: NIGHTLY})
    run(daemon)
    daemon.clock.pass_(days=2)
    students = frozenset({dg.AssetKey(["ed_fi", "students"])})
    everything = frozenset(daemon.repository.get_job("extract_and_load").asset_layer.selected_asset_keys)
    by_hand = dg.RunRequest(tags={"dagster/partition": "grand_bend|2025"})
    daemon.note(by_hand, SUCCESS, "__ASSET_JOB", asset_selection=students)
    assert daemon.sensor(LATE_SENSOR).skipped != "nothing is late"
    daemon.note(by_hand, SUCCESS, "__ASSET_JOB", asset_selection=everything)
    assert daemon.sensor(LATE_SENSOR).skipped == "nothing is late"


def test_a_pair_that_never_succeeded_counts_from_when_it_was_first_seen(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({GRAND_BEND: NIGHTLY})
    daemon.clock.pass_(hours=12)
    assert daemon.sensor(LATE_SENSOR).skipped == "nothing is late"
    daemon.clock.pass_(days=1)
    assert daemon.sensor(LATE_SENSOR).skipped == "nothing is late", "first due on Tuesday at two"
    daemon.clock.pass_(hours=14)
    assert daemon.sensor(LATE_SENSOR).skipped == (
        "grand_bend/2025: no success known, due since 2025-11-04 02:00 UTC (0 2 * * *)"
    )


def test_a_pair_without_a_schedule_is_late_only_if_its_ods_has_changed_since(
    make_daemon: MakeDaemon,
) -> None:
    ods = FakeOds(grand_bend=700)
    daemon = make_daemon({GRAND_BEND: {}}, ods)
    run(daemon)
    daemon.turn_on(CHANGE_SENSOR, InstigatorType.SENSOR, '{"grand_bend/2025":700}')
    daemon.clock.pass_(days=5)
    assert daemon.sensor(LATE_SENSOR).skipped == "nothing is late"
    ods.newest[GRAND_BEND] = 701
    assert daemon.sensor(LATE_SENSOR).skipped == "grand_bend/2025: last success 2025-11-03 00:00 UTC"
    del ods.newest[GRAND_BEND]
    assert daemon.sensor(LATE_SENSOR).skipped.startswith("grand_bend/2025"), "down is no excuse"


def test_hours_of_the_pair_are_those_of_its_configuration(make_daemon: MakeDaemon) -> None:
    patient = {**NIGHTLY, "extract": {"late_after_hours": 80}}
    daemon = make_daemon({GRAND_BEND: NIGHTLY, LAKEVIEW: patient})
    for pair in (GRAND_BEND, LAKEVIEW):
        run(daemon, pair)
    daemon.clock.pass_(days=3)
    assert "lakeview" not in daemon.sensor(LATE_SENSOR).skipped
    daemon.clock.pass_(days=2)
    assert "lakeview" in daemon.sensor(LATE_SENSOR).skipped


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"since": 5}', '{"since": {"grand_bend/2025": "x"}}'])
def test_the_cursor_survives_other_hands_and_stays_small(make_daemon: MakeDaemon, text: str) -> None:
    daemon = make_daemon({GRAND_BEND: NIGHTLY})
    daemon.cursors[LATE_SENSOR] = text
    daemon.sensor(LATE_SENSOR)
    kept = json.loads(daemon.cursors[LATE_SENSOR] or "")
    assert kept == {"since": {"grand_bend/2025": int(MONDAY.timestamp())}, "told": []}
