"""Which moments a cron means, and what a pair's crons are for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from edfi_dagster.automation.cadence import Cadence, Part, full_refresh, routine
from edfi_dagster.config import Schedules

CHICAGO = "America/Chicago"


def days(cadence: Cadence, year: int, hour: int) -> list[str]:
    """The days of a year on which it fires, at that hour in Chicago."""
    start = datetime(year, 1, 1, hour, tzinfo=ZoneInfo(CHICAGO))
    all_days = (start + timedelta(days=n) for n in range(365))
    return [f"{day:%m-%d}" for day in all_days if cadence.fires_at(day, CHICAGO)]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 3 13 * fri", ["06-13"]),
        ("0 3 1 1,7 *", ["01-01", "07-01"]),
        ("0 3 L 2,11 *", ["02-28", "11-30"]),
        ("0 3 1-7 9 mon", ["09-01"]),
        ("0 3 25-31 12 0,7", ["12-28"]),
    ],
)
def test_a_full_refresh_fires_where_day_and_weekday_both_hold(cron: str, expected: list[str]) -> None:
    assert days(Cadence(Part.EVERYTHING, cron, full_refresh=True), 2025, 3) == expected


def test_dagster_ticks_on_every_day_that_a_full_refresh_could_mean() -> None:
    assert Cadence(Part.EVERYTHING, "0 3 1-7 9 mon", full_refresh=True).crons == (
        "0 3 1-7 9 *",
        "0 3 * 9 mon",
    )
    assert Cadence(Part.EVERYTHING, "0 3 1-7 9 mon").crons == ("0 3 1-7 9 mon",)
    assert Cadence(Part.EVERYTHING, "@weekly", full_refresh=True).crons == ("@weekly",)


def test_routine_crons_mean_either_day_as_cron_does() -> None:
    assert days(Cadence(Part.EVERYTHING, "0 3 13 6 mon"), 2025, 3) == [
        "06-02",
        "06-09",
        "06-13",
        "06-16",
        "06-23",
        "06-30",
    ]


def test_another_minute_is_not_its_moment() -> None:
    nightly = Cadence(Part.EVERYTHING, "0 3 * * *")
    assert nightly.fires_at(datetime(2025, 7, 1, 8, tzinfo=UTC), CHICAGO)
    assert not nightly.fires_at(datetime(2025, 7, 1, 8, 1, tzinfo=UTC), CHICAGO)
    assert not nightly.fires_at(datetime(2025, 7, 1, 3, tzinfo=UTC), CHICAGO)


def test_the_last_moment_is_found_across_the_end_of_summer_time() -> None:
    nightly = Cadence(Part.EVERYTHING, "0 3 * * *")
    noon = datetime(2025, 11, 2, 18, tzinfo=UTC)  # clocks went back that night
    assert nightly.last_before(noon, CHICAGO) == datetime(2025, 11, 2, 9, tzinfo=UTC)
    assert nightly.last_before(noon - timedelta(days=1), CHICAGO) == datetime(2025, 11, 1, 8, tzinfo=UTC)
    assert nightly.last_before(datetime(2025, 11, 2, 9, tzinfo=UTC), CHICAGO) == datetime(
        2025, 11, 2, 9, tzinfo=UTC
    )


def test_the_more_specific_cron_wins() -> None:
    def of(everything: str | None, resources: str | None, descriptors: str | None) -> dict[str, str]:
        crons = Schedules(everything, resources, descriptors, full_refresh=None)
        return {cadence.part.value: cadence.cron for cadence in routine(crons)}

    assert of("0 2 * * *", None, None) == {"everything": "0 2 * * *"}
    assert of(None, "0 2 * * *", None) == {"resources": "0 2 * * *"}
    assert of("0 2 * * *", None, "0 1 * * 0") == {"resources": "0 2 * * *", "descriptors": "0 1 * * 0"}
    assert of(None, None, None) == {}
    assert full_refresh(Schedules(None, None, None, None)) is None
