from __future__ import annotations

from typing import Any

import pytest

from edfi_dagster.sandbox import Store
from edfi_dagster_tests.sandbox.api import EVENTS, Api, body, changed_ids, room, version


def test_a_fresh_ods_reports_one_though_no_row_has_it() -> None:
    store = Store("fresh")
    assert (store.newest, store.counts()) == (1, {})
    store.post(
        "weaponDescriptors",
        {"namespace": "uri://x/WeaponDescriptor", "codeValue": "A", "shortDescription": "A"},
    )
    assert (store.newest, version(store, "weaponDescriptors", store.ids("weaponDescriptors")[0])) == (1, 1)
    store.close()


def test_available_change_versions(api: Api, store: Store) -> None:
    answer = api.get("/changeQueries/v1/AvailableChangeVersions")
    assert answer.json() == {"oldestChangeVersion": 0, "newestChangeVersion": store.newest}
    assert store.newest == sum(store.counts().values())


def test_both_bounds_are_inclusive_and_either_may_stand_alone(api: Api, store: Store) -> None:
    ids = store.ids("students")
    low, high = version(store, "students", ids[3]), version(store, "students", ids[6])
    assert changed_ids(api, "students", low, high) == ids[3:7]
    assert changed_ids(api, "students", low) == ids[3:]
    assert changed_ids(api, "students", None, high) == ids[:7]
    assert changed_ids(api, "students", high, low) == []


def test_a_live_row_does_not_show_its_change_version(api: Api) -> None:
    assert not any("version" in name.lower() for name in api.rows("students", limit=1)[0])


def test_an_update_moves_a_row_out_of_an_earlier_window(api: Api, store: Store) -> None:
    before = api.newest
    row = store.rows("students")[0]
    store.put("students", row["id"], body(row, firstName="Changed"))
    assert row["id"] not in changed_ids(api, "students", 0, before)
    assert changed_ids(api, "students", before + 1) == [row["id"]]


def test_deletes_show_id_version_and_flattened_key_in_version_order(api: Api, store: Store) -> None:
    before = api.newest
    rows = store.rows(EVENTS)[:2]
    for row in rows:
        store.delete(EVENTS, row["id"])
    answer = api.get(f"{EVENTS}/deletes", minChangeVersion=before + 1, totalCount="true")
    first = rows[0]
    assert answer.headers["Total-Count"] == "2"
    assert answer.json()[0] == {
        "id": first["id"],
        "changeVersion": before + 1,
        "keyValues": {
            "attendanceEventCategoryDescriptor": first["attendanceEventCategoryDescriptor"],
            "eventDate": first["eventDate"],
            "localCourseCode": first["sectionReference"]["localCourseCode"],
            "schoolId": first["sectionReference"]["schoolId"],
            "schoolYear": 2025,
            "sectionIdentifier": first["sectionReference"]["sectionIdentifier"],
            "sessionName": first["sectionReference"]["sessionName"],
            "studentUniqueId": first["studentReference"]["studentUniqueId"],
        },
    }
    assert [d["changeVersion"] for d in answer.json()] == [before + 1, before + 2]
    assert (
        api.rows(f"{EVENTS}/deletes", minChangeVersion=before + 2, maxChangeVersion=before + 2)
        == answer.json()[1:]
    )
    assert api.rows(f"{EVENTS}/deletes", limit=1, offset=1) == answer.json()[1:]


def test_role_names_in_key_values(store: Store) -> None:
    row = store.rows("studentSpecialEducationProgramAssociations")[0]
    store.delete("studentSpecialEducationProgramAssociations", row["id"])
    (tombstone,) = store.deletes("studentSpecialEducationProgramAssociations")
    assert tombstone["keyValues"]["programEducationOrganizationId"] == 255901
    assert tombstone["keyValues"]["educationOrganizationId"] == 255901


