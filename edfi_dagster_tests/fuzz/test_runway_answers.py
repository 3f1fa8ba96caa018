"""Whatever Runway, its token issuer and its file store answer: a job made, filled and started once, or a RunwayError that
names tenant, year and file; never a secret, never for ever.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfi_dagster.earthbeam.runway import RunwaySent
from edfi_dagster.earthbeam.runway_errors import RunwayError, RunwayRefused, RunwayUnsure
from edfi_dagster.earthbeam.runway_http import Asking, Http
from edfi_dagster_tests.earthbeam.runway_sender import Sender
from edfi_dagster_tests.earthbeam.runway_stand_in import (
    CLIENT_SECRET,
    RESET,
    SIGNATURE,
    Lost,
    RunwayStandIn,
    Step,
)
from edfi_dagster_tests.fuzz.inputs import BROKEN, ODD_TEXTS, VALUES, bodies, encoded, fuzzed, spoiled, tried
from edfi_dagster_tests.ods.stand_in import Reply, StandIn

STEPS: tuple[Step, ...] = ("token", "create", "upload", "start", "sets")
# As long as real ones are, with digits, dots and dashes, which a scrubber might take apart.
TOKEN = f"eyJhbGciOi-1234567.{'Ab3-2026-' * 60}.{{}}"
ADDRESS = f"http://127.0.0.1:9/x?X-Amz-Signature={SIGNATURE}"
RIGHT: dict[Step, Any] = {
    "token": {"access_token": TOKEN.format(0), "expires_in": 3600},
    "create": {"uid": "00ff-1", "uploadUrls": {"INPUT_FILE": ADDRESS}},
    "upload": {"message": "no"},
    "start": {"message": ["no", "no"]},
    "sets": {"data": [{"uid": "set", "jobUid": "00ff-1", "files": ["a"], "sentToOds": True, "createdAt": "2026"}]},
}  # fmt: skip

STATUSES = st.sampled_from(
    [100, 101, 103, 200, 201, 202, 204, 206, 299, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409,
     413, 415, 418, 422, 425, 429, 451, 499, 500, 501, 502, 503, 504, 505, 507, 511, 599, 600, 999]
)  # fmt: skip
# Statuses of which nobody can say that nothing was done.
DONE = st.sampled_from([200, 201, 202, 204, 206, 299, 500, 502, 504, 507, 511, 599, 600, 999])
HEADERS = st.sampled_from(
    [
        ("Location", "http://[::1"), ("Location", "\xff\xfe"), ("Location", "http://127.0.0.1:9/stolen"), ("Location", "//"),
        ("Location", "http://127.0.0.1:99999/"), ("Location", ""), ("Location", "x" * 60_000), ("Location", "http://\xaa/"),
        ("Retry-After", "9" * 5000), ("Retry-After", "-1"), ("Retry-After", "\xb2"), ("Retry-After", "soon"),
        ("Set-Cookie", "a=b; expires=\xff; Max-Age=x"), ("Set-Cookie", ";=" * 900), ("Content-Encoding", "gzip"),
        ("Content-Encoding", "zstd"), ("Content-Encoding", "klingon"), ("Content-Length", "-1"), ("Content-Length", "1, 2"),
        ("Content-Length", "x"), ("Content-Length", "9" * 30), ("Transfer-Encoding", "chunked"), ("Content-Type", "\xff" * 900),
        ("WWW-Authenticate", f"Bearer {TOKEN.format(0)}"), ("X" * 900, "y"),
    ]
)  # fmt: skip
RAW = st.sampled_from(
    [
        b"", b"\x00" * 9, b"HTTP/1.1 200", b"HTTP/1.1 abc def\r\n\r\n", b"HTTP/1.1 200 OK\r\n\xff\xff: \x00\r\n\r\n{}",
        b"HTTP/9.9 200 OK\r\n\r\n[]", b"HTTP/1.1 -200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\n\r\n", b"SSH-2.0-OpenSSH\r\n",
    ]
)  # fmt: skip
ODD_ADDRESSES = st.sampled_from(
    [
        "", "?", "//127.0.0.1:9/x?", "file:///etc/passwd?", "ftp://127.0.0.1:9/x?", "data:,x?", "http://[::1?", "http://[::1]:9/?",
        "http:///x?", "http://127.0.0.1:99999/x?", "http://127.0.0.1:-1/x?", "http://127.0.0.1:x/?", "http://\u2100/?",
        "http://a..b/?", "http://user:pw@127.0.0.1:9/?", "http://127.0.0.1:9/\r\nHost: x?", "HTTP://127.0.0.1:9/?",
        " http://127.0.0.1:9/?", "http://127.0.0.1:9\\x?", "http://*/?", "http+unix://%2Ftmp/?", "javascript:x?", "http://\x00/?",
        "http://127.0.0.1:0/?", "https://127.0.0.1:9/?", "http://127.0.0.1:9/#?", "http://127.0.0.1:9/" + "x" * 70_000 + "?",
    ]
).map(lambda start: f"{start}X-Amz-Signature={SIGNATURE}")  # fmt: skip
SAYINGS = st.lists(
    st.sampled_from(
        [TOKEN.format(0), f"X-Amz-Signature={SIGNATURE}", ADDRESS, "'", '"', " ", "\n", "\x1b[31m",
         "x" * 60_000, "a." * 30_000 + "!", "'" + "a." * 30_000 + "!'", "2026-01-02", "12345", "no such bundle"]
    ),
    max_size=6,
).map("".join)  # fmt: skip


def told(step: Step) -> st.SearchStrategy[bytes]:
    """What an answer may be: another document, bytes that are none, or words that repeat what is secret."""
    said = st.one_of(SAYINGS, st.lists(SAYINGS, max_size=3), VALUES)
    if step in {"upload", "start"}:
        # Nobody can hide what nobody has heard of: before the job is made, there is no such thing.
        said |= st.sampled_from([f"bad: {SIGNATURE}{slash}INPUT_FILE" for slash in ("/", "%2F")])
    refusal = said.map(lambda words: encoded({"message": words, "statusCode": 400}))
    return st.one_of(bodies(RIGHT[step]), BROKEN, refusal, refusal)


@st.composite
def answers(draw: st.DrawFn, step: Step) -> Reply | Lost:
    """An answer to a request that was not done, or one that follows what was done."""
    done = step != "token" and draw(st.booleans())
    # Whoever announces more than comes is not waited for.
    headers = {"Connection": "close", **dict(draw(st.lists(HEADERS, max_size=2)))}
    match draw(st.sampled_from(["body", "body", "body", "raw", "reset"])):
        case "raw":
            reply = Reply(raw=draw(RAW))
        case "reset":
            reply = RESET
        case _:
            reply = Reply(draw(told(step)), draw(DONE if done else STATUSES), headers)
    return Lost(reply) if done else reply


@pytest.fixture(scope="module")
def service() -> Iterator[RunwayStandIn]:
    with RunwayStandIn() as running:
        running.token_form = TOKEN
        yield running


class Desk:
    """Sends one file to one stand-in again and again, each time with a lake that remembers nothing."""

    def __init__(self, service: RunwayStandIn, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service = service
        self._config = service.config(monkeypatch)
        self._folders = (folders / str(number) for number in itertools.count())

    def fresh(self) -> Sender:
        service = self.service
        service.jobs, service.tokens, service.asked, service.faults = [], [], [], {}
        service.polls_until_done = 0
        folder = next(self._folders)
        folder.mkdir()
        return Sender(service, folder, self._config)


@pytest.fixture
def desk(service: RunwayStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(service, tmp_path, monkeypatch)


def send(sender: Sender) -> RunwaySent:
    """One file sent; what came of it is one outcome or one failure that says where and nothing secret."""
    begun = time.monotonic()
    sent = sender.send(sender.job(sender.file()), wait_minutes=0.0005)
    assert time.monotonic() - begun < 15
    assert len(sent.outcomes) + len(sent.failures) == 1
    for failure in sent.failures:
        said = str(failure)
        assert said.startswith("grand_bend/2026 sat.csv, ")
        assert said.isprintable()
        assert len(said) < 1000
    words = "\n".join(
        [*sender.told, *map(str, sent.failures), *map(repr, sent.failures), *map(repr, sent.outcomes)]
    )
    for secret in (CLIENT_SECRET, SIGNATURE, TOKEN[:18], "Ab3-2026"):
        assert secret not in words
    left = b"".join(path.read_bytes() for path in sender.lake_files() if "_restricted" not in path.parts)
    assert SIGNATURE.encode() not in left
    return sent


@pytest.mark.parametrize("step", STEPS)
def test_any_answer_leads_to_one_job_started_once_or_to_an_error(step: Step, desk: Desk) -> None:
    @fuzzed(24)
    @given(answer=answers(step), times=st.sampled_from([1, 2, 7, 50]))
    def sent(answer: Reply | Lost, times: int) -> None:
        tried["Runway's answers"] += 1
        sender = desk.fresh()
        service = desk.service
        service.faults[step] = [answer] * times
        send(sender)
        assert len(service.jobs) <= 1
        service.faults.clear()
        again = send(sender)
        assert len(service.jobs) <= 1
        assert sum(service.starts) <= 1
        for outcome in again.outcomes:
            (job,) = service.jobs
            assert (outcome.uid, job.starts) == (job.uid, 1)
            assert job.files == {"INPUT_FILE": sender.file().read_bytes()}
        if step in {"token", "sets"} or (isinstance(answer, Lost) and step != "create"):
            # Nobody said what was not so, and no id was lost.
            assert again.failures == ()

    sent()


@fuzzed(40)
@given(
    address=ODD_ADDRESSES,
    uid=st.one_of(st.just("00ff-1"), ODD_TEXTS),
    more=st.dictionaries(ODD_TEXTS, VALUES, max_size=1),
)
def test_any_job_that_runway_says_it_made_is_filled_or_told_not_to_be(
    desk_of_module: Desk, address: str, uid: str, more: dict[str, Any]
) -> None:
    tried["upload addresses"] += 1
    sender = desk_of_module.fresh()
    body = encoded({**more, "uid": uid, "uploadUrls": {"INPUT_FILE": address}})
    desk_of_module.service.faults["create"] = [Reply(body, 201)]
    (failure,) = send(sender).failures
    assert failure.step in {"create", "upload"}
    (again,) = send(sender).failures
    assert len(desk_of_module.service.of("create")) == 1
    assert again.step == failure.step


@pytest.fixture(scope="module")
def desk_of_module(service: RunwayStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Desk(service, tmp_path_factory.mktemp("addresses"), monkeypatch)


@fuzzed(25)
@given(rows=st.one_of(spoiled(RIGHT["sets"]), spoiled(RIGHT["sets"]["data"]), VALUES))
def test_output_sets_of_any_form_are_no_proof_of_a_job_that_left_none(
    desk_of_module: Desk, rows: Any
) -> None:
    tried["output sets"] += 1
    sender = desk_of_module.fresh()
    service = desk_of_module.service
    service.faults["sets"] = [Reply(encoded(rows))] * 500
    assert send(sender).outcomes == ()
    service.faults.clear()
    assert [outcome.uid for outcome in send(sender).outcomes] == [service.jobs[0].uid]
    assert service.starts == [1]


@pytest.mark.parametrize("status", [201, 307, 400])
def test_an_enormous_answer_is_not_read_to_its_end_and_makes_no_second_job(status: int, desk: Desk) -> None:
    given_out = 0

    def endless() -> Iterator[bytes]:
        nonlocal given_out
        yield b"HTTP/1.1 %d x\r\nLocation: /elsewhere\r\n\r\n" % status
        for _ in range(200):
            yield b" " * (1 << 20)
            given_out += 1

    sender = desk.fresh()
    desk.service.faults["create"] = [Lost(Reply(raw=endless()))]
    (failure,) = send(sender).failures
    assert given_out < 100
    if status == 201:
        assert isinstance(failure, RunwayUnsure)
        assert isinstance(send(sender).failures[0], RunwayUnsure)
        assert len(desk.service.jobs) == 1
    else:
        assert isinstance(failure, RunwayRefused)


def test_an_answer_that_comes_byte_by_byte_for_ever_is_given_up() -> None:
    def dripping() -> Iterator[bytes | float]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        for _ in range(60):
            yield b" "
            yield 0.1

    with StandIn(lambda asked: Reply(raw=dripping())) as server:
        begun = time.monotonic()
        with pytest.raises(RunwayError, match="time-out"):
            Http(sleep=lambda _: None, timeouts=(1.0, 0.5)).ask(Asking("GET", f"{server.url}/x"), attempts=1)
        assert time.monotonic() - begun < 4
