"""What an ODS counts beside what the warehouse holds, endpoint by endpoint: for runs, checks, ``resync`` and ``status``.

Records come and go while they are counted, so a difference alone proves nothing. What the next delta reads again (its
window reaches back by the overlap) is left out on both sides; what differs in the rest, no delta will ever settle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from edfi_dagster.extract.collections import Collections
from edfi_dagster.extract.work import Job
from edfi_dagster.lake.ids import DistinctIds
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of
from edfi_dagster.ods.changes import ChangeWindow, closing_window, whole_window
from edfi_dagster.ods.errors import EdFiError, NotOffered, NotPermitted
from edfi_dagster.ods.pagers import change_walk, record_walks
from edfi_dagster.ods.pages import DELETES
from edfi_dagster.warehouse.counts import current_counts, current_ids
from edfi_dagster.warehouse.ledger import standings

T = TypeVar("T")


class Verdict(StrEnum):
    """What a difference means.

    MOVING: the ODS wrote or deleted since the pull, and the next delta settles it, or it moved too fast to tell.
    DRIFTED: no delta will.
    """

    EQUAL = "equal"
    MOVING = "moving"
    DRIFTED = "drifted"


@dataclass(frozen=True)
class Comparison:
    """One endpoint: records that the ODS counted, and current rows here, which were pulled last at ``pulled`` (UTC).

    ``changed`` is how many records the ODS wrote since (where rows are missing here) or deleted (where there are too
    many); None where that was not asked or cannot be known.
    """

    endpoint: Endpoint
    counted: int
    rows: int
    verdict: Verdict
    pulled: datetime | None = None
    changed: int | None = None

    @property
    def difference(self) -> int:
        """Rows here less records there."""
        return self.rows - self.counted


def drift(rows: int, settled: int, moved: Iterable[int]) -> int | None:
    """Rows here less records there, of those that no later delta reads again.

    ``settled`` is what the ODS counts of these; ``moved`` how many of the rows here are not of them, as found before and
    after that count. None where the difference lies between the two, so that writers may explain it.
    """
    found = [rows - count - settled for count in moved]
    if min(found) <= 0 <= max(found):
        return 0 if len(set(found)) == 1 else None
    return min(found, key=abs)


class OdsCounts:
    """Counts of one ODS, each with the endpoint's own filters. Threads may share it. Every method raises EdFiError."""

    def __init__(self, job: Job, collections: Collections | None = None) -> None:
        self._job = job
        self._collections = collections or Collections(job.platform, job.session, lambda _: None)
        self._overlap = job.session.settings.extract.change_version_overlap

    def up_to(self, endpoint: Endpoint, version: int) -> int:
        """The records whose last change is not later than ``version``: one request."""
        return self._collections.open(endpoint).count(whole_window(version))

    def changed(self, endpoint: Endpoint, version: int, difference: int) -> int | None:
        """What was written (where rows are missing here) or deleted (where there are too many) after ``version``."""
        since = closing_window(version)
        if difference < 0:
            return self._collections.open(endpoint).count(since)
        if not endpoint.has_changes:
            return None
        try:
            return self._collections.open(endpoint, DELETES).count(since)
        except (NotOffered, NotPermitted):
            return None

    def drift(self, endpoint: Endpoint, version: int) -> int | None:
        """``drift`` of an endpoint whose rows here were read up to ``version``."""
        low = max(0, version + 1 - self._overlap)
        rows = 0
        with closing(DistinctIds(self._job.platform.extract.tmp_dir)) as here:
            with self._job.warehouse.connected() as connection:
                for ids in current_ids(connection, self._job.pair, endpoint):
                    here.add(ids)
                    rows += len(ids)
            before = self._moved(endpoint, low, here)
            settled = self._collections.open(endpoint).count(whole_window(low - 1)) if low else 0
            if rows == before + settled:
                return 0
            return drift(rows, settled, (before, self._moved(endpoint, low, here)))

    def _moved(self, endpoint: Endpoint, low: int, here: DistinctIds) -> int:
        """How many of the ids here were written or deleted from version ``low`` on, as far as deletes can be read.

        Up to the newest version, for behind a busy writer a walk without that bound would not end.
        """
        window = ChangeWindow(low, self._job.session.newest_change_version())
        records = self._collections.open(endpoint)
        with closing(DistinctIds(self._job.platform.extract.tmp_dir)) as moved:
            for walk in record_walks(records, window, records.first_page(window), threads=1):
                for page in walk:
                    moved.add(sorted(here.among(page.ids)))
            if self._collections.reads_deletes(endpoint):
                try:
                    for page in change_walk(records.of_deletes(), window):
                        moved.add(sorted(here.among(page.ids)))
                except (NotOffered, NotPermitted):
                    pass
            return len(moved)


# -- what the ODS counts now, for checks and resync -----------------------------------------------------------


def compare(job: Job, counted: Mapping[str, int]) -> list[Comparison]:
    """Judge what the ODS counted (name → records) by what is in the warehouse, in the order of the endpoints.

    The ODS is asked again only about endpoints that differ. What it cannot say is warned of and left out. Raises
    WarehouseError.
    """
    endpoints = [e for e in endpoints_of(job.platform, job.pair) if e.snake in counted]
    with job.warehouse.connected() as connection:
        rows = current_counts(connection, job.pair, endpoints)
        known = standings(connection, job.pair).get(job.pair, {})
    ods = OdsCounts(job)

    def judged(endpoint: Endpoint) -> Comparison | None:
        standing = known.get(endpoint.snake)
        pulled, version = (standing.last_pull, standing.version) if standing else (None, None)
        found = Comparison(
            endpoint, counted[endpoint.snake], rows.get(endpoint.snake, 0), Verdict.EQUAL, pulled
        )
        return _judged(job, ods, found, version) if found.difference else found

    return [c for c in side_by_side(job, judged, endpoints) if c is not None]


def _judged(job: Job, ods: OdsCounts, found: Comparison, version: int | None) -> Comparison | None:
    """The verdict on a difference; None where the ODS did not answer."""
    extract = job.session.settings.extract
    if not (extract.use_change_version and job.session.abilities.change_versions):
        # Every run replaces all of it, and proves by two counts that it has it: what differs came afterwards.
        return replace(found, verdict=Verdict.MOVING)
    if version is None:
        return replace(found, verdict=Verdict.DRIFTED)
    try:
        changed = ods.changed(found.endpoint, version, found.difference)
        is_more = changed is not None and abs(found.difference) > changed
        has_drifted = is_more or bool(ods.drift(found.endpoint, version))
    except EdFiError as error:
        job.warn(f"{error}; not compared")
        return None
    return replace(found, verdict=Verdict.DRIFTED if has_drifted else Verdict.MOVING, changed=changed)


def side_by_side(job: Job, ask: Callable[[Endpoint], T], endpoints: Sequence[Endpoint]) -> list[T]:
    """What ``ask`` answers for each endpoint, in their order, as many at a time as the ODS takes requests."""
    with ThreadPoolExecutor(job.session.settings.extract.max_concurrent_requests, "compare") as asking:
        return list(asking.map(ask, endpoints))
