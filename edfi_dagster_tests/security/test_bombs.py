"""An answer without end, or of any size once it is unpacked, takes neither the memory nor the time of a run."""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Iterator
from functools import cache

import pytest

from edfi_dagster.ods import transport as transport_module
from edfi_dagster.ods.answers import Oversized, Transient
from edfi_dagster.ods.changes import whole_window
from edfi_dagster.ods.errors import EdFiError, OdsNotReady, OdsUnreachable, UnusableBody
from edfi_dagster.ods.pagers import follow
from edfi_dagster.ods.pages import Collection
from edfi_dagster.ods.published import LARGEST_DOCUMENT_BYTES, PublishedEndpoints
from edfi_dagster.ods.transport import LARGEST_STATEMENT_BYTES, Transport
from edfi_dagster_tests.ods.platforms import endpoint, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

MIB = 2**20
HEAD = b"HTTP/1.1 200 OK\r\n"


@cache
def bomb(mebibytes: int, wbits: int = 31, before: bytes = b"[") -> bytes:
    """So many MiB of spaces, a thousand times smaller on the wire."""
    packing = zlib.compressobj(9, zlib.DEFLATED, wbits)
    spaces = b" " * MIB
    return b"".join(
        [packing.compress(before), *(packing.compress(spaces) for _ in range(mebibytes)), packing.flush()]
    )


def at(path: str, reply: Reply) -> StandIn:
    return StandIn(lambda asked: reply if asked.path.endswith(path) else None)


def peak(ask: object) -> int:
    """The most bytes that were held while ``ask`` ran."""
    assert callable(ask)
    tracemalloc.start()
    try:
        ask()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        (
            "/",
            OdsNotReady,
            "does not answer like an Ed-Fi API (the answer is larger than 4 MiB); check base_url",
        ),
        ("/oauth/token", OdsNotReady, "no token: the answer is larger than 4 MiB; check base_url"),
        ("/availableChangeVersions", OdsNotReady, "does not tell its newest change version"),
    ],
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_an_ods_says_of_itself_is_read_to_four_mebibytes(
    path: str, kind: type[EdFiError], words: str, encoding: str
) -> None:
    packed = bomb(200, 31 if encoding == "gzip" else 15)
    with (
        at(path, Reply(packed, headers={"Content-Encoding": encoding})) as ods,
        session_at(ods.url) as session,
    ):

        def ask() -> None:
            with pytest.raises(kind) as caught:
                session.newest_change_version()
            assert words in str(caught.value)

        assert peak(ask) < 5 * LARGEST_STATEMENT_BYTES
        assert len(ods.matching(path)) <= 3


@pytest.mark.slow
def test_an_openapi_document_is_read_to_its_bound_and_done_without() -> None:
    reply = Reply(bomb(200), headers={"Content-Encoding": "gzip"})
    with at("swagger.json", reply) as ods, session_at(ods.url) as session:
        published = PublishedEndpoints(session)
        assert peak(lambda: published.lists("resource")) < 3 * LARGEST_DOCUMENT_BYTES
        assert not published.lists("resource")


@pytest.mark.parametrize("status", [400, 404, 500])
def test_the_body_of_an_error_is_read_to_a_mebibyte(status: int) -> None:
    reply = Reply(bomb(100), status=status, headers={"Content-Encoding": "gzip"})
    with StandIn(lambda asked: reply) as ods:
        sending = Transport(ods.url, verify=True, connections=1, timeouts=(2.0, 5.0))

        def ask() -> None:
            answer = sending.send("GET", f"{ods.url}/x", {})
            assert (answer.status, answer.body) == (status, b"")

        assert peak(ask) < 8 * MIB
        sending.close()


