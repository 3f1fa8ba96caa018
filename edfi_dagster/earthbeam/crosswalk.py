"""Which column of a file tells its students: the one by which most of this file's own rows find theirs.

The wrapper compares columns of the file with kinds of ids and takes the pair of the highest rate. A rate is how many rows a
join gives, so it is at most too high: a student who is in the roster twice counts twice. What counts here is measured by a
run: the share of the file's rows that found a student. Of pairs that match equally well, the stored one is best, then the
first of the configuration.

A pair that was best in an earlier file spares the comparison only if all rows of this file match by it, as then none is
better. Otherwise all pairs are compared anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edfi_dagster.earthbeam.archive import Archive
from edfi_dagster.earthbeam.bundle import NO_MATCH
from edfi_dagster.earthbeam.earthmover import EarthmoverRun
from edfi_dagster.earthbeam.errors import ToolFailed, ToolTimedOut
from edfi_dagster.earthbeam.job import BundleJob
from edfi_dagster.earthbeam.result import MatchOutcome
from edfi_dagster.earthbeam.student_ids import (
    Rate,
    matched,
    read_rates,
    store_rates,
    stored_rates,
    write_rate,
)
from edfi_dagster.earthbeam.workspace import Workspace

# Rates are written as text, with as many digits as the wrapper likes.
_EQUAL = 1e-6


@dataclass(frozen=True)
class _Tried:
    """A run of Earthmover by one pair. ``share`` of the file's rows found their student; None if nobody can tell."""

    rate: Rate
    run: EarthmoverRun
    share: float | None


