"""Rows that an ODS counts and serves several times, the same ones each time (ODS/API 5.1 and 5.2 do).

Such an ODS counts more rows than there are ids, so the count alone proves nothing. It is believed only where two
complete walks, one after the other, each served exactly as many rows as were counted, with the same ids, each equally
often, and every row of an id the same to the letter. A row that is counted and never served makes a walk shorter than
the count, and so stays a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edfi_dagster.lake.ids import DistinctIds


class Walked:
    """What one walk served: ids, as often as they came, and the rows of each."""

    def __init__(self, folder: Path | None) -> None:
        self.ids = DistinctIds(folder)
        self._rows = DistinctIds(folder)

    def add(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        self.ids.add(ids)
        self._rows.add([f"{key} {row.decode('latin-1')}" for key, row in zip(ids, rows, strict=True)])

    def repetition(self) -> tuple[int, ...] | None:
        """Equal for walks that served the same ids equally often; None where two rows of an id differ."""
        return self.ids.repetition() if len(self._rows) == len(self.ids) else None

    def close(self) -> None:
        self.ids.close()
        self._rows.close()


class Repeats:
    """The walks of one window, compared."""

    def __init__(self) -> None:
        self._before: tuple[int, ...] | None = None

    def explain(self, walked: Walked, counted: int) -> bool:
        """Whether repeated rows, as in the walk before, are all that ``counted`` has beyond the distinct ids."""
        found = walked.repetition() if walked.ids.added == counted else None
        agree = found is not None and found == self._before
        self._before = found
        return agree
