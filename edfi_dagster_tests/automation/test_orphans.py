"""Runs that are in progress when their only code server starts."""

from __future__ import annotations

import dagster as dg
from dagster._core.test_utils import create_run_for_test

from edfi_dagster.automation.orphans import end_orphans

S = dg.DagsterRunStatus


def test_runs_in_progress_are_ended_so_that_they_are_run_again_and_all_others_left(
    instance: dg.DagsterInstance,
) -> None:
    statuses = (S.NOT_STARTED, S.STARTING, S.STARTED, S.CANCELING, S.SUCCESS, S.FAILURE, S.CANCELED)
    runs = {status: create_run_for_test(instance, status=status) for status in statuses}
    ended = end_orphans(instance)
    assert set(ended) == {runs[status].run_id for status in (S.STARTING, S.STARTED, S.CANCELING)}
    found = {status: instance.get_run_by_id(run.run_id) for status, run in runs.items()}
    assert {status: run.status for status, run in found.items() if run} == {
        **{status: status for status in statuses},
        S.STARTING: S.FAILURE,
        S.STARTED: S.FAILURE,
        S.CANCELING: S.CANCELED,
    }
    assert end_orphans(instance) == []


def test_run_that_is_ended_counts_as_a_crash(instance: dg.DagsterInstance) -> None:
    """Which alone is run again: ``retry_on_asset_or_op_failure`` is off."""
    run = create_run_for_test(instance, status=S.STARTED)
    end_orphans(instance)
    (failure,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert failure.dagster_event and failure.dagster_event.event_specific_data is None  # no step has failed