@dataclass(frozen=True)
class Crosswalk:
    """``earthmover`` runs it with the parameters of the wrapper that are given; ``names`` are the parameters of the bundle.

    ``rows`` is how many rows the file has, None if only Earthmover could tell. ``tells_unmatched``: the wrapper writes the
    rows that found no student.
    """

    job: BundleJob
    archive: Archive
    space: Workspace
    earthmover: Callable[[Mapping[str, str]], EarthmoverRun]
    names: Mapping[str, str]
    rows: int | None
    tells_unmatched: bool

    def run(self) -> tuple[EarthmoverRun, MatchOutcome]:
        """Run Earthmover by the pair that matches best in this file. Raises ToolFailed, WarehouseError."""
        stored = self._stored()
        if stored is not None:
            tried = self._try(stored)
            if tried is not None and (self.rows == 0 or tried.share == 1.0):
                return tried.run, self._outcome(tried.run, [stored], stored=True)
        return self._computed(stored)

    def _try(self, stored: Rate) -> _Tried | None:
        """A run by the pair of an earlier file, and says why it is not enough; None if it failed, as without the column."""
        try:
            tried = self._by(stored)
            reason = f"only {tried.share or 0:.1%} of this file's rows matched" if tried.share != 1.0 else ""
        except ToolTimedOut:
            raise
        except ToolFailed as error:
            tried, reason = None, str(error)
        if reason:
            self.job.tell(f"with the columns of an earlier file {reason}; computing match rates anew")
        return tried

    def _computed(self, stored: Rate | None) -> tuple[EarthmoverRun, MatchOutcome]:
        run = self.earthmover({"MATCH_RATES_SOURCE_TYPE": "none"})
        rates = list(read_rates(self.space.outputs))
        order = sorted((r for r in rates if r.rate >= self._required - _EQUAL), key=self._rank(stored))
        if len(order) > 1 and not self._is_clear(order, run):
            best, measured = self._best(order)
            run = best.run
            rates = [self._measured(rate, measured.get(rate.pair)) for rate in rates]
            rates.sort(key=lambda rate: (-rate.rate, rate.pair != best.rate.pair))
        with self.job.warehouse.connected() as connection:
            store_rates(connection, self.job.pair, self.archive.name, rates)
        return run, self._outcome(run, rates, stored=False)

    def _is_clear(self, order: Sequence[Rate], run: EarthmoverRun) -> bool:
        """Whether the wrapper's choice was the only one: no other pair has that rate, and the rate was not too high."""
        share = self._share(run)
        best, second, *_ = order
        return second.bound < best.bound - _EQUAL and (share is None or share >= best.bound - _EQUAL)

    def _best(self, order: Sequence[Rate]) -> tuple[_Tried, dict[tuple[str, str], float]]:
        """The pair by which most rows match, and the shares that were measured to know it."""
        measured: dict[tuple[str, str], float] = {}
        best = last = self._by(order[0])
        for rate in order:
            if rate is not order[0]:
                if best.share is None or rate.bound <= best.share + _EQUAL:
                    break
                last = self._by(rate)
            measured[rate.pair] = last.share if last.share is not None else rate.bound
            if last.share is not None and best.share is not None and last.share > best.share + _EQUAL:
                best = last
        self._tell_equal(order, best, measured)
        # The outputs that lie there are those of the last.
        return (best if last is best else self._by(best.rate)), measured

    def _tell_equal(
        self, order: Sequence[Rate], best: _Tried, measured: Mapping[tuple[str, str], float]
    ) -> None:
        share = best.share if best.share is not None else best.rate.bound
        equal = [
            r for r in order if measured.get(r.pair, r.bound) >= share - _EQUAL and r.pair != best.rate.pair
        ]
        if equal:
            others = ", ".join(" as ".join(rate.pair) for rate in equal)
            self.job.warn(
                f"students were found by {' as '.join(best.rate.pair)}; just as many rows match by {others}: "
                "name only the right ones under student_ids"
            )

    def _by(self, rate: Rate) -> _Tried:
        file = self.space.scratch / "stored_rates.csv"
        write_rate(rate, file)
        run = self.earthmover({"MATCH_RATES_SOURCE_TYPE": "file", "MATCH_RATES_FILE": str(file)})
        return _Tried(rate, run, self._share(run))

    def _stored(self) -> Rate | None:
        """The pair that was best before, if it may be chosen still and this file's own share can be told afterwards."""
        if not self.tells_unmatched or self.rows is None:
            return None
        with self.job.warehouse.connected() as connection:
            found = stored_rates(connection, self.job.pair, self.archive.name, self._required)
        allowed = [rate for rate in found if self._is_allowed(rate)]
        return min(allowed, key=self._rank(None), default=None)

    def _is_allowed(self, rate: Rate) -> bool:
        columns, kinds = self._listed()
        return (not columns or rate.source_column in columns) and (not kinds or rate.edfi_column in kinds)

    def _rank(self, stored: Rate | None) -> Callable[[Rate], tuple[float, bool, int, int]]:
        columns, kinds = self._listed()

        def rank(rate: Rate) -> tuple[float, bool, int, int]:
            return (
                -round(rate.bound, 6),
                stored is None or rate.pair != stored.pair,
                columns.index(rate.source_column) if rate.source_column in columns else len(columns),
                kinds.index(rate.edfi_column) if rate.edfi_column in kinds else len(kinds),
            )

        return rank

    def _listed(self) -> tuple[list[str], list[str]]:
        """The columns and the kinds of ids that may be compared, in their order; empty if nobody says."""
        named = (
            self.names.get(name, "") for name in ("POSSIBLE_STUDENT_ID_COLUMNS", "EDFI_STUDENT_ID_TYPES")
        )
        columns, kinds = ([part.strip() for part in text.split(",") if part.strip()] for text in named)
        return columns, kinds

    def _share(self, run: EarthmoverRun) -> float | None:
        unmatched = _unmatched(run)
        return None if unmatched is None or not self.rows else max(0.0, 1 - unmatched / self.rows)

    def _measured(self, rate: Rate, share: float | None) -> Rate:
        if share is None or self.rows is None:
            return rate
        return replace(rate, matches=round(share * self.rows), rows=self.rows, rate=share)

    def _outcome(self, run: EarthmoverRun, rates: Sequence[Rate], *, stored: bool) -> MatchOutcome:
        return matched(_unmatched(run), self._required, rates, self.rows, stored=stored)

    @property
    def _required(self) -> float:
        ids = self.job.settings.student_ids
        assert ids is not None
        return ids.required_match_rate


def _unmatched(run: EarthmoverRun) -> int | None:
    return next((output.rows for output in run.outputs if output.name == NO_MATCH), None)
