"""One request: how long its answer may take, how large it may be, and whom it trusts."""

from __future__ import annotations

import datetime as dt
import gzip
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edfi_dagster.ods.answers import Answer, Oversized, Transient
from edfi_dagster.ods.errors import OdsNotReady, OdsUnreachable, RequestRefused, TooHeavy
from edfi_dagster.ods.transport import LARGEST_ANSWER_BYTES, WHOLE_ANSWER_TIMES, Transport
from edfi_dagster_tests.ods.platforms import Naps, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

HEAD = b"HTTP/1.1 200 OK\r\n"
MIB = 2**20


def sent(reply: Reply, *, read: float = 2.0, largest: int = LARGEST_ANSWER_BYTES) -> Answer:
    """What one request is answered by a server that always replies so."""
    with StandIn(lambda asked: reply) as ods:
        transport = Transport(ods.url, verify=True, connections=1, timeouts=(2.0, read), largest=largest)
        try:
            return transport.send("GET", f"{ods.url}/x", {})
        finally:
            transport.close()


# -- time ----------------------------------------------------------------------------------------------------


def drip(text: bytes, seconds: float) -> Iterator[bytes | float]:
    for place in range(len(text)):
        yield text[place : place + 1]
        yield seconds


@pytest.mark.parametrize(
    "pieces",
    [
        drip(HEAD + b"X-Endless: " + b"x" * 4000, 0.02),
        [HEAD + b"Content-Length: 4000\r\n\r\n", *drip(b"x" * 4000, 0.02)],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *drip(b"1\r\nx\r\n" * 600, 0.02)],
        [HEAD + b"\r\n", *drip(b"x" * 4000, 0.02)],
    ],
    ids=["in the head", "in the body", "in chunks", "without length"],
)
def test_an_answer_that_trickles_for_ever_ends_as_a_time_out(pieces: list[bytes | float]) -> None:
    began = time.monotonic()
    with pytest.raises(Transient, match="time-out") as caught:
        sent(Reply(raw=pieces), read=0.25)
    assert 0.25 * WHOLE_ANSWER_TIMES <= time.monotonic() - began < 0.25 * WHOLE_ANSWER_TIMES + 5.0
    assert (caught.value.heavy, caught.value.suffering) == (True, True)


def test_an_answer_may_take_longer_than_one_silence_may() -> None:
    pieces = [HEAD + b"Content-Length: 60\r\n\r\n", *drip(b"x" * 60, 0.01)]
    assert sent(Reply(raw=pieces), read=0.3).body == b"x" * 60


def test_each_answer_on_a_connection_has_its_own_time() -> None:
    with StandIn(lambda asked: Reply(b"x")) as ods:
        transport = Transport(ods.url, verify=True, connections=1, timeouts=(1.0, 0.2))
        for _ in range(6):
            time.sleep(0.2 * WHOLE_ANSWER_TIMES / 4)
            assert transport.send("GET", f"{ods.url}/x", {}).body == b"x"
        transport.close()


