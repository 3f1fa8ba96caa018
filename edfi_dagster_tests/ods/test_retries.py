from __future__ import annotations

import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest

from edfi_dagster.ods.answers import LONGEST_WAIT_SECONDS, json_value, seconds_before_retry
from edfi_dagster.ods.changes import EVERYTHING
from edfi_dagster.ods.errors import (
    OdsUnreachable,
    UnusableBody,
)
from edfi_dagster.ods.pages import Collection
from edfi_dagster.ods.session import OdsSession, Tally
from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.ods.platforms import Naps, endpoint, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

STUDENTS = "/data/v3/ed-fi/students"
COUNTED = Reply(b"[]", headers={"Total-Count": "7"})


def students(session: OdsSession, retries: int = 5) -> Collection:
    return Collection(session, endpoint("students"), page_size=50, retries=retries)


def ids(session: OdsSession, tally: Tally | None = None, *, retries: int = 5, **params: str) -> list[str]:
    """The ids of the students that one request with these parameters gives."""
    return session.get(
        f"{session.url('dataManagementApi')}/ed-fi/students",
        params,
        lambda answer: [row["id"] for row in json_value(answer)],
        endpoint="ed-fi/students",
        retries=retries,
        tally=tally,
    )


def answering_students(*replies: Reply) -> StandIn:
    """An ODS that gives these answers for students, one after the other, the last again and again."""
    left = list(replies)

    def answer(asked: Asked) -> Reply | None:
        if asked.path != STUDENTS:
            return None
        return left.pop(0) if len(left) > 1 else left[0]

    return StandIn(answer)


# -- what passes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *({"status": status} for status in (408, 429, 500, 502, 503, 504)),
        {"action": "reset"},
        {"action": "truncate"},
        {"action": "invalid_json"},
        {"action": "html", "status": 200},
    ],
    ids=str,
)
def test_a_passing_fault_costs_two_retries_and_no_row(
    server: SandboxServer, store: Store, session: OdsSession, naps: Naps, fault: dict[str, Any]
) -> None:
    tally = Tally()
    session.newest_change_version()
    server.faults.add("/students", times=2, **fault)
    assert ids(session, tally, limit="50") == store.ids("students")[:50]
    assert (tally.requests, tally.retries, len(naps.seconds)) == (3, 2, 2)


def test_a_stalled_answer_is_given_up_after_the_time_out_and_asked_again(
    server: SandboxServer, base_url: str, naps: Naps
) -> None:
    tally = Tally()
    with session_at(base_url, sleep=naps, timeouts=(1.0, 0.2)) as session:
        server.faults.add("/students", action="stall", times=1, seconds=0.8)
        assert len(ids(session, tally, limit="50")) == 50
    assert (tally.requests, len(naps.seconds)) == (2, 1)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n[]",
        b"HTTP/1.1 200 OK\r\n\r\n[{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
        + gzip.compress(b'[{"id":"a"}]' * 9, mtime=0)[:-20],
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]",
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        b"SMTP ready\r\n\r\n",
    ],
)
def test_an_answer_cut_anywhere_is_never_an_empty_page(raw: bytes) -> None:
    with answering_students(Reply(raw=raw), COUNTED) as ods, session_at(ods.url) as session:
        collection = students(session)
        assert collection.count(EVERYTHING) == 7
        assert collection.tally.retries == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"{}", b"[null]", b"[1]", b'[{"no":"id"}]', b'[{"id":7}]', b'["\xff"]', b"[]]", b"<html>"],
)
def test_foreign_json_is_never_a_page(body: bytes) -> None:
    with answering_students(Reply(body)) as ods, session_at(ods.url) as session:
        with pytest.raises(
            UnusableBody, match=r"^grand_bend.2025 ed-fi/students: .*from 127\.0\.0\.1.*3 attempts"
        ):
            students(session, retries=2).count(EVERYTHING)
        assert len(ods.matching(STUDENTS)) == 3


def test_a_compressed_answer_is_read() -> None:
    body = gzip.compress(b'[{"id":"a"}]', mtime=0)
    with (
        answering_students(Reply(body, headers={"Content-Encoding": "gzip", "Total-Count": "1"})) as ods,
        session_at(ods.url) as session,
    ):
        assert students(session).first_page(EVERYTHING).rows == [b'{"id":"a"}']
        assert ods.matching(STUDENTS)[0].headers["accept-encoding"] == "gzip"


# -- what stays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"status": 503}, "HTTP 503"),
        ({"status": 429}, "HTTP 429"),
        ({"action": "reset"}, "no connection"),
        ({"action": "truncate"}, "answer cut off"),
    ],
    ids=str,
)
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_what_stays_broken_is_unreachable_after_the_retries_of_its_endpoint(
    server: SandboxServer, session: OdsSession, naps: Naps, fault: dict[str, Any], cause: str, retries: int
) -> None:
    tally = Tally()
    session.newest_change_version()
    server.faults.add("/students", **fault)
    attempts = "1 attempt$" if retries == 0 else f"{retries + 1} attempts$"
    with pytest.raises(
        OdsUnreachable, match=rf"^grand_bend.2025 ed-fi/students: {cause} from .*, {attempts}"
    ):
        ids(session, tally, retries=retries)
    assert (tally.requests, tally.retries, len(naps.seconds)) == (retries + 1, retries, retries)


