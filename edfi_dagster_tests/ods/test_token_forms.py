"""How a token is asked for: the form, the address, and keys and secrets with any character."""

from __future__ import annotations

import base64
from collections.abc import Callable
from urllib.parse import parse_qs, unquote_plus

import pytest

from edfi_dagster.ods.errors import OdsNotReady, OdsUnreachable, WrongCredentials
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster.sandbox.gateways import PAGES
from edfi_dagster_tests.ods.conftest import ODS
from edfi_dagster_tests.ods.data_management_service import DataManagementService
from edfi_dagster_tests.ods.platforms import KEY_VARIABLE, SECRET_VARIABLE, Naps, session_at
from edfi_dagster_tests.ods.stand_in import DISCOVERY, Asked, Reply, StandIn

TOKEN = Reply({"access_token": "f00dfeed", "expires_in": 1800})
REFUSALS = {
    "invalid_request": Reply({"error": "invalid_request"}, 400),
    "invalid_client": Reply({"error": "invalid_client"}, 401),
    "no body": Reply(status=401),
    "not ours": Reply({"message": "Client authentication failed"}, 401),
    "forbidden": Reply({"error": "access_denied"}, 403),
    "forbidden without a body": Reply(status=403),
    "not allowed": Reply(status=405),
    "media type": Reply({"type": "urn:ed-fi:api:unsupported-media-type", "status": 415}, 415),
    "not implemented": Reply(status=501),
    "a text": Reply(b"Bad request", 400),
    "a page of a gateway that stops Basic": Reply(b"<html>Unauthorized</html>", 401),
}
SECRETS = ["plain", "a:b", ":", "ends:", "50%+1 &=?#/", "päß✓", "a%3Ab", " blank "]


def only_body(refusal: Reply) -> Callable[[Asked], Reply | None]:
    """A server that takes key and secret in the body alone."""

    def answer(asked: Asked) -> Reply | None:
        if not asked.path.endswith("/oauth/token"):
            return None
        fields = parse_qs(asked.body.decode())
        good = fields.get("client_id") == ["sandbox"] and fields.get("client_secret") == ["sandbox-secret"]
        return TOKEN if good and "authorization" not in asked.headers else refusal

    return answer


@pytest.mark.parametrize("name", REFUSALS)
def test_where_basic_is_refused_the_body_is_sent_and_from_then_on_first(name: str) -> None:
    with StandIn(only_body(REFUSALS[name])) as ods, session_at(ods.url) as session:
        assert session.newest_change_version() == 42
        lease = session._token_lease()
        lease.get(refused=lease.get())
        first, *rest = ods.matching("/oauth/token")
    assert first.headers["authorization"].startswith("Basic ")
    assert first.body == b"grant_type=client_credentials"
    assert ["authorization" in asked.headers for asked in rest] == [False, False]


def test_the_data_management_service_takes_basic_alone() -> None:
    service = DataManagementService({n: n for n in range(9)})
    with StandIn(service) as there, session_at(there.url) as session:
        assert session.newest_change_version() == 100
        assert len(there.matching("/oauth/token")) == service.given == 1


