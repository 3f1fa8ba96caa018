"""Who wrote a 403 or 404: only the ODS's own word says that an endpoint is not permitted or not offered."""

from __future__ import annotations

import pytest

from edfi_dagster.ods.errors import NotOffered, NotPermitted, OdsUnreachable
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster.sandbox.gateways import PAGES
from edfi_dagster_tests.ods.platforms import session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn
from edfi_dagster_tests.ods.test_retries import answering_students, ids
from edfi_dagster_tests.ods.test_versions import OLD_AND_NEW, sandbox, students

REFUSING = [name for name in PAGES if PAGES[name].status in {403, 404}]
GUID = "6f1c2f0e-8a4d-4c1b-9a43-0d8f5f3a7b21"
NO_CLAIM = "Access to the resource could not be authorized."

# What each version itself says, by the wordings in its public source.
OWN_403 = {
    "8": {
        "detail": NO_CLAIM,
        "type": "urn:ed-fi:api:security:authorization:",
        "title": "Authorization Denied",
    },
    "7.3": {"type": "urn:ed-fi:api:security:authorization:access-denied:action", "status": 403},
    "7.1": {
        "message": f"{NO_CLAIM} The API client has been assigned the 'SIS' claim set.",
        "correlationId": GUID,
    },
    "6.1": {"message": f"{NO_CLAIM} The API client has been assigned the 'SIS' claim set with these claims."},
    "5.3": {"message": "Authorization denied.  The claim does not have any established relationships."},
    "5.2": {
        "message": "Access to the resource could not be authorized because the caller did not have any NamespacePrefix "
        "claims ('http://ed-fi.org/claims/namespacePrefix') or the claim values were all empty."
    },
    "2": {"Message": f"{NO_CLAIM[:-1]}. Are you missing a claim?"},
}
OWN_404 = {
    "8": {
        "detail": "The specified data could not be found.",
        "type": "urn:ed-fi:api:not-found",
        "status": 404,
    },
    "7.3": {"type": "urn:ed-fi:api:not-found", "status": 404},
    "7.1": {"message": "The specified resource could not be found.", "correlationId": GUID},
    "6.1": {"message": "Entity of type 'Student' with the specified id was not found."},
    "2": {
        "Message": "No HTTP resource was found that matches the request URI 'http://ods/api/v2.0/2025/pupils'.",
        "MessageDetail": "No type was found that matches the controller named 'pupils'.",
    },
}
ALIKE = {
    "aws": (403, {"message": "Forbidden"}),
    "aws authorizer": (
        403,
        {"Message": "User is not authorized to access this resource with an explicit deny"},
    ),
    "kong acl": (403, {"message": "You cannot consume this service"}),
    "kong ip": (403, {"message": "Your IP address is not allowed"}),
    "apim": (403, {"statusCode": 403, "message": NO_CLAIM}),
    "a list": (403, [NO_CLAIM]),
    "nothing in it": (403, {}),
    "a login": (403, {"message": "Authorization denied by upstream"}),
    "kong": (404, {"message": "no Route matched with those values", "request_id": "0c4f"}),
    "kong in the form of 7.1": (
        404,
        {"message": "no Route matched with those values", "correlationId": GUID},
    ),
    "express": (404, {"error": "Not Found"}),
    "a message of the wrong status": (404, {"message": NO_CLAIM}),
}


def refused_with(body: object, status: int) -> Exception:
    with answering_students(Reply(body, status)) as ods, session_at(ods.url) as session:
        with pytest.raises((NotOffered, NotPermitted, OdsUnreachable)) as caught:
            ids(session, retries=1)
        return caught.value


@pytest.mark.parametrize("version", OWN_403)
def test_a_403_of_the_ods_is_believed_in_the_form_of_every_version(version: str) -> None:
    assert type(refused_with(OWN_403[version], 403)) is NotPermitted


@pytest.mark.parametrize("version", OWN_404)
def test_a_404_of_the_ods_is_believed_in_the_form_of_every_version(version: str) -> None:
    assert type(refused_with(OWN_404[version], 404)) is NotOffered


@pytest.mark.parametrize("name", ALIKE)
def test_what_only_looks_like_a_refusal_of_an_ods_is_not_believed(name: str) -> None:
    status, body = ALIKE[name]
    error = refused_with(body, status)
    assert type(error) is OdsUnreachable
    assert f"HTTP {status} with a JSON document in a form that is not known of an ODS" in str(error)
    assert "have its host let this machine through" in str(error)


@pytest.mark.parametrize(("version", "mode"), [*OLD_AND_NEW, ("2", None)])
def test_a_page_of_a_gateway_passes_or_fails_in_front_of_every_version(
    version: str, mode: str | None
) -> None:
    with sandbox(version, mode) as (server, _, session):
        path = "students" if version == "2" else "ed-fi/students"
        students(session, path)
        for name in REFUSING:
            server.faults.add("/students", page=name, times=2)
            # Ed-Fi 2 publishes no documents, so nothing speaks against a 404 without a word.
            is_silent = version == "2" and name in {"empty", "aspnet"}
            if not is_silent:
                assert len(students(session, path, limit="5")) == 5
            server.faults.clear()
            server.faults.add("/students", page=name)
            with pytest.raises(NotOffered if is_silent else OdsUnreachable):
                students(session, path)
            server.faults.clear()


