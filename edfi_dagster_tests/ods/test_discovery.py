from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from edfi_dagster.ods.answers import Answer
from edfi_dagster.ods.discovery import Area
from edfi_dagster.ods.errors import OdsNotReady, OdsUnreachable
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster.sandbox.gateways import PAGES
from edfi_dagster_tests.ods.platforms import Naps, session_at
from edfi_dagster_tests.ods.stand_in import DISCOVERY, Asked, Reply, StandIn

AREAS: tuple[Area, ...] = ("dataManagementApi", "changeQueries", "oauth", "openApiMetadata")


def at(document: Any, base: str = "", status: int = 200) -> StandIn:
    """An ODS whose root document is ``document``."""
    return StandIn(
        lambda asked: Reply(document, status=status) if asked.path == f"{base}/" else None, base=base
    )


def urls_told(prefix: str) -> dict[str, str]:
    return {
        "dataManagementApi": f"{prefix}/data/v3/",
        "changeQueries": f"{prefix}/changeQueries/v1/",
        "oauth": f"{prefix}/oauth/token",
        "openApiMetadata": f"{prefix}/metadata/",
    }


def test_versions_and_addresses_are_those_of_the_root_document(session: OdsSession, base_url: str) -> None:
    assert session.discovery.version == (7, 3)
    assert session.discovery.ods_version.startswith("7.3.")
    assert session.discovery.data_model_version == "5.2.0"
    assert [session.url(area) for area in AREAS] == [
        f"{base_url}/data/v3",
        f"{base_url}/changeQueries/v1",
        f"{base_url}/oauth/token",
        f"{base_url}/metadata/data/v3",
    ]


@pytest.mark.parametrize("base", ["", "/v7.3/api", "/v7.3/api/grand_bend/2025"])
@pytest.mark.parametrize(
    "told",
    [
        "http://ods-internal:8080{base}",
        "https://127.0.0.1{base}",
        "http://127.0.0.1{base}/{{tenantIdentifier}}/{{schoolYearFromRoute}}",
        "http://ods-internal/somewhere/else",
        "http://[broken{base}",
        "",
    ],
)
def test_the_token_goes_nowhere_but_to_the_host_and_path_that_were_configured(base: str, told: str) -> None:
    document = {**DISCOVERY, "urls": urls_told(told.format(base=base)) if told else {}}
    with at(document, base) as ods, session_at(ods.url) as session:
        assert session.newest_change_version() == 42
        assert {session.url(area) for area in AREAS} == {
            f"{ods.url}/{path}" for path in ("data/v3", "changeQueries/v1", "oauth/token", "metadata/data/v3")
        }


def test_a_path_of_its_own_below_ours_is_used() -> None:
    document = {**DISCOVERY, "urls": {"dataManagementApi": "http://elsewhere/api/data"}}
    with at(document, "/api") as ods, session_at(ods.url) as session:
        assert session.url("dataManagementApi") == f"{ods.url}/data"


def test_a_slash_at_the_end_of_the_base_url_is_no_part_of_it(base_url: str) -> None:
    with session_at(f"{base_url}/") as session:
        assert session.url("dataManagementApi") == f"{base_url}/data/v3"
        assert session.newest_change_version() > 0


@pytest.mark.parametrize("version", ["4.9", "3", "2.5"])
def test_an_older_version_is_refused_with_what_it_is_and_what_is_needed(version: str) -> None:
    document = {**DISCOVERY, "version": version, "informationalVersion": f"{version}-x"}
    with at(document) as ods, session_at(ods.url) as session:
        with pytest.raises(
            OdsNotReady,
            match=rf"^grand_bend.2025: .*ODS/API {version}-x; only 5\.0 and later.*api_version: \"2\"",
        ):
            session.newest_change_version()
        assert not ods.matching("token")


