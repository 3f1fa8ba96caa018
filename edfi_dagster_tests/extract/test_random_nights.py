"""Whatever happens in an ODS before, while and after it is read: after quiet deltas the warehouse equals it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from edfi_dagster.sandbox import ApiError, Store, Transaction
from edfi_dagster_tests.bench import Bench, changed, student

ENDPOINTS = ("students", "locations", "sessions", "courseOfferings", "sections", "graduationPlans")
DESCRIPTORS = ("graduationPlanTypeDescriptors",)
PLAN_TYPE = "uri://ed-fi.org/GraduationPlanTypeDescriptor"


class District:
    """People at work in an ODS, deterministic by seed."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.store = bench, bench.store
        self.chance = random.Random(seed)
        self.open: list[Transaction] = []
        self.done: list[str] = []
        self._target: Store | Transaction = self.store
        self._counter = 0
        self._patterns = {name: bench.store.rows(name)[0] for name in ("locations", "graduationPlans")}
        self._mine: dict[str, list[str]] = {"students": [], "locations": [], "graduationPlans": []}

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
            self.swap_keys,
            self.recreate_plan_type,
            self.begin,
            self.end,
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
        endpoint, record_id = self._some()
        self._mine[endpoint].append(self.bench.recreate(endpoint, record_id))

    def rekey(self) -> None:
        _, record_id = self._some("locations")
        self.bench.change("locations", record_id, classroomIdentificationCode=self._name())

    def swap_keys(self) -> None:
        (_, one), (_, other) = self._some("locations"), self._some("locations")
        codes = [self.store.get("locations", i)["classroomIdentificationCode"] for i in (one, other)]
        for record_id, code in ((one, self._name()), (other, codes[0]), (one, codes[1])):
            self.bench.change("locations", record_id, classroomIdentificationCode=code)

    def rename_session(self) -> None:
        self.store.cascade_bumps = self.chance.random() < 0.5
        session = self.chance.choice(self.store.ids("sessions"))
        self.bench.change(
            "sessions", session, sessionName=self.chance.choice(["Fall", "Spring", self._name()])
        )
        self.store.cascade_bumps = True

    def recreate_plan_type(self) -> None:
        for row in self.store.rows("graduationPlanTypeDescriptors"):
            if row["codeValue"] == "Mine":
                self.bench.recreate("graduationPlanTypeDescriptors", row["id"])
                return
        self.store.post(
            "graduationPlanTypeDescriptors",
            {"namespace": PLAN_TYPE, "codeValue": "Mine", "shortDescription": "Mine"},
        )

    def begin(self) -> None:
        # Without an overlap a row that is committed late is lost, as it must be.
        if len(self.open) < 3 and self.bench.platform.extract.change_version_overlap:
            self.open.append(self.store.begin(self._name()))

    def end(self) -> None:
        if self.open:
            transaction = self.open.pop(self.chance.randrange(len(self.open)))
            if self.chance.random() < 0.2:
                transaction.rollback()
            else:
                transaction.commit()

    def end_all(self) -> None:
        while self.open:
            self.open.pop().commit()


def live_through(bench: Bench, seed: int, nights: int) -> None:
    district = District(bench, seed)
    chance = random.Random(-seed)
    district.work(20)
    for night in range(nights):
        # A record re-created, updated under the reader and deleted again shows its predecessor's tombstone too late for
        # windows that do not overlap.
        moving = chance.random() < 0.7 and bench.platform.extract.change_version_overlap > 0
        for name in (
            "/students",
            "/locations",
            "/sections",
            "/graduationPlans/deletes",
            "/locations/keyChanges",
        ):
            if moving and chance.random() < 0.6:
                bench.at_request(name, lambda: district.work(3), nth=chance.randrange(1, 4), answered=True)
        failing = chance.choice(["/deletes$", "/keyChanges$", "/locations$", "/sections$", None, None, None])
        if failing and night:
            bench.server.faults.add(failing, status=500)
        refreshed = ("locations", "graduationPlans") if chance.random() < 0.2 else None
        bench.materialize(refreshed, full_refresh=refreshed is not None, may_fail=True)
        bench.server.faults.clear()
        bench.server.after_response.clear()
        district.work(15)
    district.end_all()
    bench.materialize()
    bench.verify()
    assert not any(result.table_changed for result in bench.materialize().values())
    bench.verify()
    assert len(set(district.done)) >= 6
    state = bench.state()
    bench.rebuild()
    assert bench.state()[0] == state[0]


def bench_of(make_bench: Callable[..., Bench], overlap: int) -> Bench:
    bench = make_bench(
        *ENDPOINTS,
        descriptors=DESCRIPTORS,
        endpoint_defaults={"page_size": 7, "num_retries": 0},
        change_version_overlap=overlap,
    )
    bench.pause = lambda seconds: None
    return bench


@pytest.mark.parametrize("seed", [1, 2])
def test_warehouse_equals_the_ods_after_random_nights(make_bench: Callable[..., Bench], seed: int) -> None:
    live_through(bench_of(make_bench, 10_000 * (seed % 2)), seed, nights=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_warehouse_equals_the_ods_after_many_random_nights(
    make_bench: Callable[..., Bench], seed: int
) -> None:
    live_through(bench_of(make_bench, 10_000 * (seed % 2)), seed, nights=5)
