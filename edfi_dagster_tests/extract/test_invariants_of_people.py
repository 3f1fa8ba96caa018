"""Invariant 12, of people whose UniqueId the host of an ODS corrected: nobody is there twice, and nothing shows the old one."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from edfi_dagster.extract import Result
from edfi_dagster.ods.pages import KEY_CHANGES, RECORDS
from edfi_dagster.warehouse import current
from edfi_dagster_tests.bench import Bench, student

MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.both_storages

PEOPLE = {
    "students": ("studentUniqueId", ("studentSchoolAssociations", "studentSectionAssociations", "grades")),
    "staffs": ("staffUniqueId", ("staffSectionAssociations", "staffSchoolAssociations")),
    "contacts": ("contactUniqueId", ("studentContactAssociations",)),
    "parents": ("parentUniqueId", ("studentParentAssociations",)),
}
OF_VERSIONS = [
    *[pytest.param(name, marks=pytest.mark.ods("7.3"), id=f"{name} 7.3") for name in list(PEOPLE)[:3]],
    *[
        pytest.param(name, marks=pytest.mark.ods("6.1"), id=f"{name} 6.1")
        for name in ("students", "staffs", "parents")
    ],
]


def correct(bench: Bench, people: str, association: str) -> tuple[str, str, str]:
    """Give one who is referred to another UniqueId: (id of the person, old, new)."""
    name = PEOPLE[people][0]
    field = f"{people.removesuffix('s')}Reference"
    old = bench.store.rows(association)[0][field][name]
    (person,) = [row["id"] for row in bench.store.rows(people) if row[name] == old]
    bench.store.correct(people, person, **{name: f"corrected {old}"})
    return person, old, f"corrected {old}"


@pytest.mark.parametrize("people", OF_VERSIONS)
def test_12_corrected_unique_id_leaves_one_person_and_every_record_that_refers_to_it(
    make_bench: MakeBench, people: str
) -> None:
    _, associations = PEOPLE[people]
    bench = make_bench(people, *associations, change_version_overlap=0)
    bench.materialize()
    correct(bench, people, associations[0])
    results = bench.materialize()
    assert results[people].rows_removed == 1
    assert results[associations[0]].rows_inserted
    assert not any(result.full for result in results.values())
    bench.verify()
    assert not any(result.table_changed for result in bench.materialize().values())
    bench.rebuild()
    bench.verify()


def test_12_corrected_unique_id_is_found_by_endpoints_that_run_later_or_failed(make_bench: MakeBench) -> None:
    names = ("studentSchoolAssociations", "studentSectionAssociations", "grades")
    bench = make_bench("students", *names, endpoint_defaults={"num_retries": 0})
    bench.materialize()
    correct(bench, "students", names[0])
    bench.server.faults.add("/studentSectionAssociations$", status=500)
    failed = bench.materialize(["students", *names[:2]], may_fail=True)
    assert failed["studentSectionAssociations"].failures
    bench.server.faults.clear()
    bench.materialize(names)
    bench.verify()


def test_12_unique_id_corrections_that_cannot_be_read_fail_only_key_changes(make_bench: MakeBench) -> None:
    bench = make_bench("students", "studentSchoolAssociations", endpoint_defaults={"num_retries": 0})
    bench.materialize()
    correct(bench, "students", "studentSchoolAssociations")
    bench.server.faults.add("/students/keyChanges$", status=500)
    failed = bench.materialize(may_fail=True)["studentSchoolAssociations"]
    assert failed.failures.keys() == {KEY_CHANGES}
    assert failed.kinds[RECORDS].result in {Result.UNCHANGED, Result.LOADED}
    bench.server.faults.clear()
    bench.materialize()
    bench.verify()


def test_12_person_replaced_by_another_with_the_same_unique_id(make_bench: MakeBench) -> None:
    """One is corrected, and another takes the UniqueId that this one had."""
    bench = make_bench("students", change_version_overlap=0)
    old = bench.add_student(1)
    bench.materialize()
    bench.store.correct("students", old, studentUniqueId="bench-2")
    new = bench.store.post("students", student(1, firstName="Other"))
    bench.materialize()
    assert {old, new} <= bench.current("students").keys()
    bench.verify()


REFUSALS = {
    ("6.1", 404): {"message": "The specified resource could not be found."},
    ("6.1", 403): {"message": "Access to the resource could not be authorized."},
    ("7.3", 404): {"type": "urn:ed-fi:api:not-found", "title": "Not Found", "status": 404},
    ("7.3", 403): {"type": "urn:ed-fi:api:security:authorization", "title": "Denied", "status": 403},
}


@pytest.mark.parametrize(
    ("version", "status"), [pytest.param(*case, marks=pytest.mark.ods(case[0])) for case in REFUSALS]
)
def test_12_corrected_unique_id_reaches_endpoints_that_offer_no_key_changes_of_their_own(
    make_bench: MakeBench, version: str, status: int
) -> None:
    bench = make_bench("students", "studentSchoolAssociations", change_version_overlap=0)
    refusal = json.dumps(REFUSALS[version, status]).encode()
    bench.server.faults.add("/studentSchoolAssociations/keyChanges$", status=status, body=refusal)
    bench.materialize()
    correct(bench, "students", "studentSchoolAssociations")
    assert sorted(bench.forecast()) == ["studentSchoolAssociations", "students"]
    result = bench.materialize()["studentSchoolAssociations"]
    assert (result.full, result.rows_inserted) == (False, 1)
    bench.verify()
    assert not bench.materialize()["studentSchoolAssociations"].table_changed


def test_12_everybodys_unique_id_corrected_in_one_night(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a move to another numbering: whoever may refer to one of so many is read again."""
    monkeypatch.setattr(current, "_MOST_SAID", 3)
    monkeypatch.setattr(current, "_IDS_OF_A_QUERY", 3)
    names = ("studentSchoolAssociations", "studentSectionAssociations")
    bench = make_bench("students", *names, "locations", change_version_overlap=1_000)
    bench.materialize()
    for number, record_id in enumerate(bench.store.ids("students")):
        bench.store.correct("students", record_id, studentUniqueId=f"new-{number}")
    results = bench.materialize()
    assert not results["locations"].table_changed
    bench.verify()
    assert not any(result.table_changed for result in bench.materialize().values())
