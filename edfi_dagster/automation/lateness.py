"""Which tenants and years are late, and telling Slack once when they become so.

Late is what has not succeeded since the latest moment it was scheduled for, ``late_after_hours`` after that moment. Without a
schedule it is what has not succeeded for ``late_after_hours``, unless its ODS has not changed since: then there was
nothing to run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from edfi_dagster.assets.keys import partition_key
from edfi_dagster.automation.cadence import Cadence, Part, routine
from edfi_dagster.automation.change_sensor import CHANGE_SENSOR, Cursor, read_cursor
from edfi_dagster.automation.inquiry import Ask, Inquiry
from edfi_dagster.automation.jobs import JOB_OF, Selections
from edfi_dagster.automation.notifications import send
from edfi_dagster.automation.run_history import PARTITION_TAG, covers, utc_text
from edfi_dagster.automation.slack import Channel, late_text
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.dagster_private import InstigatorType, SensorInstigatorData

LATE_SENSOR = "slack_on_late"
INTERVAL_SECONDS = 600
_ASKING_SECONDS = 15.0
_RUNS_LOOKED_AT = 20
_LISTED = 20


@dataclass(frozen=True)
class Late:
    """A part of a tenant and year that is late. ``succeeded`` is when it last did, ``expected`` since when it should have."""

    pair: TenantYear
    part: Part
    expected: datetime
    succeeded: datetime | None
    cron: str | None

    @property
    def name(self) -> str:
        """``grand_bend/2025``, ``grand_bend/2025 descriptors``."""
        return str(self.pair) if self.part is Part.EVERYTHING else f"{self.pair} {self.part}"

    @property
    def sentence(self) -> str:
        """What a person is told."""
        last = f"last success {utc_text(self.succeeded)}" if self.succeeded else "no success known"
        due = f", due since {utc_text(self.expected)} ({self.cron})" if self.cron else ""
        return f"{self.name}: {last}{due}"


class Lateness:
    """Judges by the runs of an instance, so it wakes no warehouse; ``ask`` is for pairs without a schedule only."""

    def __init__(self, platform: Platform, selections: Selections, ask: Ask) -> None:
        self._platform = platform
        self._selections = selections
        self._inquiry = Inquiry(ask, seconds=_ASKING_SECONDS)

    def late(
        self, instance: dg.DagsterInstance, now: datetime, known_since: Mapping[TenantYear, datetime]
    ) -> list[Late]:
        """All that is late now. A pair that never succeeded counts from ``known_since``, or not at all yet."""
        found = [
            late
            for pair in self._platform.pairs()
            for late in self._of_pair(instance, pair, now, known_since.get(pair, now))
        ]
        quiet = self._unchanged(instance, [late.pair for late in found if late.cron is None])
        return [late for late in found if late.cron is not None or late.pair not in quiet]

    def _of_pair(
        self, instance: dg.DagsterInstance, pair: TenantYear, now: datetime, known_since: datetime
    ) -> Iterator[Late]:
        settings = self._platform.ods(pair)
        cadences: tuple[Cadence | None, ...] = routine(settings.schedules) or (None,)
        for cadence in cadences:
            part = cadence.part if cadence else Part.EVERYTHING
            expected = now - timedelta(hours=settings.extract.late_after_hours)
            if cadence is not None:
                expected = cadence.last_before(expected, self._platform.timezone)
            if self._has_succeeded(instance, pair, part, expected):
                continue
            succeeded = self._last_success(instance, pair, part)
            if (succeeded or known_since) < expected:
                yield Late(pair, part, expected, succeeded, cadence.cron if cadence else None)

    def _has_succeeded(
        self, instance: dg.DagsterInstance, pair: TenantYear, part: Part, since: datetime
    ) -> bool:
        filters = dg.RunsFilter(
            tags={PARTITION_TAG: str(partition_key(pair))},
            statuses=[dg.DagsterRunStatus.SUCCESS],
            updated_after=since.astimezone(UTC),
        )
        wanted = self._selections[part]
        return any(
            covers(record.dagster_run, part, wanted) and _ended(record) >= since
            for record in instance.get_run_records(filters)
        )

    def _last_success(self, instance: dg.DagsterInstance, pair: TenantYear, part: Part) -> datetime | None:
        """The latest of the part's own jobs, however long ago; of others only the recent ones count."""
        ends = []
        for job in {JOB_OF[Part.EVERYTHING], JOB_OF[part]}:
            filters = dg.RunsFilter(
                job_name=job,
                tags={PARTITION_TAG: str(partition_key(pair))},
                statuses=[dg.DagsterRunStatus.SUCCESS],
            )
            records = instance.get_run_records(filters, limit=_RUNS_LOOKED_AT)
            ends += [_ended(r) for r in records if covers(r.dagster_run, part, self._selections[part])]
        return max(ends, default=None)

    def _unchanged(self, instance: dg.DagsterInstance, pairs: list[TenantYear]) -> set[TenantYear]:
        """Those whose ODS is still where the change sensor left it."""
        if not pairs:
            return set()
        reached = _reached(instance, pairs)
        newest = self._inquiry.answers([pair for pair in pairs if pair in reached]).newest
        return {pair for pair, version in newest.items() if version == reached[pair]}


