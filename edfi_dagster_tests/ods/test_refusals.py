"""What is final: redirects, refusals and what they say in each generation."""

from __future__ import annotations

import pytest

from edfi_dagster.ods.changes import EVERYTHING
from edfi_dagster.ods.errors import EdFiError, NotOffered, NotPermitted, OdsUnreachable, RequestRefused
from edfi_dagster.ods.session import OdsSession, Tally
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.ods.platforms import Naps, session_at
from edfi_dagster_tests.ods.stand_in import DISCOVERY, Asked, Reply, StandIn
from edfi_dagster_tests.ods.test_retries import STUDENTS, answering_students, ids, students


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed_and_its_target_named_as_the_base_url(status: int) -> None:
    with StandIn(lambda asked: None, "/v7.3/api") as thief:
        away = Reply(status=status, headers={"Location": f"{thief.url}{STUDENTS}?studentUniqueId=604822"})
        with answering_students(away) as ods, session_at(ods.url) as session:
            with pytest.raises(RequestRefused) as caught:
                ids(session, studentUniqueId="604822")
            assert str(caught.value).endswith(
                f"HTTP {status} redirects elsewhere; write {thief.url} as base_url"
            )
            assert len(ods.matching(STUDENTS)) == 1
        assert not thief.asked


@pytest.mark.parametrize("location", ["//[broken", "", "https://"])
def test_a_redirect_that_leads_nowhere_is_final(location: str) -> None:
    with (
        answering_students(Reply(status=302, headers={"Location": location})) as ods,
        session_at(ods.url) as session,
        pytest.raises(
            RequestRefused, match=r"HTTP 302 redirects elsewhere; write the final address as base_url$"
        ),
    ):
        ids(session)


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("https://login.example.org/adfs?returnUrl=604822", "login.example.org"),
        ("https://604822:secret@login.example.org/adfs", "login.example.org"),
        ("/somewhere/604822", "127.0.0.1"),
        ("/cdn-cgi/challenge?604822", "127.0.0.1"),
    ],
)
def test_a_redirect_to_a_login_page_is_tried_again_and_only_its_host_is_told(
    location: str, host: str
) -> None:
    login = Reply(status=302, headers={"Location": location})
    with answering_students(login) as ods, session_at(ods.url) as session:
        with pytest.raises(OdsUnreachable, match=rf"HTTP 302 redirects elsewhere, to {host}") as caught:
            ids(session)
        assert "604822" not in str(caught.value)
        assert "if it is no login page, write the final address as base_url" in str(caught.value)
    with answering_students(login, Reply([{"id": "a"}])) as ods, session_at(ods.url) as session:
        assert ids(session) == ["a"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("host", ["", "https://127.0.0.1", "http://127.0.0.1:9"])
def test_a_redirect_that_only_adds_a_slash_is_followed_at_our_own_address(status: int, host: str) -> None:
    """A server behind a proxy may name another scheme or port; ours is kept, and so is what was asked for."""

    def answer(asked: Asked) -> Reply | None:
        if asked.path.startswith(("/v7/data", "/v7/oauth")) and not asked.path.endswith("/"):
            return Reply(status=status, headers={"Location": f"{host}{asked.path}/"})
        if asked.path == "/v7/oauth/token/":
            return Reply({"access_token": "f00dfeed"}) if asked.method == "POST" else Reply(status=405)
        return Reply([{"id": "a"}]) if asked.path.endswith("/students/") else None

    with StandIn(answer, "/v7") as ods, session_at(ods.url) as session:
        assert ids(session, limit="5") == ["a"]
        assert [asked.query for asked in ods.matching("/students")] == [{"limit": "5"}] * 2
        assert ods.matching("/oauth/token/")[0].headers["authorization"].startswith("Basic ")


def test_a_slash_that_is_taken_away_is_followed_and_a_circle_of_slashes_is_not() -> None:
    def without(asked: Asked) -> Reply | None:
        if asked.path == "/v7/":
            return Reply(status=301, headers={"Location": "/v7"})
        return Reply(DISCOVERY) if asked.path == "/v7" else None

    with StandIn(without, "/v7") as ods, session_at(ods.url) as session:
        assert session.newest_change_version() == 42

    def circle(asked: Asked) -> Reply | None:
        if "students" not in asked.path:
            return None
        other = asked.path[:-1] if asked.path.endswith("/") else f"{asked.path}/"
        return Reply(status=301, headers={"Location": other})

    with StandIn(circle) as ods, session_at(ods.url) as session:
        with pytest.raises(EdFiError, match="HTTP 301 redirects elsewhere"):
            ids(session, retries=0)
        assert len(ods.matching("/students")) == 2


@pytest.mark.parametrize("other", ["localhost", "ods.example.org"])
def test_a_slash_on_another_host_is_not_followed(other: str) -> None:
    with StandIn(lambda asked: None) as thief:
        away = Reply(status=301, headers={"Location": f"{thief.url.replace('127.0.0.1', other)}{STUDENTS}/"})
        with answering_students(away) as ods, session_at(ods.url) as session:
            with pytest.raises(RequestRefused, match=rf"write http://{other}:\d+ as base_url"):
                ids(session)
            assert len(ods.matching(STUDENTS)) == 1
        assert not thief.asked


@pytest.mark.parametrize("blanks", ["  {}", "{}  ", "{}/ ", " {}/\t"])
def test_blanks_and_a_slash_around_base_url_are_taken_off(
    server: SandboxServer, base_url: str, blanks: str
) -> None:
    with session_at(f'"{blanks.format(base_url)}"') as session:
        assert session.newest_change_version() > 0


@pytest.mark.parametrize("status", [302, 307])
def test_a_token_request_is_never_redirected(status: int) -> None:
    with StandIn(lambda asked: None) as thief:

        def answer(asked: Asked) -> Reply | None:
            away = {"Location": f"{thief.url}/oauth/token"}
            return Reply(status=status, headers=away) if "oauth" in asked.path else None

        with (
            StandIn(answer) as ods,
            session_at(ods.url) as session,
            pytest.raises(EdFiError, match="token address"),
        ):
            session.newest_change_version()
        assert not thief.asked


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RequestRefused),
        (403, NotPermitted),
        (404, NotOffered),
        (405, RequestRefused),
        (410, RequestRefused),
    ],
)
def test_a_refusal_is_final_and_carries_its_status(
    server: SandboxServer, session: OdsSession, naps: Naps, status: int, error: type[RequestRefused]
) -> None:
    tally = Tally()
    session.newest_change_version()
    server.faults.add("/students", status=status)
    with pytest.raises(error, match=rf"^grand_bend.2025 ed-fi/students: HTTP {status}") as caught:
        ids(session, tally)
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.endpoint) == (status, "ed-fi/students")
    assert (tally.requests, naps.seconds) == (1, [])


