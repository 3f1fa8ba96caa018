"""Pulls through HTTP and SOCKS proxies, and with an authority of one's own, as the ordinary variables name them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from edfi_dagster.ods.errors import EdFiError, OdsDown, OdsNotReady, OdsUnreachable
from edfi_dagster.ods.network import CERTIFICATES
from edfi_dagster.ods.network import PROXIES as VARIABLES
from edfi_dagster_tests.ods.authority import Authority
from edfi_dagster_tests.ods.platforms import session_at
from edfi_dagster_tests.ods.proxies import NAME, HttpProxy, SocksProxy
from edfi_dagster_tests.ods.stand_in import StandIn

Make = Callable[[], HttpProxy | SocksProxy]
USER = "district:p@ss-word"


@pytest.fixture(autouse=True)
def no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *CERTIFICATES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), NAME, "localhost", "127.0.0.1")


@pytest.fixture
def ods() -> Iterator[StandIn]:
    with StandIn(lambda asked: None) as there:
        yield there


@pytest.fixture
def secured(authority: Authority) -> Iterator[StandIn]:
    with StandIn(lambda asked: None, tls=authority.context()) as there:
        yield there


def behind(there: StandIn, host: str = NAME) -> str:
    return there.url.replace("127.0.0.1", host)


def newest(base_url: str) -> int:
    with session_at(base_url, timeouts=(2.0, 5.0)) as session:
        return session.newest_change_version()


def failure(base_url: str, kind: type[EdFiError]) -> str:
    with pytest.raises(EdFiError) as caught:
        newest(base_url)
    assert type(caught.value) is kind, caught.value
    assert "p@ss" not in str(caught.value) and "p%40ss" not in str(caught.value)
    return str(caught.value)


WAYS = {
    "http": lambda: HttpProxy(),
    "http with a user": lambda: HttpProxy(USER),
    "socks5h": lambda: SocksProxy(),
    "socks5h with a user": lambda: SocksProxy(USER),
}
every_proxy = pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)


@every_proxy
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_an_ods_that_only_the_proxy_reaches_is_read(
    make: Make, variable: str, ods: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make() as proxy:
        monkeypatch.setenv(variable, proxy.url)
        assert newest(behind(ods)) == 42
        assert set(proxy.reached) == {behind(ods).removeprefix("http://")}


@every_proxy
@pytest.mark.parametrize("bundle", CERTIFICATES)
def test_tls_goes_through_the_proxy_and_is_judged_by_our_own_authority(
    make: Make, bundle: str, secured: StandIn, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        told = failure(behind(secured), OdsNotReady)
        assert "is not trusted" in told and "REQUESTS_CA_BUNDLE" in told
        monkeypatch.setenv(bundle, str(authority.bundle))
        assert newest(behind(secured)) == 42
        assert len(proxy.reached) > 1


def test_socks5_looks_names_up_here(ods: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with SocksProxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("socks5h", "socks5"))
        assert newest(behind(ods, "localhost")) == 42
        assert proxy.reached[0].startswith("127.0.0.1:")


@every_proxy
def test_a_host_that_no_proxy_names_is_asked_directly(
    make: Make, ods: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "example.org,127.0.0.1")
        assert newest(ods.url) == 42
        assert proxy.reached == []


def test_no_proxy_is_judged_for_the_token_address_by_itself(
    ods: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpProxy() as proxy, StandIn(lambda asked: None) as issuer:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        of_year = f"oauth_url: {issuer.url}/oauth/token"
        with session_at(behind(ods), of_year=of_year) as session:
            assert session.newest_change_version() == 42
        assert set(proxy.reached) == {behind(ods).removeprefix("http://")}
        assert len(issuer.asked) == 1


# -- what goes wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "socks5h", "https"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_proxy_that_is_down_is_told_as_that(
    scheme: str, tls: bool, ods: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://{USER}@{place}")
    told = failure(behind(ods).replace("http:", "https:" if tls else "http:"), OdsDown)
    assert f"no connection from the proxy {place}, 6 attempts; check ALL_PROXY" in told


@pytest.mark.parametrize("make", [lambda: HttpProxy(USER), lambda: SocksProxy(USER)], ids=["http", "socks5h"])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("given", ["", "district:wrong@"])
def test_a_proxy_that_wants_another_password_ends_at_once(
    make: Make, tls: bool, given: str, ods: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"{proxy.scheme}://{given}{proxy.place}")
        told = failure(behind(ods).replace("http:", "https:" if tls else "http:"), OdsNotReady)
        assert f"the proxy {proxy.place}: it wants another user and password (407)" in told
        assert "wrong" not in told and proxy.reached == []


@pytest.mark.parametrize("make", [HttpProxy, SocksProxy])
def test_an_ods_that_the_proxy_does_not_reach_is_told_as_that(
    make: Make, ods: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with make() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        told = failure(f"https://{NAME}:{port}", OdsUnreachable)
        assert f"it does not reach {NAME}:{port} from the proxy {proxy.place}, 6 attempts" in told


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("http://", "is no address of a proxy"),
        ("socks5h://127.0.0.1:1:2", "is no address of a proxy"),
        ("ftp://127.0.0.1:1", "is no address of a proxy"),
        ("http://district:p%40ss-word@:3128", "is no address of a proxy"),
    ],
)
def test_a_variable_that_names_no_proxy_is_told(
    value: str, said: str, ods: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", value)
    told = failure(behind(ods), OdsNotReady)
    assert f"the proxy in HTTP_PROXY: {said}; write http://host:port" in told


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_what_is_no_proxy_is_told(scheme: str, ods: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpProxy(broken=b"220 smtp.example.org ready\r\n") as other:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://{other.place}")
        told = failure(
            behind(ods).replace("http:", "https:"), OdsDown if scheme == "http" else OdsUnreachable
        )
        assert f"the proxy {other.place}" in told
