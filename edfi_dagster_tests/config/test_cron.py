"""Schedules are checked before Dagster sees them, and no stricter than people write them."""

from __future__ import annotations

import pytest
from dagster import ScheduleDefinition

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
)


@pytest.mark.parametrize("cron", RIGHT)
def test_schedule_is_taken_here_and_by_dagster(cron: str) -> None:
    checked = check_cron(f"  {cron}  ")
    assert checked == cron
    assert ScheduleDefinition(name="nightly", job_name="pull", cron_schedule=checked).cron_schedule == cron


@pytest.mark.parametrize("cron", WRONG)
def test_schedule_that_never_fires_is_refused_with_an_example(cron: str) -> None:
    with pytest.raises(ValueError, match=r'write for example "0 2 \* \* \*" for every night at two'):
        check_cron(cron)