def test_a_stall_that_stays_is_called_a_time_out(server: SandboxServer, base_url: str) -> None:
    with session_at(base_url, timeouts=(1.0, 0.15)) as session:
        session.newest_change_version()
        server.faults.add("/students", action="stall", seconds=0.5)
        with pytest.raises(OdsUnreachable, match="time-out from"):
            ids(session, retries=1)


def test_a_server_that_is_not_there_is_unreachable(naps: Naps) -> None:
    with StandIn(lambda asked: None) as gone:
        url = gone.url
    with session_at(url, sleep=naps) as session, pytest.raises(OdsUnreachable, match="no connection from"):
        session.newest_change_version()
    assert len(naps.seconds) == 5


def test_wrong_answers_that_stay_are_an_unusable_body(server: SandboxServer, session: OdsSession) -> None:
    server.faults.add("/students", action="html", status=200)
    with pytest.raises(UnusableBody, match=r"cut or is not JSON: it is an HTML page from .*2 attempts"):
        ids(session, retries=1)


# -- how long ------------------------------------------------------------------------------------------------


def test_retry_after_in_seconds_is_honoured(server: SandboxServer, session: OdsSession, naps: Naps) -> None:
    server.faults.add("/students", status=429, times=1, headers={"Retry-After": "17"})
    server.faults.add("/students", status=503, times=1, headers={"Retry-After": "3600"})
    ids(session)
    assert naps.seconds == [17.0, LONGEST_WAIT_SECONDS]


def test_retry_after_as_a_date_is_honoured(server: SandboxServer, session: OdsSession, naps: Naps) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    server.faults.add("/students", status=429, times=1, headers={"Retry-After": when})
    ids(session)
    assert 38 < naps.seconds[0] <= 42


@pytest.mark.parametrize("hours", [-30, 0, 5])
def test_a_date_in_retry_after_is_measured_by_the_clock_of_the_server(hours: int) -> None:
    """Its clock and ours may differ by any time; what counts is how long after its own Date it is."""
    now = datetime.now(UTC) + timedelta(hours=hours)
    headers = {
        "Date": format_datetime(now, usegmt=True),
        "Retry-After": format_datetime(now + timedelta(seconds=50), usegmt=True),
    }
    naps = Naps()
    refusal = Reply(status=503, headers=headers, raw=None)
    with answering_students(refusal, COUNTED) as ods, session_at(ods.url, sleep=naps) as session:
        assert ids(session) == []
    assert naps.seconds == [50.0]


@pytest.mark.parametrize("value", ["", "soon", "-5", "²", "0", "Wed, 21 Oct 2015 07:28:00 GMT", "1.5e9"])
def test_a_retry_after_that_tells_nothing_leaves_the_backoff(value: str) -> None:
    refusal = Reply(status=429, headers={"Retry-After": value})
    naps = Naps()
    with answering_students(refusal, COUNTED) as ods, session_at(ods.url, sleep=naps) as session:
        assert students(session).count(EVERYTHING) == 7
    assert [0.5 <= seconds <= 1.0 for seconds in naps.seconds] == [True]


def test_waits_grow_exponentially_with_jitter_and_have_an_end() -> None:
    spread = [[seconds_before_retry(retry) for _ in range(200)] for retry in range(1, 12)]
    assert [0.25 * 2**retry <= min(waits) for retry, waits in enumerate(spread[:6], 1)] == [True] * 6
    assert all(max(waits) <= min(0.5 * 2**retry, 60.0) for retry, waits in enumerate(spread, 1))
    assert all(max(later) > max(earlier) for earlier, later in pairwise(spread[:7]))
    assert all(len(set(waits)) > 100 for waits in spread)


# -- how many at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [1, 3])
def test_requests_in_flight_never_exceed_the_bound_of_the_ods(
    server: SandboxServer, base_url: str, bound: int
) -> None:
    in_flight, highest, lock = 0, 0, threading.Lock()

    def count(change: int) -> None:
        nonlocal in_flight, highest
        with lock:
            in_flight += change
            highest = max(highest, in_flight)

    server.before_request.append(lambda info: count(+1))
    server.after_response.append(lambda info: count(-1))
    server.latency = 0.01
    server.faults.add(status=500, rate=0.1)
    server.before_request.append(lambda info: server.expire_tokens() if len(server.requests) == 20 else None)
    names = ["students", "schools", "sections", "staffs"]
    with session_at(base_url, max_concurrent_requests=bound) as session, ThreadPoolExecutor(24) as threads:
        collections = [Collection(session, endpoint(name), page_size=50) for name in names]
        counts = list(threads.map(lambda collection: collection.count(EVERYTHING), collections * 12))
    assert counts == [server.store().count(name) for name in names] * 12
    assert highest == bound