class LateSensor:
    """Tells what has become late, once: its cursor holds what it told, and since when it knows each pair."""

    def __init__(
        self,
        platform: Platform,
        lateness: Lateness,
        channel: Channel,
        ui_url: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pairs = platform.pairs()
        self._lateness = lateness
        self._channel = channel
        self._clock = clock
        self._link = f"<{ui_url.rstrip('/')}/runs|runs>"

    def tick(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Judge every pair, and send at most one message."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        memory = _Memory.read(context.cursor, self._pairs, now)
        late = self._lateness.late(context.instance, now, memory.since)
        news = [one.sentence for one in late if one.name not in memory.told]
        is_told = not news or send(self._channel, late_text(news, self._link), context.log)
        told = frozenset(one.name for one in late if is_told or one.name in memory.told)
        reason = "; ".join(one.sentence for one in late[:_LISTED]) or "nothing is late"
        more = f"; {len(late) - _LISTED} more" if len(late) > _LISTED else ""
        return dg.SensorResult(
            skip_reason=dg.SkipReason(reason + more), cursor=_Memory(memory.since, told).text()
        )


def build_late_sensor(
    platform: Platform,
    lateness: Lateness,
    channel: Channel,
    ui_url: str,
    *,
    clock: Callable[[], float] = time.time,
) -> dg.SensorDefinition:
    """The sensor of ``slack.events: [late]``; on, for it is the configuration that asks for it."""
    sensor = LateSensor(platform, lateness, channel, ui_url, clock=clock)
    return dg.SensorDefinition(
        name=LATE_SENSOR,
        evaluation_fn=sensor.tick,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells Slack, once, which tenants and years have not been pulled as they should have been.",
    )


def _ended(record: dg.RunRecord) -> datetime:
    return (
        record.update_timestamp if record.end_time is None else datetime.fromtimestamp(record.end_time, UTC)
    )


def _reached(instance: dg.DagsterInstance, pairs: Iterable[TenantYear]) -> Cursor:
    """The versions in the change sensor's cursor; none where it was never on."""
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.instigator_name == CHANGE_SENSOR and isinstance(state.instigator_data, SensorInstigatorData):
            return read_cursor(state.instigator_data.cursor, pairs)
    return {}


@dataclass(frozen=True)
class _Memory:
    """What the sensor keeps from tick to tick: since when it knows each pair, and which names it told."""

    since: Mapping[TenantYear, datetime]
    told: frozenset[str]

    @classmethod
    def read(cls, text: str | None, pairs: Iterable[TenantYear], now: datetime) -> _Memory:
        try:
            document = json.loads(text or "{}")
            since = {name: datetime.fromtimestamp(at, UTC) for name, at in document.get("since", {}).items()}
            told = frozenset(map(str, document.get("told", ())))
        except (ValueError, AttributeError, TypeError, OverflowError, OSError, RecursionError):
            since, told = {}, frozenset()  # somebody edited it: as on the first tick
        return cls({pair: since.get(str(pair), now) for pair in pairs}, told)

    def text(self) -> str:
        since = {str(pair): int(moment.timestamp()) for pair, moment in self.since.items()}
        return json.dumps({"since": since, "told": sorted(self.told)}, separators=(",", ":"))
