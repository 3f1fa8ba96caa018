"""Cron schedules, checked without the scheduler that will run them.

The grammar is the part of five-field cron that Dagster reads: numbers, names, ranges, steps, lists,
`L` for the last day of the month, `sat#2` and `L5` for the second Saturday and the last Friday of the
month, and the usual names such as `@daily`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = dict(enumerate((31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), start=1))
_NICKNAMES = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})
_PART = re.compile(r"(?P<first>\*|[0-9]+|[a-z]{3})(?:-(?P<last>[0-9]+|[a-z]{3}))?(?:/(?P<step>[0-9]+))?")

_NTH_WEEKDAY = re.compile(rf"(?:[0-7]|{'|'.join(_WEEKDAYS)})#[1-5]|l[0-7]")
_LAST_OF_NO_DAY = re.compile(r"l|l[a-z]{3}|[0-7]l")


@dataclass(frozen=True)
class _Field:
    title: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        if text in self.names:
            return self.names.index(text) + self.low
        if not text.isdigit() or not self.low <= int(text) <= self.high:
            raise ValueError(f"{text!r} is not a {self.title} ({self.low} to {self.high})")
        return int(text)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _WEEKDAYS),
)


def check_cron(cron: str) -> str:
    """Return `cron` if it is a schedule Dagster can run.

    Raises ValueError saying which field is wrong and what a schedule looks like.
    """
    if cron.strip().lower() in _NICKNAMES:
        return cron.strip().lower()
    parts = cron.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            f"a schedule has five fields (minute, hour, day of the month, month, day of the week), this has"
            f' {len(parts)}; write for example "0 2 * * *" for every night at two'
        )
    try:
        plain = parts[:-1] if _is_of_certain_weeks(parts[-1].lower(), day=parts[2]) else parts
        fields = [_field_values(field, text.lower()) for field, text in zip(_FIELDS, plain, strict=False)]
        _check_day_exists(days=fields[2], months=fields[3])
    except ValueError as wrong:
        raise ValueError(f'{wrong}; write for example "0 2 * * *" for every night at two') from None
    return " ".join(parts)


def _is_of_certain_weeks(weekday: str, *, day: str) -> bool:
    """Whether weekdays of certain weeks of the month are meant (`sat#2`, `L5`). Raises ValueError beside what
    the scheduler does not combine them with: it refuses weekdays of every week, and does not heed a day of the month."""
    if any(_LAST_OF_NO_DAY.fullmatch(part) for part in weekday.split(",")):
        raise ValueError(f"{weekday!r} is not understood as day of the week; write L5 for the last Friday")
    found = [_NTH_WEEKDAY.fullmatch(part) is not None for part in weekday.split(",")]
    if not any(found):
        return False
    if not all(found):
        raise ValueError(f"{weekday!r} mixes weekdays of one week and of every week; write one kind of them")
    if day != "*":
        raise ValueError(f"{weekday!r} beside the day of the month {day!r}; write * for the day of the month")
    return True


def _field_values(field: _Field, text: str) -> set[int]:
    return {value for part in text.split(",") for value in _part_values(field, part)}


def _part_values(field: _Field, part: str) -> list[int]:
    if part == "l" and field.title == "day of the month":
        return [field.low]
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is not understood as {field.title}")
    first, last, step = match["first"], match["last"], int(match["step"] or 1)
    if not 1 <= step <= field.high:
        raise ValueError(f"step {step} is not possible for {field.title}")
    everything = list(range(field.low, field.high + 1))
    if first == "*":
        if last is not None:
            raise ValueError(f"{part!r} mixes * and a range as {field.title}")
        return everything[::step]
    start = field.number(first)
    if last is None:
        return list(range(start, field.high + 1, step)) if match["step"] else [start]
    end = field.number(last)
    if end >= start:
        return list(range(start, end + 1, step))
    # fri-mon and 22-3 go round the end.
    return [*everything[start - field.low :], *everything[: end - field.low + 1]][::step]


def _check_day_exists(days: set[int], months: set[int]) -> None:
    longest = max(_LONGEST[month] for month in months)
    if min(days) > longest:
        raise ValueError(f"none of the months has a day {min(days)}")
