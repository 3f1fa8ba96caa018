"""What Slack is told of runs: one message for each that failed, and for each that succeeded where that is wanted.

The sensors are on wherever the configuration has a ``slack`` block; it is that which turns them on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import dagster as dg

from edfi_dagster.assets.keys import pair_of
from edfi_dagster.automation.run_history import PARTITION_TAG
from edfi_dagster.automation.slack import Channel, NotSent, failure_text, success_text
from edfi_dagster.config import Platform
from edfi_dagster.dagster_private import WILL_RETRY_TAG, SerializableErrorInfo

FAILURES = "edfi/failures"
FAILURE_SENSOR = "slack_on_failure"
SUCCESS_SENSOR = "slack_on_success"


def build_notifications(platform: Platform, channel: Channel, ui_url: str) -> list[dg.SensorDefinition]:
    """The sensors of ``slack.events`` that watch runs; ``ui_url`` is where links lead."""
    events = platform.slack.events if platform.slack else ()
    sensors = []
    if "failure" in events:
        sensors.append(_on_failure(channel, ui_url))
    if "success" in events:
        sensors.append(_on_success(channel, ui_url, platform.tables.asset_prefix))
    return sensors


def _on_failure(channel: Channel, ui_url: str) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name=FAILURE_SENSOR,
        description="Tells Slack of every run that failed: tenant, year, endpoints, causes.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def slack_on_failure(context: dg.RunFailureSensorContext) -> None:
        run = context.dagster_run
        if run.tags.get(WILL_RETRY_TAG) == "true":
            context.log.info(
                f"run {run.run_id} crashed and is run again; Slack hears of it if that fails too"
            )
            return
        causes, failures = _told(context)
        text = failure_text(_place(run), run.job_name, causes, failures, _link(run, ui_url))
        send(channel, text, context.log)

    return slack_on_failure


def _on_success(channel: Channel, ui_url: str, tables: str) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name=SUCCESS_SENSOR,
        description="Tells Slack of every run that succeeded.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def slack_on_success(context: dg.RunStatusSensorContext) -> None:
        run = context.dagster_run
        rows = _loaded(context.instance, run.run_id, tables)
        stats = context.instance.get_run_stats(run.run_id)
        minutes = ((stats.end_time or 0) - (stats.start_time or stats.end_time or 0)) / 60
        text = success_text(_place(run), run.job_name, len(rows), sum(rows), minutes, _link(run, ui_url))
        send(channel, text, context.log)

    return slack_on_success


def send(channel: Channel, text: str, log: logging.Logger) -> bool:
    """Send a message; one that Slack does not take is logged, and that is all that comes of it."""
    try:
        channel.send(text)
    except NotSent as error:
        log.error(f"not sent to Slack: {error}")
        return False
    return True


def _told(context: dg.RunFailureSensorContext) -> tuple[list[str], Mapping[str, str]]:
    """Causes of the whole run, and endpoint → cause.

    Only what was written for people is repeated, a ``dg.Failure``; the text of any other exception may hold a record.
    """
    causes: list[str] = []
    failures: dict[str, str] = {}
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        written = data.user_failure_data
        if written is None:
            causes.append(f"{event.step_key}: {_kind(data.error)}; its text is in the run")
        elif FAILURES in written.metadata:
            failures |= _texts(written.metadata[FAILURES].value)
        else:
            causes.append(written.description or f"{event.step_key} failed")
    if not causes and not failures:
        causes.append(context.failure_event.message or "the run ended without saying why")
    return causes, failures


def _kind(error: SerializableErrorInfo | None) -> str:
    """The class of what was raised, below what Dagster wraps it in."""
    if error is not None and error.cause is not None:
        return _kind(error.cause)
    return (error.cls_name if error else None) or "an error"


def _texts(value: Any) -> dict[str, str]:
    return {str(label): str(cause) for label, cause in value.items()} if isinstance(value, Mapping) else {}


def _loaded(instance: dg.DagsterInstance, run_id: str, prefix: str) -> list[int]:
    """The rows loaded into each table that changed; tables are the assets whose keys begin with ``prefix``."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    told = [entry.asset_materialization for entry in entries if entry.asset_materialization]
    found = [m.metadata.get("edfi/rows_loaded") for m in told if m.asset_key.path[0] == prefix]
    return [int(str(rows.value)) for rows in found if rows is not None]


def _place(run: dg.DagsterRun) -> str:
    """``grand_bend/2025``, as our own messages write it."""
    key = run.tags.get(PARTITION_TAG)
    return str(pair_of(key)) if key and "|" in key else key or "no tenant"


def _link(run: dg.DagsterRun, ui_url: str) -> str:
    return f"<{ui_url.rstrip('/')}/runs/{run.run_id}|run {run.run_id[:8]}>"