def test_the_server_header_names_what_stands_in_front_and_nothing_of_the_page_is_told() -> None:
    page = b"<html>Blocked: /students?studentUniqueId=604822</html>"
    for server, told in (
        ("cloudflare", " (server: cloudflare)"),
        ("Microsoft-IIS/10.0", ""),
        ("604822?", ""),
    ):
        with (
            answering_students(Reply(page, 403, {"Server": server})) as ods,
            session_at(ods.url) as session,
            pytest.raises(OdsUnreachable) as caught,
        ):
            ids(session, retries=0)
        assert f"HTTP 403 with an HTML page{told} from 127.0.0.1" in str(caught.value)
        assert "604822" not in str(caught.value)


# -- a 404 without a word: the OpenAPI is the witness -----------------------------------------------------------


def test_an_empty_404_is_believed_only_of_what_the_openapi_does_not_list(
    server: SandboxServer, session: OdsSession
) -> None:
    data = session.url("dataManagementApi")
    for page in ("empty", "aspnet"):
        server.faults.add("/data/v3/ed-fi/(students|pupils)", page=page)
        with pytest.raises(
            OdsUnreachable, match=r"HTTP 404 .*, although the OpenAPI of the ODS lists the endpoint"
        ):
            session.get(f"{data}/ed-fi/students", {}, lambda a: a, endpoint="ed-fi/students", retries=1)
        with pytest.raises(NotOffered, match="the ODS has no such endpoint"):
            session.get(f"{data}/ed-fi/pupils", {}, lambda a: a, endpoint="ed-fi/pupils", retries=1)
        server.faults.clear()


# -- a refusal in words of the host's own: the address is asked again without the token -----------------------------

NO_SUCH_TOKEN = {"type": "urn:ed-fi:api:security:authentication", "status": 401}


def asked_about_the_key(
    body: object, status: int, nameless: Reply, *later: Reply
) -> tuple[Exception | None, list[Asked]]:
    """What comes of a host that looks at the token first; ``later`` are its answers to the second and later requests with it."""
    refusal = Reply(body, status)
    replies = iter([refusal, *later])

    def answering(asked: Asked) -> Reply | None:
        if not asked.path.endswith("/students"):
            return None
        return next(replies, refusal) if "authorization" in asked.headers else nameless

    with StandIn(answering) as ods, session_at(ods.url) as session:
        try:
            ids(session, retries=1)
        except (NotOffered, NotPermitted, OdsUnreachable) as error:
            return error, ods.matching("/students")
        return None, ods.matching("/students")


@pytest.mark.parametrize(
    "nameless", [Reply(status=401), Reply(NO_SUCH_TOKEN, 401), Reply({"message": "No token"}, 401)]
)
@pytest.mark.parametrize(
    "body",
    [b"", {"message": "Access denied"}, {"message": "No", "correlationId": "ab12"}, {"error": "forbidden"}],
)
def test_a_403_in_any_wording_is_believed_of_a_host_that_looks_at_the_token_first(
    body: object, nameless: Reply
) -> None:
    error, asked = asked_about_the_key(body, 403, nameless)
    assert type(error) is NotPermitted
    assert ["authorization" in each.headers for each in asked] == [True, False, True]
    assert len({(each.path, tuple(each.query.items())) for each in asked}) == 1


@pytest.mark.parametrize(
    "body", [b"", {"message": "There is no such thing."}, {"title": "Not Found", "status": 404}]
)
def test_a_404_in_any_wording_is_believed_of_a_host_that_looks_at_the_token_first(body: object) -> None:
    assert type(asked_about_the_key(body, 404, Reply(status=401))[0]) is NotOffered


@pytest.mark.parametrize("body", [b"<html>Blocked</html>", b"RBAC: access denied", b"Forbidden"])
@pytest.mark.parametrize("status", [403, 404])
def test_a_page_or_a_text_is_never_believed(body: bytes, status: int) -> None:
    error, asked = asked_about_the_key(body, status, Reply(status=401))
    assert type(error) is OdsUnreachable
    assert len(asked) == 2


@pytest.mark.parametrize(
    "nameless",
    [
        Reply({"message": "Access denied"}, 403),
        Reply(b"<html>Sign in</html>", 401),
        Reply(b"Jwt is missing", 401),
        Reply([], 200),
    ],
)
def test_what_stops_everybody_or_has_a_login_of_its_own_is_not_the_ods(nameless: Reply) -> None:
    error, _ = asked_about_the_key({"message": "Access denied"}, 403, nameless)
    assert type(error) is OdsUnreachable
    assert "or write enabled: false for the endpoint" in str(error)


def test_a_block_that_ends_while_it_is_looked_into_is_not_the_ods() -> None:
    page = Reply([{"id": "a"}])
    error, asked = asked_about_the_key({"message": "Slow down"}, 403, Reply(status=401), page, page)
    assert error is None
    assert ["authorization" in each.headers for each in asked] == [True, False, True, True]
