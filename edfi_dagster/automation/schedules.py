"""Schedules from configuration: one for each cron of each tenant and year, all off until turned on.

One for each, not one for each distinct cron: a person finds a tenant by its name, turns one off without the others, and
reads in its ticks why it did or did not run. It costs next to nothing: a hundred of them add 0.1 s and 40 KB to a
location of 840 assets, five hundred 0.2 s and 200 KB.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import dagster as dg

from edfi_dagster.automation.cadence import Cadence, Part, full_refresh, routine
from edfi_dagster.automation.counting import CountChanges
from edfi_dagster.automation.jobs import Selections
from edfi_dagster.automation.run_history import (
    Trigger,
    covers,
    definition_tags,
    described,
    run_request,
    unfinished,
)
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.dagster_private import InstigatorStatus, InstigatorType, UnresolvedAssetJobDefinition

Jobs = Mapping[Part, UnresolvedAssetJobDefinition]
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True)
class Scheduled:
    """One schedule: its cadence and, for a routine one, the full refresh that goes before it.

    With ``count`` a routine run is launched only for what changed.
    """

    pair: TenantYear
    name: str
    cadence: Cadence
    timezone: str
    wanted: frozenset[dg.AssetKey]
    count: CountChanges | None
    before: Scheduled | None = None

    def tick(self, context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """The run of this moment, or why there is none."""
        moment = context.scheduled_execution_time
        if not self.cadence.means(moment, self.timezone):
            return dg.SkipReason(
                f"{self.pair}: {self.cadence.cron} means a day of the month and a weekday, and this day is not both"
            )
        if self.before is not None and self.before.goes_at(moment, context.instance):
            return dg.SkipReason(
                f"{self.pair}: {self.before.name} goes at the same minute, and does all of it"
            )
        is_full = self.cadence.full_refresh
        for record in unfinished(context.instance, self.pair):
            if covers(record.dagster_run, self.cadence.part, self.wanted, full_refresh=is_full):
                return dg.SkipReason(f"{self.pair}: {described(record)}; no other is put behind it")
        if is_full or self.count is None:
            return run_request(self.pair, Trigger.FULL_REFRESH if is_full else Trigger.SCHEDULE)
        if not (changed := self.count(self.pair, self.wanted)):
            return dg.SkipReason(f"{self.pair}: the ODS counts no change since the last run")
        return run_request(self.pair, Trigger.SCHEDULE, select=changed)

    def goes_at(self, moment: datetime, instance: dg.DagsterInstance) -> bool:
        """Whether it fires at the moment, and is turned on."""
        return self.cadence.fires_at(moment, self.timezone) and any(
            state.instigator_name == self.name
            for state in instance.all_instigator_state(
                instigator_type=InstigatorType.SCHEDULE, instigator_statuses={InstigatorStatus.RUNNING}
            )
        )


def build_schedules(
    platform: Platform, jobs: Jobs, selections: Selections, count: CountChanges | None = None
) -> list[dg.ScheduleDefinition]:
    """Every schedule of the configuration, in the order of its tenants; ``jobs`` has one for each part scheduled."""
    return [
        dg.ScheduleDefinition(
            name=scheduled.name,
            cron_schedule=scheduled.cadence.crons[0],
            execution_timezone=scheduled.timezone,
            job=jobs[scheduled.cadence.part],
            execution_fn=scheduled.tick,
            default_status=dg.DefaultScheduleStatus.STOPPED,
            description=_description(scheduled),
            tags=definition_tags(scheduled.pair),
        )
        for scheduled in all_scheduled(platform, selections, count)
    ]


def all_scheduled(
    platform: Platform, selections: Selections, count: CountChanges | None = None
) -> Iterator[Scheduled]:
    """What is scheduled for every pair, the full refresh first."""
    prefixes = schedule_prefixes(platform.pairs())
    for pair in platform.pairs():
        schedules = platform.ods(pair).schedules

        def of(cadence: Cadence, before: Scheduled | None, pair: TenantYear = pair) -> Scheduled:
            name = "_".join(filter(None, (prefixes[pair], _suffix(cadence))))
            wanted = selections[cadence.part]
            return Scheduled(pair, name, cadence, platform.timezone, wanted, count, before)

        refresh = full_refresh(schedules)
        before = None if refresh is None else of(refresh, None)
        if before is not None:
            yield before
        for cadence in routine(schedules):
            yield of(cadence, before)


def schedule_prefixes(pairs: Iterable[TenantYear]) -> dict[TenantYear, str]:
    """``grand_bend_2025`` for each pair; tenants whose codes Dagster's names cannot tell apart get a part of their hash."""
    names = {pair: _NOT_IN_A_NAME.sub("_", f"{pair.tenant}_{pair.year}") for pair in pairs}
    shared = Counter(names.values())
    return {
        pair: name
        if shared[name] == 1 or name == f"{pair.tenant}_{pair.year}"
        else f"{name}_{sha256(pair.tenant.encode()).hexdigest()[:6]}"
        for pair, name in names.items()
    }


def _suffix(cadence: Cadence) -> str:
    if cadence.full_refresh:
        return "full_refresh"
    return "" if cadence.part is Part.EVERYTHING else cadence.part.value


def _description(scheduled: Scheduled) -> str:
    cadence = scheduled.cadence
    what = "everything again, whatever changed" if cadence.full_refresh else f"what changed of {cadence.part}"
    both = ", day of the month and weekday both meant" if len(cadence.crons) > 1 else ""
    return f"{scheduled.pair}: pull {what} ({cadence.cron}{both}; {scheduled.timezone})."
