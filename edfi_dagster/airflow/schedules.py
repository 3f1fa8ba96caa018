"""Airflow's schedules as crons: presets, intervals, and the moments of a full refresh."""

from __future__ import annotations

import re
from collections.abc import Callable

from edfi_dagster.airflow.documents import Interval
from edfi_dagster.config.cron import check_cron

Remark = Callable[[str], None]

_PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_NTH_WEEKDAY = re.compile(r"([0-7]|[a-z]{3})#([1-5])")
_HOUR, _DAY = 3600, 86400
_ON_WHICH_DAY = (
    "Airflow refreshed the run whose logical date matched, which is the start of its interval: with a daily schedule it"
    " began a day later. Here it begins when the cron says; compare the day"
)


def routine(value: object, remark: Remark) -> str | None:
    """The cron of a ``schedule_interval``; None, with a remark, where there is none that means the same."""
    if value is None or value == "":
        return None
    if isinstance(value, Interval):
        return _of_interval(value.seconds, remark)
    text = str(value).strip()
    if text.lower() in _PRESETS:
        return _PRESETS[text.lower()]
    try:
        return check_cron(text)
    except ValueError as wrong:
        remark(
            f"schedule {text!r} is left out ({wrong}); what follows changes at once is the sensor ods_changes"
        )
        return None


def full_refresh(value: object, normal: str | None, remark: Remark) -> str | None:
    """The cron of a ``schedule_interval_full_refresh``, which Airflow compares with the runs of the normal schedule.

    There, a ``*`` as minute or hour means whenever the run is: it is filled in from ``normal``.
    """
    if not value:
        return None
    fields = _PRESETS.get(str(value).strip().lower(), str(value)).split()
    if len(fields) != 5:
        _refuse(value, "it does not have five fields", remark)
        return None
    minute, hour, day, month, weekday = fields
    own = normal.split() if normal else ["0", "0"]
    filled = [given if given != "*" else usual for given, usual in zip((minute, hour), own, strict=False)]
    if "#" in weekday:
        named = _nth_weekday(day, weekday.lower())
        if named is None:
            _refuse(value, "several weeks of the month in one cron", remark)
            return None
        day, weekday = named
    try:
        cron = check_cron(" ".join([*filled, day, month, weekday]))
    except ValueError as wrong:
        _refuse(value, str(wrong), remark)
        return None
    if normal and filled != own[:2]:
        remark(
            f"full refresh {value!r}: Airflow refreshed only where a run of the normal schedule ({normal}) fell on its"
            " minute and hour; here it runs by itself at that time"
        )
    if (day, weekday) != ("*", "*"):
        remark(_ON_WHICH_DAY)
    return cron


def _nth_weekday(day: str, weekday: str) -> tuple[str, str] | None:
    """``sat#2`` as days 8–14 that are a Saturday: day and weekday are both meant."""
    parts = [_NTH_WEEKDAY.fullmatch(part) for part in weekday.split(",")]
    nths = {int(part[2]) for part in parts if part}
    if day != "*" or None in parts or len(nths) != 1:
        return None
    nth = nths.pop()
    first, last = 7 * nth - 6, min(7 * nth, 31)
    return f"{first}-{last}", ",".join(part[1] for part in parts if part)


def _of_interval(seconds: int, remark: Remark) -> str | None:
    cron = None
    if seconds == _DAY:
        cron = _PRESETS["@daily"]
    elif seconds == 7 * _DAY:
        cron = _PRESETS["@weekly"]
    elif seconds and seconds % _HOUR == 0 and _DAY % seconds == 0:
        cron = f"0 */{seconds // _HOUR} * * *"
    elif seconds and seconds % 60 == 0 and _HOUR % seconds == 0:
        cron = f"*/{seconds // 60} * * * *"
    if cron is None:
        remark(f"an interval of {seconds} s is left out: no cron means it; write a schedule")
    else:
        remark(f"an interval of {seconds} s is written as the cron {cron}, which begins at full hours")
    return cron


def _refuse(value: object, why: str, remark: Remark) -> None:
    remark(
        f"full refresh {str(value)!r} is left out ({why}); write schedule_full_refresh, for example"
        ' "0 3 22-28 * fri" for the fourth Friday'
    )
