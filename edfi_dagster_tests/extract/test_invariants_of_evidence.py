"""Invariant 12: a row leaves only on evidence, and leaves then."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edfi_dagster.extract import by_id
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import KEY_CHANGES, RECORDS
from edfi_dagster_tests.bench import Bench, changed

MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.both_storages
CLASSES = ("sessions", "courseOfferings", "sections")
ELIGIBILITY = "studentSpecialEducationProgramEligibilityAssociations"
NO_SUCH_ID = {
    "status": 404,
    "body": json.dumps(
        {
            "detail": "The specified resource could not be found.",
            "type": "urn:ed-fi:api:not-found",
            "title": "Not Found",
            "status": 404,
            "correlationId": "4d7c…",
        }
    ).encode(),
}
NOT_PERMITTED = {
    "status": 403,
    "body": json.dumps(
        {
            "detail": "Access to the resource could not be authorized.",
            "type": "urn:ed-fi:api:security:authorization",
            "title": "Authorization Denied",
            "status": 403,
        }
    ).encode(),
}
PAGE_OF_A_PROXY = {"action": "html", "status": 404}
OTHER_PAGE_OF_A_PROXY = {"action": "html", "status": 403}


def rekeyed_section(bench: Bench) -> str:
    """A section whose key a cascade changed without a new change version, so that only its id leads to it."""
    bench.materialize()
    bench.store.cascade_bumps = False
    before = bench.ods_rows("sections")
    bench.rename_session("Autumn")
    now = bench.ods_rows("sections")
    return next(record_id for record_id in sorted(now) if now[record_id] != before[record_id])


# -- asked for by id --------------------------------------------------------------------------------------


@pytest.mark.ods("7.2")
@pytest.mark.parametrize(
    "fault",
    [PAGE_OF_A_PROXY, OTHER_PAGE_OF_A_PROXY, NO_SUCH_ID],
    ids=["404 page", "403 page", "404 of the ODS"],
)
def test_12_one_404_is_no_evidence(make_bench: MakeBench, fault: dict[str, Any]) -> None:
    bench = make_bench(*CLASSES, change_version_overlap=0)
    section = rekeyed_section(bench)
    bench.server.faults.add(f"/sections/{section}$", times=1, **fault)
    bench.materialize()
    assert bench.server.faults.hits == 1
    bench.verify()


@pytest.mark.ods("7.2")
@pytest.mark.parametrize("fault", [PAGE_OF_A_PROXY, OTHER_PAGE_OF_A_PROXY], ids=["404", "403"])
def test_12_pages_of_a_proxy_are_never_evidence(make_bench: MakeBench, fault: dict[str, Any]) -> None:
    bench = make_bench(*CLASSES, change_version_overlap=0)
    section = rekeyed_section(bench)
    bench.server.faults.add(f"/sections/{section}$", **fault)
    result = bench.materialize(may_fail=True)["sections"]
    assert result.failures
    assert section in bench.current("sections")
    bench.server.faults.clear()
    bench.materialize()
    bench.verify()


@pytest.mark.ods("7.2")
def test_12_403_is_never_evidence_and_the_next_run_asks_again(make_bench: MakeBench) -> None:
    bench = make_bench(*CLASSES, change_version_overlap=0)
    section = rekeyed_section(bench)
    bench.server.faults.add(f"/sections/{section}$", **NOT_PERMITTED)
    low = bench.watermarks()["sections", "key_changes"]
    for _ in range(2):
        result = bench.materialize()["sections"]
        assert "HTTP 403" in result.kinds[KEY_CHANGES].cause
        assert bench.watermarks()["sections", "key_changes"] == low
        assert section in bench.current("sections")
    assert any("ed-fi/sections: HTTP 403 for 1 records by id; their rows stay" in said for said in bench.told)
    bench.server.faults.clear()
    bench.materialize()
    bench.verify()
    assert bench.watermarks()["sections", "key_changes"] == bench.store.newest


@pytest.mark.ods("7.2")
def test_12_404_of_an_endpoint_that_is_taken_away_is_no_evidence(make_bench: MakeBench) -> None:
    bench = make_bench(*CLASSES, change_version_overlap=0)
    section = rekeyed_section(bench)
    bench.at_request(f"/sections/{section}", lambda: bench.store.withdraw("sections"))
    bench.materialize(may_fail=True)
    bench.store.allow("sections")
    assert section in bench.current("sections")
    bench.materialize()
    bench.verify()


@pytest.mark.parametrize("dies", [False, True])
def test_12_what_a_filter_hides_is_decided_by_a_complete_walk(make_bench: MakeBench, dies: bool) -> None:
    few = {"query_parameters": {"maximumNumberOfSeats": "7"}}
    bench = make_bench("locations", resources={"locations": few}, change_version_overlap=0)
    pattern = bench.store.rows("locations")[0]
    ids = [
        bench.store.post(
            "locations", changed(pattern, classroomIdentificationCode=f"room {n}", maximumNumberOfSeats=7)
        )
        for n in range(3)
    ]
    bench.materialize()
    assert bench.current("locations").keys() == set(ids)
    bench.change("locations", ids[0], classroomIdentificationCode="elsewhere", maximumNumberOfSeats=8)
    if dies:
        bench.recreate("locations", ids[0])
    result = bench.materialize()["locations"]
    assert result.full is not dies  # of one that is gone the ODS's own 404 tells
    assert bench.current("locations").keys() == set(ids[1:])
    assert not bench.materialize()["locations"].table_changed


# -- two ids, one key -------------------------------------------------------------------------------------


def wrong(endpoint: Endpoint, *parts: str) -> Endpoint:
    """An endpoint of whose natural key the catalogue lacks some parts."""
    return replace(endpoint, key={name: path for name, path in endpoint.key.items() if name not in parts})


def twins(bench: Bench) -> set[str]:
    """Two eligibilities of one student, for two programs of one name and type that two organizations have."""
    program = bench.store.rows("programs")[0]
    organization = program["educationOrganizationReference"]["educationOrganizationId"]
    other = next(row["schoolId"] for row in bench.store.rows("schools") if row["schoolId"] != organization)
    bench.store.post(
        "programs", changed(program, educationOrganizationReference={"educationOrganizationId": other})
    )
    found = set()
    for owner in (organization, other):
        body = {
            "consentToEvaluationReceivedDate": "2025-01-07",
            "educationOrganizationReference": {"educationOrganizationId": organization},
            "programReference": {
                "educationOrganizationId": owner,
                "programName": program["programName"],
                "programTypeDescriptor": program["programTypeDescriptor"],
            },
            "studentReference": {"studentUniqueId": bench.store.rows("students")[0]["studentUniqueId"]},
            "ideaPartDescriptor": bench.store.rows(ELIGIBILITY)[0]["ideaPartDescriptor"],
        }
        found.add(bench.store.post(ELIGIBILITY, body))
    return found


@pytest.mark.parametrize("is_published", [True, False])
@pytest.mark.parametrize("full", [True, False])
def test_12_records_that_a_wrong_key_takes_for_one_both_stay(
    make_bench: MakeBench, is_published: bool, full: bool
) -> None:
    bench = make_bench(ELIGIBILITY)
    if not is_published:
        bench.server.faults.add("/metadata/", status=404)
    endpoint = wrong(bench.endpoint(ELIGIBILITY), "programEducationOrganizationId")
    if not full:
        bench.materialize([endpoint])
    both = twins(bench)
    result = bench.materialize([endpoint])[ELIGIBILITY]
    assert both <= bench.current(ELIGIBILITY).keys()
    bench.verify()
    manifest = bench.manifest(ELIGIBILITY)
    assert result.rows_inserted == (manifest.rows if full else 2)
    assert manifest.rows == bench.store.count(ELIGIBILITY)
    assert ("programEducationOrganizationId" in manifest.key) is is_published
    for again in (False, True):
        bench.materialize([endpoint], full_refresh=again)
        bench.verify()
    bench.rebuild()
    bench.verify()


@pytest.mark.parametrize("endpoint", ["students", "locations"])
def test_12_record_recreated_while_a_full_pull_walks_leaves_on_the_odss_word(
    make_bench: MakeBench, endpoint: str
) -> None:
    bench = make_bench(endpoint, endpoint_defaults={"page_size": 4})
    old = bench.add_student(1)
    if endpoint == "locations":
        old = bench.store.ids("locations")[0]
    bench.store.deny(endpoint, read=False)  # no tombstone tells of it
    bench.at_request(f"/{endpoint}", lambda: bench.recreate(endpoint, old), nth=3, answered=True)
    bench.materialize(may_fail=True)
    bench.verify()
    bench.materialize(may_fail=True)
    bench.verify()


def test_12_suspect_that_left_is_noted_in_the_manifest_and_leaves_a_rebuilt_warehouse_too(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("students", change_version_overlap=0)
    old = bench.add_student(1)
    bench.materialize()
    new = bench.recreate("students", old)
    result = bench.materialize()["students"]
    assert (result.rows_inserted, result.rows_removed) == (1, 1)
    assert bench.manifest("students").gone == (old,)
    assert {record_id for record_id, _, record in bench.raw("students") if "bench-1" in str(record)} == {new}
    bench.verify()
    requests = len(bench.server.requests)
    bench.rebuild()
    assert len(bench.server.requests) == requests
    bench.verify()
    assert old not in {record_id for record_id, _, _ in bench.raw("students")}


def test_12_suspects_that_the_key_may_not_read_both_stay_until_it_may(make_bench: MakeBench) -> None:
    bench = make_bench("students", change_version_overlap=0)
    old = bench.add_student(1)
    bench.materialize()
    new = bench.recreate("students", old)
    bench.server.faults.add(f"/students/{old}$", **NOT_PERMITTED)
    for _ in range(2):
        bench.materialize()
        assert {old, new} <= {record_id for record_id, _, _ in bench.raw("students")}
    bench.server.faults.clear()
    assert bench.forecast() == ["students"]  # also of a dynamic run, though nothing changes any more
    bench.materialize()
    bench.verify()
    assert old not in {record_id for record_id, _, _ in bench.raw("students")}
    assert bench.forecast() == []


def test_12_suspect_that_the_ods_never_answers_for_fails_the_endpoint_until_a_full_refresh(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("students", change_version_overlap=0, endpoint_defaults={"num_retries": 0})
    old = bench.add_student(1)
    bench.materialize()
    new = bench.recreate("students", old)
    bench.server.faults.add(f"/students/{old}$", status=500)
    for _ in range(2):
        cause = bench.materialize(may_fail=True)["students"].failures[RECORDS]
        assert "asked for a record by id; if it stays, run the endpoint with full_refresh" in cause
        assert {record_id for record_id, _, row in bench.raw("students") if "bench-1" in str(row)} == {old}
    bench.materialize(full_refresh=True)
    assert new in bench.current("students")
    bench.verify()
    bench.materialize()
    bench.verify()


def test_12_stored_pull_cannot_ask_so_both_stay_until_the_next_run(make_bench: MakeBench) -> None:
    bench = make_bench("students", "locations", change_version_overlap=0)
    old = bench.add_student(1)
    bench.materialize()
    new = bench.recreate("students", old)
    bench.materialize(load=False)
    requests = len(bench.server.requests)
    bench.load_stored(["students", "locations"])
    assert len(bench.server.requests) == requests
    assert {old, new} <= {record_id for record_id, _, _ in bench.raw("students")}
    assert ("students", "key_changes") not in bench.watermarks()
    bench.materialize()
    bench.verify()
    assert bench.watermarks()["students", "key_changes"] == bench.store.newest


def test_12_many_suspects_are_settled_by_a_complete_walk(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_id, "_MANY_READ_BY_ID", 3)
    bench = make_bench("students", change_version_overlap=0, endpoint_defaults={"page_size": 500})
    ids = [bench.add_student(n) for n in range(9)]
    bench.materialize()
    for record_id in ids:
        bench.recreate("students", record_id)
    result = bench.materialize()["students"]
    assert result.full
    bench.verify()
    assert not [r for record_id in ids for r in bench.server.requests.matching(record_id)]
    assert not bench.materialize()["students"].full
    bench.rebuild()
    bench.verify()


def test_12_many_records_that_a_wrong_key_takes_for_one_all_stay(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody says which key is right, and no walk ends in which they are not all there."""
    monkeypatch.setattr(by_id, "_MANY_READ_BY_ID", 3)
    bench = make_bench("students", endpoint_defaults={"page_size": 500})
    bench.server.faults.add("/metadata/", status=404)
    for n in range(9):
        bench.add_student(n)
    endpoint = replace(bench.endpoint("students"), key={"firstName": "firstName"})
    assert bench.materialize([endpoint])["students"].rows_inserted == bench.store.count("students")
    bench.verify()
    bench.add_student(10)
    bench.materialize([endpoint])
    bench.verify()


