"""The table of ``ods/session.py``: every fault, once passing and once staying, against a real server."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from edfi_dagster.ods.answers import Answer, json_value
from edfi_dagster.ods.errors import (
    EdFiError,
    NotOffered,
    NotPermitted,
    OdsDown,
    OdsUnreachable,
    RequestRefused,
    TooHeavy,
    UnusableBody,
    WrongCredentials,
)
from edfi_dagster.ods.session import OdsSession, Tally
from edfi_dagster.sandbox.gateways import PAGES
from edfi_dagster_tests.ods.platforms import Naps, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

STUDENTS = "/data/v3/ed-fi/students"
RETRIES = 2
OK = Reply([{"id": "a"}])
SILENCE = 0.15
TIMEOUTS = (2.0, SILENCE)


@dataclass(frozen=True)
class Fault:
    """A fault, what becomes of it if it stays, after how many requests, and what the message says."""

    name: str
    reply: Reply
    error: type[EdFiError]
    says: str
    requests: int = RETRIES + 1
    lighter: type[EdFiError] | None = None
    requests_if_lighter: int = RETRIES + 1


def raw(*pieces: bytes | float, reset: bool = False) -> Reply:
    return Reply(raw=pieces, reset=reset)


def status(code: int, **headers: str) -> Reply:
    return Reply(
        {"message": "Student 604822 is odd."}, code, {n.replace("_", "-"): v for n, v in headers.items()}
    )


def own(code: int, kind: str, detail: str) -> Reply:
    return Reply({"detail": f"{detail} 604822", "type": f"urn:ed-fi:api:{kind}", "status": code}, code)


def page(name: str) -> Reply:
    found = PAGES[name]
    return Reply(found.body, found.status, {"Content-Type": found.media, **found.headers})


OK_HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
HALF = b'[{"id":"a"},{"id'
ROWS = b'[{"id":"a"},{"id":"b"}]'
CUT_GZIP = gzip.compress(ROWS * 200, mtime=0)[:-30]

TRANSIENT = [
    Fault("reset before the answer", raw(reset=True), OdsDown, "no connection"),
    Fault("closed before the answer", raw(), OdsDown, "no connection"),
    Fault("not HTTP", raw(b"220 smtp.example.org ready\r\n"), OdsDown, "no connection"),
    Fault("reset in the head", raw(OK_HEAD + b"Content-Le", reset=True), OdsDown, "no connection"),
    Fault(
        "reset in the body",
        raw(OK_HEAD + b"Content-Length: 23\r\n\r\n" + HALF, 0.02, reset=True),
        OdsUnreachable,
        "answer cut off",
    ),
    Fault(
        "cut, right Content-Length",
        raw(OK_HEAD + b"Content-Length: 23\r\n\r\n" + HALF),
        OdsUnreachable,
        "answer cut off",
    ),
    Fault(
        "cut, Content-Length too small",
        raw(OK_HEAD + b"Content-Length: 16\r\n\r\n" + ROWS),
        UnusableBody,
        "cut or is not JSON",
    ),
    Fault(
        "cut where a shorter body is JSON",
        raw(OK_HEAD + b"Content-Length: 30\r\n\r\n" + ROWS),
        OdsUnreachable,
        "answer cut off",
    ),
    Fault("cut, no Content-Length", raw(OK_HEAD + b"\r\n" + HALF), UnusableBody, "cut or is not JSON"),
    Fault(
        "cut between chunks",
        raw(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n17\r\n" + ROWS + b"\r\n"),
        OdsUnreachable,
        "answer cut off",
    ),
    Fault(
        "cut in a chunk",
        raw(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n17\r\n" + HALF),
        OdsUnreachable,
        "answer cut off",
    ),
    Fault(
        "cut gzip, right Content-Length",
        raw(OK_HEAD + b"Content-Encoding: gzip\r\nContent-Length: 900\r\n\r\n" + CUT_GZIP),
        OdsUnreachable,
        "answer cut off",
    ),
    Fault(
        "cut gzip, wrong Content-Length",
        Reply(CUT_GZIP, headers={"Content-Encoding": "gzip"}),
        UnusableBody,
        "cut or is not JSON",
    ),
    Fault("no gzip", Reply(ROWS, headers={"Content-Encoding": "gzip"}), OdsUnreachable, "answer cut off"),
    Fault("empty body", Reply(b""), UnusableBody, "cut or is not JSON"),
    Fault(
        "204",
        raw(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
        UnusableBody,
        "cut or is not JSON",
    ),
    Fault("invalid JSON", Reply(b'[{"id":"a",}]'), UnusableBody, "cut or is not JSON"),
    Fault("JSON of another kind", Reply({"id": "a"}), UnusableBody, "is no list"),
    Fault("HTML page", page("portal"), UnusableBody, "cut or is not JSON: it is an HTML page"),
    Fault("login page", page("login"), OdsUnreachable, "redirects elsewhere, to login.example.org"),
    *(Fault(str(code), status(code), OdsUnreachable, f"HTTP {code}") for code in (408, 409, 425, 500, 502)),
    *(Fault(str(code), status(code), OdsUnreachable, f"HTTP {code}") for code in (429, 503, 520, 507)),
    Fault(
        "429 of a firewall", page("rate_limit"), OdsUnreachable, "HTTP 429 with an HTML page .*; a firewall"
    ),
    Fault("429 with Retry-After", status(429, Retry_After="3"), OdsUnreachable, "HTTP 429"),
    *(
        Fault(name, page(name), OdsUnreachable, f"HTTP {PAGES[name].status} with")
        for name in PAGES
        if PAGES[name].status in {403, 404} and not name.startswith(("empty", "aspnet"))
    ),
    Fault("403 in another form", status(403), OdsUnreachable, "HTTP 403 with a JSON document in a form"),
    Fault("404 in another form", status(404), OdsUnreachable, "HTTP 404 with a JSON document in a form"),
    Fault("empty 403", Reply(status=403), OdsUnreachable, "HTTP 403 without a body"),
    Fault(
        "empty 404", Reply(status=404), OdsUnreachable, "HTTP 404 without a body, and the ODS publishes no"
    ),
    Fault("504", status(504), OdsUnreachable, "HTTP 504", lighter=TooHeavy, requests_if_lighter=2),
    Fault(
        "stall before the answer",
        raw(SILENCE * 4, OK_HEAD),
        OdsUnreachable,
        "time-out",
        lighter=TooHeavy,
        requests_if_lighter=2,
    ),
    Fault(
        "stall in the body",
        raw(OK_HEAD + b"Content-Length: 23\r\n\r\n" + HALF, SILENCE * 4, b""),
        OdsUnreachable,
        "time-out",
        lighter=TooHeavy,
        requests_if_lighter=2,
    ),
]
FINAL = [
    Fault("400", status(400), RequestRefused, "HTTP 400", 1),
    Fault(
        "403",
        own(
            403,
            "security:authorization:access-denied:action",
            "Access to the resource could not be authorized.",
        ),
        NotPermitted,
        "HTTP 403, the key may not read this",
        1,
    ),
    Fault(
        "404",
        own(404, "not-found", "The specified data could not be found."),
        NotOffered,
        "HTTP 404, the ODS has no such endpoint",
        1,
    ),
    *(
        Fault(str(code), status(code), RequestRefused, f"HTTP {code}", 1)
        for code in (405, 410, 415, 422, 501, 505)
    ),
    Fault(
        "413",
        status(413),
        RequestRefused,
        "HTTP 413.*smaller page_size",
        1,
        lighter=TooHeavy,
        requests_if_lighter=1,
    ),
    Fault(
        "304", raw(b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"), RequestRefused, "HTTP 304", 1
    ),
    *(
        Fault(name, page(name), OdsUnreachable, "HTTP 401 with", 2 * (RETRIES + 1))
        for name in ("unauthorized", "apim_key")
    ),
    Fault("401 to a fresh token", Reply(status=401), WrongCredentials, "401 to a fresh token", 3),
]
named = pytest.mark.parametrize("fault", [*TRANSIENT, *FINAL], ids=lambda fault: fault.name)


def rows(answer: Answer) -> list[object]:
    found = json_value(answer)
    if not isinstance(found, list):
        raise UnusableBody("the body is no list")
    return found


@contextmanager
def ods_with(*replies: Reply, naps: Naps | None = None) -> Iterator[tuple[StandIn, OdsSession]]:
    """An ODS that answers for students with these, the last one again and again; the same without a token."""
    left, given = list(replies), list(replies)

    def answer(asked: Asked) -> Reply | None:
        if asked.path != STUDENTS:
            return None
        if "authorization" in asked.headers:
            given[:] = [left.pop(0) if len(left) > 1 else left[0]]
        return given[0]

    with StandIn(answer) as ods, session_at(ods.url, sleep=naps, timeouts=TIMEOUTS) as session:
        yield ods, session


def with_token(ods: StandIn) -> list[Asked]:
    """The requests for students. What is asked without the token, to know who refuses, is no attempt."""
    return [asked for asked in ods.matching(STUDENTS) if "authorization" in asked.headers]


def ask(
    session: OdsSession, tally: Tally | None = None, *, retries: int = RETRIES, lighter: bool = False
) -> list[object]:
    return session.get(
        f"{session.url('dataManagementApi')}/ed-fi/students",
        {"studentUniqueId": "604822"},
        rows,
        endpoint="ed-fi/students",
        retries=retries,
        tally=tally,
        lighter=lighter,
    )


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: fault.name)
@pytest.mark.parametrize("times", [1, 2])
def test_a_fault_that_passes_costs_its_retries_and_nothing_else(fault: Fault, times: int) -> None:
    naps, tally = Naps(), Tally()
    with ods_with(*[fault.reply] * times, OK, naps=naps) as (ods, session):
        assert ask(session, tally) == [{"id": "a"}]
        assert (tally.requests, tally.retries, len(naps.seconds)) == (times + 1, times, times)
        assert len(with_token(ods)) == times + 1
        assert len(ods.matching("/oauth/token")) == 1


@named
def test_a_fault_that_stays_has_the_outcome_of_the_table(fault: Fault) -> None:
    with ods_with(fault.reply) as (ods, session):
        with pytest.raises(EdFiError, match=rf"^grand_bend/2025( ed-fi/students)?: .*{fault.says}") as caught:
            ask(session)
        assert type(caught.value) is fault.error
        assert len(with_token(ods)) == fault.requests
    assert "604822" not in str(caught.value)


@named
def test_only_what_asking_for_less_can_mend_is_too_heavy(fault: Fault) -> None:
    with ods_with(fault.reply) as (ods, session):
        with pytest.raises(EdFiError) as caught:
            ask(session, lighter=True)
        assert type(caught.value) is (fault.lighter or fault.error)
        wanted = fault.requests_if_lighter if fault.lighter else fault.requests
        assert len(with_token(ods)) == wanted


@pytest.mark.parametrize("between", [status(502), raw(reset=True), Reply(b"<html>")])
def test_two_time_outs_with_another_fault_between_them_are_not_in_a_row(between: Reply) -> None:
    with ods_with(status(504), between, status(504), OK) as (_, session):
        assert ask(session, retries=5, lighter=True) == [{"id": "a"}]


def test_a_time_out_and_a_504_are_two_in_a_row() -> None:
    with ods_with(raw(SILENCE * 4), status(504), OK) as (ods, session):
        with pytest.raises(TooHeavy, match=r"^grand_bend/2025 ed-fi/students: HTTP 504 from .*, 2 attempts$"):
            ask(session, retries=5, lighter=True)
        assert len(ods.matching(STUDENTS)) == 2


def test_without_retries_one_504_is_too_heavy_already() -> None:
    with ods_with(status(504)) as (_, session), pytest.raises(TooHeavy, match=r"1 attempt$"):
        ask(session, retries=0, lighter=True)


@pytest.mark.parametrize(
    "kind",
    ["text/html", "text/plain; charset=latin-1", "application/problem+json", "", "application/vnd.ed-fi"],
)
def test_a_wrong_content_type_is_harmless(kind: str) -> None:
    with ods_with(Reply([{"id": "a"}], headers={"Content-Type": kind})) as (_, session):
        assert ask(session, retries=0) == [{"id": "a"}]


def test_a_body_without_content_length_that_is_whole_is_taken() -> None:
    chunks = b"17\r\n" + ROWS + b"\r\n0\r\n\r\n"
    for reply in (
        raw(OK_HEAD + b"\r\n" + ROWS),
        raw(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks),
    ):
        with ods_with(reply) as (_, session):
            assert ask(session, retries=0) == [{"id": "a"}, {"id": "b"}]


def test_what_follows_a_body_on_the_same_connection_is_no_answer_to_the_next_request() -> None:
    smuggled = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n[{"id":"evil"}]'
    reply = raw(OK_HEAD + b"Content-Length: 2\r\n\r\n[]" + smuggled, 0.05)
    with ods_with(reply, OK) as (_, session):
        assert ask(session) == []
        assert ask(session) == [{"id": "a"}]


def test_401_is_answered_by_one_new_token_and_the_same_request() -> None:
    tally, naps = Tally(), Naps()
    with ods_with(Reply(status=401), OK, naps=naps) as (ods, session):
        assert ask(session, tally) == [{"id": "a"}]
        first, second = ods.matching(STUDENTS)
        assert first.query == second.query == {"studentUniqueId": "604822"}
    assert (tally.requests, tally.retries, naps.seconds) == (2, 1, [])


def test_401_to_a_key_that_is_good_elsewhere_does_not_stop_the_tenant() -> None:
    sessions: list[OdsSession] = []

    def answer(asked: Asked) -> Reply | None:
        if asked.path != STUDENTS:
            return None
        # Before this one is refused, the key is good for another request.
        sessions[0].newest_change_version()
        return Reply(status=401)

    with StandIn(answer) as ods, session_at(ods.url) as session:
        sessions.append(session)
        with pytest.raises(
            OdsUnreachable, match=r"ed-fi/students: HTTP 401, though the key is good elsewhere"
        ):
            ask(session)
        assert len(ods.matching(STUDENTS)) == 3 * (RETRIES + 1)


def test_an_ods_that_suffers_gets_half_the_requests_until_it_answers_well() -> None:
    for fault, allowed in (
        (status(429), 4),
        (status(503), 4),
        (status(504), 4),
        (raw(SILENCE * 4), 4),
        (status(500), 8),
        (raw(reset=True), 8),
    ):
        with ods_with(fault, OK) as (_, session):
            ask(session)
            assert session.budget.allowed == allowed
            for _ in range(40):
                ask(session)
            assert session.budget.allowed == 8


def test_a_retry_holds_no_place_while_it_waits() -> None:
    with ods_with(status(503), OK) as (ods, session):
        naps = Naps(then=lambda: session.newest_change_version())
        session._retries._sleep = naps
        session.budget.limit = session.budget._allowed = 1
        assert ask(session) == [{"id": "a"}]
        assert len(naps.seconds) == 1
        assert len(ods.matching("availableChangeVersions")) == 1