def test_a_tombstone_hides_while_its_key_lives_again_whatever_the_window(api: Api, store: Store) -> None:
    row = store.rows(EVENTS)[0]
    store.delete(EVENTS, row["id"])
    deleted_at = store.newest
    second = store.post(EVENTS, body(row))
    assert second != row["id"]
    assert api.rows(f"{EVENTS}/deletes", minChangeVersion=deleted_at, maxChangeVersion=deleted_at) == []
    store.delete(EVENTS, second)
    assert [d["id"] for d in api.rows(f"{EVENTS}/deletes")] == [row["id"], second]
    assert [d["id"] for d in store.tombstones(EVENTS)] == [row["id"], second]


def test_the_tombstone_of_a_recreated_descriptor_stays_visible(api: Api, store: Store) -> None:
    row = next(d for d in store.rows("weaponDescriptors") if d["codeValue"] == "Club")
    store.delete("weaponDescriptors", row["id"])
    store.post("weaponDescriptors", body(row))
    (tombstone,) = api.rows("weaponDescriptors/deletes")
    assert tombstone["keyValues"] == {"namespace": row["namespace"], "codeValue": "Club"}
    assert len(api.rows("weaponDescriptors", codeValue="Club")) == 1


def test_so_does_that_of_a_row_keyed_by_a_recreated_descriptor(api: Api, store: Store) -> None:
    descriptor = {"namespace": "uri://x.org/AttendanceEventCategoryDescriptor", "codeValue": "Odd"}
    uri = f"{descriptor['namespace']}#Odd"
    descriptor_id = store.post(
        "attendanceEventCategoryDescriptors", {**descriptor, "shortDescription": "Odd"}
    )
    record = body(store.rows(EVENTS)[0], attendanceEventCategoryDescriptor=uri)
    row_id = store.post(EVENTS, record)
    store.delete(EVENTS, row_id)
    store.delete("attendanceEventCategoryDescriptors", descriptor_id)
    store.post("attendanceEventCategoryDescriptors", {**descriptor, "shortDescription": "Odd"})
    store.post(EVENTS, record)
    assert [d["id"] for d in api.rows(f"{EVENTS}/deletes")] == [row_id]


def test_school_years_have_neither_deletes_nor_key_changes(api: Api, store: Store) -> None:
    assert [api.get(f"schoolYearTypes/{kind}").status_code for kind in ("deletes", "keyChanges")] == [
        404,
        404,
    ]
    before = store.newest
    unused = next(row for row in store.rows("schoolYearTypes") if row["schoolYear"] == 2013)
    store.delete("schoolYearTypes", unused["id"])
    assert store.newest == before


@pytest.mark.parametrize("kind", ["deletes", "keyChanges", "KEYCHANGES"])
def test_page_tokens_are_ignored_by_change_queries_and_bad_ones_refused(
    api: Api, store: Store, kind: str
) -> None:
    row = store.rows("locations")[0]
    store.put("locations", row["id"], body(row, classroomIdentificationCode="new"))
    store.delete(EVENTS, store.ids(EVENTS)[0])
    endpoint = EVENTS if kind == "deletes" else "locations"
    plain = api.get(f"{endpoint}/{kind}")
    with_token = api.get(f"{endpoint}/{kind}", pageToken="LTIxNDc0ODM2NDgsMjE0NzQ4MzY0Nw", pageSize=1)
    assert len(plain.json()) == 1
    assert with_token.json() == plain.json()
    assert "Next-Page-Token" not in plain.headers
    assert api.get(f"{endpoint}/{kind}", pageToken="junk!").status_code == 400


@pytest.mark.parametrize("kind", ["deletes", "keyChanges"])
def test_change_queries_have_their_own_error_texts(api: Api, kind: str) -> None:
    problem = api.get(f"students/{kind}", limit=-1, offset=-1).json()
    assert problem["detail"] == "Parameters supplied to the request were invalid."
    assert problem["errors"] == [
        "Limit must be omitted or set to a value between 1 and 500.",
        "Offset must be greater than or equal to 0.",
    ]
    assert api.get(f"students/{kind}", limit=501).status_code == 400


