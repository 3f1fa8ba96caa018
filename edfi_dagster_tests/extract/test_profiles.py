"""Keys that read by a profile: named for a year or an endpoint, asked for where it is missing, never 'not permitted'."""

from __future__ import annotations

from typing import Any

import pytest

from edfi_dagster.extract.work import Result
from edfi_dagster.ods.pages import RECORDS
from edfi_dagster.ods.profiles import content_type, profiles_in
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import ODS, Bench, MakeBench

VERSIONS = [pytest.param(v, marks=pytest.mark.ods(v)) for v in ("7.3", "7.0", "6.1", "5.3")]
TWO = {
    "Student-Names": {"ed-fi/students": ["firstName", "lastSurname"], "ed-fi/schools": []},
    "Student-Dates": {"ed-fi/students": ["birthDate"]},
}


@pytest.fixture(autouse=True)
def profiles(sandbox: SandboxServer) -> None:
    sandbox.store(ODS).oddities.profiles = {name: dict(kept) for name, kept in TWO.items()}


def fields(bench: Bench, name: str) -> set[str]:
    return {field for row in bench.current(name).values() for field in row}


def accepted(bench: Bench, path: str) -> set[str]:
    return {request.headers["accept"] for request in bench.server.requests.matching(path)}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_profile_of_a_year_holds_where_it_covers_an_endpoint(make_bench: MakeBench, version: str) -> None:
    bench = make_bench("students", "schools", "locations", year={"profile": "Student-Names"})
    bench.materialize()
    assert bench.current("students").keys() == bench.ods_rows("students").keys()
    assert {"firstName", "lastSurname", "studentUniqueId", "id"} <= fields(bench, "students")
    assert "birthDate" not in fields(bench, "students")
    bench.verify(["locations"])
    assert accepted(bench, "/locations") == {"application/json"}
    wanted = "application/vnd.ed-fi.student.student-names.readable+json"
    assert accepted(bench, "/students") >= {wanted}
    assert accepted(bench, "/students/deletes") == {"application/json"}

    bench.store.delete("students", bench.add_student(1))
    gone = bench.store.ids("students")[-1]
    bench.materialize()
    assert bench.current("students").keys() == bench.ods_rows("students").keys()
    assert gone in bench.current("students")


def test_the_profile_of_an_endpoint_is_the_endpoints_alone(make_bench: MakeBench) -> None:
    options: dict[str, Any] = {"resources": {"students": {"profile": "student-dates"}, "schools": {}}}
    bench = make_bench(year={"profile": "Student-Names"}, **options)
    bench.materialize()
    assert "birthDate" in fields(bench, "students") and "firstName" not in fields(bench, "students")
    assert accepted(bench, "/schools") >= {"application/vnd.ed-fi.school.student-names.readable+json"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_403_that_asks_for_a_profile_names_those_there_are(make_bench: MakeBench, version: str) -> None:
    bench = make_bench("students", "locations")
    results = bench.materialize(may_fail=True)
    cause = results["students"].failures[RECORDS]
    assert "grand_bend/2025 ed-fi/students: HTTP 403" in cause
    assert "student-dates or student-names" in cause
    assert "write profile: student-dates for this tenant's year or this endpoint" in cause
    bench.verify(["locations"])


def test_a_profile_that_the_key_does_not_have_is_a_failure_too(make_bench: MakeBench) -> None:
    bench = make_bench("students", year={"profile": "Another"})
    kinds = bench.materialize(may_fail=True)["students"].kinds
    assert kinds[RECORDS].result is Result.FAILED
    assert "student-dates or student-names" in kinds[RECORDS].cause


@pytest.mark.ods("6.1")
def test_one_profile_must_be_named_before_7_0_as_well(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.store.oddities.profiles.pop("Student-Dates")
    assert "write profile: student-names" in str(bench.materialize(may_fail=True)["students"].failures)


def test_without_the_profiles_document_the_rule_names_the_content_type(make_bench: MakeBench) -> None:
    bench = make_bench("students", "schools", "locations", year={"profile": "Student-Names"})
    bench.server.faults.add("/metadata/.*/profiles/", status=404)
    results = bench.materialize(may_fail=True)
    assert "firstName" in fields(bench, "students") and not results["schools"].failures
    (cause,) = [c for c in results["locations"].failures.values() if "HTTP 400" in c]
    assert "the profile does not cover this; write profile for the endpoints that it covers" in cause


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("students", "student"),
        ("people", "person"),
        ("localEducationAgencies", "localeducationagency"),
        ("studentSchoolAssociations", "studentschoolassociation"),
        ("staffs", "staff"),
        ("gradeLevelDescriptors", "gradeleveldescriptor"),
    ],
)
def test_a_content_type_names_one_item_in_lower_case(name: str, resource: str) -> None:
    assert content_type(name, "A_B-c") == f"application/vnd.ed-fi.{resource}.a_b-c.readable+json"
    assert profiles_in(f"'{content_type(name, 'A_B-c')}', '{content_type(name, 'x')}'") == ["a_b-c", "x"]
