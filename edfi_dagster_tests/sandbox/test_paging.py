from __future__ import annotations

import base64
import itertools
from typing import Any

import pytest

from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster.sandbox.paging import partition_starts
from edfi_dagster_tests.sandbox.api import Api, student

DETAIL = "The request construction was invalid."
TYPE = "urn:ed-fi:api:bad-request:parameter-validation-failed"
FIRST = -(2**31)
LAST = 2**31 - 1


def token(first: int, last: int | str = LAST) -> str:
    return base64.urlsafe_b64encode(f"{first},{last}".encode()).decode().rstrip("=")


def text(value: str) -> str:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()


def test_rows_come_in_insertion_order_whatever_is_updated(api: Api, store: Store) -> None:
    before = store.ids("students")
    first = store.rows("students")[0]
    new = store.post("students", student("000001"))
    store.put("students", first["id"], {**first, "firstName": "Changed"})
    assert [row["id"] for row in api.rows("students")] == [*before, new]


def test_limit_defaults_to_the_maximum_of_500(api: Api) -> None:
    assert len(api.rows("studentSectionAssociations")) == 500


def test_limit_zero_with_total_count_is_an_empty_array_and_the_count(api: Api, store: Store) -> None:
    answer = api.get("students", limit=0, totalCount="true")
    assert (answer.text, answer.headers["Total-Count"]) == ("[]", str(store.count("students")))
    assert "Next-Page-Token" not in answer.headers


def test_total_count_is_sent_only_when_asked_and_ignores_limit_and_offset(api: Api, store: Store) -> None:
    assert "Total-Count" not in api.get("students").headers
    assert "Total-Count" not in api.get("students", totalCount="false").headers
    answer = api.get("students", limit=3, offset=7, totalCount="true")
    assert answer.headers["Total-Count"] == str(store.count("students"))
    assert [row["id"] for row in answer.json()] == store.ids("students")[7:10]


def test_an_offset_behind_the_last_row_is_an_empty_array(api: Api) -> None:
    answer = api.get("students", offset=5_000)
    assert (answer.text, "Next-Page-Token" in answer.headers) == ("[]", False)


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"limit": 501}, "Limit must be a value between 0 and 500."),
        ({"limit": -1}, "Limit must be a value between 0 and 500."),
        ({"offset": -1}, "Offset cannot be a negative value."),
        (
            {"pageToken": token(FIRST), "offset": 0},
            "Both offset and pageToken parameters were provided, but they support alternative paging approaches and"
            " cannot be used together.",
        ),
        (
            {"pageToken": token(FIRST), "limit": 5},
            "Use pageSize instead of limit when using cursor paging with pageToken.",
        ),
        ({"pageSize": 5}, "PageToken is required when pageSize is specified."),
        ({"pageSize": 5, "offset": 0}, "Use limit instead of pageSize when using limit/offset paging."),
        ({"pageToken": token(FIRST), "pageSize": 501}, "PageSize must be a value between 0 and 500."),
        (
            {"pageToken": token(FIRST), "totalCount": "true"},
            "Total count cannot be determined while using cursor paging (when pageToken is specified).",
        ),
        ({"pageToken": "%%%"}, "The page token provided was invalid."),
        ({"pageToken": "YWJj"}, "The page token provided was invalid."),
        ({"limit": "many"}, "The value 'many' is not valid for Limit."),
    ],
)
def test_refused_parameters(api: Api, parameters: dict[str, Any], error: str) -> None:
    answer = api.get("students", **parameters)
    problem = answer.json()
    assert (answer.status_code, problem["type"], problem["detail"]) == (400, TYPE, DETAIL)
    assert problem["errors"] == [error]
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    "parameters",
    [
        {"pageToken": token(FIRST), "pageSize": 4, "limit": 9},
        {"pageSize": 9, "limit": 4},
        {"PAGETOKEN": token(FIRST, ""), "PageSize": 4},
        {"Limit": 4, "unknownParameter": "x"},
    ],
)
def test_tolerated_combinations(api: Api, parameters: dict[str, Any]) -> None:
    assert len(api.rows("students", **parameters)) == 4


def test_cursor_walk_ends_with_an_empty_page_without_token(api: Api, store: Store) -> None:
    answer = api.get("students", limit=50)
    sizes, ids = [len(answer.json())], [row["id"] for row in answer.json()]
    while (following := answer.headers.get("Next-Page-Token")) is not None:
        answer = api.get("students", pageToken=following, pageSize=50)
        sizes.append(len(answer.json()))
        ids += [row["id"] for row in answer.json()]
    assert sizes == [50, 50, 20, 0]
    assert ids == store.ids("students")


def test_every_page_with_rows_carries_a_token_of_inclusive_aggregate_ids(api: Api) -> None:
    first = api.get("students", limit=50).headers["Next-Page-Token"]
    assert text(first) == f"{FIRST + 50},{LAST}"
    bounded = api.get("students", pageToken=token(FIRST + 3, FIRST + 12), pageSize=5).headers[
        "Next-Page-Token"
    ]
    assert text(bounded) == f"{FIRST + 8},{FIRST + 12}"
    last = api.get("students", pageToken=bounded, pageSize=50)
    assert (len(last.json()), text(last.headers["Next-Page-Token"])) == (5, f"{FIRST + 13},{FIRST + 12}")


