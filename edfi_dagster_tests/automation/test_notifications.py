"""One message for each run, from what the run itself left behind."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest
import yaml

from edfi_dagster.automation.everything import Outside
from edfi_dagster.automation.notifications import FAILURE_SENSOR, SUCCESS_SENSOR
from edfi_dagster.automation.run_history import Trigger, run_request
from edfi_dagster.automation.slack import Channel
from edfi_dagster.config import parse_platform
from edfi_dagster.definitions import build
from edfi_dagster_tests.automation.daemon import Clock, Daemon
from edfi_dagster_tests.automation.slack_stand_in import SlackStandIn
from edfi_dagster_tests.bench import PAIR, SECRET_VARIABLE, Bench

MakeBench = Callable[..., Bench]
REQUEST = run_request(PAIR, Trigger.SCHEDULE)
ALL_EVENTS = ("failure", "success", "late")


@pytest.fixture
def watch(slack: SlackStandIn, instance: dg.DagsterInstance) -> Callable[..., Daemon]:
    """``watch(bench, *events, extra=definitions)``: the bench's platform with a Slack, its sensors already ticking."""

    def make(bench: Bench, *events: str, extra: dg.Definitions | None = None) -> Daemon:
        document = yaml.safe_load(bench.config.read_text())
        document["slack"] = {
            "token": {"env": "SLACK_TOKEN"},
            "channel": "#edfi",
            "events": list(events),
            "ui_url": "https://dagster.example.org/",
        }
        platform = parse_platform(yaml.safe_dump(document), str(bench.config), bench.folder)
        assert platform.slack
        channel = Channel(platform.slack, api=slack.api)
        defs = build(platform, Outside(channel=channel))
        if extra is not None:
            defs = dg.Definitions.merge(defs, extra)
        daemon = Daemon(defs, instance, Clock())
        for name in notifying(daemon):
            daemon.sensor(name)
        return daemon

    return make


def notifying(daemon: Daemon) -> list[str]:
    return [s.name for s in daemon.repository.sensor_defs if s.name in (FAILURE_SENSOR, SUCCESS_SENSOR)]


def link(result: dg.ExecuteInProcessResult) -> str:
    return f"<https://dagster.example.org/runs/{result.run_id}|run {result.run_id[:8]}>"


@pytest.mark.parametrize("events", [(), ("failure",), ("success",), ALL_EVENTS])
def test_there_is_a_sensor_for_each_event_and_the_configuration_turns_it_on(
    make_bench: MakeBench, watch: Callable[..., Daemon], events: tuple[str, ...]
) -> None:
    sensors = watch(make_bench("students"), *events).repository.sensor_defs
    on = {s.name for s in sensors if s.default_status is dg.DefaultSensorStatus.RUNNING}
    assert on == {f"slack_on_{event}" for event in events}


def test_without_a_slack_block_nobody_watches(make_bench: MakeBench) -> None:
    sensors = build(make_bench("students").platform).get_repository_def().sensor_defs
    assert [sensor.name for sensor in sensors] == ["ods_changes"]


def test_a_failed_run_is_told_once_with_its_endpoints_and_a_link(
    make_bench: MakeBench, watch: Callable[..., Daemon], slack: SlackStandIn
) -> None:
    bench = make_bench("students", "sessions")
    daemon = watch(bench, "failure")
    assert daemon.execute(REQUEST).success
    for endpoint in ("students", "sessions"):
        bench.store.deny(endpoint)
    result = daemon.execute(REQUEST)
    daemon.sensor(FAILURE_SENSOR)
    daemon.sensor(FAILURE_SENSOR)

    ((channel, text),) = slack.messages
    assert channel == "#edfi"
    heading, *causes, last = text.split("\n")
    assert heading == f":x: *{PAIR}*: extract_and_load failed, 2 endpoints; the rest is committed"
    assert {cause.partition(": ")[0] for cause in causes} == {"• `ed-fi/students`", "• `ed-fi/sessions`"}
    assert "HTTP 403" in causes[0]
    assert str(PAIR) not in "".join(causes), "it stands in the heading"
    assert last == link(result)


