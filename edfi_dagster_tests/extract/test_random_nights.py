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
from collections.abc import Callable, Sequence

import pytest

from edfi_dagster.sandbox import ApiError, RequestInfo, Store, Transaction
from edfi_dagster_tests.bench import Bench, changed, student

MakeBench = Callable[..., Bench]

ENDPOINTS = ("students", "locations", "sessions", "courseOfferings", "sections", "graduationPlans")
DESCRIPTORS = ("graduationPlanTypeDescriptors",)
PLAN_TYPE = "uri://ed-fi.org/GraduationPlanTypeDescriptor"
PLACES = ("/students", "/locations", "/sessions", "/sections", "/graduationPlans/deletes", "/keyChanges")
# Each strikes 1.25 % of the requests, all together 5 %.
PAGE_FAULTS = ({"status": 429}, {"status": 503}, {"status": 504}, {"action": "reset"})


class District:
    """People at work in an ODS, deterministic by seed."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.store = bench, bench.store
        self.chance = random.Random(seed)
        self.open: list[Transaction] = []
        self.done: list[str] = []
        self._target: Store | Transaction = self.store
        self._counter = 0
        self._overlap = bench.platform.extract.change_version_overlap
        self._used_plans: set[tuple[object, object]] = set()
        self._began: dict[str, int] = {}
        self._patterns = {name: bench.store.rows(name)[0] for name in ("locations", "graduationPlans")}
        self._mine: dict[str, list[str]] = {"students": [], "locations": [], "graduationPlans": []}
        self._sessions = bench.store.ids("sessions")
        if not self.store.generation.key_changes:
            pattern = self.store.get("sessions", self._sessions[0])
            self._sessions = [self.store.post("sessions", changed(pattern, sessionName=self._name()))]

    def work(self, times: int) -> None:
        for _ in range(times):
            deed = self.chance.choice(self._deeds)
            targets: list[Store | Transaction] = [self.store, self.store, *self.open]
            self._target = self.chance.choice(targets)
            try:
                deed()
                self.done.append(deed.__name__)
            except (ApiError, LookupError):
                # The ODS refuses it: a key is taken, a row is locked or gone. That ends a transaction.
                if isinstance(self._target, Transaction) and self._target in self.open:
                    self.open.remove(self._target)
                    self._target.rollback()

    @property
    def _deeds(self) -> Sequence[Callable[[], None]]:
        return (
            *[self.add, self.update, self.remove, self.recreate, self.rekey] * 2,
            self.rename_session,
            self.rename_room,
            self.swap_keys,
            self.recreate_plan_type,
            *[self.begin, self.end] * 2,
        )

    def _name(self) -> str:
        self._counter += 1
        return f"n{self._counter}"

    def _some(self, *endpoints: str) -> tuple[str, str]:
        endpoint = self.chance.choice(endpoints or list(self._mine))
        return endpoint, self.chance.choice(self._mine[endpoint])

    def _body(self, endpoint: str) -> dict[str, object]:
        if endpoint == "students":
            return student(self._counter + 1)
        if endpoint == "locations":
            return changed(self._patterns[endpoint], classroomIdentificationCode=self._name())
        year = {"schoolYear": self.chance.randrange(2018, 2030)}
        code = f"{PLAN_TYPE}#{self.chance.choice(['Standard', 'Mine'])}"
        if not self._overlap and (year["schoolYear"], code) in self._used_plans:
            raise LookupError("would live again")
        self._used_plans.add((year["schoolYear"], code))
        return changed(
            self._patterns[endpoint],
            graduationSchoolYearTypeReference=year,
            graduationPlanTypeDescriptor=code,
        )

    def add(self) -> None:
        endpoint = self.chance.choice(list(self._mine))
        self._mine[endpoint].append(self._target.post(endpoint, self._body(endpoint)))
        self._name()

    def update(self) -> None:
        endpoint, record_id = self._some()
        field = {
            "students": "firstName",
            "locations": "maximumNumberOfSeats",
            "graduationPlans": "individualPlan",
        }[endpoint]
        value = {
            "firstName": self._name(),
            "maximumNumberOfSeats": self._counter,
            "individualPlan": bool(self._counter % 2),
        }
        body = changed(self.store.get(endpoint, record_id), **{field: value[field]})
        self._target.put(endpoint, record_id, body)

    def remove(self) -> None:
        endpoint, record_id = self._some()
        self._target.delete(endpoint, record_id)

    def recreate(self) -> None:
        """At once or, in a transaction, with numbers that stand for a while before anybody sees them."""
        if not self._overlap:
            raise LookupError("would live again")
        endpoint, record_id = self._some()
        body = changed(self.store.get(endpoint, record_id))
        self._target.delete(endpoint, record_id)
        self._mine[endpoint].append(self._target.post(endpoint, body))

    def rekey(self) -> None:
        _, record_id = self._some("locations")
        body = changed(self.store.get("locations", record_id), classroomIdentificationCode=self._name())
        self._target.put("locations", record_id, body)

    def swap_keys(self) -> None:
        (_, one), (_, other) = self._some("locations"), self._some("locations")
        codes = [self.store.get("locations", i)["classroomIdentificationCode"] for i in (one, other)]
        for record_id, code in ((one, self._name()), (other, codes[0]), (one, codes[1])):
            self.bench.change("locations", record_id, classroomIdentificationCode=code)

    def rename_session(self) -> None:
        bumps = self.store.cascade_bumps
        self.store.cascade_bumps = (
            bumps and self.chance.random() < 0.5
        )  # some hosts run 7.3 without its patches
        name = self.chance.choice(["Fall", "Spring", self._name()])
        try:
            self.bench.change("sessions", self.chance.choice(self._sessions), sessionName=name)
        finally:
            self.store.cascade_bumps = bumps

    def rename_room(self) -> None:
        """The sections held there refer to it outside of their key."""
        if not self.store.cascade_bumps:
            raise LookupError("nobody could know")
        section = self.chance.choice(self.store.rows("sections"))
        room = section["locationReference"]["link"]["href"].rpartition("/")[2]
        self.bench.change("locations", room, classroomIdentificationCode=self._name())

    def recreate_plan_type(self) -> None:
        """With the plans of that type: the tombstones of those are not hidden, although their keys live again."""
        mine = [
            row["id"]
            for row in self.store.rows("graduationPlanTypeDescriptors")
            if row["codeValue"] == "Mine"
        ]
        plans = [
            row
            for row in self.store.rows("graduationPlans")
            if row["graduationPlanTypeDescriptor"] == f"{PLAN_TYPE}#Mine"
        ]
        if plans and not self._overlap:
            raise LookupError("would live again")
        for plan in plans:
            self.store.delete("graduationPlans", plan["id"])
        for record_id in mine:
            self.store.delete("graduationPlanTypeDescriptors", record_id)
        self.store.post(
            "graduationPlanTypeDescriptors",
            {"namespace": PLAN_TYPE, "codeValue": "Mine", "shortDescription": self._name()},
        )
        self._mine["graduationPlans"] += [self.store.post("graduationPlans", changed(plan)) for plan in plans]

    def begin(self) -> None:
        if len(self.open) < 3 and self._overlap:
            self.open.append(self.store.begin(self._name()))
            self._began[self.open[-1].id] = self.store.newest

    def end(self) -> None:
        if self.open:
            transaction = self.open.pop(self.chance.randrange(len(self.open)))
            if self.chance.random() < 0.2:
                transaction.rollback()
            else:
                transaction.commit()

    def end_all(self, *, until: int | None = None) -> None:
        """Commit what is open, or only what began with a change version up to ``until``."""
        for transaction in list(self.open):
            if until is None or self._began[transaction.id] < until:
                self.open.remove(transaction)
                transaction.commit()


class Nights:
    """Nightly runs over a district that does not stop for them."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.district = District(bench, seed)
        self.chance = random.Random(-seed)
        self.overlap = bench.platform.extract.change_version_overlap
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
