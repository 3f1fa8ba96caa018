"""The session against the sandbox in every version and mode: addresses, tokens, refusals, snapshots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edfi_dagster.ods.errors import (
    NotOffered,
    NotPermitted,
    OdsNotReady,
    RequestRefused,
    SnapshotGone,
    WrongCredentials,
)
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.ods.conftest import ODS
from edfi_dagster_tests.ods.platforms import SECRET_VARIABLE, Naps, session_at

MODES = ["shared_instance", "sandbox", "district_specific", "year_specific", "instance_year_specific"]
PLACES = [
    *(("5.3", mode) for mode in MODES),
    *(("6.1", mode) for mode in MODES),
    *((version, None) for version in ("7.1", "7.3")),
]
OLD_AND_NEW = [("5.3", "sandbox"), ("6.1", "year_specific"), ("7.1", None), ("7.3", None)]


@contextmanager
def sandbox(version: str, mode: str | None) -> Iterator[tuple[SandboxServer, Store, OdsSession]]:
    """An ODS of the version, in a site with a second one that must not be mixed up with it."""
    names = [ODS, "lakeview/2025"]
    with SandboxServer(names, rows={"students": 12}, ods_version=version, mode=mode, max_page=10) as server:
        written = f"instance_code: {ODS.partition('/')[0]}" if mode == "instance_year_specific" else ""
        written += '\napi_version: "2"' if version == "2" else ""
        with session_at(server.url_of(ODS), of_year=written) as session:
            yield server, server.store(ODS), session


def students(session: OdsSession, path: str = "ed-fi/students", **params: str) -> list[str]:
    return session.get(
        f"{session.url('dataManagementApi')}/{path}",
        params,
        lambda answer: [row["id"] for row in json.loads(answer.body)],
        endpoint="ed-fi/students",
    )


@pytest.mark.parametrize(("version", "mode"), PLACES)
def test_data_changes_and_documents_are_found_in_every_version_and_mode(
    version: str, mode: str | None
) -> None:
    with sandbox(version, mode) as (server, store, session):
        assert session.newest_change_version() == store.newest
        assert sorted(students(session, limit="10") + students(session, limit="10", offset="10")) == sorted(
            store.ids("students")
        )
        document = session.get(
            f"{session.url('openApiMetadata')}/resources/swagger.json",
            {},
            lambda answer: json.loads(answer.body),
        )
        assert any(path.endswith("/students") for path in document["paths"])
        assert f"{session.discovery.version[0]}.{session.discovery.version[1]}" == version
        assert session.discovery.api_mode == mode
        assert {request.ods for request in server.requests if "students" in request.path} == {ODS}
        assert len(server.requests.matching("/oauth/token", "POST")) == 1


def test_ed_fi_2_is_read_without_a_document() -> None:
    with sandbox("2", None) as (server, store, session):
        pages = [students(session, "students", limit="10", offset=offset) for offset in ("0", "10")]
        assert [len(page) for page in pages] == [10, 2]
        assert sorted(pages[0] + pages[1]) == sorted(store.ids("students"))
        asked = [request.path.rpartition("/")[2] for request in server.requests]
        assert asked == ["authorize", "token", "students", "students"]


@pytest.mark.parametrize(("version", "mode"), [*OLD_AND_NEW, ("2", None)])
def test_a_dead_token_is_renewed_once_whatever_its_401_looks_like(version: str, mode: str | None) -> None:
    with sandbox(version, mode) as (server, _, session):
        path = "students" if version == "2" else "ed-fi/students"
        students(session, path)
        server.expire_tokens()
        assert len(students(session, path, limit="5")) == 5
        assert len(server.requests.matching("/oauth/token", "POST")) == 2
        assert session.tally.retries == 1


@pytest.mark.parametrize(("version", "mode"), [*OLD_AND_NEW, ("2", None)])
def test_a_wrong_secret_is_wrong_credentials_by_400_or_by_401(
    version: str, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "wrong")
    with sandbox(version, mode) as (server, _, session):
        with pytest.raises(WrongCredentials, match=r"^grand_bend/2025: .*HTTP 40[01] from its token address"):
            students(session)
        forms = 1 if version == "2" else 2
        assert len(server.requests.matching("/oauth/token", "POST")) == forms, "Basic, then the body"


@pytest.mark.parametrize(("version", "mode"), OLD_AND_NEW)
def test_refusals_of_every_generation_are_told_apart(version: str, mode: str | None) -> None:
    with sandbox(version, mode) as (_, store, session):
        with pytest.raises(
            RequestRefused, match=r"page_size is more than this ODS allows; write (10 or )?less$"
        ):
            students(session, limit="11")
        with pytest.raises(NotOffered, match="HTTP 404"):
            students(session, "ed-fi/studentz")
        store.deny("students")
        with pytest.raises(NotPermitted, match="HTTP 403"):
            students(session)


@pytest.mark.parametrize(("version", "mode"), OLD_AND_NEW)
def test_a_snapshot_holds_still_until_it_is_gone(version: str, mode: str | None) -> None:
    naps = Naps()
    with sandbox(version, mode) as (_, store, session):
        session._retries._sleep = naps
        with pytest.raises(OdsNotReady, match=r"the ODS has no snapshot; .*use_snapshot: false"):
            session.start_snapshot()
        before, newest = sorted(store.ids("students")), store.newest
        store.take_snapshot()
        first = store.ids("students")[0]
        store.put("students", first, {**store.get("students", first), "firstName": "Changed"})
        session.start_snapshot()
        assert session.newest_change_version() == newest < store.newest
        assert students(session, minChangeVersion=str(newest + 1)) == []
        assert sorted(students(session, limit="10") + students(session, limit="10", offset="10")) == before
        store.drop_snapshot()
        with pytest.raises(
            SnapshotGone, match=r"^grand_bend/2025 ed-fi/students: HTTP (410|404), the snapshot"
        ):
            students(session)
    assert naps.seconds == []


@pytest.mark.parametrize(("version", "mode"), OLD_AND_NEW[:2])
def test_of_several_snapshots_the_latest_is_read_and_an_older_one_may_go(
    version: str, mode: str | None
) -> None:
    with sandbox(version, mode) as (_, store, session):
        older = store.take_snapshot()
        first = store.ids("students")[0]
        store.put("students", first, {**store.get("students", first), "firstName": "Changed"})
        store.take_snapshot()
        session.start_snapshot()
        assert session.newest_change_version() == store.newest
        store.drop_snapshot(older)
        assert len(students(session, limit="10")) == 10
