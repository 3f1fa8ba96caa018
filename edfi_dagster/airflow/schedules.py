"""Airflow's schedules as crons: presets, intervals, and the moments of a full refresh."""

from __future__ import annotations

from collections.abc import Callable

from edfi_dagster.airflow.documents import Interval
from edfi_dagster.config.cron import check_cron

Tell = Callable[[str], None]

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
_HOUR, _DAY = 3600, 86400
_ON_WHICH_DAY = (
    "Airflow refreshed the run whose logical date matched, which is the start of its interval: with a daily schedule it"
    " began a day later. Here it begins when the cron says; compare the day"
)


def routine(value: object, remark: Tell, leave: Tell) -> str | None:
    """The cron of a ``schedule_interval``, with a remark if it differs; None if there is none, or none that means it."""
    if value is None or value == "":
        return None
    if isinstance(value, Interval):
        return _of_interval(value.seconds, remark, leave)
    text = str(value).strip()
    if text.lower() in _PRESETS:
        return _PRESETS[text.lower()]
    try:
        return check_cron(_without_question_marks(text))
    except ValueError as wrong:
        leave(f"{text!r}: {wrong}; the sensor ods_changes follows changes at once")
        return None


def full_refresh(value: object, normal: str | None, remark: Tell, leave: Tell) -> str | None:
    """The cron of a ``schedule_interval_full_refresh``, which Airflow compares with the runs of the normal schedule.

    There, a ``*`` as minute or hour means whenever the run is: it is filled in from ``normal``.
    """
    if not value:
        return None
    text = _without_question_marks(_PRESETS.get(str(value).strip().lower(), str(value)))
    fields = text.split()
    if len(fields) != 5:
        _refuse(value, "it does not have five fields", leave)
        return None
    minute, hour, *days = fields
    own = normal.split() if normal else ["0", "0"]
    filled = [given if given != "*" else usual for given, usual in zip((minute, hour), own, strict=False)]
    try:
        cron = check_cron(" ".join([*filled, *days]))
    except ValueError as wrong:
        _refuse(value, str(wrong), leave)
        return None
    if normal and filled != own[:2]:
        remark(
            f"full refresh {value!r}: Airflow refreshed only where a run of the normal schedule ({normal}) fell on its"
            " minute and hour; here it runs by itself at that time"
        )
    if (days[0], days[2]) != ("*", "*"):
        remark(_ON_WHICH_DAY)
    return cron


def _without_question_marks(cron: str) -> str:
    """``?`` is ``*`` to Airflow."""
    return " ".join("*" if field == "?" else field for field in cron.split())


def _of_interval(seconds: float, remark: Tell, leave: Tell) -> str | None:
    cron = None
    if seconds == _DAY:
        cron = _PRESETS["@daily"]
    elif seconds == 7 * _DAY:
        cron = _PRESETS["@weekly"]
    elif seconds > 0 and seconds % _HOUR == 0 and _DAY % seconds == 0:
        cron = f"0 */{int(seconds) // _HOUR} * * *"
    elif seconds > 0 and seconds % 60 == 0 and _HOUR % seconds == 0:
        cron = f"*/{int(seconds) // 60} * * * *"
    if cron is None:
        leave(f'no cron means an interval of {seconds:g} s; write a schedule, such as "0 2 * * *"')
    else:
        remark(f"an interval of {seconds:g} s is written as the cron {cron}, which begins at full hours")
    return cron


def _refuse(value: object, why: str, leave: Tell) -> None:
    leave(f'{str(value)!r}: {why}; write schedule_full_refresh, for example "0 3 * * L5" for the last Friday')