def test_a_connection_that_is_not_made_in_time_is_no_connection() -> None:
    """A listener with a full queue: the request for a connection is never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as first:
        first.connect(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        others = [socket.socket() for _ in range(3)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        transport = Transport(url, verify=True, connections=1, timeouts=(0.1, 1.0))
        with pytest.raises(Transient, match="no connection") as caught:
            transport.send("GET", url, {})
        assert (caught.value.heavy, caught.value.suffering) == (False, True)
        transport.close()
        for other in others:
            other.close()


# -- size ----------------------------------------------------------------------------------------------------


def many(size: int) -> Iterator[bytes | float]:
    """A body of ``size`` bytes that nobody has to hold."""
    for _ in range(size // MIB):
        yield b" " * MIB


LARGE = 64 * MIB
PLAIN = [HEAD + b"Content-Length: %d\r\n\r\n" % LARGE]
CHUNK = b"100000\r\n" + b" " * MIB + b"\r\n"
BOMB = gzip.compress(b" " * LARGE, mtime=0)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(raw=[*PLAIN, *many(LARGE)]),
        Reply(raw=[HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[CHUNK] * 64, b"0\r\n\r\n"]),
        Reply(raw=[HEAD + b"\r\n", *many(LARGE)]),
        Reply(BOMB, headers={"Content-Encoding": "gzip"}),
        Reply(gzip.compress(BOMB, mtime=0), headers={"Content-Encoding": "gzip, gzip"}),
    ],
    ids=["Content-Length", "chunks", "neither", "gzip", "gzip of gzip"],
)
def test_an_answer_larger_than_the_bound_is_refused_and_never_held(reply: Reply) -> None:
    largest = 4 * MIB
    tracemalloc.start()
    try:
        with pytest.raises(Oversized, match="larger than 4 MiB"):
            sent(reply, largest=largest)
        assert tracemalloc.get_traced_memory()[1] < 3 * largest
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
def test_an_answer_as_large_as_the_bound_is_taken(headers: dict[str, str]) -> None:
    body = b"[" + b" " * (3 * MIB - 2) + b"]"
    given = gzip.compress(body, mtime=0) if headers else body
    assert sent(Reply(given, headers=headers), largest=3 * MIB).body == body


def test_what_is_too_large_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transport.__init__, "__kwdefaults__", {"largest": MIB})

    def answer(asked: Asked) -> Reply | None:
        return Reply(b"[" + b" " * MIB + b"]") if asked.path == "/students" else None

    with StandIn(answer) as ods, session_at(ods.url) as session:
        for lighter, error in ((False, RequestRefused), (True, TooHeavy)):
            with pytest.raises(error, match="larger than 1 MiB"):
                session.get(f"{ods.url}/students", {}, lambda found: found, lighter=lighter)
        assert len(ods.matching("/students")) == 2


# -- trust ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of a server at 127.0.0.1 that signs itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secured(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with StandIn(lambda asked: None, tls=context) as ods:
        yield ods


def test_a_certificate_that_nobody_vouches_for_ends_at_once_with_the_remedy(secured: StandIn) -> None:
    naps = Naps()
    with session_at(secured.url, sleep=naps) as session, pytest.raises(OdsNotReady) as caught:
        session.newest_change_version()
    assert str(caught.value) == (
        f"grand_bend/2025: {secured.url} is not trusted: its certificate cannot be verified; have this machine "
        "trust its issuer (REQUESTS_CA_BUNDLE), or write verify_ssl: false"
    )
    assert (naps.seconds, secured.asked) == ([], [])


def test_a_certificate_of_the_environments_bundle_is_trusted(
    secured: StandIn, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with session_at(secured.url) as session:
        assert session.newest_change_version() == 42


@pytest.mark.parametrize("bundle", ["", "/nowhere/ca.pem"])
def test_verify_ssl_false_trusts_whatever_the_environment_says(
    secured: StandIn, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    with session_at(secured.url, of_year="verify_ssl: false") as session:
        assert session.newest_change_version() == 42


def test_a_bundle_that_is_not_there_is_said_to_be_missing(
    secured: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with session_at(secured.url) as session, pytest.raises(OdsNotReady, match=r"/nowhere/ca\.pem"):
        session.newest_change_version()


def test_a_server_that_speaks_no_tls_is_unreachable_and_tried_again() -> None:
    naps = Naps()
    with StandIn(lambda asked: None) as plain:
        url = plain.url.replace("http:", "https:")
        with session_at(url, sleep=naps) as session, pytest.raises(OdsUnreachable, match="TLS failure"):
            session.newest_change_version()
    assert len(naps.seconds) == 5


# -- silence -------------------------------------------------------------------------------------------------


def test_http_debugging_prints_no_token(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 9)
    for logger in (
        "",
        "urllib3",
        "urllib3.connectionpool",
    ):  # libraries that other tests load make it quieter
        caplog.set_level("DEBUG", logger=logger)
    with StandIn(lambda asked: None) as ods, session_at(ods.url) as session:
        assert session.newest_change_version() == 42
        assert ods.matching("availableChangeVersions")[0].headers["authorization"] == "Bearer f00dfeed"
    out, err = capfd.readouterr()
    text = out + err + caplog.text
    assert "f00dfeed" not in text
    assert "sandbox-secret" not in text
    assert "availableChangeVersions" in caplog.text


def test_cookies_are_not_kept_and_connections_are() -> None:
    connections = set()

    def answer(asked: Asked) -> Reply:
        connections.add(threading.get_ident())
        return Reply(b"[]", headers={"Set-Cookie": "affinity=1"})

    with StandIn(answer) as ods:
        transport = Transport(ods.url, verify=True, connections=1, timeouts=(1.0, 1.0))
        for _ in range(5):
            transport.send("GET", f"{ods.url}/x", {"Accept": "application/json"}, params={"a": "ü &#/+"})
        transport.close()
    assert len(connections) == 1
    assert [asked.headers.get("cookie") for asked in ods.asked] == [None] * 5
    assert {asked.query["a"] for asked in ods.asked} == {"ü &#/+"}


def test_a_proxy_of_the_environment_is_used_unless_the_host_is_excepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with StandIn(lambda asked: Reply(b"by proxy")) as proxy, StandIn(lambda asked: Reply(b"direct")) as ods:
        monkeypatch.setenv("http_proxy", proxy.url)
        for excepted, body in (("", b"by proxy"), ("127.0.0.1", b"direct")):
            monkeypatch.setenv("no_proxy", excepted)
            transport = Transport(ods.url, verify=True, connections=1, timeouts=(1.0, 1.0))
            assert transport.send("GET", f"{ods.url}/x", {}).body == body
            transport.close()