def test_an_offset_page_can_be_continued_by_its_token(api: Api, store: Store) -> None:
    page = api.get("students", limit=10, offset=30)
    rest = api.rows("students", pageToken=page.headers["Next-Page-Token"])
    assert [row["id"] for row in rest] == store.ids("students")[40:]


def test_page_size_defaults_to_the_maximum(api: Api) -> None:
    assert len(api.rows("studentSectionAssociations", pageToken=token(FIRST))) == 500


def test_filters_and_windows_narrow_a_cursor_walk_and_must_be_repeated(api: Api, store: Store) -> None:
    row = store.row("students", store.ids("students")[0])
    assert row is not None
    version = row.change_version
    page = api.get("students", minChangeVersion=version + 5, maxChangeVersion=version + 9, limit=2)
    narrowed = {"minChangeVersion": version + 5, "maxChangeVersion": version + 9}
    rest = api.rows("students", pageToken=page.headers["Next-Page-Token"], **narrowed)
    assert [row["id"] for row in [*page.json(), *rest]] == store.ids("students")[5:10]
    assert len(api.rows("students", pageToken=page.headers["Next-Page-Token"])) == store.count("students") - 7


def test_deleting_a_row_shifts_offset_pages_but_not_a_cursor_walk(
    server: SandboxServer, api: Api, store: Store
) -> None:
    for number in range(6):
        store.post("crisisEvents", {"crisisEventName": f"C{number}", "crisisTypeDescriptor": crisis(store)})
    page = api.get("crisisEvents", limit=2)
    store.delete("crisisEvents", page.json()[0]["id"])
    by_offset = api.rows("crisisEvents", limit=2, offset=2)
    by_cursor = api.rows("crisisEvents", pageToken=page.headers["Next-Page-Token"], pageSize=2)
    assert [row["crisisEventName"] for row in by_offset] == ["C3", "C4"]
    assert [row["crisisEventName"] for row in by_cursor] == ["C2", "C3"]


def crisis(store: Store) -> str:
    row = store.rows("crisisTypeDescriptors")[0]
    return f"{row['namespace']}#{row['codeValue']}"


def test_partitions_have_a_floor_of_five_pages(api: Api) -> None:
    tokens = api.get("students/partitions", number=5).json()["pageTokens"]
    assert [text(t) for t in tokens] == [f"{FIRST},{LAST}"]
    assert api.get("crisisEvents/partitions").json() == {"pageTokens": []}


def test_small_partitions_cover_every_row_once(api: Api, store: Store) -> None:
    tokens = api.get("students/partitions", number=7, allowSmallPartitions="true").json()["pageTokens"]
    assert len(tokens) == 7
    walked = [row["id"] for t in tokens for row in api.rows("students", pageToken=t)]
    assert walked == store.ids("students")
    bounds = [text(t).split(",") for t in tokens]
    assert all(int(end) + 1 == int(start) for (_, end), (start, _) in itertools.pairwise(bounds))
    assert bounds[-1][1] == str(LAST)


def test_partitions_respect_windows(api: Api, store: Store) -> None:
    row = store.row("students", store.ids("students")[100])
    assert row is not None
    tokens = api.get("students/partitions", minChangeVersion=row.change_version, number=1).json()[
        "pageTokens"
    ]
    assert text(tokens[0]) == f"{FIRST + 100},{LAST}"


@pytest.mark.parametrize("number", [0, 201, -1])
def test_partition_numbers_out_of_range(api: Api, number: int) -> None:
    problem = api.get("students/partitions", number=number).json()
    assert problem["errors"] == ["Number of partitions must be between 1 and 200."]


@pytest.mark.parametrize(
    ("rows", "number", "sizes"), [(10_000, 3, 3), (2_500, 10, 1), (2_501, 10, 2), (11, 10, 1)]
)
def test_partition_starts(rows: int, number: int, sizes: int) -> None:
    assert len(partition_starts(range(rows), number, 500, small=False)) == sizes


def test_school_years_have_partitions(api: Api) -> None:
    assert len(api.get("schoolYearTypes/partitions").json()["pageTokens"]) == 1


def test_paths_and_parameter_names_match_in_any_casing(api: Api, store: Store) -> None:
    answer = api.get("/data/v3/Ed-Fi/Students", LIMIT=1, totalcount="TRUE")
    assert answer.headers["Total-Count"] == str(store.count("students"))
    assert len(answer.json()) == 1


def test_the_page_limit_is_the_hosts_choice() -> None:
    with SandboxServer(["grand_bend/2025"], max_page=75) as server:
        api = Api(server, "grand_bend/2025")
        assert len(api.rows("students")) == 75
        assert api.get("students", limit=76).json()["errors"] == ["Limit must be a value between 0 and 75."]
        api.session.close()
