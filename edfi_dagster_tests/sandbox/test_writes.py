from __future__ import annotations

from typing import Any

import pytest

from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.sandbox.api import Api, body, student

PREFIX = "urn:ed-fi:api:"


def test_post_creates_and_answers_location_and_etag_without_a_body(api: Api, server: SandboxServer) -> None:
    answer = api.post("students", student("000001"))
    assert (answer.status_code, answer.content) == (201, b"")
    created = api.session.get(answer.headers["Location"], timeout=10).json()
    assert (
        answer.headers["Location"] == f"{server.url}/grand_bend/2025/data/v3/ed-fi/students/{created['id']}"
    )
    assert answer.headers["ETag"] == f'"{created["_etag"]}"'
    assert created["firstName"] == "Noor"


def test_post_of_an_existing_key_updates_the_row(api: Api, store: Store) -> None:
    row = store.rows("students")[0]
    before = api.newest
    answer = api.post("students", body(row, firstName="Changed"))
    assert (answer.status_code, answer.headers["Location"].rsplit("/", 1)[1]) == (200, row["id"])
    assert store.get("students", row["id"])["firstName"] == "Changed"
    assert store.get("students", row["id"])["_etag"] != row["_etag"]
    assert api.newest == before + 1


@pytest.mark.parametrize("how", ["post", "put"])
def test_writing_what_is_there_already_changes_nothing(api: Api, store: Store, how: str) -> None:
    row = store.rows("studentSchoolAssociations")[0]
    before = api.newest
    if how == "post":
        assert api.post("studentSchoolAssociations", body(row)).status_code == 200
    else:
        assert api.put(f"studentSchoolAssociations/{row['id']}", row).status_code == 204
    assert store.get("studentSchoolAssociations", row["id"]) == row
    assert api.newest == before


def test_put_replaces_and_answers_204(api: Api, store: Store) -> None:
    row = store.rows("students")[0]
    answer = api.put(f"students/{row['id']}", student(row["studentUniqueId"]))
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Location"].endswith(f"/data/v3/ed-fi/students/{row['id']}")
    after = store.get("students", row["id"])
    assert (after["firstName"], "birthSexDescriptor" in after) == ("Noor", False)


def test_unknown_properties_are_dropped_from_requests(api: Api, store: Store) -> None:
    api.post("students", student("000001", favouriteColour="teal", _ext={"Sample": {"pets": []}}))
    row = store.rows("students")[-1]
    assert "favouriteColour" not in row
    assert row["_ext"] == {"Sample": {"pets": []}}


def test_values_are_read_as_leniently_as_the_ods_reads_them(api: Api, store: Store) -> None:
    school = store.rows("schools")[0]["schoolId"]
    record = {
        "classroomIdentificationCode": 999,
        "schoolReference": {"schoolId": str(school)},
        "maximumNumberOfSeats": "12",
    }
    assert api.post("locations", record).status_code == 201
    row = store.rows("locations")[-1]
    assert (row["classroomIdentificationCode"], row["maximumNumberOfSeats"]) == ("999", 12)
    assert row["schoolReference"]["schoolId"] == school


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("PUT", "students/" + "0" * 32, 404, "not-found"),
        ("DELETE", "students/" + "0" * 32, 404, "not-found"),
        ("DELETE", "students/junk", 400, "bad-request:data-validation-failed"),
        ("POST", "students/" + "0" * 32, 405, "method-not-allowed"),
        ("PUT", "students", 405, "method-not-allowed"),
        ("DELETE", "students", 405, "method-not-allowed"),
        ("PATCH", "students", 405, "method-not-allowed"),
        ("POST", "students/deletes", 405, "method-not-allowed"),
    ],
)
def test_refused_methods_and_ids(api: Api, method: str, path: str, status: int, kind: str) -> None:
    answer = api.session.request(method, api.url(path), json=student("000001"), timeout=10)
    assert (answer.status_code, answer.json()["type"]) == (status, PREFIX + kind)


def test_not_found_texts_say_what_was_tried(api: Api) -> None:
    path = "students/" + "0" * 32
    assert api.put(path, student("000001")).json()["detail"] == "Resource to update was not found."
    assert api.delete(path).json()["detail"] == "Resource to delete was not found."


@pytest.mark.parametrize(
    ("record", "errors"),
    [
        ({"studentUniqueId": "000001"}, {"$.firstName", "$.lastSurname", "$.birthDate"}),
        (student("000001", birthDate="yesterday"), {"$.birthDate"}),
        (
            student("000001", birthSexDescriptor="uri://ed-fi.org/SexDescriptor#Other"),
            {"$.birthSexDescriptor"},
        ),
        (student("000001", otherNames="none"), {"$.otherNames"}),
        (student("000001", multipleBirthStatus="perhaps"), {"$.multipleBirthStatus"}),
        (
            student("000001", visas=[{"visaDescriptor": "uri://ed-fi.org/VisaDescriptor#Moon"}]),
            {"$.visas[0].visaDescriptor"},
        ),
    ],
)
def test_invalid_data_names_the_json_path(api: Api, record: dict[str, Any], errors: set[str]) -> None:
    answer = api.post("students", record)
    assert (answer.status_code, answer.json()["type"]) == (400, f"{PREFIX}bad-request:data-validation-failed")
    assert set(answer.json()["validationErrors"]) == errors


