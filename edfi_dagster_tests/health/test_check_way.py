"""What ``check`` says of the way to an ODS: firewalls, gateways, login pages, proxies, authorities, token addresses."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.health.findings import State
from edfi_dagster.ods.network import CERTIFICATES, PROXIES
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import ODS, PAIR
from edfi_dagster_tests.health.asking import MakeBench, asked, at, rewritten
from edfi_dagster_tests.ods.authority import Authority
from edfi_dagster_tests.ods.data_management_service import DataManagementService
from edfi_dagster_tests.ods.proxies import NAME, HttpProxy, SocksProxy, TlsFront
from edfi_dagster_tests.ods.stand_in import DISCOVERY, Asked, Reply, StandIn

THROUGH = "have its host let this machine through"


@pytest.fixture(autouse=True)
def no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *CERTIFICATES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_token_of_another_test(sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.expire_tokens()
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))


@pytest.mark.parametrize(
    ("place", "question"),
    [
        ("/2025/$", "reachable"),
        ("/oauth/token$", "token"),
        ("/data/", "permissions"),
        ("/deletes", "ReadChanges"),
    ],
)
@pytest.mark.parametrize("page", ["firewall", "gateway", "kong", "aws", "empty_403", "login"])
def test_who_answers_in_place_of_the_ods_is_told_where_it_stands(
    place: str, question: str, page: str, make_bench: MakeBench
) -> None:
    bench = make_bench("students", "schools")
    bench.server.faults.add(place, page=page)
    found = asked(bench.platform)
    assert list(found)[-1] == question
    assert found[question].state == State.FAILED
    assert ("to login.example.org" if page == "login" else "HTTP 40") in found[question].found
    assert THROUGH in found[question].remedy


@pytest.mark.parametrize(
    ("place", "question"),
    [("/2025/$", "reachable"), ("/oauth/token$", "token"), ("availableCh", "change queries")],
)
def test_a_captive_portal_is_told_as_an_html_page(place: str, question: str, make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.server.faults.add(place, page="portal")
    found = asked(bench.platform)
    assert found[question].state == State.FAILED
    assert "it is an HTML page" in found[question].found
    assert "check base_url" in found[question].remedy


def test_an_empty_404_of_an_endpoint_that_the_openapi_lists_is_told(make_bench: MakeBench) -> None:
    bench = make_bench("students", "schools")
    bench.server.faults.add("/ed-fi/", page="empty")
    found = asked(bench.platform)
    assert found["permissions"].found.startswith("ed-fi/schools: HTTP 404 without a body")
    assert "although the OpenAPI of the ODS lists the endpoint" in found["permissions"].found
    assert "or write enabled: false for the endpoint" in found["permissions"].remedy


def of_year(**values: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["tenants"][PAIR.tenant]["years"][PAIR.year] |= values

    return change


def test_a_token_address_on_another_host_is_named_as_oauth_url_and_works_as_such(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("students")
    with StandIn(lambda asked: Reply({"access_token": "f00dfeed"})) as issuer:

        def answer(request: Asked) -> Reply | None:
            if request.path == "/":
                told = issuer.url.replace("127.0.0.1", "localhost")
                return Reply({**DISCOVERY, "urls": {"oauth": f"{told}/connect/token"}})
            if request.path == "/oauth/token":
                return Reply(status=404)
            return Reply([]) if request.path.startswith("/data/v3/") else None

        with StandIn(answer) as ods:
            found = asked(rewritten(bench, at(ods.url)))
            assert found["token"].state == State.FAILED
            assert found["token"].remedy.endswith(
                f"write oauth_url: {issuer.url.replace('127.0.0.1', 'localhost')}/connect/token"
            )
            assert not issuer.asked
            found = asked(rewritten(bench, of_year(oauth_url=f"{issuer.url}/connect/token")))
            assert found["token"].state == State.OK
            assert len(issuer.asked) == 1


def test_the_data_management_service_is_well(make_bench: MakeBench) -> None:
    with StandIn(DataManagementService({1: 1})) as there:
        found = asked(rewritten(make_bench("students", "schools"), at(there.url)))
    assert {question: finding for question, finding in found.items() if finding.state == State.FAILED} == {}


# -- proxies and authorities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [HttpProxy, SocksProxy])
def test_an_ods_behind_a_proxy_is_well(
    make: Callable[[], HttpProxy | SocksProxy], make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    with make() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        found = asked(rewritten(bench, at(bench.server.url_of(ODS).replace("127.0.0.1", NAME))))
    assert {finding.state for finding in found.values()} == {State.OK}, found


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_is_down_is_told_with_its_variable(
    scheme: str, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("HTTP_PROXY", f"{scheme}://user:p-ss@{place}")
    found = asked(make_bench("students").platform)
    assert found["reachable"].found.startswith(f"no connection from the proxy {place}, ")
    assert found["reachable"].remedy == "check HTTP_PROXY, and that the proxy runs"
    assert "p-ss" not in str(found)


def test_a_proxy_that_wants_a_password_is_told(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpProxy("user:right") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:wr-ng@{proxy.place}")
        found = asked(make_bench("students").platform)
        assert (
            found["reachable"].found == f"the proxy {proxy.place}: it wants another user and password (407)"
        )
    assert found["reachable"].remedy.startswith("write them into HTTP_PROXY")
    assert "wr-ng" not in str(found)


def test_an_authority_that_this_machine_does_not_trust_is_told(
    make_bench: MakeBench, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    authority = Authority(tmp_path_factory.mktemp("authority"), "127.0.0.1")
    with TlsFront(authority.context(), bench.server.port) as front:
        platform = rewritten(bench, at(f"{front.url}/{ODS}"))
        found = asked(platform)
        assert "its certificate cannot be verified" in found["reachable"].found
        assert "REQUESTS_CA_BUNDLE" in found["reachable"].remedy
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
        assert {finding.state for finding in asked(platform).values()} == {State.OK}


def test_an_address_that_only_lacks_or_has_a_slash_or_a_blank_is_well(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    found = asked(rewritten(bench, at(f" {bench.server.url_of(ODS)}/ ")))
    assert {finding.state for finding in found.values()} == {State.OK}, found


def test_deletes_that_the_ods_does_not_have_are_not_called_a_matter_of_the_claim_set(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("students", "schools")
    bench.server.faults.add("/deletes", status=404, body=b'{"type": "urn:ed-fi:api:not-found"}')
    found = asked(bench.platform)["ReadChanges"]
    assert found.state == State.FAILED
    assert "have its host switch change queries on, or write use_change_version: false" in found.remedy
    assert "claim set" not in found.remedy
