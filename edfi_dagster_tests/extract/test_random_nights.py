"""Whatever happens in an ODS before, while and after it is read: after quiet deltas the warehouse equals it.

Left out, because no client can see it:

- before 7.3, a cascade that rewrites a reference outside a record's natural key: it bumps no change version, and
  ``/keyChanges`` tells of keys only. So nobody renames a room that sections are held in.
- on 5.3, every cascade: there are no ``/keyChanges`` either. So only sessions are renamed that nothing refers to. A
  key change itself is read there too, because the record whose key was changed gets a new version.

- where windows do not overlap, records committed late, and keys that live again: a record that is re-created, updated
  under the reader and deleted by the next night was never read, and hid its predecessor's tombstone when that was due.
- where they do, what lies farther back than they reach: a transaction is committed before that, or before the run.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from edfi_dagster.sandbox import RequestInfo
from edfi_dagster_tests.bench import Bench
from edfi_dagster_tests.extract.district import DESCRIPTORS, ENDPOINTS, District

MakeBench = Callable[..., Bench]

PLACES = ("/students", "/locations", "/sessions", "/sections", "/graduationPlans/deletes", "/keyChanges")
# Each strikes 1.25 % of the requests, all together 5 %.
PAGE_FAULTS = ({"status": 429}, {"status": 503}, {"status": 504}, {"action": "reset"})


class Nights:
    """Nightly runs over a district that does not stop for them."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.overlap = bench.platform.extract.change_version_overlap
        self.district = District(bench.store, seed, overlap=self.overlap)
        self.chance = random.Random(-seed)
        self.largest_page = bench.server.site.settings.max_page

    def live_through(self, nights: int) -> None:
        self.district.work(20)
        for night in range(nights):
            self._disturb(breaks_down=night > 0)
            self.district.end_all(until=self.bench.store.newest - self.overlap)
            refreshed = ("locations", "graduationPlans") if self.chance.random() < 0.2 else None
            self.bench.materialize(refreshed, full_refresh=refreshed is not None, may_fail=True)
            self._calm_down()
            self._leave_behind()
            self.district.work(15)
        self.district.end_all()

    def settle(self) -> None:
        """One more delta, after which all is as in the ODS, the next finds nothing, and the lake tells the same."""
        self.bench.materialize()
        self.bench.verify()
        assert not any(result.table_changed for result in self.bench.materialize().values())
        self.bench.verify()
        assert len(set(self.district.done)) >= 6
        state = self.bench.state()
        self.bench.rebuild()
        assert self.bench.state()[0] == state[0]

    def _disturb(self, *, breaks_down: bool) -> None:
        server = self.bench.server
        if self.chance.random() < 0.7:
            for place in PLACES:
                self._work_at_request(place)
            server.between_reads.append(self._between_reads)
        failing = self.chance.choice(["/deletes$", "/keyChanges$", "/locations$", "/sections$", *[None] * 3])
        if failing and breaks_down:
            server.faults.add(failing, status=500)
        for fault in PAGE_FAULTS:
            server.faults.add("/(data|changeQueries)/", rate=0.0125, **fault)
        server.site.settings.max_page = self.chance.choice([4, 5, self.largest_page])

    def _leave_behind(self) -> None:
        """Let the sequence run ahead, as work that is rolled back does, so that no later window mends what was lost."""
        if not self.district.open and self.chance.random() < 0.5:
            for _ in range(self.overlap + 1):
                self.bench.store.next_version()

    def _work_at_request(self, place: str) -> None:
        if self.chance.random() < 0.6:
            self.bench.at_request(
                place, lambda: self.district.work(3), nth=self.chance.randrange(1, 5), answered=True
            )

    def _between_reads(self, request: RequestInfo) -> None:
        """What goes here is missing from a page that was chosen with it; what comes shifts the next."""
        if self.district.chance.random() < 0.1:
            self.district.work(2)

    def _calm_down(self) -> None:
        server = self.bench.server
        server.faults.clear()
        server.after_response.clear()
        server.between_reads.clear()
        server.site.settings.max_page = self.largest_page


def bench_of(make_bench: MakeBench, seed: int, **options: object) -> Bench:
    """Small pages and parts of windows, several walks side by side; windows that overlap for most seeds."""
    chance = random.Random(seed)
    bench = make_bench(
        *ENDPOINTS,
        descriptors=DESCRIPTORS,
        endpoint_defaults={
            "page_size": chance.choice([2, 3, 5, 7]),
            "num_retries": 4,
            "change_version_step_size": chance.choice([3, 10, 50_000]),
        },
        change_version_overlap=1_000 if seed % 3 else 0,
        max_concurrent_requests=chance.choice([1, 3, 8]),
        **options,
    )
    bench.pause = lambda seconds: None
    return bench


VERSIONS = [pytest.param(version, marks=pytest.mark.ods(version)) for version in ("5.3", "6.1", "7.3")]


def live_and_settle(make_bench: MakeBench, seed: int, nights: int) -> None:
    nightly = Nights(bench_of(make_bench, seed), seed)
    try:
        nightly.live_through(nights)
        nightly.settle()
    finally:
        nightly.bench.server.site.settings.max_page = nightly.largest_page


@pytest.mark.both_storages
@pytest.mark.parametrize("seed", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("version", VERSIONS)
def test_warehouse_equals_the_ods_after_random_nights(make_bench: MakeBench, version: str, seed: int) -> None:
    live_and_settle(make_bench, seed, nights=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 145))
@pytest.mark.parametrize("version", VERSIONS)
def test_warehouse_equals_the_ods_after_many_random_nights(
    make_bench: MakeBench, version: str, seed: int
) -> None:
    live_and_settle(make_bench, seed, nights=5)
