"""Windows of change versions: what a pull must cover.

Both bounds of the API are inclusive (api.md section 3.3). ``newest`` counts numbers that uncommitted work
holds, so every window reaches back behind the committed version by an overlap; what it re-reads and finds
unchanged is dropped when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from edfi_dagster.ods.answers import Answer, json_object
from edfi_dagster.ods.errors import UnusableBody


@dataclass(frozen=True)
class ChangeWindow:
    """Change versions from ``low`` to ``high``, both inclusive; None means without that bound."""

    low: int | None
    high: int | None = None

    @property
    def params(self) -> Mapping[str, str]:
        """The query parameters of the window, to be repeated on every page."""
        params = {}
        if self.low is not None:
            params["minChangeVersion"] = str(self.low)
        if self.high is not None:
            params["maxChangeVersion"] = str(self.high)
        return params

    @property
    def is_empty(self) -> bool:
        """Whether no change version lies in it, as after ``newest`` where nothing overlaps.

        Such a window is never sent: the Data Management Service refuses it (``ChangeVersionParameterValidator``).
        """
        return self.low is not None and self.high is not None and self.high < self.low

    def split(self, pieces: int) -> list[ChangeWindow]:
        """At most ``pieces`` windows of like width that together are this one; itself where a bound is missing."""
        if self.low is None or self.high is None or self.high <= self.low:
            return [self]
        pieces = min(pieces, self.high - self.low + 1)
        edges = [self.low + (self.high + 1 - self.low) * n // pieces for n in range(pieces + 1)]
        return [ChangeWindow(start, end - 1) for start, end in pairwise(edges)]


def read_newest(answer: Answer) -> int:
    """The newest change version in an answer of ``availableChangeVersions``, in any casing. Raises UnusableBody."""
    document = {key.lower(): value for key, value in json_object(answer).items()}
    newest = document.get("newestchangeversion")
    if type(newest) is not int or not 0 <= newest < 2**63:
        raise UnusableBody("availableChangeVersions has no newestChangeVersion")
    return newest


def delta_window(low: int, newest: int, overlap: int) -> ChangeWindow:
    """What a delta must read after everything up to ``low`` was committed."""
    return ChangeWindow(max(0, low + 1 - overlap), newest)


def whole_window(newest: int) -> ChangeWindow:
    """The first walk of a full pull."""
    return ChangeWindow(0, newest)


def closing_window(newest: int) -> ChangeWindow:
    """What changed while the first walk of a full pull went on."""
    return ChangeWindow(newest + 1)


EVERYTHING = ChangeWindow(None)