GUID = "6f1c2f0e-8a4d-4c1b-9a43-0d8f5f3a7b21"
UP_TO_6 = {"message": "Student 604822 Ñandú is odd.", "modelState": {"request.studentUniqueId": ["604822"]}}
IN_7_0 = {"message": "Student 604822 Ñandú is odd.", "correlationId": GUID}
FROM_7_2 = {
    "type": "urn:ed-fi:api:bad-request:data-validation-failed",
    "detail": "Student 604822 Ñandú is odd.",
    "correlationId": GUID,
    "validationErrors": {"$.studentUniqueId": ["604822"]},
    "errors": ["604822"],
}
NUMBERED = {"message": "604822", "correlationId": "604822", "type": "urn:ed-fi:api:604822"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (UP_TO_6, "HTTP 400"),
        (IN_7_0, f"HTTP 400, correlation id {GUID}"),
        (FROM_7_2, f"HTTP 400 (urn:ed-fi:api:bad-request:data-validation-failed), correlation id {GUID}"),
        (NUMBERED, "HTTP 400"),
        (b"604822", "HTTP 400"),
        (b"<html>604822</html>", "HTTP 400"),
        (["604822"], "HTTP 400"),
        (b"", "HTTP 400"),
    ],
)
def test_a_refusal_of_any_generation_names_the_kind_of_problem_and_never_its_values(
    body: object, said: str
) -> None:
    with answering_students(Reply(body, status=400)) as ods, session_at(ods.url) as session:
        with pytest.raises(RequestRefused) as caught:
            ids(session, studentUniqueId="604822")
        assert str(caught.value) == f"grand_bend/2025 ed-fi/students: {said}"


@pytest.mark.parametrize(
    "said",
    [
        "Limit must be omitted or set to a value between 0 and 250.",
        "Limit must be omitted or a value between 0 and 250.",
        "Limit must be omitted or set to a numeric value between 0 and 250.",
        "Limit must be omitted or set to a value between 1 to 250",
        "Limit must be a value between 0 and 250.",
        "Limit must be omitted or set to a value between 1 and 250.",
        "PageSize must be a value between 0 and 250.",
    ],
)
@pytest.mark.parametrize("place", ["message", "errors"])
def test_a_page_size_beyond_the_hosts_limit_is_named_in_every_wording(said: str, place: str) -> None:
    body = {place: said if place == "message" else [said]}
    with (
        answering_students(Reply(body, status=400)) as ods,
        session_at(ods.url) as session,
        pytest.raises(
            RequestRefused, match=r"HTTP 400: page_size is more than this ODS allows; write 250 or less$"
        ),
    ):
        ids(session, limit="500")


def test_a_limit_that_the_host_does_not_tell_is_named_without_it() -> None:
    said = "Limit must be omitted or set to a value between 1 and max value defined in configuration file."
    with (
        answering_students(Reply({"message": said}, status=400)) as ods,
        session_at(ods.url) as session,
        pytest.raises(RequestRefused, match=r"page_size is more than this ODS allows; write less$"),
    ):
        ids(session, limit="500")


def test_a_page_size_beyond_the_sandboxs_limit_is_named(session: OdsSession) -> None:
    with pytest.raises(RequestRefused, match="page_size is more than this ODS allows; write 50 or less"):
        ids(session, limit="51")


def test_403_and_404_are_facts_of_an_endpoint_only_before_it_has_answered(
    server: SandboxServer, session: OdsSession
) -> None:
    for status in (403, 404):
        collection = students(session)
        collection.count(EVERYTHING)
        server.faults.add("/students", status=status)
        with pytest.raises(RequestRefused, match=f"HTTP {status} in the middle of reading") as caught:
            collection.count(EVERYTHING)
        assert not isinstance(caught.value, (NotOffered, NotPermitted))
        server.faults.clear()
