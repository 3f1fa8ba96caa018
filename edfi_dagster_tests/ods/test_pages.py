from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from edfi_dagster.ods.changes import EVERYTHING, ChangeWindow, closing_window, delta_window, whole_window
from edfi_dagster.ods.errors import RequestRefused, UnusableBody
from edfi_dagster.ods.pagers import follow, record_walks
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, Absence, Collection, Page
from edfi_dagster.ods.rows import Lines
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.ods.platforms import endpoint, rows_of, session_at
from edfi_dagster_tests.ods.stand_in import DISCOVERY, Asked, Reply, StandIn

STUDENTS = "/data/v3/ed-fi/students"
MANY = "studentSectionAssociations"


def collection(session: OdsSession, name: str, **options: Any) -> Collection:
    return Collection(session, endpoint(name), **({"page_size": 50} | options))


def walk(pages: Collection, window: ChangeWindow) -> list[str]:
    first = pages.first_page(window)
    return first.ids + [i for page in follow(pages, window, first.next_token) for i in page.ids]


def paged(*replies: Reply) -> StandIn:
    """An ODS whose students come in these pages: the first without token, the n-th for the token ``n``."""

    def answer(asked: Asked) -> Reply | None:
        return replies[int(asked.query.get("pageToken") or 0)] if asked.path == STUDENTS else None

    return StandIn(answer)


def page(*ids: str, token: str | None = None, total: int | None = 9) -> Reply:
    headers = {} if token is None else {"Next-Page-Token": token}
    headers |= {} if total is None else {"Total-Count": str(total)}
    return Reply([{"id": record_id} for record_id in ids], headers=headers)


# -- windows -------------------------------------------------------------------------------------------------


def test_windows_are_inclusive_and_reach_back_behind_what_is_committed() -> None:
    assert delta_window(20_000, 30_000, 10_000) == ChangeWindow(10_001, 30_000)
    assert delta_window(20_000, 30_000, 0) == ChangeWindow(20_001, 30_000)
    assert delta_window(20_000, 20_000, 0) == ChangeWindow(20_001, 20_000)
    assert delta_window(5, 30_000, 10_000) == ChangeWindow(0, 30_000)
    assert whole_window(7) == ChangeWindow(0, 7)
    assert closing_window(7) == ChangeWindow(8, None)
    assert EVERYTHING.params == {}
    assert ChangeWindow(0, 7).params == {"minChangeVersion": "0", "maxChangeVersion": "7"}
    assert ChangeWindow(8).params == {"minChangeVersion": "8"}


# -- cursor --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 7, 40, 50])
def test_a_cursor_walk_gives_every_record_once_in_the_order_of_the_ods(
    store: Store, session: OdsSession, page_size: int
) -> None:
    assert walk(collection(session, "sections", page_size=page_size), EVERYTHING) == store.ids("sections")


def test_filters_and_window_are_repeated_and_the_first_request_has_no_page_size(
    server: SandboxServer, store: Store, session: OdsSession
) -> None:
    wanted = [
        row["id"]
        for row in store.rows("students")
        if row["lastSurname"] == store.rows("students")[0]["lastSurname"]
    ]
    name = store.rows("students")[0]["lastSurname"]
    pages = collection(session, "students", page_size=2, filters={"lastSurname": name})
    window = ChangeWindow(0, store.newest)
    assert walk(pages, window) == wanted
    first, *later = [dict(request.query) for request in server.requests.matching("/students")]
    same = {"lastSurname": name, "minChangeVersion": "0", "maxChangeVersion": str(store.newest)}
    assert first == same | {"limit": "2", "totalCount": "true"}
    assert len(later) == (len(wanted) + 1) // 2
    for query in later:
        assert query == same | {"pageSize": "2", "pageToken": query["pageToken"]}


def test_the_end_is_an_answer_without_token_even_after_a_full_page(
    server: SandboxServer, store: Store, session: OdsSession
) -> None:
    assert store.count("students") == 120
    assert len(walk(collection(session, "students", page_size=40), EVERYTHING)) == 120
    assert len(server.requests.matching("/students")) == 3 + 1


