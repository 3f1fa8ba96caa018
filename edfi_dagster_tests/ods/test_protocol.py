"""What trips up client authors, points 1 to 12 of 34: windows, order, pages and counts.

One test each, named after what a client must do, on the versions where the trap is; it fails for a client that falls for
it. Points 13 to 22 are in ``test_protocol_changes``, 23 to 34 in ``test_protocol_service``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edfi_dagster.ods.changes import EVERYTHING, ChangeWindow, delta_window, whole_window
from edfi_dagster.ods.errors import UnusableBody
from edfi_dagster.ods.pagers import change_walk, record_walks
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, Collection, RecordKind
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import RequestInfo, SandboxServer, Store
from edfi_dagster_tests.bench import ODS, Bench, changed, student
from edfi_dagster_tests.ods.platforms import endpoint, session_at
from edfi_dagster_tests.ods.stand_in import Reply, StandIn

MakeBench = Callable[..., Bench]
MANY = "studentSectionAssociations"


def on(*versions: str) -> pytest.MarkDecorator:
    """Run the test against sandboxes of these versions."""
    marked = [pytest.param(version, marks=pytest.mark.ods(version)) for version in versions]
    return pytest.mark.parametrize("version", marked)


@pytest.fixture
def sandbox(sandbox: SandboxServer) -> SandboxServer:
    """Each of these tests keeps its token to itself, and a key has fifteen."""
    sandbox.expire_tokens()
    return sandbox


@contextmanager
def reading(sandbox: SandboxServer) -> Iterator[OdsSession]:
    """A session with the sandbox, whose ``requests`` begin after its first ones."""
    of_year = 'api_version: "2"' if sandbox.site.generation.version == "2" else ""
    with session_at(sandbox.url_of(ODS), of_year=of_year) as session:
        if not of_year:
            session.newest_change_version()
        sandbox.requests.clear()
        yield session


def collection(
    session: OdsSession, name: str, kind: RecordKind = RECORDS, *, page_size: int = 5, **options: Any
) -> Collection:
    return Collection(session, endpoint(name), kind, page_size=page_size, **options)


def walk(pages: Collection, window: ChangeWindow = EVERYTHING, *, threads: int = 1) -> list[str]:
    """The ids that one walk of the window gives, without a pull's second look at what lacks."""
    first = pages.first_page(window)
    return [
        key
        for part in record_walks(pages, window, first, threads=threads)
        for page in part
        for key in page.ids
    ]


def walk_changes(pages: Collection, window: ChangeWindow) -> list[str]:
    return [key for page in change_walk(pages, window) for key in page.ids]


def rooms(store: Store, number: int) -> list[str]:
    """New locations that nothing refers to."""
    pattern = store.rows("locations")[0]
    return [
        store.post("locations", changed(pattern, classroomIdentificationCode=f"room {n}"))
        for n in range(number)
    ]


@contextmanager
def largest_page(sandbox: SandboxServer, rows: int) -> Iterator[None]:
    """What the host allows in one page, and publishes."""
    settings = sandbox.site.settings
    usual, settings.max_page = settings.max_page, rows
    try:
        yield
    finally:
        settings.max_page = usual


def at_page(sandbox: SandboxServer, name: str, action: Callable[[int], object]) -> None:
    """Do something after every page of records that was answered; ``action`` gets the number of the page."""
    pages = iter(range(10_000))

    def hook(request: RequestInfo) -> None:
        if request.path.endswith(f"/{name}") and request.query.get("limit") != "0":
            action(next(pages))

    sandbox.after_response.append(hook)