@pytest.mark.parametrize("kind", ["deletes", "keyChanges"])
def test_change_queries_of_an_unknown_collection_are_not_found(api: Api, kind: str) -> None:
    assert api.get(f"pupils/{kind}").json()["type"] == "urn:ed-fi:api:not-found"


def test_key_changes_collapse_within_the_request_window(api: Api, store: Store) -> None:
    row = store.get("locations", store.post("locations", room(store, "A0")))
    start = store.newest
    for code in ("A1", "A2", "A3"):
        store.put(
            "locations", row["id"], body(store.get("locations", row["id"]), classroomIdentificationCode=code)
        )
    (whole,) = api.rows("locations/keyChanges", minChangeVersion=start + 1)
    assert (whole["id"], whole["changeVersion"]) == (row["id"], start + 6)
    assert whole["oldKeyValues"]["classroomIdentificationCode"] == row["classroomIdentificationCode"]
    assert whole["newKeyValues"] == {
        "classroomIdentificationCode": "A3",
        "schoolId": row["schoolReference"]["schoolId"],
    }
    (part,) = api.rows("locations/keyChanges", minChangeVersion=start + 3, maxChangeVersion=start + 4)
    assert part["oldKeyValues"]["classroomIdentificationCode"] == "A1"
    assert part["newKeyValues"]["classroomIdentificationCode"] == "A2"
    assert changed_ids(api, "locations", start + 1) == [row["id"]]


def test_key_changes_are_ordered_by_their_last_change_and_counted_by_resource(api: Api, store: Store) -> None:
    first, second = store.rows("locations")[:2]
    for row, code in ((first, "B1"), (second, "B2"), (first, "B3")):
        store.put("locations", row["id"], body(row, classroomIdentificationCode=code))
    answer = api.get("locations/keyChanges", totalCount="true")
    assert [change["id"] for change in answer.json()] == [second["id"], first["id"]]
    assert answer.headers["Total-Count"] == "2"


def test_a_key_change_takes_two_numbers_and_keeps_id_and_place(store: Store) -> None:
    ids, before = store.ids("locations"), store.newest
    row = store.rows("locations")[0]
    store.put("locations", row["id"], body(row, classroomIdentificationCode="new"))
    sections = [
        s for s in store.rows("sections") if s["locationReference"]["classroomIdentificationCode"] == "new"
    ]
    assert version(store, "locations", row["id"]) == before + 1
    assert store.key_changes("locations")[0]["changeVersion"] == before + 2
    assert store.newest == before + 2 + len(sections)
    assert store.ids("locations") == ids


def test_a_key_that_cannot_change_is_refused(api: Api, store: Store) -> None:
    row = store.rows("students")[0]
    answer = api.put(f"students/{row['id']}", body(row, studentUniqueId="other"))
    assert answer.status_code == 400
    assert answer.json()["type"].endswith(":key-change-not-supported")
    assert api.rows("students/keyChanges") == []


def test_a_key_change_onto_a_taken_key_is_a_conflict(api: Api, store: Store) -> None:
    first, second = store.rows("locations")[:2]
    answer = api.put(f"locations/{first['id']}", body(second))
    assert (answer.status_code, answer.json()["type"]) == (
        409,
        "urn:ed-fi:api:data-conflict:non-unique-identity",
    )


def rename_fall_session(store: Store) -> dict[str, Any]:
    session = store.rows("sessions")[0]
    store.put("sessions", session["id"], body(session, sessionName="Renamed"))
    return session


def test_a_key_change_cascades_through_references_of_references(store: Store) -> None:
    before = store.newest
    session = rename_fall_session(store)
    school = session["schoolReference"]["schoolId"]
    for endpoint, reference in (
        ("courseOfferings", "sessionReference"),
        ("sections", "courseOfferingReference"),
        ("studentSectionAssociations", "sectionReference"),
        ("grades", "studentSectionAssociationReference"),
        (EVENTS, "sectionReference"),
    ):
        renamed = [row for row in store.rows(endpoint) if row[reference]["sessionName"] == "Renamed"]
        changes = {change["id"]: change for change in store.key_changes(endpoint)}
        assert renamed and {row["id"] for row in renamed} == set(changes), endpoint
        assert {row[reference]["schoolId"] for row in renamed} == {school}
        for row in renamed:
            assert version(store, endpoint, row["id"]) > before
            assert changes[row["id"]]["oldKeyValues"]["sessionName"] == session["sessionName"]
            assert changes[row["id"]]["newKeyValues"]["sessionName"] == "Renamed"
        left = [
            row for row in store.rows(endpoint) if row[reference]["sessionName"] == session["sessionName"]
        ]
        assert all(row[reference]["schoolId"] != school for row in left)


