"""Snapshots by both protocols: chosen, asked for where they are known, and gone (api.md section 5.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edfi_dagster.ods.answers import Answer
from edfi_dagster.ods.errors import (
    EdFiError,
    NotOffered,
    OdsNotReady,
    RequestRefused,
    SnapshotGone,
    UnusableBody,
)
from edfi_dagster.ods.session import OdsSession
from edfi_dagster_tests.ods.platforms import Naps, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

LIST = "/changeQueries/v1/snapshots"
NEWEST = "/changeQueries/v1/availableChangeVersions"
GONE_UP_TO_6 = Reply({"message": "Snapshot not available."}, status=410)
GONE_IN_7_0 = Reply({"message": "Snapshot not found.", "correlationId": "1"}, status=404)
GONE_FROM_7_2 = Reply(
    {"detail": "Snapshot not found.", "type": "urn:ed-fi:api:not-found", "status": 404}, status=404
)


def listed(*taken: str, casing: Callable[[str], str] = str) -> list[dict[str, str]]:
    return [
        {
            casing("id"): f"{n:032x}",
            casing("snapshotIdentifier"): f"snapshot-{n}",
            casing("snapshotDateTime"): when,
        }
        for n, when in enumerate(taken)
    ]


def of_version(version: str, **replies: Any) -> StandIn:
    """An ODS of the version; ``replies`` by the last part of the path, pages of a list as a list of pages."""
    pages = {name: list(given) if isinstance(given, tuple) else given for name, given in replies.items()}
    models = [{"name": "Ed-Fi", "version": "4.0.0"}]

    def answer(asked: Asked) -> Reply | None:
        if asked.path == "/":
            return Reply({"version": version, "apiMode": "Sandbox", "dataModels": models, "urls": {}})
        given = pages.get(asked.path.rpartition("/")[2])
        if isinstance(given, list):
            return Reply(given.pop(0) if given else [])
        return given if isinstance(given, Reply) else None

    return StandIn(answer)


def ask(session: OdsSession, path: str = "/data/v3/ed-fi/students") -> bytes:
    url = f"{session.url('dataManagementApi').removesuffix('/data/v3')}{path}"
    return session.get(url, {}, lambda answer: answer.body, endpoint="ed-fi/students")


def headers_of(ods: StandIn, name: str) -> list[tuple[str, str | None]]:
    return [(asked.path, asked.headers.get(name)) for asked in ods.asked]


# -- 5.x and 6.x ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "taken",
    [
        ("2025-03-01T02:00:00Z", "2025-03-09T02:00:00.1234567Z", "2025-03-02T02:00:00Z"),
        ("2025-03-01T02:00:00", "2025-03-09T02:00:00", "2024-12-31T23:59:59"),
        ("2025-03-09T23:59:00-01:00", "2025-03-10T02:00:00+00:00", "2025-03-10T02:30:00+01:00"),
    ],
)
@pytest.mark.parametrize("version", ["5.2", "5.3", "6.1"])
def test_the_latest_snapshot_of_the_list_is_read(version: str, taken: tuple[str, ...]) -> None:
    with (
        of_version(version, snapshots=(listed(*taken),), students=Reply([])) as ods,
        session_at(ods.url) as session,
    ):
        session.start_snapshot()
        session.newest_change_version()
        ask(session)
        ask(session, "/data/v3/ed-fi/students")
        sent = headers_of(ods, "snapshot-identifier")
    assert sent == [
        ("/", None),
        ("/oauth/token", None),
        (LIST, None),
        (LIST, None),
        (NEWEST, "snapshot-1"),
        ("/data/v3/ed-fi/students", "snapshot-1"),
        ("/data/v3/ed-fi/students", "snapshot-1"),
    ]
    assert not [asked for asked in ods.asked if "use-snapshot" in asked.headers]


def test_a_list_of_several_pages_is_read_to_its_end_in_any_casing() -> None:
    rows = listed(*(f"2025-03-{day:02d}T02:00:00Z" for day in range(1, 31)), casing=str.title)
    with of_version("5.3", snapshots=(rows[:25], rows[25:])) as ods, session_at(ods.url) as session:
        session.start_snapshot()
        session.newest_change_version()
        assert [asked.query for asked in ods.matching("/snapshots")] == [
            {},
            {"offset": "25"},
            {"offset": "30"},
        ]
        assert headers_of(ods, "snapshot-identifier")[-1] == (NEWEST, "snapshot-29")


def test_a_list_that_ignores_the_offset_ends_too() -> None:
    page = listed("2025-03-01T02:00:00Z")
    with of_version("6.1", snapshots=(page, page, page)) as ods, session_at(ods.url) as session:
        session.start_snapshot()
        assert len(ods.matching("/snapshots")) == 2


def test_5_1_lists_its_snapshots_beside_the_data() -> None:
    with (
        of_version("5.1", snapshots=(listed("2025-03-01T02:00:00Z"),)) as ods,
        session_at(ods.url) as session,
    ):
        session.start_snapshot()
        assert {asked.path for asked in ods.matching("/snapshots")} == {"/data/v3/publishing/snapshots"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply([]),
        Reply(status=404),
        Reply({"message": "The API client's claim set does not grant this."}, status=403),
    ],
)
def test_a_list_without_snapshots_is_not_ready_and_says_what_to_do(reply: Reply) -> None:
    with (
        of_version("6.1", snapshots=reply) as ods,
        session_at(ods.url) as session,
        pytest.raises(
            OdsNotReady,
            match=r"^grand_bend.2025: the ODS .*snapshots?.*; have its host take one.*use_snapshot: false",
        ),
    ):
        session.start_snapshot()


@pytest.mark.parametrize(
    "rows",
    [
        {},
        [1],
        [{}],
        [{"snapshotIdentifier": "a"}],
        [{"snapshotIdentifier": 1, "snapshotDateTime": "2025-01-01"}],
        [{"snapshotIdentifier": "a\r\nX: y", "snapshotDateTime": "2025-01-01"}],
        [{"snapshotIdentifier": "a", "snapshotDateTime": "soon"}],
    ],
)
def test_a_list_of_something_else_is_an_unusable_body(rows: Any) -> None:
    with (
        of_version("6.1", snapshots=Reply(rows)) as ods,
        session_at(ods.url) as session,
        pytest.raises(UnusableBody, match=r"^grand_bend.2025 snapshots: "),
    ):
        session.start_snapshot()


# -- 7.x -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["7.0", "7.1", "7.2", "7.3"])
def test_7_x_is_asked_for_its_only_snapshot(version: str) -> None:
    with of_version(version, students=Reply([])) as ods, session_at(ods.url) as session:
        session.start_snapshot()
        ask(session)
        assert headers_of(ods, "use-snapshot") == [
            ("/", None),
            ("/oauth/token", None),
            (NEWEST, "true"),
            ("/data/v3/ed-fi/students", "true"),
        ]
        assert not [asked for asked in ods.asked if "snapshot-identifier" in asked.headers]


@pytest.mark.parametrize("gone", [GONE_IN_7_0, GONE_FROM_7_2])
def test_7_x_without_a_snapshot_is_not_ready_and_reads_none(gone: Reply) -> None:
    def answer(asked: Asked) -> Reply | None:
        return gone if "use-snapshot" in asked.headers else None

    with StandIn(answer) as ods, session_at(ods.url) as session:
        with pytest.raises(OdsNotReady, match=r"the ODS has no snapshot; .*use_snapshot: false"):
            session.start_snapshot()
        assert session.newest_change_version() == 42


def test_change_queries_that_are_off_are_not_called_a_missing_snapshot() -> None:
    off = Reply({"detail": "The feature is disabled.", "type": "urn:ed-fi:api:not-found"}, status=404)
    with (
        of_version("7.3", availableChangeVersions=off) as ods,
        session_at(ods.url) as session,
        pytest.raises(OdsNotReady, match="have its host switch change queries on"),
    ):
        session.start_snapshot()


# -- gone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "gone"),
    [("5.3", GONE_UP_TO_6), ("6.1", GONE_UP_TO_6), ("7.0", GONE_IN_7_0), ("7.3", GONE_FROM_7_2)],
)
def test_a_snapshot_that_is_taken_away_is_gone_at_once(version: str, gone: Reply) -> None:
    naps = Naps()
    with (
        of_version(version, snapshots=(listed("2025-03-01T02:00:00Z"),), students=gone) as ods,
        session_at(ods.url, sleep=naps) as session,
    ):
        session.start_snapshot()
        with pytest.raises(
            SnapshotGone, match=rf"^grand_bend/2025 ed-fi/students: HTTP {gone.status}, the snapshot"
        ):
            ask(session)
        assert len(ods.matching("students")) == 1
    assert naps.seconds == []


def test_an_endpoint_that_is_not_offered_is_no_snapshot_that_is_gone() -> None:
    with of_version("7.3") as ods, session_at(ods.url) as session:
        session.start_snapshot()
        with pytest.raises(NotOffered):
            ask(session)


@pytest.mark.parametrize(("gone", "error"), [(GONE_UP_TO_6, RequestRefused), (GONE_FROM_7_2, NotOffered)])
def test_without_a_snapshot_the_same_answers_are_plain_refusals(gone: Reply, error: type[EdFiError]) -> None:
    with of_version("7.3", students=gone) as ods, session_at(ods.url) as session:
        with pytest.raises(error) as caught:
            ask(session)
        assert type(caught.value) is error


def test_a_snapshot_is_not_asked_for_where_it_is_not_known() -> None:
    """A document is the same in every snapshot, and tokens and discovery know none."""

    def answer(asked: Asked) -> Reply | None:
        if asked.path.endswith("swagger.json"):
            return Reply({"paths": {}})
        # The first token is refused, so that another is asked for while the snapshot is read.
        is_old = asked.headers.get("authorization") == "Bearer f00dfeed1"
        return Reply(status=401) if is_old and "students" in asked.path else token(asked)

    issued: list[int] = []

    def token(asked: Asked) -> Reply | None:
        if not asked.path.endswith("/oauth/token"):
            return Reply([]) if "students" in asked.path else None
        issued.append(1)
        return Reply({"access_token": f"f00dfeed{len(issued)}", "expires_in": 1800})

    with StandIn(answer) as ods, session_at(ods.url) as session:
        session.start_snapshot()
        ask(session)
        session.get(f"{session.url('openApiMetadata')}/resources/swagger.json", {}, Answer.__repr__)
        sent = [(asked.path.rpartition("/")[2], asked.headers.get("use-snapshot")) for asked in ods.asked]
    assert sent == [
        ("", None),
        ("token", None),
        ("availableChangeVersions", "true"),
        ("students", "true"),
        ("token", None),
        ("students", "true"),
        ("swagger.json", None),
    ]


@pytest.mark.parametrize("written", ['api_version: "2"', 'api_version: "8.0"'])
def test_versions_without_snapshots_refuse_to_pretend(written: str) -> None:
    with (
        of_version("8.0") as ods,
        session_at(ods.url, of_year=written) as session,
        pytest.raises(OdsNotReady, match=r"not known to have snapshots; .*use_snapshot: false"),
    ):
        session.start_snapshot()