@pytest.mark.parametrize(
    "encoding", ["gzip, gzip, gzip", "gzip," * 50 + "gzip", "br", "zstd", "compress", "\x1b[2J", "identity"]
)
def test_no_encoding_but_the_ones_asked_for_does_harm(encoding: str) -> None:
    packed = bomb(20)
    with StandIn(lambda asked: Reply(packed, headers={"Content-Encoding": encoding})) as ods:
        sending = Transport(ods.url, verify=True, connections=1, timeouts=(2.0, 5.0), largest=MIB)

        def ask() -> None:
            try:
                assert len(sending.send("GET", f"{ods.url}/x", {}).body) <= MIB
            except (Transient, Oversized) as error:
                assert error.reason.isprintable()

        assert peak(ask) < 16 * MIB
        sending.close()


def lines(line: bytes) -> Iterator[bytes | float]:
    yield HEAD
    for _ in range(3000):
        yield line * 1000


@pytest.mark.parametrize(
    "raw",
    [
        lines(b"X-More: " + b"a" * 100 + b"\r\n"),
        [HEAD + b"X-Long: ", *[b"a" * MIB] * 64],
        [b"HTTP/1.1 " + b"2" * MIB],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"f" * MIB] * 8],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n"],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nabc\r\n"],
        [HEAD + b"Content-Length: -5\r\n\r\nabc"],
        [HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabc"],
        [HEAD + b"Content-Length: 5, 6\r\n\r\nabcde"],
        [b"\x00" * 1000],
        [b"HTTP/1.1 200 OK\r\nA\x00: b\r\n: c\r\n\r\n"],
    ],
    ids=[
        "headers",
        "header",
        "status",
        "chunk size",
        "negative chunk",
        "endless chunk",
        "negative length",
        "long length",
        "two lengths",
        "zeros",
        "odd names",
    ],
)
def test_an_answer_that_is_no_http_is_an_answer_cut_off(raw: object) -> None:
    with StandIn(lambda asked: Reply(raw=raw)) as ods:  # type: ignore[arg-type]
        sending = Transport(ods.url, verify=True, connections=1, timeouts=(2.0, 2.0), largest=MIB)
        started = time.monotonic()

        def ask() -> None:
            try:
                sending.send("GET", f"{ods.url}/x", {})
            except (Transient, Oversized) as error:
                assert error.reason.isprintable()

        assert peak(ask) < 32 * MIB
        assert time.monotonic() - started < 25
        sending.close()


def test_interim_answers_without_end_are_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "WHOLE_ANSWER_TIMES", 2)

    def interim() -> Iterator[bytes | float]:
        while True:
            yield b"HTTP/1.1 100 Continue\r\n\r\n"
            yield 0.02

    with StandIn(lambda asked: Reply(raw=interim())) as ods:
        sending = Transport(ods.url, verify=True, connections=1, timeouts=(2.0, 0.5))
        with pytest.raises(Transient, match="time-out"):
            sending.send("GET", f"{ods.url}/x", {})
        sending.close()


def test_an_ods_that_answers_errors_without_end_is_given_up() -> None:
    def answer(asked: Asked) -> Reply | None:
        return Reply(b"x" * 3 * MIB, status=503) if "changeQueries" in asked.path else None

    with StandIn(answer) as ods, session_at(ods.url) as session:
        with pytest.raises(OdsUnreachable, match="HTTP 503"):
            session.newest_change_version()
        assert len(ods.matching("changeQueries")) == 6


@pytest.mark.parametrize("rows", [[], [{"id": "a"}]], ids=["no row", "one row"])
def test_page_tokens_that_lead_nowhere_end(rows: list[dict[str, str]]) -> None:
    def answer(asked: Asked) -> Reply | None:
        if not asked.path.endswith("/students"):
            return None
        return Reply(rows, headers={"Next-Page-Token": str(len(ods.asked)), "Total-Count": "5000"})

    with StandIn(answer) as ods, session_at(ods.url) as session:
        collection = Collection(session, endpoint("students"))
        with pytest.raises(UnusableBody, match="lead on and on without another record"):
            list(follow(collection, whole_window(5), "first"))
        assert len(ods.asked) < 40