def test_a_body_with_an_id_cannot_be_posted(api: Api) -> None:
    assert api.post("students", student("000001", id="0" * 32)).status_code == 400


@pytest.mark.parametrize("sent", ["{not json", "[]", '"text"'])
def test_a_body_that_is_no_json_object_is_refused(api: Api, sent: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = api.session.post(api.url("students"), data=sent, headers=headers, timeout=10)
    assert answer.status_code == 400


def test_another_content_type_is_unsupported(api: Api) -> None:
    answer = api.session.post(
        api.url("students"), data="a=b", headers={"Content-Type": "text/csv"}, timeout=10
    )
    assert answer.status_code == 415
    profile = {"Content-Type": "application/vnd.ed-fi.student.some-profile.writable+json"}
    sent = '{"studentUniqueId":"1","firstName":"A","lastSurname":"B","birthDate":"2010-01-01"}'
    assert api.session.post(api.url("students"), data=sent, headers=profile, timeout=10).status_code == 201


def test_an_unresolved_reference_is_a_conflict(api: Api, store: Store) -> None:
    row = store.rows("studentSchoolAssociations")[0]
    answer = api.post("studentSchoolAssociations", body(row, schoolReference={"schoolId": 1}))
    assert (answer.status_code, answer.json()["type"]) == (409, f"{PREFIX}data-conflict:unresolved-reference")
    assert answer.json()["detail"] == "The referenced 'School' resource does not exist."


def test_a_reference_must_meet_the_right_kind_of_organization(api: Api, store: Store) -> None:
    row = store.rows("studentSchoolAssociations")[0]
    assert (
        api.post("studentSchoolAssociations", body(row, schoolReference={"schoolId": 255901})).status_code
        == 409
    )


def test_organization_ids_are_unique_over_all_kinds(api: Api, store: Store) -> None:
    school = store.rows("schools")[0]
    answer = api.post("schools", body(school, schoolId=255901))
    assert (answer.status_code, answer.json()["type"]) == (409, f"{PREFIX}data-conflict:non-unique-identity")


def test_a_referenced_row_cannot_be_deleted(api: Api, store: Store) -> None:
    row = store.rows("students")[0]
    answer = api.delete(f"students/{row['id']}")
    assert (answer.status_code, answer.json()["type"]) == (
        409,
        f"{PREFIX}data-conflict:dependent-item-exists",
    )
    assert store.get("students", row["id"]) == row


def test_a_used_descriptor_cannot_be_deleted(api: Api, store: Store) -> None:
    used = next(d for d in store.rows("sexDescriptors") if d["codeValue"] == "Female")
    unused = next(d for d in store.rows("weaponDescriptors") if d["codeValue"] == "Club")
    assert api.delete(f"sexDescriptors/{used['id']}").status_code == 409
    assert api.delete(f"weaponDescriptors/{unused['id']}").status_code == 204


def test_delete_answers_204_once(api: Api, store: Store) -> None:
    row_id = store.ids("studentSectionAttendanceEvents")[0]
    path = f"studentSectionAttendanceEvents/{row_id}"
    assert [api.delete(path).status_code, api.delete(path).status_code] == [204, 404]
    assert api.get(path).status_code == 404


@pytest.mark.parametrize("quoted", [True, False])
def test_if_match_guards_put_and_delete(api: Api, store: Store, quoted: bool) -> None:
    row = store.rows("studentSectionAttendanceEvents")[0]
    path, stale, fresh = f"studentSectionAttendanceEvents/{row['id']}", "1", row["_etag"]
    if quoted:
        stale, fresh = f'"{stale}"', f'"{fresh}"'
    refused = api.put(path, row, **{"If-Match": stale})
    assert (refused.status_code, refused.json()["type"]) == (412, f"{PREFIX}optimistic-lock-failed")
    assert api.delete(path, **{"If-Match": stale}).status_code == 412
    assert api.put(path, row, **{"If-Match": fresh}).status_code == 204
    assert api.delete(path, **{"If-Match": fresh}).status_code == 204


def test_a_recreated_row_gets_a_new_id_and_aggregate_id(api: Api, store: Store) -> None:
    row = store.rows("studentSectionAttendanceEvents")[0]
    store.delete("studentSectionAttendanceEvents", row["id"])
    new_id = store.post("studentSectionAttendanceEvents", body(row))
    assert new_id != row["id"]
    assert store.ids("studentSectionAttendanceEvents")[-1] == new_id


def test_the_store_keeps_unknown_properties_for_tests_of_schema_drift(api: Api, store: Store) -> None:
    store.post("students", student("000001", newProperty={"since": 2026}))
    assert api.rows("students", studentUniqueId="000001")[0]["newProperty"] == {"since": 2026}