def test_references_inside_collections_follow_a_key_change(store: Store) -> None:
    period = store.rows("classPeriods")[0]
    store.put("classPeriods", period["id"], body(period, classPeriodName="Zeroth"))
    schedule = store.rows("bellSchedules")[0]
    names = [entry["classPeriodReference"]["classPeriodName"] for entry in schedule["classPeriods"]]
    assert names[0] == "Zeroth"
    assert schedule["classPeriods"][0]["classPeriodReference"]["link"]["href"].endswith(period["id"])
    assert store.key_changes("bellSchedules") == []


def test_cascaded_rows_stay_consistent_with_later_writes(api: Api, store: Store) -> None:
    rename_fall_session(store)
    grade = next(
        row
        for row in store.rows("grades")
        if row["studentSectionAssociationReference"]["sessionName"] == "Renamed"
    )
    assert api.put(f"grades/{grade['id']}", body(grade, numericGradeEarned=12.5)).status_code == 204
    place = grade["studentSectionAssociationReference"]["link"]["href"].rsplit("/", 1)[1]
    assert api.delete(f"studentSectionAssociations/{place}").status_code == 409
    assert api.delete(f"grades/{grade['id']}").status_code == 204


def test_before_7_3_cascades_change_bodies_and_keys_but_no_change_version(api: Api, store: Store) -> None:
    store.cascade_bumps = False
    before = store.newest
    rename_fall_session(store)
    renamed = [
        row for row in store.rows("sections") if row["courseOfferingReference"]["sessionName"] == "Renamed"
    ]
    assert renamed
    assert all(version(store, "sections", row["id"]) <= before for row in renamed)
    assert {change["id"] for change in store.key_changes("sections")} == {row["id"] for row in renamed}
    assert changed_ids(api, "sections", before + 1) == []
    assert len(changed_ids(api, "sessions", before + 1)) == 1


def test_a_tombstone_hides_while_its_key_lives_again_in_another_case(api: Api, store: Store) -> None:
    """SQL Server compares keys without case, so it takes them for one."""
    pattern = store.rows("courses")[0]
    old = store.post("courses", body(pattern, courseCode="COU-0000003x"))
    store.delete("courses", old)
    assert [row["id"] for row in store.deletes("courses")] == [old]
    new = store.post("courses", body(pattern, courseCode="cou-0000003X"))
    assert new != old
    assert store.deletes("courses") == []


@pytest.mark.parametrize(
    ("people", "association"),
    [
        ("students", "studentSchoolAssociations"),
        ("staffs", "staffSectionAssociations"),
        ("contacts", "studentContactAssociations"),
    ],
)
def test_a_unique_id_corrected_by_the_host_shows_wherever_the_person_is_referred_to(
    store: Store, people: str, association: str
) -> None:
    reference = f"{people.removesuffix('s')}Reference"
    name = f"{people.removesuffix('s')}UniqueId"
    referring = store.rows(association)[0]
    (person,) = [row for row in store.rows(people) if row[name] == referring[reference][name]]
    before = store.row(association, referring["id"])
    store.correct(people, person["id"], **{name: "corrected"})
    assert store.get(people, person["id"])[name] == "corrected"
    (change,) = store.key_changes(people)
    assert (change["id"], change["newKeyValues"]) == (person["id"], {name: "corrected"})
    assert store.get(association, referring["id"])[reference][name] == "corrected"
    after = store.row(association, referring["id"])
    assert before and after and before.change_version == after.change_version
    assert store.key_changes(association) == []