@on("5.3", "6.1", "7.3")
def test_01_windows_are_inclusive_so_the_next_begins_one_above_the_last(
    version: str, sandbox: SandboxServer
) -> None:
    store = sandbox.store(ODS)
    with reading(sandbox) as session:
        pages, start = collection(session, "students"), store.newest
        made = [store.post("students", student(n)) for n in range(4)]
        versions = [store.newest - 3 + n for n in range(4)]
        assert [store.row("students", i).change_version for i in made] == versions  # type: ignore[union-attr]
        assert session.newest_change_version() == versions[-1]
        assert set(walk(pages, delta_window(start, versions[1], 0))) == set(made[:2])
        assert set(walk(pages, delta_window(versions[1], versions[3], 0))) == set(made[2:])
        assert set(walk(pages, whole_window(versions[0]))) == set(store.ids("students")) - set(made[1:])
        for pieces in (2, 3, 4):
            parts = ChangeWindow(versions[0], versions[3]).split(pieces)
            assert sorted(key for part in parts for key in walk(pages, part)) == sorted(made)


@on("6.1", "7.3")
def test_02_what_is_committed_is_the_newest_version_asked_before_for_rows_carry_none(
    version: str, make_bench: MakeBench
) -> None:
    bench = make_bench("students", "locations", change_version_overlap=0)
    rolled_back = bench.store.begin()
    rolled_back.post("students", student(1))
    rolled_back.rollback()
    newest = bench.store.newest
    bench.at_request("/students", lambda: bench.add_student(2), answered=True)
    bench.materialize()
    assert not any("changeVersion" in record for _, _, record in bench.raw("students"))
    assert set(bench.watermarks().values()) == {newest}
    assert max(bench.store.row("locations", i).change_version for i in bench.store.ids("locations")) < newest  # type: ignore[union-attr]
    bench.server.requests.clear()
    bench.materialize()
    asked = bench.server.requests.matching("/students")
    assert {request.query["minChangeVersion"] for request in asked} == {str(newest + 1)}


@on("5.3", "6.1", "7.2", "7.3")
def test_03_rows_come_in_no_order_of_versions_so_a_walk_that_breaks_off_commits_nothing(
    version: str, make_bench: MakeBench
) -> None:
    bench = make_bench(
        "students",
        endpoint_defaults={"page_size": 4, "num_retries": 0},
        change_version_overlap=0,
        max_concurrent_requests=1,
    )
    bench.materialize()
    low = bench.watermarks()["students", "records"]
    in_order = [row["id"] for row in bench.store.rows("students")]
    for record_id in [*in_order[1::2], *in_order[::2]]:
        bench.change("students", record_id, firstName="Later")
    versions = [bench.store.row("students", i).change_version for i in in_order]  # type: ignore[union-attr]
    assert versions != sorted(versions) and versions != sorted(versions, reverse=True)

    bench.server.faults.add("/students$", status=500, after=2)
    assert bench.materialize(may_fail=True)["students"].failures
    assert bench.watermarks()["students", "records"] == low
    bench.server.faults.clear()
    bench.materialize()
    bench.verify()


@on("5.3", "6.1", "7.3")
def test_04_the_newest_version_counts_uncommitted_work_so_windows_reach_back(
    version: str, make_bench: MakeBench
) -> None:
    bench = make_bench("students", "locations")
    gone = rooms(bench.store, 1)[0]
    bench.materialize()
    held = bench.store.begin()
    late = held.post("students", student(1))
    held.delete("locations", gone)
    bench.add_student(2)
    bench.materialize()
    bench.verify()
    low = bench.watermarks()["students", "records"]
    held.commit()
    assert bench.store.newest == low, "nothing is newer than what was committed"
    bench.materialize()
    assert late in bench.current("students")
    assert gone not in bench.current("locations")
    bench.verify()


@on("5.3", "6.1", "7.0", "7.2", "7.3")
@pytest.mark.parametrize("threads", [1, 3])
def test_05_rows_that_leave_the_window_while_it_is_read_hide_no_other(
    version: str, threads: int, sandbox: SandboxServer
) -> None:
    store = sandbox.store(ODS)
    in_order = [row["id"] for row in store.rows("students")]
    ends = [key for pair in zip(in_order, reversed(in_order), strict=True) for key in pair][: len(in_order)]
    window, touched = whole_window(store.newest), set[str]()

    def leave(page: int) -> None:
        if page < 8:
            record_id = ends[page]
            store.put("students", record_id, changed(store.get("students", record_id), firstName="Later"))
            touched.add(record_id)

    with reading(sandbox) as session:
        at_page(sandbox, "students", leave)
        read = walk(collection(session, "students", page_size=2), window, threads=threads)
    assert len(touched) >= 4
    assert set(in_order) - set(read) <= touched