def test_12_many_records_that_a_wrong_key_takes_for_one_are_told_apart_by_the_key_that_the_ods_publishes(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a complete walk, which every night would then repeat."""
    monkeypatch.setattr(by_id, "_MANY_READ_BY_ID", 3)
    bench = make_bench("locations", endpoint_defaults={"page_size": 500})
    pattern = bench.store.rows("locations")[0]
    for n in range(9):
        bench.store.post("locations", changed(pattern, classroomIdentificationCode=f"room {n}"))
    endpoint = wrong(bench.endpoint("locations"), "classroomIdentificationCode")
    for _ in range(2):
        bench.materialize([endpoint])
        bench.verify()
        assert bench.manifest("locations").key == dict(bench.endpoint("locations").key)
    result = bench.materialize([endpoint])["locations"]
    assert (result.full, result.table_changed) == (False, False)
    bench.rebuild()
    bench.verify()


@pytest.mark.parametrize("code", ["cou-0000003x", "COU-0000003X ", "Cou-0000003x  "])
def test_12_key_that_lives_again_in_another_case_or_with_blanks(make_bench: MakeBench, code: str) -> None:
    """For SQL Server it is the key of the deleted record, whose tombstone the ODS therefore hides."""
    bench = make_bench("courses", change_version_overlap=0)
    pattern = bench.store.rows("courses")[0]
    old = bench.store.post("courses", changed(pattern, courseCode="COU-0000003X"))
    bench.materialize()
    bench.recreate("courses", old, courseCode=code)
    assert bench.store.deletes("courses") == []
    result = bench.materialize()["courses"]
    assert result.rows_removed == 1
    bench.verify()
    assert not bench.materialize()["courses"].table_changed


def test_12_extension_recreated_while_its_document_is_away_has_the_key_of_its_last_manifest(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("locations")
    unknown = replace(bench.endpoint("locations"), key={})
    pattern = bench.store.rows("locations")[0]
    old = bench.store.post("locations", changed(pattern, classroomIdentificationCode="cellar"))
    bench.materialize([unknown])
    bench.materialize([unknown])
    bench.server.faults.add("/metadata/", status=503)
    bench.recreate("locations", old)
    result = bench.materialize([unknown])["locations"]
    assert (result.full, result.rows_removed) == (False, 1)
    bench.verify()
    assert bench.manifest("locations").key == dict(bench.endpoint("locations").key)