@pytest.mark.parametrize("version", ["7.3", "6.1", "5.3"])
@pytest.mark.parametrize("secret", SECRETS)
def test_any_secret_signs_in_to_every_ods_and_a_refused_form_costs_no_token(
    version: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ODS/API takes Basic apart at every colon."""
    monkeypatch.setenv(SECRET_VARIABLE, secret)
    with SandboxServer([ODS], rows={"students": 1}, ods_version=version) as server:
        server.site.settings.secret = secret
        with session_at(server.url_of(ODS)) as session:
            assert session.newest_change_version() > 0
        (tokens,) = server.site._tokens.values()
        assert len(tokens.expiries) == 1
        assert len(server.requests.matching("/oauth/token")) == (2 if ":" in secret else 1)


@pytest.mark.parametrize("secret", [secret for secret in SECRETS if ":" not in secret])
def test_any_key_and_secret_without_a_colon_signs_in_to_the_data_management_service(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, secret)
    monkeypatch.setenv(KEY_VARIABLE, f"k{secret}")
    service = DataManagementService({}, key=f"k{secret}", secret=secret)
    with StandIn(service) as there, session_at(there.url) as session:
        assert session.newest_change_version() == 100


@pytest.mark.parametrize("secret", SECRETS)
def test_a_server_that_decodes_basic_as_rfc_6749_says_is_asked_so_at_last(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, secret)

    def answer(asked: Asked) -> Reply | None:
        if not asked.path.endswith("/oauth/token"):
            return None
        scheme, _, sent = asked.headers.get("authorization", "").partition(" ")
        parts = base64.b64decode(sent).decode().split(":") if scheme == "Basic" else []
        return TOKEN if list(map(unquote_plus, parts)) == ["sandbox", secret] else REFUSALS["invalid_client"]

    with StandIn(answer) as ods, session_at(ods.url) as session:
        assert session.newest_change_version() == 42
        assert len(ods.matching("/oauth/token")) <= 3


def test_a_wrong_secret_is_refused_in_each_form_once_and_told_by_the_401() -> None:
    service = DataManagementService({}, secret="another")
    naps = Naps()
    with StandIn(service) as there, session_at(there.url, sleep=naps) as session:
        with pytest.raises(WrongCredentials, match=r"HTTP 401 from its token address.*check client_id"):
            session.newest_change_version()
        assert (len(there.matching("/oauth/token")), naps.seconds, service.given) == (2, [], 0)


# -- pages of others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["firewall", "gateway", "unauthorized", "aws", "apim", "empty_403", "rate_limit"]
)
def test_a_page_of_a_gateway_at_the_token_address_says_nothing_about_the_key(name: str) -> None:
    page = PAGES[name]

    def answer(asked: Asked) -> Reply | None:
        return Reply(page.body, page.status) if asked.path.endswith("/oauth/token") else None

    with StandIn(answer) as ods, session_at(ods.url) as session:
        with pytest.raises(
            OdsUnreachable, match=rf"no token: HTTP {page.status} with.*6 attempts; a firewall"
        ):
            session.newest_change_version()
        asked = ods.matching("/oauth/token")
        assert len([each for each in asked if "authorization" in each.headers]) == 6


# -- addresses -----------------------------------------------------------------------------------------------


def test_key_and_secret_go_to_oauth_url_alone_and_the_ods_is_asked_about_its_token_itself() -> None:
    def issue(asked: Asked) -> Reply | None:
        return TOKEN if asked.path == "/connect/token" else None

    with StandIn(issue) as issuer, StandIn(lambda asked: None) as ods:
        with session_at(ods.url, of_year=f"oauth_url: {issuer.url}/connect/token") as session:
            assert session.newest_change_version() == 42
            assert session.url("oauth") == f"{ods.url}/oauth/token"
        assert [asked.path for asked in issuer.asked] == ["/connect/token"]
        assert not ods.matching("/oauth/token")


@pytest.mark.parametrize("status", [404, 405, 401])
def test_a_token_address_that_the_ods_names_on_another_host_is_told_and_never_asked(status: int) -> None:
    with StandIn(lambda asked: TOKEN) as named:
        told = named.url.replace("127.0.0.1", "localhost")

        def answer(asked: Asked) -> Reply | None:
            if asked.path == "/":
                return Reply({**DISCOVERY, "urls": {"oauth": f"{told}/connect/token?x=1"}})
            return Reply(status=status) if asked.path == "/oauth/token" else None

        with (
            StandIn(answer) as ods,
            session_at(ods.url) as session,
            pytest.raises((OdsNotReady, WrongCredentials)) as caught,
        ):
            session.newest_change_version()
        assert str(caught.value).endswith(f"write oauth_url: {told}/connect/token")
        assert not named.asked


def test_placeholders_and_the_same_host_are_no_other_address() -> None:
    for told in (
        "http://127.0.0.1/oauth/token",
        "https://x/{tenantIdentifier}/oauth/token",
        "//[",
        "ftp://x/y",
    ):

        def answer(asked: Asked, told: str = told) -> Reply | None:
            if asked.path == "/":
                return Reply({**DISCOVERY, "urls": {"oauth": told}})
            return Reply(status=404) if asked.path == "/oauth/token" else None

        with StandIn(answer) as ods, session_at(ods.url) as session:
            with pytest.raises(OdsNotReady) as caught:
                session.newest_change_version()
            assert "oauth_url" not in str(caught.value)