@on("2", "5.3", "6.1", "7.3")
def test_06_a_limit_is_always_sent_and_the_hosts_own_maximum_kept(
    version: str, sandbox: SandboxServer
) -> None:
    """Without one 5.x gives 25 rows, later versions 500; a host may allow fewer than are asked for."""
    store = sandbox.store(ODS)
    assert store.count(MANY) > 2 * 25
    # Ed-Fi 2 publishes nothing; its maximum is documented.
    allowed, asked = (100, 100) if version == "2" else (30, 500)
    with largest_page(sandbox, allowed), reading(sandbox) as session:
        pages = collection(session, MANY, page_size=asked)
        assert set(walk(pages)) == set(store.ids(MANY))
        assert pages.page_size == allowed
        if version != "2":
            for record_id in rooms(store, 31):
                store.delete("locations", record_id)
            deletes = collection(session, "locations", DELETES, page_size=asked)
            assert len(walk_changes(deletes, whole_window(store.newest))) == 31
    sent = [r.query for r in sandbox.requests if r.path.endswith((MANY, "/deletes"))]
    assert sent and all("limit" in query or "pageToken" in query for query in sent)


@on("2", "5.3", "6.1", "7.2")
@pytest.mark.parametrize("lost", [1, 5])
def test_07_a_short_or_empty_page_is_not_the_end(version: str, lost: int, sandbox: SandboxServer) -> None:
    """Rows go between the choice of a page's rows and the reading of them."""
    store = sandbox.store(ODS)
    free = {store.post("students", student(number)) for number in range(30)}
    gone: set[str] = set()

    def go(request: RequestInfo) -> None:
        offset, size = int(request.query.get("offset", 0)), int(request.query.get("limit", 0))
        chosen = [row["id"] for row in store.rows("students")][offset : offset + size]
        loose = [key for key in chosen if key in free][:lost]
        if size > 1 and len(gone) < 2 * lost and len(loose) == lost:
            for record_id in loose:
                store.delete("students", record_id)
            gone.update(loose)

    with reading(sandbox) as session:
        sandbox.between_reads.append(go)
        read = set(walk(collection(session, "students")))
    assert len(gone) >= lost
    assert set(store.ids("students")) <= read


@on("7.3")
def test_07_an_empty_page_by_token_is_not_the_end_either_for_the_count_tells(
    version: str, make_bench: MakeBench
) -> None:
    """7.3 gives no token with a page whose rows have all gone, as if nothing were behind it."""
    bench = make_bench("students", endpoint_defaults={"page_size": 5}, max_concurrent_requests=1)
    made = [bench.add_student(number) for number in range(14)]
    pages = iter(range(100))

    def go(request: RequestInfo) -> None:
        if "pageToken" in request.query and next(pages) == 4:  # rows 20 to 24
            for record_id in made[4:9]:
                bench.store.delete("students", record_id)

    bench.server.between_reads.append(go)
    bench.materialize()
    answered = [r for r in bench.server.requests.matching("/students") if "pageToken" in r.query]
    assert len(answered) > 30 / 5 + 1, "the walk was begun again"
    bench.verify()


@on("5.3", "6.1", "7.3")
def test_08_a_count_is_asked_for_by_name_brings_no_rows_and_is_never_taken_for_none(
    version: str, sandbox: SandboxServer
) -> None:
    with reading(sandbox) as session:
        pages = collection(session, "students")
        assert pages.count(EVERYTHING) == sandbox.store(ODS).count("students")
        assert [dict(r.query) for r in sandbox.requests] == [{"limit": "0", "totalCount": "true"}]
        assert pages.page_at(EVERYTHING, 0).total is None
    uncounted = StandIn(lambda asked: Reply([]) if asked.path.endswith("/students") else None)
    with uncounted as ods, session_at(ods.url) as session:
        for ask in (Collection.count, Collection.first_page):
            with pytest.raises(UnusableBody, match="did not count"):
                ask(collection(session, "students"), EVERYTHING)