def test_wrong_credentials_are_told_without_the_secret(
    make_bench: MakeBench,
    watch: Callable[..., Daemon],
    slack: SlackStandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daemon = watch(make_bench("students"), "failure")
    monkeypatch.setenv(SECRET_VARIABLE, "not-the-secret")
    daemon.execute(REQUEST)
    daemon.sensor(FAILURE_SENSOR)
    ((_, text),) = slack.messages
    assert text.startswith(f":x: *{PAIR}*: extract_and_load failed\n• the ODS refused the key and secret")
    assert "not-the-secret" not in text


def test_the_text_of_an_unforeseen_exception_stays_in_the_run(
    make_bench: MakeBench, watch: Callable[..., Daemon], slack: SlackStandIn
) -> None:
    @dg.op
    def roster() -> None:
        raise ValueError("student Ada Lovelace, born 2011-02-03")

    @dg.job
    def report() -> None:
        roster()

    daemon = watch(make_bench("students"), "failure", extra=dg.Definitions(jobs=[report]))
    result = daemon.execute(dg.RunRequest(job_name="report"))
    daemon.sensor(FAILURE_SENSOR)
    assert slack.messages == [
        (
            "#edfi",
            f":x: *no tenant*: report failed\n• roster: ValueError; its text is in the run\n{link(result)}",
        )
    ]


def test_a_crash_that_is_run_again_is_told_only_if_that_fails_too(
    make_bench: MakeBench, watch: Callable[..., Daemon], slack: SlackStandIn
) -> None:
    daemon = watch(make_bench("students"), "failure")
    tags = {"dagster/partition": f"{PAIR.tenant}|{PAIR.year}"}
    daemon.note(REQUEST, dg.DagsterRunStatus.FAILURE, tags={**tags, "dagster/will_retry": "true"})
    daemon.sensor(FAILURE_SENSOR)
    assert slack.messages == []
    daemon.note(REQUEST, dg.DagsterRunStatus.FAILURE, tags={**tags, "dagster/will_retry": "false"})
    daemon.sensor(FAILURE_SENSOR)
    ((_, text),) = slack.messages
    assert text.startswith(f":x: *{PAIR}*: extract_and_load failed\n• the run ended without saying why\n")


def test_a_success_counts_tables_and_rows_once(
    make_bench: MakeBench, watch: Callable[..., Daemon], slack: SlackStandIn
) -> None:
    bench = make_bench("students", descriptors=("sexDescriptors",))
    daemon = watch(bench, "success")
    first = daemon.execute(REQUEST)
    daemon.sensor(SUCCESS_SENSOR)
    second = daemon.execute(REQUEST)
    daemon.sensor(SUCCESS_SENSOR)
    rows = bench.store.count("students") + bench.store.count("sexDescriptors")
    assert slack.messages == [
        (
            "#edfi",
            f":white_check_mark: *{PAIR}*: extract_and_load done in 0.0 min, 2 tables changed, {rows} rows loaded\n"
            f"{link(first)}",
        ),
        (
            "#edfi",
            f":white_check_mark: *{PAIR}*: extract_and_load done in 0.0 min, nothing had changed\n{link(second)}",
        ),
    ]


def test_a_slack_that_is_down_changes_nothing_but_the_log(
    make_bench: MakeBench,
    watch: Callable[..., Daemon],
    slack: SlackStandIn,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    daemon = watch(make_bench("students"), "failure", "success")
    slack.stop()
    result = daemon.execute(REQUEST)
    tick = daemon.sensor(SUCCESS_SENSOR)
    assert tick.requests == []
    assert result.success
    run = daemon.instance.get_run_by_id(result.run_id)
    assert run and run.status is dg.DagsterRunStatus.SUCCESS
    assert "not sent to Slack: Slack cannot be reached" in caplog.text + capfd.readouterr().err
