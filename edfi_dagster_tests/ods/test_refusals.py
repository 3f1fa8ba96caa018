"""What is final: redirects, refusals and what they say in each generation."""

from __future__ import annotations

import pytest

from edfi_dagster.ods.changes import EVERYTHING
from edfi_dagster.ods.errors import EdFiError, NotOffered, NotPermitted, RequestRefused
from edfi_dagster.ods.session import OdsSession, Tally
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.ods.platforms import Naps, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn
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


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://login.example.org/adfs?returnUrl=604822", "redirects elsewhere, to login.example.org;"),
        ("https://604822:secret@login.example.org/adfs", "redirects elsewhere, to login.example.org;"),
        ("/somewhere/604822", "redirects elsewhere;"),
        ("//[broken", "redirects elsewhere;"),
        ("", "redirects elsewhere;"),
    ],
)
def test_of_a_redirect_elsewhere_only_the_host_is_told(location: str, said: str) -> None:
    with (
        answering_students(Reply(status=302, headers={"Location": location})) as ods,
        session_at(ods.url) as session,
    ):
        with pytest.raises(RequestRefused) as caught:
            ids(session)
        assert str(caught.value).endswith(f"HTTP 302 {said} write the final address as base_url")


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
