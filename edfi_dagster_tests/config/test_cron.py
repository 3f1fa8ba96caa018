"""Schedules are checked before Dagster sees them, and no stricter than people write them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from dagster import ScheduleDefinition
from dagster._utils.schedules import cron_string_iterator

from edfi_dagster.automation.cadence import Cadence, Part
from edfi_dagster.config.cron import check_cron

RIGHT = (
    "* * * * *",
    "0 2 * * *",
    "*/15 6-20 * * mon-fri",
    "30 2 1,15 * *",
    "0 0 L * *",
    "0 3 * JAN,jul 0",
    "5 4 * * 7",
    "5/10 * * * *",
    "0 22-3/2 * * fri-mon",
    "0 0 29 2 *",
    "0 3 * * sat#1",
    "0 3 * * SAT#2",
    "0 3 * * 7#5",
    "0 3 * jan,jul sat#1,sun#2",
    "0 3 * * L5",
    "0 3 * * l0",
    "0 3 * * 5#3,L5",
    "0 3 15,L * *",
    "0 0 31 4,5 *",
    "@daily",
    "@hourly",
    "@midnight",
    "@weekly",
    "@monthly",
    "@yearly",
    "@annually",
)
WRONG = (
    "",
    "0 2 * *",
    "0 0 2 * * *",
    "60 * * * *",
    "* 24 * * *",
    "* * 0 * *",
    "* * * 13 *",
    "* * * * 8",
    "* * * * mond",
    "* * * jan-foo *",
    "*/0 * * * *",
    "*-5 * * * *",
    "1, * * * *",
    "1- * * * *",
    "-1 * * * *",
    "a * * * *",
    "1.5 * * * *",
    "0 0 30 2 *",
    "0 0 31 4,6 *",
    "@reboot",
    "every night",
    "² * * * *",
    "0 3 * * sat#6",
    "0 3 * * sat#0",
    "0 3 * * sat#1,mon",
    "0 3 * * L",
    "0 3 * * L8",
    "0 3 * * Lfri",
    "0 3 * * 5L",
    "0 3 1 * sat#1",
    "0 3 1-7 * L5",
    "0 3 L-2 * *",
    "0 3 15W * *",
    "R 3 * * *",
    "0 3 30 2 sat#1",
)


@pytest.mark.parametrize("cron", RIGHT)
def test_schedule_is_taken_here_and_by_dagster(cron: str) -> None:
    checked = check_cron(f"  {cron}  ")
    assert checked == cron
    assert ScheduleDefinition(name="nightly", job_name="pull", cron_schedule=checked).cron_schedule == cron


def nth(weekday: int, week: int) -> Callable[[date], bool]:
    """Whether a day is the n-th of its weekdays in the month (Monday is 0)."""
    return lambda day: day.weekday() == weekday and (day.day - 1) // 7 + 1 == week


def last(weekday: int) -> Callable[[date], bool]:
    return lambda day: day.weekday() == weekday and (day + timedelta(7)).month != day.month


CERTAIN_WEEKS: dict[str, tuple[Callable[[date], bool], ...]] = {
    "sat#1": (nth(5, 1),),
    "sun#2": (nth(6, 2),),  # the night on which summer time begins, and of February
    "7#1": (nth(6, 1),),  # the night on which it ends
    "6#5": (nth(5, 5),),
    "sat#1,sun#2": (nth(5, 1), nth(6, 2)),
    "L5": (last(4),),
    "L0": (last(6),),
    "5#3,L5": (nth(4, 3), last(4)),
}


@pytest.mark.parametrize("weekday", CERTAIN_WEEKS)
def test_weekdays_of_certain_weeks_tick_on_those_days_and_no_other(weekday: str) -> None:
    zone, wanted = "America/Chicago", CERTAIN_WEEKS[weekday]
    days = [date(2025, 1, 1) + timedelta(n) for n in range(730)]
    meant = [day for day in days if any(rule(day) for rule in wanted)]
    start = datetime(2025, 1, 1, tzinfo=ZoneInfo(zone)).timestamp()
    ticks = list(islice(cron_string_iterator(start, check_cron(f"30 3 * * {weekday}"), zone), len(meant)))
    assert [tick.date() for tick in ticks] == meant
    assert {(tick.hour, tick.minute) for tick in ticks} == {(3, 30)}
    cadence = Cadence(Part.EVERYTHING, f"30 3 * * {weekday}", full_refresh=True)
    assert all(cadence.means(tick, zone) and cadence.fires_at(tick, zone) for tick in ticks)
    assert cadence.last_before(ticks[-1] + timedelta(minutes=1), zone) == ticks[-1]


@pytest.mark.parametrize("cron", WRONG)
def test_schedule_that_never_fires_is_refused_with_an_example(cron: str) -> None:
    with pytest.raises(ValueError, match=r'write for example "0 2 \* \* \*" for every night at two'):
        check_cron(cron)
