"""What the file-drop sensor remembers: the files it has seen, and the last run of each place where files are dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import dagster as dg

MOST_REMEMBERED = 2000
_LAST = "last"
_RUN_KEY = "dagster/run_key"
_SEARCHED = 100
_DIGITS = 32

Seen = tuple[int, int, str]
"""Size, time of change in nanoseconds, and SHA-256; the last is empty for a file that was not read yet."""


@dataclass(frozen=True)
class Last:
    """The last run of a place: how many there were with it, and the begin of its file's SHA-256."""

    number: int = 0
    digest: str = ""

    def is_of(self, digest: str) -> bool:
        return self.digest == digest[:_DIGITS]

    def next(self, digest: str) -> Last:
        return Last(self.number + 1, digest[:_DIGITS])


@dataclass(frozen=True)
class Cursor:
    """``{place: {name: [size, mtime_ns, sha256]}, "last": {place: [number, digest]}}``."""

    seen: Mapping[str, Mapping[str, Seen]] = field(default_factory=dict)
    last: Mapping[str, Last] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        """What was seen at the last tick; a cursor that is not understood is an empty one."""
        try:
            document = json.loads(text or "{}")
            last = document.pop(_LAST, {})
            return cls(
                {
                    place: {name: (int(size), int(at), str(sha)) for name, (size, at, sha) in files.items()}
                    for place, files in document.items()
                },
                {place: Last(int(number), str(digest)) for place, (number, digest) in last.items()},
            )
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls()

    def text(self) -> str:
        """As JSON: only files that are still there, and of these the latest."""
        entries = [
            (place, name, entry) for place, files in self.seen.items() for name, entry in files.items()
        ]
        entries.sort(key=lambda one: (bool(one[2][2]), -one[2][1]))
        kept: dict[str, dict[str, Seen]] = {}
        for place, name, entry in entries[:MOST_REMEMBERED]:
            kept.setdefault(place, {})[name] = entry
        last = {place: [one.number, one.digest] for place, one in self.last.items()}
        return json.dumps({**kept, _LAST: last}, separators=(",", ":"))


@dataclass(frozen=True)
class DroppedRuns:
    """The runs of dropped files that the instance holds."""

    instance: dg.DagsterInstance

    def last(self, place: str, tags: Mapping[str, str]) -> Last | None:
        """The latest run of a place with these tags, by its run key; keys of older versions hold no number."""
        runs = self.instance.get_runs(dg.RunsFilter(tags=dict(tags)), limit=_SEARCHED)
        for run in runs:
            key = run.tags.get(_RUN_KEY, "")
            if key.startswith(f"{place}|"):
                digest, _, number = key.removeprefix(f"{place}|").partition("|")
                return Last(int(number) if number.isdecimal() else 0, digest)
        return None
