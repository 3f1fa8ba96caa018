from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from edfi_dagster.sandbox import SandboxServer


@pytest.fixture(scope="module")
def site() -> Iterator[SandboxServer]:
    with SandboxServer(["grand_bend/2025", "grand_bend/2026", "lakeview/2025"]) as running:
        yield running


def get(url: str) -> requests.Response:
    return requests.get(url, timeout=10)


def test_root_document_names_version_and_data_models_and_has_no_api_mode(site: SandboxServer) -> None:
    root = get(f"{site.url}/").json()
    assert (root["version"], root["suite"], root["applicationName"]) == ("7.3", "3", "Ed-Fi Alliance ODS/API")
    assert [(m["name"], m["version"]) for m in root["dataModels"]] == [("Ed-Fi", "5.2.0"), ("TPDM", "1.1.0")]
    assert "apiMode" not in root


def test_root_urls_hold_literal_placeholders(site: SandboxServer) -> None:
    urls = get(f"{site.url}/").json()["urls"]
    prefix = f"{site.url}/{{tenantIdentifier}}/{{schoolYearFromRoute}}"
    assert urls["oauth"] == f"{prefix}/oauth/token"
    assert urls["dataManagementApi"] == f"{prefix}/data/v3/"
    assert urls["changeQueries"] == f"{prefix}/changeQueries/v1/"
    assert set(urls) == {
        "dependencies", "openApiMetadata", "oauth", "oauthTokenIntrospection", "dataManagementApi", "xsdMetadata",
        "changeQueries",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/lakeview/2025/", "/lakeview/2025", "/Lakeview/2025/"])
def test_urls_are_filled_in_below_tenant_and_year(site: SandboxServer, path: str) -> None:
    urls = get(f"{site.url}{path}").json()["urls"]
    assert urls["oauth"] == f"{site.url}/lakeview/2025/oauth/token"


@pytest.mark.parametrize(
    "path", ["/lakeview/2026/", "/nobody/2025/data/v3/ed-fi/students", "/lakeview", "/data/v3"]
)
def test_an_unknown_tenant_or_year_is_not_found(site: SandboxServer, path: str) -> None:
    answer = get(f"{site.url}{path}")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:ed-fi:api:not-found"


def test_an_ods_without_prefix_has_plain_urls_and_may_stand_beside_others() -> None:
    with SandboxServer(["", "grand_bend/2025"]) as site:
        assert get(f"{site.url}/").json()["urls"]["oauth"] == f"{site.url}/oauth/token"
        assert (
            get(f"{site.url}/grand_bend/2025/")
            .json()["urls"]["oauth"]
            .endswith("/grand_bend/2025/oauth/token")
        )
