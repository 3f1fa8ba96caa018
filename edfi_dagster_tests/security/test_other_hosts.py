"""Key, secret and token go to the host and below the path that are configured, whatever an ODS says."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress

import pytest

from edfi_dagster.health.probe import probed
from edfi_dagster.ods.changes import whole_window
from edfi_dagster.ods.discovery import AREAS, addresses, read_discovery
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.pages import Collection
from edfi_dagster.ods.published import PublishedEndpoints
from edfi_dagster_tests.ods.platforms import PAIR, endpoint, platform_at, session_at
from edfi_dagster_tests.ods.stand_in import DISCOVERY, Answering, Asked, Reply, StandIn, standard_reply
from edfi_dagster_tests.security.conftest import KEY, SECRET

BASE = "/v7/api"
PATHS = {
    "dataManagementApi": "data/v3",
    "oauth": "oauth/token",
    "changeQueries": "changeQueries/v1",
    "openApiMetadata": "metadata",
}


@pytest.fixture
def thief() -> Iterator[StandIn]:
    """Another host, which answers like an ODS so that nobody gives up early."""
    with StandIn(lambda asked: standard_reply(asked, BASE) or Reply([]), BASE) as other:
        yield other


def ods(answering: Answering) -> StandIn:
    """One with an empty collection of students."""

    def answer(asked: Asked) -> Reply | None:
        if (found := answering(asked)) is not None:
            return found
        if asked.path.endswith("/ed-fi/students"):
            return Reply([], headers={"Total-Count": "0"})
        return None

    return StandIn(answer, BASE)


def use_everything(ods: StandIn) -> list[EdFiError]:
    """Every kind of request that there is; what went wrong."""
    wrong: list[EdFiError] = []
    with session_at(ods.url) as session:
        for ask in (
            session.newest_change_version,
            lambda: Collection(session, endpoint("students")).first_page(whole_window(5)),
            lambda: Collection(session, endpoint("students"), "deletes").count(whole_window(5)),
            lambda: Collection(session, endpoint("students")).partitions(whole_window(5), 2),
            lambda: Collection(session, endpoint("students")).record("a/b?c=d#e"),
            lambda: PublishedEndpoints(session).lists("resource"),
        ):
            try:
                ask()
            except EdFiError as error:
                wrong.append(error)
    with probed(platform_at(ods.url), PAIR, ods.url) as probe, suppress(EdFiError):
        probe.token_info()
    return wrong


def stayed(ods: StandIn) -> bool:
    """Whether every request went below the configured path."""
    return bool(ods.asked) and all(
        asked.path.startswith(f"{BASE}/") and ".." not in asked.path and "%2e" not in asked.path.lower()
        for asked in ods.asked
    )


@pytest.mark.parametrize(
    "told",
    [
        "{thief}/{path}",
        "{thief}{path}/",
        "//{thief_host}" + BASE + "/{path}",
        "http://{host}@{thief_host}" + BASE + "/{path}",
        "http://{host}:80@{thief_host}" + BASE + "/{path}",
        "http://{thief_host}\\@{host}" + BASE + "/{path}",
        "http://{host}.evil.example" + BASE + "/{path}",
        "{own}/../../other/{path}",
        "{own}/%2e%2e/%2E%2E/other/{path}",
        "{own}/./{path}/..;/x",
        "{own}/..\\..\\other/{path}",
        "{own}//{thief_host}/{path}",
        "{own}/{path}?next=",
        "{own}/{path}#",
        "file:///etc/passwd",
        "gopher://{thief_host}" + BASE + "/{path}",
        "javascript:alert(1)",
        "",
        "{own}/\r\nHost: {thief_host}\r\n/{path}",
    ],
)
def test_a_discovery_document_sends_nothing_elsewhere(thief: StandIn, told: str) -> None:
    def answer(asked: Asked) -> Reply | None:
        if asked.path != f"{BASE}/":
            return None
        own = f"http://{asked.headers['host']}{BASE}"
        thief_host = thief.url.removeprefix("http://").removesuffix(BASE)
        places = {
            area: told.format(
                thief=thief.url, thief_host=thief_host, host=asked.headers["host"], own=own, path=path
            )
            for area, path in PATHS.items()
        }
        return Reply({**DISCOVERY, "urls": places})

    with ods(answer) as asked_ods:
        use_everything(asked_ods)
        assert stayed(asked_ods)
    assert thief.asked == []


@pytest.mark.parametrize("status", [201, 300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("at", ["/", "/oauth/token", "/availableChangeVersions", "/students", "swagger.json"])
def test_a_redirection_is_never_followed_with_token_or_secret(thief: StandIn, at: str, status: int) -> None:
    def answer(asked: Asked) -> Reply | None:
        if not asked.path.endswith(at):
            return None
        place = f"{thief.url}{asked.path.removeprefix(BASE)}"
        headers = {
            "Location": place,
            "Refresh": f"0; url={place}",
            "Content-Location": place,
            "Link": f"<{place}>",
        }
        return Reply([], status=status, headers=headers)

    with ods(answer) as asked_ods:
        wrong = use_everything(asked_ods)
        assert stayed(asked_ods)
    assert thief.asked == []
    for error in wrong:
        assert str(error).isprintable()
        assert KEY not in str(error) and SECRET not in str(error)


@pytest.mark.parametrize("scheme", ["http", "HTTP", "ftp", ""])
def test_no_document_takes_an_encrypted_address_to_an_open_one(scheme: str) -> None:
    base = "https://ods.example.org/v7/api"
    told = {area: f"{scheme}://ods.example.org/v7/api/{path}" for area, path in PATHS.items()}
    found = read_discovery({**DISCOVERY, "urls": told}, platform_at(base).ods(PAIR))
    assert addresses(base, found, 2025).keys() == set(AREAS)
    assert all(place.startswith(f"{base}/") for place in addresses(base, found, 2025).values())


def test_the_secret_goes_to_the_token_address_alone_and_the_token_not_there(thief: StandIn) -> None:
    with ods(lambda asked: None) as asked_ods:
        use_everything(asked_ods)
    for asked in asked_ods.asked:
        is_token_request = asked.path.endswith("/oauth/token")
        scheme, _, sent = asked.headers.get("authorization", "").partition(" ")
        basic = base64.b64decode(sent).decode() if scheme == "Basic" else ""
        assert (SECRET in basic) == is_token_request
        assert not (is_token_request and scheme == "Bearer")
        everything = f"{asked.path} {asked.headers} {asked.query} {asked.body.decode()}"
        assert SECRET not in everything
        if asked.path == f"{BASE}/":
            assert "authorization" not in asked.headers
