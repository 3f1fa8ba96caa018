"""People at work in an ODS while it is read: every kind of write there is, refused ones and late commits among them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from edfi_dagster.sandbox import ApiError, Store, Transaction
from edfi_dagster_tests.bench import changed, student

YEARS = "schoolYearTypes"
"""Whose deletes no ODS publishes."""
ENDPOINTS = ("students", "locations", "sessions", "courseOfferings", "sections", "graduationPlans", YEARS)
DESCRIPTORS = ("graduationPlanTypeDescriptors",)
"""What they write to, and what hangs on that."""
PLAN_TYPE = "uri://ed-fi.org/GraduationPlanTypeDescriptor"
PLANTED = "Quillf"
"""Every name that they give begins with it, so that it can be looked for where it must not be."""


class District:
    """People at work in an ODS, deterministic by seed.

    ``overlap`` is how far the reader's windows reach back; without, only what such a reader can see is done.
    """

    def __init__(self, store: Store, seed: int, *, overlap: int) -> None:
        self.store = store
        self.chance = random.Random(seed)
        self.open: list[Transaction] = []
        self.done: list[str] = []
        self._target: Store | Transaction = self.store
        self._counter = 0
        self._overlap = overlap
        self._used_plans: set[tuple[object, object]] = set()
        self._began: dict[str, int] = {}
        self._patterns = {name: store.rows(name)[0] for name in ("locations", "graduationPlans")}
        self._mine: dict[str, list[str]] = {"students": [], "locations": [], "graduationPlans": [], YEARS: []}
        self._sessions = store.ids("sessions")
        if not self.store.generation.key_changes:
            pattern = self.store.get("sessions", self._sessions[0])
            self._sessions = [self.store.post("sessions", changed(pattern, sessionName=self._name()))]

    def work(self, times: int) -> None:
        for _ in range(times):
            self.attempt(self.chance.choice(self._deeds).__name__)

    def attempt(self, deed: str) -> None:
        """Do what a method of this name does, by itself or in an open transaction, if the ODS lets it."""
        targets: list[Store | Transaction] = [self.store, self.store, *self.open]
        self._target = self.chance.choice(targets)
        try:
            getattr(self, deed)()
            self.done.append(deed)
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
            self.correct_unique_id,
            self.rename_room,
            self.swap_keys,
            self.recreate_plan_type,
            *[self.begin, self.end] * 2,
        )

    def _name(self) -> str:
        self._counter += 1
        return f"{PLANTED}{self._counter}"

    def _change(self, endpoint: str, record_id: str, **fields: object) -> None:
        self.store.put(endpoint, record_id, changed(self.store.get(endpoint, record_id), **fields))

    def _some(self, *endpoints: str) -> tuple[str, str]:
        endpoint = self.chance.choice(endpoints or list(self._mine))
        return endpoint, self.chance.choice(self._mine[endpoint])

    def _body(self, endpoint: str) -> dict[str, object]:
        if endpoint == "students":
            return student(self._counter + 1)
        if endpoint == YEARS:
            number = 2100 + self._counter
            return {"schoolYear": number, "schoolYearDescription": "", "currentSchoolYear": False}
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
            YEARS: "schoolYearDescription",
        }[endpoint]
        value = {
            "firstName": self._name(),
            "maximumNumberOfSeats": self._counter,
            "individualPlan": bool(self._counter % 2),
            "schoolYearDescription": self._name(),
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
            self._change("locations", record_id, classroomIdentificationCode=code)

    def rename_session(self) -> None:
        bumps = self.store.cascade_bumps
        self.store.cascade_bumps = (
            bumps and self.chance.random() < 0.5
        )  # some hosts run 7.3 without its patches
        name = self.chance.choice(["Fall", "Spring", self._name()])
        try:
            self._change("sessions", self.chance.choice(self._sessions), sessionName=name)
        finally:
            self.store.cascade_bumps = bumps

    def correct_unique_id(self) -> None:
        """By a script of the host: the records that refer to the person show it, and have no change of their own."""
        mine = self.chance.choice(self._mine["students"])
        if self.store.generation.key_changes:
            mine = self.chance.choice([mine, *self.store.ids("students")[:3]])
        name = self.store.get("students", mine)["studentUniqueId"]
        self.store.correct("students", mine, studentUniqueId=f"{name[:20]}-{self._name()}")

    def rename_room(self) -> None:
        """The sections held there refer to it outside of their key."""
        if not self.store.cascade_bumps:
            raise LookupError("nobody could know")
        section = self.chance.choice(self.store.rows("sections"))
        room = section["locationReference"]["link"]["href"].rpartition("/")[2]
        self._change("locations", room, classroomIdentificationCode=self._name())

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
