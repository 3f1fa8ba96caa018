from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from edfi_dagster.sandbox import SandboxServer

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def site() -> Iterator[SandboxServer]:
    with SandboxServer(["", "grand_bend/2025", "grand_bend/2026", "lakeview/2025"]) as running:
        yield running


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def token(site: SandboxServer, ods: str = "") -> requests.Response:
    return requests.post(
        f"{site.url_of(ods)}/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=site.credentials,
        timeout=10,
    )


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def test_token_by_basic_header(site: SandboxServer) -> None:
    answer = token(site)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert re.fullmatch("[0-9a-f]{32}", answer.json()["access_token"])
    assert answer.json() | {"access_token": ""} == {
        "access_token": "",
        "expires_in": 1800,
        "token_type": "bearer",
    }


@pytest.mark.parametrize("as_json", [True, False])
def test_token_by_form_or_json_body(site: SandboxServer, as_json: bool) -> None:
    key, secret = site.credentials
    fields = {"grant_type": "client_credentials", "client_id": key, "client_secret": secret}
    sent: dict[str, Any] = {"json": fields} if as_json else {"data": fields}
    answer = requests.post(f"{site.url}/oauth/token", timeout=10, **sent)
    assert answer.status_code == 200


GRANT = "grant_type=client_credentials"


@pytest.mark.parametrize(
    ("headers", "form", "status", "error"),
    [
        (basic("sandbox:wrong"), GRANT, 401, "invalid_client"),
        ({}, f"{GRANT}&client_id=sandbox&client_secret=wrong", 401, "invalid_client"),
        ({}, GRANT, 401, "invalid_request"),
        ({"Authorization": "Basic"}, GRANT, 400, "invalid_request"),
        ({"Authorization": "Digest abc"}, GRANT, 401, "invalid_client"),
        (basic("sandbox:sand:box"), GRANT, 400, "invalid_request"),
        (basic("sandbox:sandbox-secret"), f"{GRANT}&client_id=sandbox", 400, "invalid_client"),
        (basic("sandbox:sandbox-secret"), "grant_type=password", 400, "unsupported_grant_type"),
        (basic("sandbox:sandbox-secret"), f"{GRANT}&scope=1", 400, "invalid_scope"),
    ],
)
def test_refusals(site: SandboxServer, headers: dict[str, str], form: str, status: int, error: str) -> None:
    answer = requests.post(
        f"{site.url}/oauth/token", data=form, headers={**headers, "Content-Type": FORM}, timeout=10
    )
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_scope_is_echoed_when_the_key_owns_the_organization(site: SandboxServer) -> None:
    answer = requests.post(
        f"{site.url_of('grand_bend/2025')}/oauth/token",
        data={"grant_type": "client_credentials", "scope": "255901"},
        auth=site.credentials,
        timeout=10,
    )
    assert answer.json()["scope"] == "255901"


def test_a_token_request_without_content_type_is_unsupported_media(site: SandboxServer) -> None:
    answer = requests.post(
        f"{site.url}/oauth/token", data=b"x", headers=basic("sandbox:sandbox-secret"), timeout=10
    )
    assert answer.status_code == 415
    assert answer.json()["type"] == "urn:ed-fi:api:unsupported-media-type"


def test_the_sixteenth_live_token_of_a_key_is_refused(site: SandboxServer) -> None:
    assert [token(site).status_code for _ in range(15)] == [200] * 15
    refused = token(site)
    assert refused.status_code == 429
    assert refused.json()["type"] == "urn:ed-fi:api:security:authentication:too-many-tokens"
    assert "Retry-After" not in refused.headers
    site.expire_tokens()
    assert token(site).status_code == 200


def test_expired_tokens_are_refused_and_do_not_count_against_the_cap() -> None:
    with SandboxServer(["grand_bend/2025"], token_seconds=60) as site:
        clock = [1000.0]
        tokens = site.site.tokens(site.store())
        tokens.clock = lambda: clock[0]
        url = f"{site.url_of('grand_bend/2025')}/data/v3/ed-fi/schools"
        issued = [token(site, "grand_bend/2025").json() for _ in range(15)]
        assert issued[0]["expires_in"] == 60
        assert requests.get(url, headers=bearer(issued[0]["access_token"]), timeout=10).status_code == 200
        clock[0] += 60
        assert requests.get(url, headers=bearer(issued[0]["access_token"]), timeout=10).status_code == 401
        assert token(site, "grand_bend/2025").status_code == 200


