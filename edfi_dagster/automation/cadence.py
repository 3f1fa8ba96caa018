"""When a tenant and year is pulled: what its crons ask for, and the moments they mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from edfi_dagster.config import Schedules
from edfi_dagster.dagster_private import cron_string_iterator, reverse_cron_string_iterator


class Part(StrEnum):
    """How much of a tenant and year a run covers."""

    EVERYTHING = "everything"
    RESOURCES = "resources"
    DESCRIPTORS = "descriptors"


@dataclass(frozen=True)
class Cadence:
    """One cron of a tenant and year, and what it starts."""

    part: Part
    cron: str
    full_refresh: bool = False

    @property
    def crons(self) -> tuple[str, ...]:
        """The crons that must all fire for this one to be meant; Dagster ticks by the first.

        Cron takes a day of the month and a weekday as either; a full refresh means both, as ``0 3 1-7 * sat`` for the
        first Saturday, which is how the Airflow project reads it (croniter's ``day_or=False``).
        """
        fields = self.cron.split()
        if not self.full_refresh or len(fields) == 1 or "*" in (fields[2], fields[4]):
            return (self.cron,)
        minute, hour, day, month, weekday = fields
        return f"{minute} {hour} {day} {month} *", f"{minute} {hour} * {month} {weekday}"

    def means(self, moment: datetime, timezone: str) -> bool:
        """Whether a tick of Dagster's is meant: always, unless there are two crons."""
        return len(self.crons) == 1 or self.fires_at(moment, timezone)

    def fires_at(self, moment: datetime, timezone: str) -> bool:
        """Whether this is one of its moments."""
        return all(_fires(cron, moment, timezone) for cron in self.crons)

    def last_before(self, moment: datetime, timezone: str) -> datetime:
        """The latest of its moments that is not after ``moment``; for crons that need not both fire."""
        return next(reverse_cron_string_iterator(moment.timestamp(), self.cron, timezone))


def routine(schedules: Schedules) -> tuple[Cadence, ...]:
    """What is pulled regularly: everything by one cron, or resources and descriptors apart where one has its own."""
    if schedules.resources is None and schedules.descriptors is None:
        apart = {Part.EVERYTHING: schedules.everything}
    else:
        apart = {
            Part.RESOURCES: schedules.resources or schedules.everything,
            Part.DESCRIPTORS: schedules.descriptors or schedules.everything,
        }
    return tuple(Cadence(part, cron) for part, cron in apart.items() if cron is not None)


def full_refresh(schedules: Schedules) -> Cadence | None:
    """When everything is pulled again, whatever changed."""
    cron = schedules.full_refresh
    return None if cron is None else Cadence(Part.EVERYTHING, cron, full_refresh=True)


def _fires(cron: str, moment: datetime, timezone: str) -> bool:
    """To the second, with summer time as the scheduler counts it."""
    at = moment.timestamp()
    return next(cron_string_iterator(at, cron, timezone)).timestamp() == at
