"""Where data, change queries, tokens and documents stand, for every version and mode (api.md sections 1.1 to 1.3)."""

from __future__ import annotations

from typing import Any

import pytest

from edfi_dagster.ods.discovery import AREAS
from edfi_dagster.ods.errors import OdsNotReady, WrongCredentials
from edfi_dagster.ods.session import OdsSession
from edfi_dagster_tests.ods.platforms import Naps, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

MODELS = [{"name": "TPDM", "version": "1.1.0"}, {"name": "Ed-Fi", "version": "3.3.1-b"}]


def of_version(version: str, base: str = "", mode: str | None = None, **urls: str) -> StandIn:
    """An ODS whose root document says this; it answers nothing else."""
    document: dict[str, Any] = {"version": version, "suite": "3", "dataModels": MODELS, "urls": urls}
    if mode:
        document["apiMode"] = mode
    return StandIn(lambda asked: Reply(document) if asked.path == f"{base}/" else None, base)


def places(session: OdsSession, ods: StandIn) -> list[str]:
    found = [session.url(area) for area in AREAS]
    assert [url for url in found if not url.startswith(f"{ods.url}/")] == []
    return [url.removeprefix(ods.url) for url in found]


# -- 5.x and 6.x ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["5.2", "5.3", "6.1", "6.2"])
@pytest.mark.parametrize("base", ["", "/v6.1/api"])
@pytest.mark.parametrize("mode", ["Sandbox", "Shared Instance", "District Specific", "shared instance", None])
def test_one_ods_for_all_years_has_no_segment(version: str, base: str, mode: str | None) -> None:
    with of_version(version, base, mode) as ods, session_at(ods.url) as session:
        assert places(session, ods) == [
            "/data/v3",
            "/changeQueries/v1",
            "/oauth/token",
            "/metadata/data/v3",
        ]


def test_the_year_is_the_pairs_and_not_the_servers_calendar_year() -> None:
    told = {
        "dataManagementApi": "http://127.0.0.1/data/v3/2031",
        "changeQueries": "http://127.0.0.1/changeQueries/v1/",
    }
    with of_version("6.1", "", "Year Specific", **told) as ods, session_at(ods.url) as session:
        assert places(session, ods) == [
            "/data/v3/2025",
            "/changeQueries/v1/2025",
            "/oauth/token",
            "/metadata/data/v3/2025",
        ]
        assert session.discovery.api_mode == "year_specific"


INSTANCE_PLACES = [
    "/data/v3/255901/2025",
    "/changeQueries/v1/255901/2025",
    "/255901/oauth/token",
    "/metadata/data/v3/255901/2025",
]


@pytest.mark.parametrize("version", ["5.3", "6.1"])
def test_an_instance_stands_before_the_year_and_before_the_token(version: str) -> None:
    told = {"dataManagementApi": "http://127.0.0.1/data/v3/{instance}/2031"}
    with (
        of_version(version, "", "Instance Year Specific", **told) as ods,
        session_at(ods.url, of_year='instance_code: "255901"') as session,
    ):
        assert places(session, ods) == INSTANCE_PLACES


def test_an_instance_that_the_document_fills_in_need_not_be_written() -> None:
    told = {"dataManagementApi": "http://internal/data/v3/255901/2031/"}
    with (
        of_version("6.1", "", "Instance Year Specific", **told) as ods,
        session_at(ods.url) as session,
    ):
        assert places(session, ods) == INSTANCE_PLACES


@pytest.mark.parametrize("told", ["http://127.0.0.1/data/v3/{instance}/2031", ""])
def test_an_instance_that_nobody_tells_is_asked_for(told: str) -> None:
    with (
        of_version("6.1", "", "Instance Year Specific", dataManagementApi=told) as ods,
        session_at(ods.url) as session,
        pytest.raises(OdsNotReady, match=r"^grand_bend.2025: .*write instance_code"),
    ):
        session.url("oauth")


def test_the_configuration_overrides_mode_and_version() -> None:
    written = "api_mode: year specific\napi_version: '5.3'"
    with (
        of_version("6.1", "", "Shared Instance") as ods,
        session_at(ods.url, of_year=written) as session,
    ):
        assert places(session, ods)[0] == "/data/v3/2025"
        found = session.discovery
        assert (found.version, found.api_mode, found.ods_version) == ((5, 3), "year_specific", "6.1")


def test_a_mode_that_is_not_known_is_asked_for() -> None:
    with (
        of_version("6.1", "", "Galaxy Specific") as ods,
        session_at(ods.url) as session,
        session_at(ods.url, of_year="api_mode: sandbox") as told,
    ):
        with pytest.raises(OdsNotReady, match=r"write api_mode .*year_specific"):
            session.url("oauth")
        assert told.url("oauth") == f"{ods.url}/oauth/token"


def test_5_x_tells_nothing_of_change_queries_and_has_them_all_the_same() -> None:
    with of_version("5.3", "", "Sandbox") as ods, session_at(ods.url) as session:
        assert session.url("changeQueries") == f"{ods.url}/changeQueries/v1"


