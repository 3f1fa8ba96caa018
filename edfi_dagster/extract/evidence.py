"""Whether records still live that no walk showed: the ODS is asked for each by id, and believed only on evidence.

A record is gone where the ODS's own 404 for its id comes twice, seconds apart, while the endpoint itself answers.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

from edfi_dagster.ods.pages import Absence, Collection

SECONDS_APART = 2.0


class Inquiry:
    """Asks for records by id. The lists are complete once ``records`` has come to its end.

    ``gone`` have left the ODS, ``hidden`` are not shown to this key, ``filtered_out`` live but not within the filters.
    """

    def __init__(self, collection: Collection, ids: Sequence[str], threads: int) -> None:
        self.gone: list[str] = []
        self.hidden: list[str] = []
        self.filtered_out: list[str] = []
        self.alive: list[str] = []
        self._collection = collection
        self._ids = ids
        self._threads = threads

    def records(self) -> Generator[tuple[str, bytes], None, None]:
        """(id, record) of those that live. Raises EdFiError where the ODS gives no usable answer."""
        missing = yield from self._asked(self._ids)
        if missing:
            self._collection.pause(SECONDS_APART)
            missing = yield from self._asked(missing)
        if missing:
            self._collection.check_offered()
            self.gone += missing

    def _asked(self, ids: Sequence[str]) -> Generator[tuple[str, bytes], None, list[str]]:
        """The records of those that are given; returns the ids that the ODS does not know."""
        missing: list[str] = []
        with ThreadPoolExecutor(self._threads, "ask") as threads:
            for record_id, found in zip(ids, threads.map(self._collection.record, ids), strict=True):
                if isinstance(found, bytes):
                    self.alive.append(record_id)
                    yield record_id, found
                elif found is Absence.NO_SUCH_ID:
                    missing.append(record_id)
                else:
                    unseen = self.hidden if found is Absence.NOT_PERMITTED else self.filtered_out
                    unseen.append(record_id)
        return missing
