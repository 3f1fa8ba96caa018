"""The part of Dagster's daemon that decides: ticks of schedules and sensors, one at a time, at the time a test says.

What a tick asks for becomes a run of the instance as the daemon makes it, but it is executed only when the test says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from dagster._core.test_utils import create_run_for_test, freeze_time

ORIGIN = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("edfi_dagster"), "__repository__")
MONDAY = datetime(2025, 11, 3, tzinfo=UTC)


class Clock:
    """The time of day, as the test sets it."""

    def __init__(self, now: datetime = MONDAY) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now.timestamp()

    def pass_(self, **much: float) -> None:
        self.now += timedelta(**much)


@dataclass(frozen=True)
class Tick:
    requests: list[dg.RunRequest]
    skipped: str


class Daemon:
    """Ticks and runs of one platform's definitions."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance, clock: Clock) -> None:
        self.repository = defs.get_repository_def()
        self.instance = instance
        self.clock = clock
        self.cursors: dict[str, str | None] = {}
        self.keys: set[str] = set()

    # -- ticks --------------------------------------------------------------------------------------------

    def schedule(self, name: str) -> Tick:
        """A tick of a schedule, at this moment."""
        with (
            self._now(),
            dg.build_schedule_context(
                instance=self.instance,
                scheduled_execution_time=self.clock.now,
                repository_def=self.repository,
            ) as context,
        ):
            found = self.repository.get_schedule_def(name).evaluate_tick(context)
        return Tick(list(found.run_requests or ()), found.skip_message or "")

    def sensor(self, name: str) -> Tick:
        """A tick of a sensor; requests whose key a run ever had are dropped."""
        with (
            self._now(),
            dg.build_sensor_context(
                instance=self.instance,
                cursor=self.cursors.get(name),
                repository_def=self.repository,
                sensor_name=name,
            ) as context,
        ):
            found = self.repository.get_sensor_def(name).evaluate_tick(context)
        self.cursors[name] = found.cursor
        fresh = [request for request in found.run_requests or () if request.run_key not in self.keys]
        self.keys |= {request.run_key for request in fresh if request.run_key}
        return Tick(fresh, found.skip_message or "")

    def turn_on(self, name: str, kind: InstigatorType, cursor: str | None = None) -> None:
        """What the switch in the UI does."""
        data = (
            ScheduleInstigatorData("* * * * *", self.clock())
            if kind is InstigatorType.SCHEDULE
            else SensorInstigatorData(cursor=cursor)
        )
        origin = RemoteInstigatorOrigin(ORIGIN, name)
        self.instance.add_instigator_state(InstigatorState(origin, kind, InstigatorStatus.RUNNING, data))

    # -- runs ---------------------------------------------------------------------------------------------

    def execute(self, request: dg.RunRequest, job: str = "extract_and_load") -> dg.ExecuteInProcessResult:
        """The requested run, from beginning to end, at this moment."""
        with self._now():
            return self.repository.get_job(request.job_name or job).execute_in_process(
                instance=self.instance,
                run_config=request.run_config,
                tags={**request.tags, **({"dagster/run_key": request.run_key} if request.run_key else {})},
                partition_key=request.partition_key,
                asset_selection=list(request.asset_selection or ()) or None,
                raise_on_error=False,
            )

    def note(
        self,
        request: dg.RunRequest,
        status: dg.DagsterRunStatus,
        job: str = "extract_and_load",
        asset_selection: frozenset[dg.AssetKey] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dg.DagsterRun:
        """A run that is queued, in progress or over, without anything having been run."""
        end = {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS}
        with self._now():
            run: dg.DagsterRun = create_run_for_test(
                self.instance,
                request.job_name or job,
                run_config=dict(request.run_config),
                tags={**request.tags, **(tags or {})},
                status=dg.DagsterRunStatus.STARTED if status in end else status,
                asset_selection=asset_selection,
                remote_job_origin=RemoteJobOrigin(ORIGIN, job)
                if status is dg.DagsterRunStatus.QUEUED
                else None,
            )
            if status in end:
                self.end(run, status)
        return run

    def end(self, run: dg.DagsterRun, status: dg.DagsterRunStatus) -> None:
        kinds = {
            dg.DagsterRunStatus.SUCCESS: dg.DagsterEventType.RUN_SUCCESS,
            dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.RUN_FAILURE,
            dg.DagsterRunStatus.CANCELED: dg.DagsterEventType.RUN_CANCELED,
        }
        with self._now():
            self.instance.report_dagster_event(
                dg.DagsterEvent(kinds[status].value, run.job_name, message=""), run_id=run.run_id
            )

    @contextmanager
    def _now(self) -> Iterator[None]:
        # Dagster warns of the tags that it gives to runs of two-dimensional partitions itself.
        with freeze_time(self.clock.now.astimezone(UTC)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Non-compliant tag keys", DeprecationWarning)
            yield
