"""Ed-Fi 2: a token in two steps, and pages by offset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.sandbox.api import Api, VersionApi

Make = Callable[[str], VersionApi]


def test_data_stands_behind_the_year_and_without_namespaces(api_of: Make) -> None:
    api = api_of("2")
    assert api.data == f"{api.root}/api/v2.0/2025"
    pages = [api.rows("students", limit=50, offset=offset) for offset in (0, 50, 100)]
    assert [len(page) for page in pages] == [50, 10, 0]
    assert [row for page in pages for row in page] == api.store.rows("students")
    one = api.get(f"students/{pages[0][0]['id']}").json()
    assert one == pages[0][0]


def test_there_are_no_documents_counts_windows_or_changes(api_of: Make) -> None:
    api = api_of("2")
    assert requests.get(f"{api.root}/", timeout=10).status_code == 404
    assert [api.get(f"/{path}").status_code for path in ("metadata/", "data/v3/2025/ed-fi/students")] == [
        404
    ] * 2
    assert [api.get(f"students/{kind}").status_code for kind in ("deletes", "keyChanges")] == [404, 404]
    answer = api.get("students", totalCount="true", minChangeVersion=10**9)
    assert (len(answer.json()), "Total-Count" in answer.headers) == (25, False)
    assert api.session.get(f"{api.changes}/availableChangeVersions", timeout=10).status_code == 404


@pytest.mark.parametrize("limit", [0, 101, -1])
def test_a_page_has_at_most_a_hundred_rows(api_of: Make, limit: int) -> None:
    refused = api_of("2").get("students", limit=limit)
    assert refused.status_code == 400
    assert refused.json() == {"message": "Limit must be omitted or set to a value between 1 to 100"}


def steps(api: VersionApi, code: dict[str, Any], token: dict[str, Any]) -> tuple[int, int | None]:
    """The statuses of both steps, with some fields changed."""
    first = requests.post(
        f"{api.root}/oauth/authorize",
        data={"Client_id": "sandbox", "Response_type": "code"} | code,
        timeout=10,
    )
    if first.status_code != 200:
        return first.status_code, None
    fields = {
        "Client_id": "sandbox",
        "Client_secret": "sandbox-secret",
        "Code": first.json()["code"],
        "Grant_type": "authorization_code",
    }
    return 200, requests.post(f"{api.root}/oauth/token", json=fields | token, timeout=10).status_code


@pytest.mark.parametrize(
    ("code", "token", "statuses"),
    [
        ({}, {}, (200, 200)),
        ({"Client_id": "nobody"}, {}, (400, None)),
        ({"Response_type": "token"}, {}, (400, None)),
        ({}, {"Client_secret": "wrong"}, (200, 401)),
        ({}, {"Code": "0" * 32}, (200, 400)),
        ({}, {"Grant_type": "client_credentials"}, (200, 400)),
    ],
)
def test_a_token_takes_a_code_first(
    api_of: Make, code: dict[str, Any], token: dict[str, Any], statuses: tuple[int, int | None]
) -> None:
    assert steps(api_of("2"), code, token) == statuses


def test_a_code_is_good_for_one_token(api_of: Make) -> None:
    api = api_of("2")
    asked = {"Client_id": "sandbox", "Response_type": "code"}
    code = requests.post(f"{api.root}/oauth/authorize", data=asked, timeout=10).json()["code"]
    fields = {"Client_id": "sandbox", "Client_secret": "sandbox-secret", "Code": code}
    sent = fields | {"Grant_type": "authorization_code"}
    answers = [requests.post(f"{api.root}/oauth/token", json=sent, timeout=10) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 400]
    assert set(answers[0].json()) == {"access_token", "expires_in", "token_type"}


def test_instances_and_plain_paths() -> None:
    rows = {"students": 13}
    for mode, data in (
        ("instance_year_specific", "/api/v2.0/grand_bend/2025"),
        ("shared_instance", "/grand_bend/2025/api/v2.0"),
    ):
        with SandboxServer(["grand_bend/2025"], ods_version="2", mode=mode, rows=rows) as server:
            api = Api(server, "grand_bend/2025")
            assert api.data == f"{server.url}{data}"
            assert len(api.rows("students")) == 13
            api.session.close()
