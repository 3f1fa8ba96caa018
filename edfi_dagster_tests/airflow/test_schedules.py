"""What becomes of Airflow's schedules, by the moments at which Dagster then starts a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest
from dagster._utils.schedules import cron_string_iterator

from edfi_dagster.airflow.documents import Interval, read_yaml
from edfi_dagster.airflow.schedules import full_refresh, routine
from edfi_dagster.automation.cadence import Cadence, Part
from edfi_dagster.config import TenantYear
from edfi_dagster_tests.airflow.project import imported, lines_left

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "cron", "told"),
    [
        (None, None, ""),
        ("@daily", "0 0 * * *", ""),
        ("@Quarterly", "0 0 1 */3 *", ""),
        ("15 3 * * mon-fri", "15 3 * * mon-fri", ""),
        ("0 3 ? * MON", "0 3 * * MON", ""),
        ("0 3 * * sat#1", "0 3 * * sat#1", ""),
        ("0 3 * * L5", "0 3 * * L5", ""),
        ("0 3 L * *", "0 3 L * *", ""),
        (Interval(86400), "0 0 * * *", "an interval of 86400 s"),
        (Interval(900.0), "*/15 * * * *", "an interval of 900 s"),
        (Interval(7200), "0 */2 * * *", "an interval of 7200 s"),
        (Interval(100), None, "no cron means"),
        (Interval(129600), None, "no cron means an interval of 129600 s; write a schedule"),
        (Interval(0), None, "no cron means"),
        ("@once", None, "ods_changes"),
        ("0 3 * * L", None, "write L5 for the last Friday"),
        ("0 3 * * sat#1,mon", None, "mixes weekdays"),
        ("0 3 1 * sat#1", None, "write * for the day of the month"),
        ("0 0 0 * * *", None, "five fields"),
        (["0 3 * * *"], None, "is not understood as minute"),
    ],
)
def test_schedules_become_crons(value: object, cron: str | None, told: str) -> None:
    said: list[str] = []
    assert routine(value, said.append, said.append) == cron
    assert told in " ".join(said) and bool(told) == bool(said)


@pytest.mark.parametrize(
    ("value", "cron", "told"),
    [
        ("* * * * sun", "30 2 * * sun", "logical date"),
        ("* * 1 * wed", "30 2 1 * wed", "logical date"),
        ("* 4 * * *", "30 4 * * *", "Airflow refreshed only where a run"),
        ("30 2 * * sat#2,sun#2", "30 2 * * sat#2,sun#2", "logical date"),
        ("30 2 * * fri#5", "30 2 * * fri#5", "logical date"),
        ("30 2 * * sat#1,sun#2", "30 2 * * sat#1,sun#2", "logical date"),
        ("30 2 * * 5#3,L5", "30 2 * * 5#3,L5", "logical date"),
        ("* * ? * L5", "30 2 * * L5", "logical date"),
        ("30 2 L * *", "30 2 L * *", "logical date"),
        ("30 2 1 * L5", None, "write schedule_full_refresh"),
        ("30 2", None, "five fields"),
    ],
)
def test_full_refreshes_take_minute_and_hour_from_the_normal_schedule(
    value: str, cron: str | None, told: str
) -> None:
    said: list[str] = []
    assert full_refresh(value, "30 2 * * *", said.append, said.append) == cron
    assert told in " ".join(said)


FULL_REFRESHES = {
    "* * * * sat#1": ["01-03", "02-07", "03-07", "04-04"],
    "* * * * sat#2": ["01-10", "02-14", "03-14", "04-11"],
    "* * * * L5": ["01-30", "02-27", "03-27", "04-24"],
    "* * L * *": ["01-31", "02-28", "03-31", "04-30"],
    "* * 1-7 * sat": ["01-03", "02-07", "03-07", "04-04"],
    "* * * * sat#1,sun#2": ["01-03", "01-11", "02-07", "02-08"],
}


@pytest.mark.parametrize("value", FULL_REFRESHES)
def test_full_refreshes_start_on_the_days_that_croniter_matches(value: str) -> None:
    """As Airflow has them: ``croniter.match(cron, date, day_or=False)``."""
    cron = full_refresh(value, "0 8 * * *", lambda text: None, lambda text: None)
    assert cron is not None
    cadence = Cadence(Part.EVERYTHING, cron, full_refresh=True)
    ticks = cron_string_iterator(START.timestamp(), cadence.crons[0], "UTC")
    meant = [tick for tick in islice(ticks, 200) if cadence.means(tick, "UTC")]
    assert [f"{tick:%m-%d}" for tick in meant[:4]] == FULL_REFRESHES[value]
    assert {(tick.hour, tick.minute) for tick in meant} == {(8, 0)}


INTERVALS = {
    "21_600": 21600,
    "3600.0": 3600,
    "86400": 86400,
    "1e3": 1000,
    "{days: 1}": 86400,
    "{hours: 1, minutes: 30}": 5400,
    "'6:00:00'": 21600,
    "1 day, 0:00:00": 86400,
    "0.5": 0.5,
}


@pytest.mark.parametrize("text", INTERVALS)
def test_intervals_are_read_in_each_way_that_people_write_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yml").write_text(f"a: !timedelta {text}")
    assert read_yaml(tmp_path / "a.yml") == {"a": Interval(INTERVALS[text])}
    assert timedelta(seconds=INTERVALS[text]).total_seconds() == INTERVALS[text]


def test_tags_of_schedules_are_read_or_named_and_the_rest_is_imported(tmp_path: Path) -> None:
    translation, platform = imported(
        tmp_path,
        """
  a:
    2024: {edfi_conn_id: x, schedule_interval: !cron "0 5 * * *"}
    2025: {edfi_conn_id: x, schedule_interval: !timedelta soon}
    2026: {edfi_conn_id: x, schedule_interval: !ENV "${NIGHT:-s3cret}", tmp_dir: !include s3cret.yml}
    2027: {edfi_conn_id: x, schedule_interval: "{{ var.value.night }}", schedule_interval_descriptors: null}
    2028: {edfi_conn_id: x, schedule_interval: !timedelta 21_600}
""",
    )
    schedules = [platform.ods(TenantYear("a", year)).schedules.everything for year in range(2024, 2029)]
    assert schedules == ["0 5 * * *", None, None, None, "0 */6 * * *"]
    told = lines_left(translation)
    assert (
        "edfi_resource_dags.a.2025.schedule_interval: schedule_interval: the value behind !timedelta" in told
    )
    assert "edfi_resource_dags.a.2026.schedule_interval: schedule_interval: the value behind !ENV" in told
    assert "edfi_resource_dags.a.2027.schedule_interval: schedule_interval: a variable or template" in told
    assert "s3cret" not in told + str(translation.document)
