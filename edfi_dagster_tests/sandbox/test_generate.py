from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from edfi_dagster.sandbox import Store
from edfi_dagster.sandbox.documents import references
from edfi_dagster.sandbox.generate import populate
from edfi_dagster_tests.sandbox.api import body


def generated(name: str = "grand_bend/2025", seed: int = 1, **rows: int) -> Store:
    store = Store(name)
    populate(store, seed=seed, rows=rows)
    return store


@pytest.fixture(scope="module")
def district() -> Iterator[Store]:
    store = generated()
    yield store
    store.close()


def dump(store: Store) -> list[tuple[object, ...]]:
    tables = ("row", "body", "reference", "counter")
    return [
        row for table in tables for row in store.connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_people(district: Store) -> None:
    assert dump(generated()) == dump(district)
    others = generated(seed=2).rows("students")
    assert [s["firstName"] for s in others] != [s["firstName"] for s in district.rows("students")]


def test_the_default_district_is_small_and_quick() -> None:
    began = time.process_time()
    store = generated()
    assert time.process_time() - began < 5
    assert store.count("students") == 120
    assert sum(store.counts().values()) < 6_500


def test_every_descriptor_endpoint_has_values_and_some_resources_have_none(district: Store) -> None:
    counts = district.counts()
    assert all(counts.get(e.path, 0) >= 2 for e in district.model.endpoints if e.is_descriptor)
    empty = [e.path for e in district.model.endpoints if e.path not in counts]
    assert 35 <= len(empty) <= 48
    assert district.model.endpoint("crisisEvents").path in empty


def test_every_generated_record_passes_the_rules_of_the_api_unchanged(district: Store) -> None:
    newest = district.newest
    for endpoint in district.model.endpoints:
        for row in district.rows(endpoint.path)[::7]:
            assert district.post(endpoint.path, body(row)) == row["id"], endpoint.path
    assert district.newest == newest


def test_every_reference_has_a_link_to_a_row_that_exists(district: Store) -> None:
    checked = 0
    for endpoint in district.model.endpoints:
        for row in district.rows(endpoint.path):
            for found in references(district.model, endpoint, row):
                path, row_id = found.node["link"]["href"].lstrip("/").rsplit("/", 1)
                assert district.row(path, row_id) is not None, (endpoint.path, found)
                checked += 1
    assert checked > 8_000


def test_change_versions_number_the_rows_and_timestamps_rise_with_them(district: Store) -> None:
    versions = [v for (v,) in district.connection.execute("SELECT change_version FROM row ORDER BY 1")]
    assert versions == list(range(1, district.newest + 1))
    stamps = [row["_lastModifiedDate"] for row in district.rows("students")]
    assert stamps == sorted(set(stamps))


def test_two_years_of_a_tenant_share_schools_and_most_students(district: Store) -> None:
    later = generated("grand_bend/2026")
    assert {s["schoolId"] for s in later.rows("schools")} == {s["schoolId"] for s in district.rows("schools")}
    name = {s["studentUniqueId"]: (s["firstName"], s["lastSurname"]) for s in district.rows("students")}
    common = [s for s in later.rows("students") if s["studentUniqueId"] in name]
    assert 100 <= len(common) < 120
    assert all(name[s["studentUniqueId"]] == (s["firstName"], s["lastSurname"]) for s in common)
    assert {r["schoolYearTypeReference"]["schoolYear"] for r in later.rows("studentSchoolAssociations")} == {
        2026
    }


def test_tenants_are_different_districts(district: Store) -> None:
    other = generated("lakeview/2025")
    assert district.rows("localEducationAgencies")[0]["localEducationAgencyId"] == 255901
    ours, theirs = ({s["schoolId"] for s in store.rows("schools")} for store in (district, other))
    assert not ours & theirs


def test_students_scale_the_district_and_single_endpoints_can_be_set() -> None:
    store = generated(
        students=600, studentSectionAttendanceEvents=3_000, studentAssessments=50, crisisEvents=4
    )
    counts = store.counts()
    assert counts["ed-fi/students"] == counts["ed-fi/studentSchoolAssociations"] == 600
    assert counts["ed-fi/studentSectionAssociations"] == 600 * 8
    assert counts["ed-fi/studentSectionAttendanceEvents"] == 3_000
    assert (counts["ed-fi/studentAssessments"], counts["ed-fi/crisisEvents"]) == (50, 4)


def test_an_empty_district_and_an_unknown_endpoint() -> None:
    assert generated(students=0).count("students") == 0
    with pytest.raises(KeyError, match="pupils"):
        generated(pupils=3)