# -- 7.x and later -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["7.0", "7.1", "7.2", "7.3"])
@pytest.mark.parametrize("base", ["", "/api", "/api/tenant1/2025"])
@pytest.mark.parametrize(
    "told", ["http://127.0.0.1{base}", "http://internal{base}/{{tenantIdentifier}}/{{schoolYearFromRoute}}"]
)
def test_tenant_and_context_come_before_the_area(version: str, base: str, told: str) -> None:
    prefix = told.format(base=base)
    urls = {
        "dataManagementApi": f"{prefix}/data/v3/",
        "changeQueries": f"{prefix}/changeQueries/v1/",
        "oauth": f"{prefix}/oauth/token",
        "openApiMetadata": f"{prefix}/metadata/",
    }
    with of_version(version, base, **urls) as ods, session_at(ods.url) as session:
        assert places(session, ods) == [
            "/data/v3",
            "/changeQueries/v1",
            "/oauth/token",
            "/metadata/data/v3",
        ]


def test_7_x_knows_no_mode_and_no_year_after_the_area() -> None:
    with of_version("7.1") as ods, session_at(ods.url, of_year="api_mode: year_specific") as session:
        assert places(session, ods)[0] == "/data/v3"
    with of_version("7.1") as ods, session_at(ods.url) as session:
        assert session.discovery.api_mode is None


@pytest.mark.parametrize("base", ["", "/dms"])
@pytest.mark.parametrize("is_told", [True, False])
def test_the_data_management_service_has_no_v3_and_its_documents_elsewhere(base: str, is_told: bool) -> None:
    host = f"http://127.0.0.1{base}"
    urls = {
        "dataManagementApi": f"{host}/data",
        "openApiMetadata": f"{host}/metadata/specifications",
        "oauth": f"{host}/oauth/token",
        "tokenInfo": f"{host}/oauth/token_info",
    }
    with of_version("8.0", base, **urls if is_told else {}) as ods, session_at(ods.url) as session:
        assert places(session, ods) == [
            "/data",
            "/changeQueries/v1",
            "/oauth/token",
            "/metadata/specifications",
        ]


# -- Ed-Fi 2 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("", "/api/v2.0/2025"),
        ("api_mode: year specific", "/api/v2.0/2025"),
        ("api_mode: sandbox", "/api/v2.0"),
        ("api_mode: shared_instance", "/api/v2.0"),
        ("api_mode: instance_year_specific\ninstance_code: north", "/api/v2.0/north/2025"),
    ],
)
def test_ed_fi_2_is_known_without_asking_for_a_document(written: str, path: str) -> None:
    with (
        StandIn(lambda asked: None, "/edfi") as ods,
        session_at(ods.url, of_year=f'api_version: "2"\n{written}') as session,
    ):
        assert places(session, ods)[:3] == [path, "/changeQueries/v1", "/oauth/token"]
        found = session.discovery
        assert (found.version, found.ods_version, found.data_model_version) == ((2, 0), "ED-FI2", "ED-FI2")
        assert ods.asked == []


def ed_fi_2(asked: Asked) -> Reply | None:
    match asked.path:
        case "/oauth/authorize":
            return Reply({"code": "c0de5ec3e7"})
        case "/oauth/token":
            return Reply({"access_token": "t0ken", "expires_in": 1800, "token_type": "bearer"})
        case "/api/v2.0/2025/students":
            return Reply([{"id": "a"}])
    return None


def test_ed_fi_2_gives_a_code_first_and_a_token_for_it() -> None:
    with StandIn(ed_fi_2) as ods, session_at(ods.url, of_year='api_version: "2"') as session:
        url = f"{session.url('dataManagementApi')}/students"
        assert (
            session.get(url, {"limit": "25", "offset": "0"}, lambda answer: answer.body) == b'[{"id": "a"}]'
        )
        first, second, third = ods.asked
    assert (first.method, first.path, first.body) == (
        "POST",
        "/oauth/authorize",
        b"Client_id=sandbox&Response_type=code",
    )
    assert first.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (second.method, second.path) == ("POST", "/oauth/token")
    assert second.json() == {
        "Client_id": "sandbox",
        "Client_secret": "sandbox-secret",
        "Code": "c0de5ec3e7",
        "Grant_type": "authorization_code",
    }
    assert second.headers["content-type"] == "application/json"
    assert third.headers["authorization"] == "Bearer t0ken"
    assert third.query == {"limit": "25", "offset": "0"}


@pytest.mark.parametrize("path", ["/oauth/authorize", "/oauth/token"])
def test_ed_fi_2_that_refuses_the_key_in_either_step_is_wrong_credentials(path: str) -> None:
    def refusing(asked: Asked) -> Reply | None:
        return Reply({"error": "invalid"}, status=400) if asked.path == path else ed_fi_2(asked)

    naps = Naps()
    with (
        StandIn(refusing) as ods,
        session_at(ods.url, sleep=naps, of_year='api_version: "2"') as session,
    ):
        with pytest.raises(WrongCredentials) as caught:
            session.get(session.url("dataManagementApi"), {}, lambda answer: answer)
        assert "c0de5ec3e7" not in str(caught.value)
    assert naps.seconds == []