@pytest.mark.parametrize(
    ("version", "read"),
    [
        ("5.2", (5, 2)),
        ("5.3.1146", (5, 3)),
        ("6.1", (6, 1)),
        ("7.0", (7, 0)),
        ("7.3.2", (7, 3)),
        ("7.10", (7, 10)),
    ],
)
def test_a_version_has_two_parts_however_many_are_told(version: object, read: tuple[int, int]) -> None:
    with at({**DISCOVERY, "version": version}) as ods, session_at(ods.url) as session:
        assert session.discovery.version == read


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"version": "7.3"},
        {**DISCOVERY, "version": "seven"},
        {**DISCOVERY, "dataModels": []},
        {**DISCOVERY, "dataModels": [{"name": "TPDM", "version": "1.1.0"}]},
        {**DISCOVERY, "dataModels": "Ed-Fi"},
        {**DISCOVERY, "urls": ["a"]},
        [DISCOVERY],
        b"<html><title>IIS</title></html>",
        b"",
    ],
)
def test_what_is_no_discovery_document_is_said_not_to_be_one(document: Any) -> None:
    with (
        at(document) as ods,
        session_at(ods.url) as session,
        pytest.raises(OdsNotReady, match=f"{ods.url}/ .*check base_url"),
    ):
        session.url("oauth")


@pytest.mark.parametrize("status", [301, 400, 401, 404])
def test_a_refused_root_document_ends_at_once(status: int) -> None:
    with StandIn(lambda asked: Reply(status=status)) as ods, session_at(ods.url) as session:
        with pytest.raises(OdsNotReady, match=rf"HTTP {status}.*check base_url"):
            session.newest_change_version()
        assert len(ods.asked) == 1


@pytest.mark.parametrize("name", ["firewall", "gateway", "kong", "apim", "empty_403"])
def test_a_root_document_that_a_gateway_refuses_is_asked_for_again(name: str) -> None:
    page = PAGES[name]
    with at(page.body, status=page.status) as ods, session_at(ods.url) as session:
        with pytest.raises(OdsUnreachable, match=rf"HTTP {page.status} with.* 6 attempts; .*check base_url"):
            session.newest_change_version()
        assert len(ods.asked) == 6


def test_a_server_that_is_down_is_unreachable_not_wrong() -> None:
    with at({}, status=503) as ods, session_at(ods.url) as session:
        with pytest.raises(OdsUnreachable, match=r"HTTP 503 from 127\.0\.0\.1:.* 6 attempts"):
            session.newest_change_version()
        assert len(ods.asked) == 6


def test_a_token_address_that_is_not_there_asks_for_the_base_url() -> None:
    def without_token(asked: Asked) -> Reply | None:
        return Reply(status=404) if "oauth" in asked.path else None

    naps = Naps()
    with StandIn(without_token) as ods, session_at(ods.url, sleep=naps) as session:
        with pytest.raises(OdsNotReady, match=r"HTTP 404 from the token address .*tenant and school year"):
            session.newest_change_version()
        assert not naps.seconds


def test_many_threads_ask_for_the_root_document_once(server: SandboxServer, base_url: str) -> None:
    with session_at(base_url) as session, ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(lambda _: session.url("oauth"), range(64)))) == 1
    assert [request.path for request in server.requests] == ["/grand_bend/2025/"]


@pytest.mark.parametrize("status", [403, 404])
def test_an_ods_without_change_queries_is_not_ready(status: int) -> None:
    def without(asked: Asked) -> Reply | None:
        refused = Reply({"type": "urn:ed-fi:api:security:authorization"}, status=status)
        return refused if "availableChangeVersions" in asked.path else None

    with (
        StandIn(without) as ods,
        session_at(ods.url) as session,
        pytest.raises(OdsNotReady, match=f"HTTP {status}.*have its host switch change queries on"),
    ):
        session.newest_change_version()


@pytest.mark.parametrize("name", ["newestChangeVersion", "NewestChangeVersion"])
def test_the_newest_change_version_is_read_in_any_casing(name: str) -> None:
    def answer(asked: Asked) -> Reply | None:
        return Reply({name: 2**62}) if "availableChangeVersions" in asked.path else None

    with StandIn(answer) as ods, session_at(ods.url) as session:
        assert session.newest_change_version() == 2**62


def test_answers_hold_the_body_and_headers_in_any_casing(session: OdsSession, base_url: str) -> None:
    answer: Answer = session.get(
        f"{base_url}/data/v3/ed-fi/students", {"limit": "1", "totalCount": "true"}, lambda a: a
    )
    assert answer.headers["total-count"] == answer.headers["TOTAL-COUNT"] == "120"