def test_an_empty_or_short_page_with_a_token_is_not_the_end() -> None:
    replies = page("a", "b", token="1"), page(token="2"), page("c", token="3"), page()
    with paged(*replies) as ods, session_at(ods.url) as session:
        pages = collection(session, "students", page_size=2)
        assert walk(pages, EVERYTHING) == ["a", "b", "c"]
        assert not [p for p in follow(pages, EVERYTHING, "1") if not len(p)]


def test_an_empty_token_is_none() -> None:
    with paged(page("a", token="")) as ods, session_at(ods.url) as session:
        assert collection(session, "students").first_page(EVERYTHING).next_token is None


@pytest.mark.parametrize(
    "replies",
    [(page("a", token="1"),) * 2, (page("a", token="1"), page("b", token="2"), page("c", token="1"))],
)
def test_a_token_that_comes_again_is_an_error_and_no_endless_walk(replies: tuple[Reply, ...]) -> None:
    with (
        paged(*replies) as ods,
        session_at(ods.url) as session,
        pytest.raises(UnusableBody, match=r"^grand_bend.2025 ed-fi/students: .*same page token twice"),
    ):
        walk(collection(session, "students"), EVERYTHING)


def test_rows_that_change_during_a_walk_shift_no_other(
    server: SandboxServer, store: Store, session: OdsSession
) -> None:
    """Each page updates a record already read and one yet to come, and deletes one already read."""
    ids, newest = store.ids("students"), store.newest
    pages = collection(session, "students", page_size=10)
    seen: list[str] = []
    first = pages.first_page(whole_window(newest))
    seen += first.ids
    touched = set()
    for found in follow(pages, whole_window(newest), first.next_token):
        seen += found.ids
        for record_id in (ids[len(seen) - 1], ids[-1 - len(seen) // 10]):
            body = store.get("students", record_id)
            store.put("students", record_id, {**body, "firstName": f"Changed {len(seen)}"})
            touched.add(record_id)
    assert len(seen) == len(set(seen))
    assert set(ids) - set(seen) <= touched
    assert set(walk(pages, closing_window(newest))) == touched


def test_a_first_page_without_total_count_is_an_error() -> None:
    with paged(page("a", total=None)) as ods, session_at(ods.url) as session:
        for ask in (Collection.first_page, Collection.count):
            with pytest.raises(UnusableBody, match="did not count"):
                ask(collection(session, "students"), EVERYTHING)


# -- partitions ----------------------------------------------------------------------------------------------


def test_partitions_side_by_side_cover_everything_and_nothing_twice(
    server: SandboxServer, store: Store, session: OdsSession
) -> None:
    pages, window = collection(session, MANY), ChangeWindow(0, store.newest)
    total = pages.count(window)
    tokens = pages.partitions(window, 5)
    assert len(tokens) == len(set(tokens)) > 1
    with ThreadPoolExecutor(8) as threads:
        parts = list(threads.map(lambda token: rows_of(follow(pages, window, token)), tokens))
    assert all(parts)
    rows = [row for part in parts for row in part]
    assert len(rows) == total == len(set(rows)) == store.count(MANY)
    asked = server.requests.matching("/partitions")[0].query
    assert asked == {
        "number": "5",
        "minChangeVersion": "0",
        "maxChangeVersion": str(store.newest),
    }
    assert all(
        request.query["pageSize"] == "50"
        for request in server.requests.matching(MANY)
        if "pageToken" in request.query
    )


def test_partitions_of_a_filtered_window_hold_only_what_passes_both(
    store: Store, session: OdsSession
) -> None:
    student = store.rows(MANY)[0]["studentReference"]["studentUniqueId"]
    pages = collection(session, MANY, filters={"studentUniqueId": student})
    wanted = [row["id"] for row in store.rows(MANY) if row["studentReference"]["studentUniqueId"] == student]
    (token,) = pages.partitions(EVERYTHING, 1)
    assert [i for found in follow(pages, EVERYTHING, token) for i in found.ids] == wanted


def test_five_pages_are_one_partition_and_no_rows_are_none(store: Store, session: OdsSession) -> None:
    assert len(collection(session, "students").partitions(EVERYTHING, 8)) == 1
    assert collection(session, "students").partitions(closing_window(store.newest), 8) == []
    assert rows_of(follow(collection(session, "students"), EVERYTHING, None)) == []


@pytest.mark.parametrize(
    ("rows", "threads", "number"),
    [
        (1_001, 8, "1"),
        (2_500, 8, "1"),
        (2_501, 8, "2"),
        (10_000_000, 8, "32"),
        (10_000_000, 99, "200"),
        (9_999, 1, "1"),
    ],
)
def test_partitions_are_of_five_pages_at_least_and_four_for_each_thread_at_most(
    rows: int, threads: int, number: str
) -> None:
    def answer(asked: Asked) -> Reply | None:
        return Reply({"pageTokens": ["t"]}) if asked.path.endswith("/partitions") else None

    first = Page(Lines(b"", []), "t", rows)
    with StandIn(answer) as ods, session_at(ods.url) as session:
        pages = collection(session, "students", page_size=500)
        assert len(record_walks(pages, EVERYTHING, first, threads=threads)) == 1
        assert ods.matching("/partitions")[0].query == {"number": number}


PARTITIONS_OF_NO_USE = {
    "404": Reply(b"", status=404),
    "403": Reply({"type": "urn:ed-fi:api:security:authorization"}, status=403),
    "500": Reply(b"", status=500),
    "400": Reply({"type": "urn:ed-fi:api:bad-request:parameter-validation-failed"}, status=400),
    "slow": Reply(raw=[3.0, b""]),
    "no tokens": Reply({"pageTokens": []}),
    "null": Reply({"pageTokens": None}),
    "a list": Reply([]),
    "an object": Reply({}),
    "numbers": Reply({"pageTokens": [1]}),
    "HTML": Reply(b"<html>"),
    "reset": Reply(raw=b"", reset=True),
}


@pytest.mark.parametrize("useless", PARTITIONS_OF_NO_USE.values(), ids=PARTITIONS_OF_NO_USE)
def test_without_partitions_the_walk_goes_on_from_the_first_pages_token(useless: Reply) -> None:
    pages = [page("a", token="1"), page("b", token="2"), page("c", token="3"), page()]
    warned: list[str] = []

    def answer(asked: Asked) -> Reply | None:
        if asked.path == f"{STUDENTS}/partitions":
            return useless
        return pages[int(asked.query.get("pageToken") or 0)] if asked.path == STUDENTS else None

    with StandIn(answer) as ods, session_at(ods.url, timeouts=(2.0, 4.0)) as session:
        students = collection(
            session, "students", page_size=2, warn_once=lambda _, sentence: warned.append(sentence)
        )
        first = students.first_page(EVERYTHING)
        walks = record_walks(students, EVERYTHING, first, threads=4)
        assert [i for part in walks for found in part for i in found.ids] == ["a", "b", "c"]
        asked = [a for a in ods.matching("/partitions") if "authorization" in a.headers]
        assert 1 <= len(asked) <= 2
        record_walks(students, EVERYTHING, first, threads=4)
        assert len([a for a in ods.matching("/partitions") if "authorization" in a.headers]) <= 3
    for sentence in warned:
        assert sentence.startswith("grand_bend/2025 ed-fi/students/partitions: ")
        assert sentence.endswith(
            "; no row is missing, but the endpoint is read page by page, which takes longer"
        )
        assert "middle of reading" not in sentence and "enabled: false" not in sentence
    assert len(warned) == (useless is not PARTITIONS_OF_NO_USE["no tokens"])


@pytest.mark.parametrize("status", [403, 404, 500])
def test_without_partitions_and_without_a_token_the_walk_goes_by_offset(status: int) -> None:
    """As Ed-Fi's API 8 does: a window has no token on its first page."""
    ids = [f"{number:032x}" for number in range(23)]

    def answer(asked: Asked) -> Reply | None:
        if asked.path == "/":
            return Reply({**DISCOVERY, "version": "8.0"})
        if asked.path.endswith("/partitions"):
            return Reply(b"{}", status=status)
        start, rows = int(asked.query.get("offset", 0)), int(asked.query.get("limit", 0))
        return page(*ids[start : start + rows], total=23) if asked.path.endswith("/students") else None

    with StandIn(answer) as ods, session_at(ods.url) as session:
        students = collection(session, "students", page_size=5)
        walks = record_walks(students, EVERYTHING, students.first_page(EVERYTHING), threads=4)
        assert sorted(i for part in walks for found in part for i in found.ids) == ids


# -- count and record ----------------------------------------------------------------------------------------


def test_a_count_is_of_the_window_and_brings_no_records(
    server: SandboxServer, store: Store, session: OdsSession
) -> None:
    before = store.newest
    for record_id in store.ids("students")[:3]:
        store.put("students", record_id, {**store.get("students", record_id), "firstName": "Changed"})
    pages = collection(session, "students")
    windows = [EVERYTHING, closing_window(before), whole_window(before), closing_window(store.newest)]
    assert [pages.count(window) for window in windows] == [120, 3, 117, 0]
    assert {request.query["limit"] for request in server.requests.matching("/students")} == {"0"}


@pytest.mark.parametrize("kind", [DELETES, KEY_CHANGES])
def test_a_count_of_changes_asks_for_one_because_none_is_not_documented(
    server: SandboxServer, session: OdsSession, kind: Any
) -> None:
    assert collection(session, "sections", kind=kind).count(EVERYTHING) == 0
    assert [r.query["limit"] for r in server.requests.matching("/sections/")] == ["1"]


def test_a_record_is_read_by_its_id_as_the_walk_gives_it(store: Store, session: OdsSession) -> None:
    pages = collection(session, "students")
    first = pages.first_page(EVERYTHING)
    assert [pages.record(record_id) for record_id in first.ids[:5]] == first.lines.rows[:5]


def test_a_record_that_is_absent_is_told_why(store: Store, session: OdsSession) -> None:
    pages = collection(session, "students")
    pages.first_page(EVERYTHING)
    assert pages.record("0" * 32) is Absence.NO_SUCH_ID
    known, other = store.ids("students")[:2]
    name = store.get("students", known)["firstName"]
    store.put("students", other, {**store.get("students", other), "firstName": f"not {name}"})
    some = collection(session, "students", filters={"firstName": name})
    assert isinstance(some.record(known), bytes)
    assert some.record(other) is Absence.FILTERED_OUT
    assert some.record("0" * 32) is Absence.NO_SUCH_ID
    store.deny("students")
    assert pages.record(known) is Absence.NOT_PERMITTED


def test_a_record_that_fails_is_no_missing_one(
    server: SandboxServer, session: OdsSession, store: Store
) -> None:
    record_id, other = store.ids("students")[:2]
    server.faults.add("/students/", action="truncate", times=1)
    server.faults.add("/students/", status=200, body=b"[]", times=1)
    server.faults.add("/students/", status=200, body=f'{{"id": "{other}"}}'.encode(), times=1)
    found = collection(session, "students").record(record_id)
    assert isinstance(found, bytes)
    assert found.startswith(b'{"id":"' + record_id.encode())


@pytest.mark.parametrize(
    ("kind", "label"), [(RECORDS, ""), (DELETES, "/deletes"), (KEY_CHANGES, "/keyChanges")]
)
def test_errors_name_the_kind_of_collection(
    server: SandboxServer, session: OdsSession, kind: Any, label: str
) -> None:
    server.faults.add(label or "/candidates", status=404)
    pages = collection(session, "tpdm/candidates", kind=kind)
    with pytest.raises(RequestRefused, match=rf"^grand_bend/2025 tpdm/candidates{label}: HTTP 404"):
        pages.count(EVERYTHING)
    assert pages.label == f"tpdm/candidates{label}"
