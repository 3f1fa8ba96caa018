"""Lightbeam and Runway behind a proxy, and with an authority of one's own: as pulls go, so do they."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from edfi_dagster.ods.errors import OdsDown
from edfi_dagster.ods.network import CERTIFICATES
from edfi_dagster.ods.network import PROXIES as VARIABLES
from edfi_dagster_tests.bench import ODS
from edfi_dagster_tests.earthbeam.conftest import MakeBundleBench
from edfi_dagster_tests.earthbeam.runway_sender import Sender
from edfi_dagster_tests.earthbeam.sending import result, sending
from edfi_dagster_tests.ods.authority import Authority
from edfi_dagster_tests.ods.proxies import NAME, HttpProxy, SocksProxy, TlsFront

KNOWN, UNKNOWN = [600052, 600053, 600054], 999999
USER = "district:p@ss-word"
Make = Callable[[], HttpProxy | SocksProxy]
WAYS: dict[str, Make] = {"http": HttpProxy, "socks5h": SocksProxy, "a user": lambda: HttpProxy(USER)}
every_proxy = pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)


@pytest.fixture(autouse=True)
def no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *CERTIFICATES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), NAME, "127.0.0.1")


def behind(url: str) -> str:
    return url.replace("127.0.0.1", NAME)


# -- Lightbeam -----------------------------------------------------------------------------------------------


@every_proxy
def test_records_reach_an_ods_that_only_the_proxy_reaches(
    make: Make, bundles: MakeBundleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bundles()
    with make() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        with sending(bench, base_url=behind(bench.server.url_of(ODS))) as lightbeam:
            lightbeam.write(*map(result, [*KNOWN, UNKNOWN]))
            sent = lightbeam.send()
            assert (sent.records, sent.accepted, sent.failed) == (4, 3, 1)
            assert [(r.status, r.count) for r in sent.refusals] == [("409", 1)]
            assert lightbeam.scores() == dict.fromkeys(map(str, KNOWN), "7")
            again = lightbeam.send()
            assert (again.accepted, again.skipped, again.failed) == (0, 3, 1)
        assert {place.partition(":")[0] for place in proxy.reached} == {NAME}


@pytest.mark.slow
@every_proxy
def test_records_are_validated_and_deleted_through_the_proxy(
    make: Make, bundles: MakeBundleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bundles()
    with make() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with sending(bench, base_url=behind(bench.server.url_of(ODS))) as lightbeam:
            lightbeam.write(*map(result, KNOWN))
            found = lightbeam.run("validate")["studentAssessments"]
            assert (found.records, found.accepted, found.failed) == (3, 3, 0)
            lightbeam.send()
            assert lightbeam.run("delete")["studentAssessments"].accepted == 3
            assert lightbeam.scores() == {}
            assert not list((lightbeam.folder / "state").rglob("swagger-*")), (
                "nothing is kept for a passing address"
            )


def test_a_proxy_that_is_down_is_told_before_lightbeam_starts(
    bundles: MakeBundleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bundles()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr("edfi_dagster.ods.retries.DEFAULT_RETRIES", 0)
    monkeypatch.setenv("HTTP_PROXY", f"http://{USER}@{place}")
    with (
        pytest.raises(OdsDown, match=rf"no connection from the proxy {place}") as caught,
        sending(bench, base_url=behind(bench.server.url_of(ODS))),
    ):
        pass
    assert "p@ss" not in str(caught.value)


@pytest.mark.parametrize("bundle", CERTIFICATES)
def test_an_ods_of_our_own_authority_is_sent_to(
    bundle: str, bundles: MakeBundleBench, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bundles()
    with TlsFront(authority.context(), bench.server.port) as front:
        monkeypatch.setenv(bundle, str(authority.bundle))
        with sending(bench, base_url=f"{front.url}/{ODS}") as lightbeam:
            lightbeam.write(*map(result, KNOWN))
            sent = lightbeam.send()
            assert (sent.accepted, sent.failed) == (3, 0), sent.refusals


@pytest.mark.slow
@every_proxy
def test_both_together(
    make: Make, bundles: MakeBundleBench, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bundles()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    with TlsFront(authority.context(), bench.server.port) as front, make() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with sending(bench, base_url=f"{behind(front.url)}/{ODS}") as lightbeam:
            lightbeam.write(*map(result, KNOWN))
            assert lightbeam.run("validate")["studentAssessments"].accepted == 3
            assert (lightbeam.send().accepted, proxy.reached != []) == (3, True)


# -- Runway --------------------------------------------------------------------------------------------------


@every_proxy
def test_runway_is_reached_through_the_proxy(
    make: Make, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender.runway.address = behind(sender.runway.url)
    sender.config = sender.runway.config(monkeypatch)
    with make() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        sender.sent(sender.job(sender.file()))
        assert {place.partition(":")[0] for place in proxy.reached} == {NAME}


@pytest.mark.parametrize("bundle", CERTIFICATES)
def test_a_runway_of_our_own_authority_is_trusted(
    bundle: str, sender: Sender, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TlsFront(authority.context(), int(sender.runway.url.rpartition(":")[2])) as front:
        sender.runway.address = front.url
        sender.config = sender.runway.config(monkeypatch)
        assert "is not trusted" in str(sender.failure(sender.job(sender.file())))
        monkeypatch.setenv(bundle, str(authority.bundle))
        sender.sent(sender.job(sender.file()))


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_on_the_way_to_runway_that_is_down_is_told(
    scheme: str, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://{USER}@{place}")
    told = str(sender.failure(sender.job(sender.file())))
    assert f"the proxy {place}: no connection (check ALL_PROXY, and that the proxy runs)" in told
    assert "p@ss" not in told and "p%40ss" not in told


@pytest.mark.parametrize("make", [lambda: HttpProxy(USER), lambda: SocksProxy(USER)], ids=["http", "socks5h"])
def test_a_proxy_on_the_way_to_runway_that_wants_a_password_is_told(
    make: Make, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"{proxy.scheme}://{proxy.place}")
        told = str(sender.failure(sender.job(sender.file())))
        assert f"the proxy {proxy.place}: it wants another user and password (407)" in told