@on("7.3")
def test_09_the_first_request_has_no_page_size_and_the_end_is_an_answer_without_token(
    version: str, sandbox: SandboxServer
) -> None:
    store = sandbox.store(ODS)
    assert store.count("sections") == 36
    with reading(sandbox) as session:
        assert walk(collection(session, "sections", page_size=18)) == store.ids("sections")
    first, *rest = [r.query for r in sandbox.requests]
    assert "pageSize" not in first and "pageToken" not in first
    assert len(rest) == 2, "the second page is full and has a token still; only the empty third has none"
    assert {r.status for r in sandbox.requests} == {200}


@on("7.3")
def test_10_a_token_goes_with_nothing_but_page_size_and_the_same_filters(
    version: str, sandbox: SandboxServer
) -> None:
    store = sandbox.store(ODS)
    school = store.rows("sections")[0]["courseOfferingReference"]["schoolId"]
    window = whole_window(store.newest)
    mine = [r["id"] for r in store.rows("sections") if r["courseOfferingReference"]["schoolId"] == school]
    assert 0 < len(mine) < store.count("sections")
    with largest_page(sandbox, 3), reading(sandbox) as session:
        pages = collection(session, "sections", page_size=2, filters={"schoolId": str(school)})
        assert sorted(walk(pages, window, threads=2)) == sorted(mine)
    same = {"schoolId": str(school), **window.params}
    for request in sandbox.requests:
        assert {name: request.query.get(name) for name in same} == same
        assert request.status == 200
        if "pageToken" in request.query:
            assert request.query.keys() == {*same, "pageToken", "pageSize"}


@on("7.3")
def test_11_partitions_may_be_fewer_than_asked_for_one_or_none(version: str, sandbox: SandboxServer) -> None:
    store = sandbox.store(ODS)
    start = store.newest
    with largest_page(sandbox, 2), reading(sandbox) as session:
        pages = collection(session, MANY, page_size=2)
        tokens = pages.partitions(EVERYTHING, 200)
        assert 1 < len(tokens) <= store.count(MANY) // 10 + 1
        assert sorted(walk(pages, threads=3)) == sorted(store.ids(MANY))
        few = collection(session, "calendars", page_size=2)
        assert len(few.partitions(EVERYTHING, 10)) == 1
        assert sorted(walk(few)) == sorted(store.ids("calendars"))

        made = rooms(store, 9)
        window = ChangeWindow(start + 1, store.newest)
        gone = collection(session, "locations", page_size=2)
        first = gone.first_page(window)
        for record_id in made:
            store.delete("locations", record_id)
        assert first.total == 9
        assert gone.partitions(window, 10) == []
        walks = record_walks(gone, window, first, threads=3)
        # Without a range the walk goes on from the first page, which was read before they went.
        assert [key for part in walks for page in part for key in page.ids] == first.ids


@on("7.3")
@pytest.mark.parametrize("kind", [DELETES, KEY_CHANGES])
def test_12_deletes_and_key_changes_are_never_read_by_token(
    version: str, kind: RecordKind, sandbox: SandboxServer
) -> None:
    """The ODS ignores it there without a word, and would give the first page for ever."""
    store = sandbox.store(ODS)
    made = rooms(store, 9)
    for number, record_id in enumerate(made):
        if kind == DELETES:
            store.delete("locations", record_id)
        else:
            body = changed(store.get("locations", record_id), classroomIdentificationCode=f"new {number}")
            store.put("locations", record_id, body)
    with reading(sandbox) as session:
        pages = collection(session, "locations", kind, page_size=2)
        assert walk_changes(pages, whole_window(store.newest)) == made
    asked = sandbox.requests.matching("/locations/")
    assert asked and not any({"pageToken", "pageSize"} & request.query.keys() for request in asked)
    assert not sandbox.requests.matching("/partitions")
