"""What a client sees of each version: limits, order, casing, error bodies, change queries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from edfi_dagster.sandbox import RequestInfo
from edfi_dagster.sandbox.generations import GENERATIONS
from edfi_dagster_tests.sandbox.api import VersionApi, body, student

Make = Callable[[str], VersionApi]
ALL = tuple(GENERATIONS)
WITH_CHANGES = tuple(version for version in ALL if version != "2")
BEFORE_CURSORS = tuple(version for version in WITH_CHANGES if version != "7.3")
EVENTS = "studentSectionAttendanceEvents"


@pytest.mark.parametrize(("version", "rows"), [("2", 25), ("5.3", 25), ("6.1", 60), ("7.1", 60), ("7.3", 60)])
def test_the_limit_that_is_not_asked_for(api_of: Make, version: str, rows: int) -> None:
    assert len(api_of(version).rows("students")) == rows


CONFIGURED = (
    "Limit must be omitted or set to a value between 1 and max value defined in configuration file"
    " (defaultPageSizeLimit)."
)


@pytest.mark.parametrize("version", ["5.3", "6.1", "7.0", "7.1"])
def test_a_limit_out_of_range_is_told_as_a_message(api_of: Make, version: str) -> None:
    api = api_of(version)
    refused = api.get("students", limit=501)
    assert (refused.status_code, refused.json()["message"]) == (400, CONFIGURED)
    assert ("correlationId" in refused.json()) == version.startswith("7")
    assert api.rows("students", limit=0) == []


@pytest.mark.parametrize("version", ["7.2", "7.3"])
def test_a_limit_out_of_range_is_a_problem_since_7_2(api_of: Make, version: str) -> None:
    problem = api_of(version).get("students", limit=501).json()
    assert problem["type"] == "urn:ed-fi:api:bad-request:parameter-validation-failed"
    assert problem["errors"] == ["Limit must be a value between 0 and 500."]


@pytest.mark.parametrize("version", BEFORE_CURSORS)
def test_negative_offsets_are_not_checked_before_7_3(api_of: Make, version: str) -> None:
    api = api_of(version)
    assert api.rows("students", offset=-5, limit=3) == api.rows("students", limit=3)


@pytest.mark.parametrize("version", ALL)
def test_offset_pages_cover_the_collection_in_one_fixed_order(api_of: Make, version: str) -> None:
    api = api_of(version)
    paged = [row for offset in range(0, 80, 20) for row in api.rows("students", limit=20, offset=offset)]
    assert paged == api.store.rows("students")
    assert len(paged) == 60


@pytest.mark.parametrize("version", ALL)
def test_only_7_3_appends_new_rows_at_the_end(api_of: Make, version: str) -> None:
    """Before, rows stand in key order: a new one lands amidst the others, and a page that was read shifts."""
    api = api_of(version)
    before = api.store.ids("students")
    new = [api.store.post("students", student(f"00000{number}")) for number in range(8)]
    after = api.store.ids("students")
    assert [row_id for row_id in after if row_id not in new] == before
    assert (after == [*before, *new]) == (version == "7.3")


@pytest.mark.parametrize("version", WITH_CHANGES)
def test_windows_count_and_page_alike_in_every_version(api_of: Make, version: str) -> None:
    api = api_of(version)
    start = api.newest
    for row in api.store.rows("students")[:6]:
        api.store.put("students", row["id"], body(row, firstName="Changed"))
    window: dict[str, Any] = {"minChangeVersion": start + 2, "maxChangeVersion": start + 5}
    counted = api.get("students", limit=0, totalCount="true", **window)
    assert (counted.json(), counted.headers["Total-Count"]) == ([], "4")
    found = [row for offset in (0, 2) for row in api.rows("students", limit=2, offset=offset, **window)]
    assert {row["firstName"] for row in found} == {"Changed"}
    assert len({row["id"] for row in found}) == 4


@pytest.mark.parametrize("version", BEFORE_CURSORS)
def test_before_7_3_tokens_are_unknown_parameters_and_partitions_no_route(api_of: Make, version: str) -> None:
    api = api_of(version)
    answer = api.get("students", pageToken="junk!", pageSize=1, limit=7)
    assert (answer.status_code, len(answer.json())) == (200, 7)
    assert "Next-Page-Token" not in answer.headers
    assert api.get("students/partitions").status_code == 404


@pytest.mark.parametrize("version", ALL)
def test_only_items_since_7_0_have_a_modified_date(api_of: Make, version: str) -> None:
    row = api_of(version).rows("students", limit=1)[0]
    assert ("_lastModifiedDate" in row) == version.startswith("7")
    assert next(iter(row)) == "id" and "_etag" in row


@pytest.mark.parametrize("version", WITH_CHANGES)
def test_casing_of_available_change_versions(api_of: Make, version: str) -> None:
    api = api_of(version)
    answer = api.session.get(f"{api.changes}/availableChangeVersions", timeout=10).json()
    expected = ["OldestChangeVersion", "NewestChangeVersion"]
    if version != "5.3":
        expected = ["oldestChangeVersion", "newestChangeVersion"]
    assert answer == dict(zip(expected, (0, api.store.newest), strict=True))


def test_deletes_of_5_x_have_neither_keys_nor_counts_and_hide_nothing(api_of: Make) -> None:
    api = api_of("5.3")
    before = api.newest
    rows = api.store.rows(EVENTS)[:30]
    for row in rows:
        api.store.delete(EVENTS, row["id"])
    api.store.post(EVENTS, body(rows[0]))
    answer = api.get(f"{EVENTS}/deletes", totalCount="true")
    assert answer.json()[0] == {"Id": rows[0]["id"], "ChangeVersion": before + 1}
    assert (len(answer.json()), "Total-Count" in answer.headers) == (25, False)
    assert len(api.rows(f"{EVENTS}/deletes", limit=100_000, offset=-1)) == 30
    assert len(api.rows(f"{EVENTS}/deletes", offset=25, minChangeVersion=before + 3)) == 3


@pytest.mark.parametrize("version", WITH_CHANGES[1:])
def test_deletes_since_6_0_have_keys_and_hide_what_lives_again(api_of: Make, version: str) -> None:
    api = api_of(version)
    first, second = api.store.rows(EVENTS)[:2]
    for row in (first, second):
        api.store.delete(EVENTS, row["id"])
    api.store.post(EVENTS, body(first))
    answer = api.get(f"{EVENTS}/deletes", totalCount="true")
    assert ([row["id"] for row in answer.json()], answer.headers["Total-Count"]) == ([second["id"]], "1")
    assert answer.json()[0]["keyValues"]["studentUniqueId"] == second["studentReference"]["studentUniqueId"]
    assert api.get(f"{EVENTS}/deletes", limit=501).status_code == 400


@pytest.mark.parametrize("version", ALL)
def test_key_changes_exist_since_6_0_and_cascades_bump_since_7_3(api_of: Make, version: str) -> None:
    api = api_of(version)
    start = api.store.newest
    room = api.store.rows("locations")[0]
    api.store.put("locations", room["id"], body(room, classroomIdentificationCode="moved"))
    moved = [
        row
        for row in api.store.rows("sections")
        if row["locationReference"]["classroomIdentificationCode"] == "moved"
    ]
    assert moved
    if version == "2":
        assert api.get("locations/keyChanges").status_code == 404
        return
    answer = api.get("locations/keyChanges")
    assert answer.status_code == (404 if version == "5.3" else 200)
    if version != "5.3":
        assert answer.json()[0]["newKeyValues"]["classroomIdentificationCode"] == "moved"
    bumped = api.rows("sections", minChangeVersion=start + 1)
    assert len(bumped) == (len(moved) if version == "7.3" else 0)
    assert len(api.rows("locations", minChangeVersion=start + 1)) == 1
    assert api.store.newest == start + {"5.3": 1, "7.3": 2 + len(moved)}.get(version, 2)


@pytest.mark.parametrize("version", ALL)
def test_a_fixed_key_is_ignored_before_7_0_and_refused_since(api_of: Make, version: str) -> None:
    api = api_of(version)
    row = api.store.rows("students")[0]
    sent = body(row, studentUniqueId="other", firstName="Sent")
    answer = api.put(f"students/{row['id']}", sent)
    now = api.store.get("students", row["id"])
    if version.startswith("7"):
        assert (answer.status_code, now) == (400, row)
    else:
        assert answer.status_code == 204
        assert (now["studentUniqueId"], now["firstName"]) == (row["studentUniqueId"], "Sent")


@pytest.mark.parametrize("version", ALL)
def test_an_unauthenticated_call_has_a_body_only_since_7_2(api_of: Make, version: str) -> None:
    api = api_of(version)
    answer = requests.get(api.url("students"), timeout=10)
    assert (answer.status_code, answer.content) == (401, b"")


@pytest.mark.parametrize("version", ALL)
def test_error_bodies_of_each_generation(api_of: Make, version: str) -> None:
    api = api_of(version)
    lost = api.get(f"students/{'0' * 32}")
    wrong = api.get("students/nonsense").json()
    if version in ("7.2", "7.3"):
        assert lost.json()["type"] == "urn:ed-fi:api:not-found"
        assert wrong["validationErrors"] == {"$.id": ["The value 'nonsense' is not valid."]}
    else:
        assert set(lost.json()) - {"correlationId"} == {"message"}
        assert wrong["modelState"] == {"request.id": ["The value 'nonsense' is not valid."]}
    assert lost.status_code == 404
    api.server.store("grand_bend/2025").deny("staffs")
    denied = api.get("staffs")
    api.server.store("grand_bend/2025").allow("staffs")
    assert denied.status_code == 403
    assert "detail" in denied.json() if version in ("7.2", "7.3") else "message" in denied.json()


@pytest.mark.parametrize("version", ALL)
def test_a_path_that_leads_nowhere_is_empty_before_7_2(api_of: Make, version: str) -> None:
    answer = api_of(version).get("pupils")
    assert answer.status_code == 404
    assert bool(answer.content) == (version in ("7.2", "7.3"))


@pytest.mark.parametrize("version", ALL)
def test_a_row_deleted_between_the_two_reads_of_a_page_is_missing_from_it(api_of: Make, version: str) -> None:
    api = api_of(version)
    endpoint = "studentSchoolAttendanceEvents"
    ids = api.store.ids(endpoint)

    def delete(info: RequestInfo) -> None:
        api.server.between_reads.clear()
        api.store.delete(endpoint, ids[4])

    api.server.between_reads.append(delete)
    page = [row["id"] for row in api.rows(endpoint, limit=10)]
    assert page == [*ids[:4], *ids[5:10]]
    assert [row["id"] for row in api.rows(endpoint, limit=10)] == [*ids[:4], *ids[5:11]]