def test_a_newer_token_does_not_revoke_older_ones_and_years_of_a_tenant_share_tokens(
    site: SandboxServer,
) -> None:
    first = token(site, "grand_bend/2025").json()["access_token"]
    token(site, "grand_bend/2025")

    def status(ods: str) -> int:
        url = f"{site.url_of(ods)}/data/v3/ed-fi/schools"
        return requests.get(url, headers=bearer(first), timeout=10).status_code

    assert [status(ods) for ods in ("grand_bend/2025", "grand_bend/2026", "lakeview/2025", "")] == [
        200,
        200,
        401,
        401,
    ]


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (None, "Authorization header is missing."),
        ("Digest abc", "Unknown Authorization header scheme."),
        ("Bearer", "Missing Authorization header bearer token value."),
        ("Bearer a b", "Invalid Authorization header."),
        ("Bearer 0123", "Invalid token"),
    ],
)
def test_unauthenticated_data_call(site: SandboxServer, header: str | None, error: str) -> None:
    headers = {"Authorization": header} if header else {}
    answer = requests.get(f"{site.url}/data/v3/ed-fi/students", headers=headers, timeout=10)
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["errors"] == [error]
    assert answer.json()["type"] == "urn:ed-fi:api:security:authentication"


@pytest.mark.parametrize("path", ["data/v3/ed-fi/students", "changeQueries/v1/availableChangeVersions"])
def test_behind_a_prefix_an_unauthenticated_answer_has_no_body(site: SandboxServer, path: str) -> None:
    answer = requests.get(f"{site.url}/grand_bend/2025/{path}", timeout=10)
    assert (answer.status_code, answer.content) == (401, b"")


def test_token_info_names_organizations_and_operations(site: SandboxServer) -> None:
    root = site.url_of("grand_bend/2025")
    site.store("grand_bend/2025").deny("staffs", read=False)
    site.store("grand_bend/2025").deny("students", read_changes=False)
    value = token(site, "grand_bend/2025").json()["access_token"]
    answer = requests.post(
        f"{root}/oauth/token_info", data={"token": value}, headers=bearer(value), timeout=10
    )
    info = answer.json()
    operations = {entry["resource"]: entry["operations"] for entry in info["resources"]}
    assert info["active"] is True
    assert info["education_organizations"][0]["education_organization_id"] == 255901
    assert operations["/ed-fi/schools"] == ["Create", "Read", "Update", "Delete", "ReadChanges"]
    assert operations["/ed-fi/staffs"] == ["Create", "Read", "Update", "Delete"]
    assert operations["/ed-fi/students"] == ["Create", "Update", "Delete", "ReadChanges"]


def test_token_info_refusals(site: SandboxServer) -> None:
    url = f"{site.url}/oauth/token_info"
    value = token(site).json()["access_token"]
    unknown = "0" * 32
    answers = [
        requests.post(url, data={"token": "garbage"}, headers=bearer(value), timeout=10).status_code,
        requests.post(url, data={"token": unknown}, headers=bearer(value), timeout=10).status_code,
        requests.post(url, data={"token": unknown}, headers=bearer(unknown), timeout=10).status_code,
    ]
    assert answers == [400, 400, 401]


@pytest.fixture(scope="module")
def old_sites() -> Iterator[dict[str, SandboxServer]]:
    with ExitStack() as stack:
        yield {
            version: stack.enter_context(SandboxServer([""], ods_version=version, rows={"students": 13}))
            for version in ("5.3", "6.1", "7.1")
        }


@pytest.mark.parametrize(
    ("version", "headers", "status", "error"),
    [
        ("5.3", basic("sandbox:wrong"), 400, "invalid_client"),
        ("6.1", basic("sandbox:wrong"), 401, "invalid_client"),
        ("7.1", basic("sandbox:wrong"), 401, "invalid_client"),
        ("5.3", {}, 401, None),
        ("6.1", {}, 401, "invalid_request"),
        ("5.3", {"Authorization": "Basic"}, 401, None),
        ("6.1", {"Authorization": "Basic"}, 400, "invalid_request"),
        ("5.3", {"Authorization": "Digest abc"}, 401, "invalid_client"),
    ],
)
def test_bad_credentials_by_version(
    old_sites: dict[str, SandboxServer], version: str, headers: dict[str, str], status: int, error: str | None
) -> None:
    url = f"{old_sites[version].url}/oauth/token"
    answer = requests.post(url, data=GRANT, headers={**headers, "Content-Type": FORM}, timeout=10)
    assert answer.status_code == status
    assert answer.content == b"" if error is None else answer.json()["error"] == error


@pytest.mark.parametrize("version", ["5.3", "6.1", "7.1"])
def test_before_7_3_tokens_are_not_capped(old_sites: dict[str, SandboxServer], version: str) -> None:
    assert {token(old_sites[version]).status_code for _ in range(20)} == {200}


@pytest.mark.parametrize("version", ["5.3", "6.1", "7.1"])
def test_before_7_3_token_info_tells_no_resources(old_sites: dict[str, SandboxServer], version: str) -> None:
    site = old_sites[version]
    value = token(site).json()["access_token"]
    sent = {"token": value}
    info = requests.post(f"{site.url}/oauth/token_info", data=sent, headers=bearer(value), timeout=10).json()
    assert set(info) == {
        "active", "client_id", "namespace_prefixes", "education_organizations", "assigned_profiles",
    }  # fmt: skip
