"""What a run counts at its end: rows that left the view without a tombstone are found, and so are rows that entered it.

An endpoint is counted in every run, and refreshed when the count is not that of its current rows, if a record may leave
it without a tombstone that we read. Every other endpoint of the run is counted once a day (``verify_counts``); what
differs there is reported, or refreshed as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from edfi_dagster.extract.collections import Collections
from edfi_dagster.extract.comparison import Comparison, OdsCounts, Verdict, side_by_side
from edfi_dagster.extract.work import EndpointResult, Job, Result, Work
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.errors import EdFiError, OdsDown, OdsUnreachable
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.counts import current_counts, last_compared, record_comparisons

_REFUSED = {Result.NOT_OFFERED, Result.NOT_PERMITTED}
_TOLD = 20
# After so many counts without any answer the ODS is down; the next run counts the others.
_MOST_UNANSWERED = 3


class Verification:
    """Compares the results of one run with what the ODS counts. A count that fails does not fail the run."""

    def __init__(self, job: Job, works: Sequence[Work], results: Mapping[str, EndpointResult]) -> None:
        """Made when the run begins. ``results`` are by path of the endpoint, the last of each; the run fills them in."""
        self._job = job
        self._works = {work.endpoint.path: work for work in works}
        self._results = results
        self._mode = job.session.settings.extract.verify_counts
        self._collections = Collections(job.platform, job.session, lambda _: None)
        self._ods = OdsCounts(job, self._collections)
        self._started = datetime.now(UTC)
        self._found: dict[str, Comparison] = {}
        self._refreshed: list[str] = []
        self._uncounted: dict[str, EdFiError] = {}
        self._unanswered = 0

    def to_refresh(self) -> list[Work]:
        """Count and compare; the works to be refreshed in this run."""
        try:
            due = self._due()
            self._compare(
                [
                    result.endpoint
                    for result in self._results.values()
                    if self._is_countable(result)
                    and (result.endpoint.snake in due or (self._loses_rows(result) and not result.full))
                ]
            )
        except WarehouseError as error:  # the rows are committed; only the comparison is missing
            self._job.warn(f"{self._job.pair}: {error}; not compared with what the ODS counts")
            return []
        self._refreshed = [path for path in self._drifted() if self._may_refresh(self._results[path])]
        for path in self._refreshed:
            self._job.tell(f"{self._numbers(path)}; refreshing it")
        return [self._works[path] for path in self._refreshed]

    def conclude(self) -> None:
        """Compare again what was refreshed, report what differs, and remember what was compared."""
        again = [self._results[path] for path in self._refreshed]
        try:
            self._compare([result.endpoint for result in again if self._is_countable(result)])
            self._remember()
        except WarehouseError as error:
            self._job.warn(f"{self._job.pair}: {error}; not compared with what the ODS counts")
        for path, found in self._found.items():
            self._results[path].comparison = found
        self._report()

    # -- which --------------------------------------------------------------------------------------------

    def _due(self) -> set[str]:
        """The names that were not compared today, in the platform's time zone; a run that was killed remembers none."""
        if self._mode == "off":
            return set()
        with self._job.warehouse.connected() as connection:
            compared = last_compared(connection, self._job.pair)
        zone = ZoneInfo(self._job.platform.timezone)
        today = self._started.astimezone(zone).date()
        names = {result.endpoint.snake for result in self._results.values()}
        return {n for n in names if n not in compared or compared[n].astimezone(zone).date() != today}

    def _is_countable(self, result: EndpointResult) -> bool:
        """Whether its rows here are all that the run could know: loaded, and tombstones with them if they are read."""
        has_deletes = DELETES in result.kinds or not self._collections.reads_deletes(result.endpoint)
        is_loaded = self._works[result.endpoint.path].load and result.is_committed
        return is_loaded and has_deletes and not result.failures

    def _loses_rows(self, result: EndpointResult) -> bool:
        """Whether a record may leave the endpoint without a tombstone that we read."""
        of_keys = [result.kinds.get(KEY_CHANGES)] if result.endpoint.key_can_change else []
        of_kinds = [result.kinds.get(DELETES), *of_keys]
        is_refused = any(kind is not None and kind.result in _REFUSED for kind in of_kinds)
        return is_refused or self._collections.may_lose_rows(result.endpoint)

    def _may_refresh(self, result: EndpointResult) -> bool:
        """Not what this run has read whole: that would bring the same again."""
        return not result.full and (self._mode == "repair" or self._loses_rows(result))

    def _drifted(self) -> list[str]:
        return [path for path, found in self._found.items() if found.verdict is Verdict.DRIFTED]

    # -- comparing ----------------------------------------------------------------------------------------

    def _compare(self, endpoints: Sequence[Endpoint]) -> None:
        if not endpoints:
            return
        with self._job.warehouse.connected() as connection:
            versions = ledger.watermarks(connection, self._job.pair)
            # One that is read without change versions is replaced, and counted twice, in every run.
            chosen = [e for e in endpoints if (e.snake, RECORDS) in versions]
            rows = current_counts(connection, self._job.pair, chosen)

        def compared(endpoint: Endpoint) -> Comparison | None:
            return self._compared(endpoint, rows.get(endpoint.snake, 0), versions[endpoint.snake, RECORDS])

        for found in side_by_side(self._job, compared, chosen):
            if found is not None:
                self._found[found.endpoint.path] = found

    def _compared(self, endpoint: Endpoint, rows: int, version: int) -> Comparison | None:
        """None where the ODS did not count it."""
        try:
            if not self._job.session.abilities.counts:
                raise EdFiError("this ODS gives no counts", pair=self._job.pair)
            if self._unanswered >= _MOST_UNANSWERED:
                raise OdsDown("the ODS stopped answering", pair=self._job.pair)
            counted = self._ods.up_to(endpoint, version)
            drift = 0 if counted == rows else self._ods.drift(endpoint, version)
        except EdFiError as error:
            self._uncounted[endpoint.path] = error
            self._unanswered += isinstance(error, OdsDown)
            return None
        if drift is None:
            return Comparison(endpoint, counted, rows, Verdict.MOVING)
        return Comparison(endpoint, rows - drift, rows, Verdict.DRIFTED if drift else Verdict.EQUAL)

    # -- reporting ----------------------------------------------------------------------------------------

    def _report(self) -> None:
        drifted, pair = self._drifted(), self._job.pair
        command = f"edfi-dagster resync --tenant {pair.tenant} --year {pair.year}"
        for path in drifted[:_TOLD]:
            remedy = f"run {command} --endpoints {path}, or write verify_counts: repair"
            if self._results[path].full:
                remedy = "it was read whole in this run, so run edfi-dagster check and see what its host says"
            self._job.warn(f"{self._numbers(path)}; no delta settles that: {remedy}")
        if len(drifted) > _TOLD:
            self._job.warn(f"{pair}: {len(drifted) - _TOLD} more endpoints differ; {command} repairs them")
        self._report_uncounted()

    def _report_uncounted(self) -> None:
        if not self._uncounted:
            return
        names = ", ".join(list(self._uncounted)[:_TOLD])
        told = f"{self._job.pair}: {len(self._uncounted)} endpoints were not counted ({names}): "
        told += str(next(iter(self._uncounted.values())))
        if losing := [path for path in self._uncounted if self._loses_rows(self._results[path])]:
            told += f"; what the ODS deletes of {', '.join(losing[:_TOLD])} stays until a full refresh"
        self._job.warn(told)

    def _numbers(self, path: str) -> str:
        found = self._found[path]
        return f"{self._job.pair} {path}: {found.counted:,} in the ODS, {found.rows:,} in the warehouse"

    def _remember(self) -> None:
        """Also what the ODS refused to count, which is asked again tomorrow; not what it gave no answer to."""
        known: dict[str, tuple[int, int] | None] = {
            found.endpoint.snake: (found.counted, found.rows)
            for found in self._found.values()
            if found.verdict is not Verdict.MOVING
        }
        for path, error in self._uncounted.items():
            if not isinstance(error, OdsUnreachable):
                known[self._results[path].endpoint.snake] = None
        if known and self._mode != "off":
            with self._job.warehouse.connected() as connection:
                stamps = ledger.latest_loaded(connection, self._job.pair)
                record_comparisons(connection, self._job.pair, stamps, known)
