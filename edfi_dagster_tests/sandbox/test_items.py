from __future__ import annotations

import json
import re

import pytest

from edfi_dagster.sandbox import Store
from edfi_dagster.sandbox.documents import etag, timestamp
from edfi_dagster_tests.sandbox.api import Api, student


def test_a_page_is_indented_json_with_a_root_array(api: Api, store: Store) -> None:
    answer = api.get("schoolYearTypes", limit=2)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.text == json.dumps(answer.json(), indent=2)
    assert api.get("students").text == json.dumps(store.rows("students"), indent=2, ensure_ascii=False)


def test_bodies_are_never_compressed(api: Api) -> None:
    assert "Content-Encoding" not in api.get("students", headers={"Accept-Encoding": "gzip"}).headers


def test_id_comes_first_and_the_server_properties_last(api: Api) -> None:
    row = api.rows("students", limit=1)[0]
    assert list(row)[:2] == ["id", "studentUniqueId"]
    assert list(row)[-2:] == ["_etag", "_lastModifiedDate"]
    assert re.fullmatch("[0-9a-f]{32}", row["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z", row["_lastModifiedDate"])


def test_the_etag_is_the_binary_form_of_the_last_modified_date() -> None:
    ticks = 638_407_086_805_566_791
    assert etag(ticks) == "5250093105232954695"
    assert timestamp(ticks) == "2024-01-13T02:11:20.5566791Z"


def test_nulls_are_omitted_and_empty_collections_present(api: Api) -> None:
    row_id = api.post("students", student("000001", middleName=None)).headers["Location"].rsplit("/", 1)[1]
    row = api.get(f"students/{row_id}").json()
    assert "middleName" not in row
    assert (row["otherNames"], row["visas"]) == ([], [])


def test_references_carry_links_to_the_concrete_type(api: Api, store: Store) -> None:
    enrollment = api.rows("studentSchoolAssociations", limit=1)[0]
    school = next(
        s for s in store.rows("schools") if s["schoolId"] == enrollment["schoolReference"]["schoolId"]
    )
    assert enrollment["schoolReference"]["link"] == {
        "rel": "School",
        "href": f"/ed-fi/schools/{school['id']}",
    }
    course = api.rows("courses", limit=1)[0]
    agency = store.rows("localEducationAgencies")[0]["id"]
    assert course["educationOrganizationReference"] == {
        "educationOrganizationId": 255901,
        "link": {"rel": "LocalEducationAgency", "href": f"/ed-fi/localEducationAgencies/{agency}"},
    }


def test_references_inside_collections_carry_links_too(api: Api, store: Store) -> None:
    period = api.rows("sections", limit=1)[0]["classPeriods"][0]["classPeriodReference"]
    assert period["link"]["rel"] == "ClassPeriod"
    assert store.get("classPeriods", period["link"]["href"].rsplit("/", 1)[1])["classPeriodName"]


def test_get_by_id_answers_the_item_with_its_etag(api: Api, store: Store) -> None:
    row = store.rows("students")[3]
    answer = api.get(f"students/{row['id']}")
    assert answer.json() == row
    assert answer.text == json.dumps(row, indent=2)
    assert answer.headers["ETag"] == f'"{row["_etag"]}"'


def test_get_by_id_accepts_dashed_ids_and_knows_304(api: Api, store: Store) -> None:
    row = store.rows("students")[3]
    i = row["id"].upper()
    dashed = f"{i[:8]}-{i[8:12]}-{i[12:16]}-{i[16:20]}-{i[20:]}"
    assert api.get(f"students/{dashed}").json() == row
    unchanged = api.get(f"students/{dashed}", headers={"If-None-Match": f'"{row["_etag"]}"'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("students/" + "0" * 32, 404),
        ("students/not-an-id", 400),
        ("pupils", 404),
        ("/data/v3/sample/students", 404),
        ("/data/v3/tpdm/students", 404),
        ("/data/v3/2025/ed-fi/students", 404),
        ("students/" + "0" * 32 + "/more", 404),
    ],
)
def test_what_is_not_there(api: Api, path: str, status: int) -> None:
    assert api.get(path).status_code == status


def test_an_id_of_another_resource_is_not_found(api: Api, store: Store) -> None:
    assert api.get(f"students/{store.ids('staffs')[0]}").status_code == 404


def test_descriptor_items_have_namespace_and_code(api: Api) -> None:
    row = api.rows("gradeLevelDescriptors", limit=1)[0]
    assert row["namespace"] == "uri://ed-fi.org/GradeLevelDescriptor"
    assert set(row) == {
        "id", "codeValue", "namespace", "shortDescription", "description", "_etag", "_lastModifiedDate"
    }  # fmt: skip


def test_the_caller_may_name_the_correlation_id(api: Api) -> None:
    by_header = api.get("pupils", headers={"correlation-id": "from-header"}, correlationId="from-query")
    by_query = api.get("pupils", correlationId="from-query")
    assert (by_header.json()["correlationId"], by_query.json()["correlationId"]) == (
        "from-header",
        "from-query",
    )
    assert len(api.get("pupils").json()["correlationId"]) == 36
