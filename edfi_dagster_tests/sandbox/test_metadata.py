from __future__ import annotations

from typing import Any

import pytest
import requests

from edfi_dagster.ods.openapi import DescribedEndpoint, described_endpoints
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster.sandbox.model import Endpoint, model
from edfi_dagster.sandbox.openapi import schema_name
from edfi_dagster_tests.sandbox.api import Api


def document(server: SandboxServer, section: str) -> dict[str, Any]:
    url = f"{server.url}/grand_bend/2025/metadata/data/v3/{section}/swagger.json"
    answer: dict[str, Any] = requests.get(url, timeout=10).json()
    return answer


def described(server: SandboxServer, section: str) -> dict[str, DescribedEndpoint]:
    return {f"{e.namespace}/{e.name}": e for e in described_endpoints(document(server, section))}


def declared_fields(endpoint: Endpoint) -> dict[str, str]:
    return {
        name: (f"ref:{schema_name(kind[4:])}" if kind.startswith("ref:") else kind)
        + ("!" if name in endpoint.required else "")
        for name, kind in endpoint.fields.items()
    }


def test_the_resources_document_gives_back_the_catalogue(server: SandboxServer) -> None:
    found = described(server, "resources")
    declared = {e.path: e for e in model().endpoints if not e.is_descriptor}
    assert set(found) == set(declared)
    for path, endpoint in declared.items():
        assert list(found[path].key) == [".".join(part.path) for part in endpoint.key], path
        assert dict(found[path].fields) == declared_fields(endpoint), path
        assert found[path].updatable_key == endpoint.key_changes, path
        assert (
            found[path].has_deletes == found[path].has_key_changes == (endpoint.name != "schoolYearTypes")
        ), path
        assert len(found[path].domains) == 1


def test_the_descriptors_document_gives_back_the_catalogue(server: SandboxServer) -> None:
    found = described(server, "descriptors")
    assert set(found) == {e.path for e in model().endpoints if e.is_descriptor}
    assert len(found) == 229
    assert all(e.key == ("namespace", "codeValue") and e.has_deletes for e in found.values())


def test_the_document_is_openapi_3_with_the_paths_of_version_7_3(server: SandboxServer) -> None:
    found = document(server, "resources")
    assert found["openapi"].startswith("3.0")
    assert found["servers"] == [{"url": f"{server.url}/grand_bend/2025/data/v3"}]
    for tail in ("", "/{id}", "/deletes", "/keyChanges", "/partitions"):
        assert "get" in found["paths"][f"/ed-fi/sections{tail}"]
    assert found["paths"]["/ed-fi/sections/{id}"]["put"]["x-Ed-Fi-isUpdatable"] is True
    assert "x-Ed-Fi-isUpdatable" not in found["paths"]["/ed-fi/students/{id}"]["put"]
    assert "/ed-fi/schoolYearTypes/partitions" in found["paths"]
    assert "/ed-fi/schoolYearTypes/deletes" not in found["paths"]


def test_the_documents_publish_the_hosts_page_limit() -> None:
    with SandboxServer(["grand_bend/2025"], max_page=250) as server:
        limit = document(server, "descriptors")["components"]["parameters"]["limit"]["schema"]
    assert (limit["maximum"], limit["default"]) == (250, 25)


def test_identity_is_marked_on_parameters_and_properties(server: SandboxServer) -> None:
    found = document(server, "resources")
    parameters = found["paths"]["/ed-fi/studentProgramAssociations"]["get"]["parameters"]
    identity = [p["name"] for p in parameters if p.get("x-Ed-Fi-isIdentity")]
    assert identity == [
        "beginDate", "educationOrganizationId", "programEducationOrganizationId", "programName",
        "programTypeDescriptor", "studentUniqueId",
    ]  # fmt: skip
    schemas = found["components"]["schemas"]
    assert schemas["edFi_student"]["properties"]["studentUniqueId"]["x-Ed-Fi-isIdentity"] is True
    assert schemas["edFi_schoolReference"]["required"] == ["schoolId"]


def test_documents_by_namespace_and_of_everything(server: SandboxServer) -> None:
    assert {path.split("/")[1] for path in document(server, "tpdm")["paths"]} == {"tpdm"}
    url = f"{server.url}/grand_bend/2025/metadata/data/v3/swagger.json"
    everything = requests.get(url, timeout=10).json()["paths"]
    assert {"/ed-fi/students", "/tpdm/candidates", "/ed-fi/weaponDescriptors"} <= set(everything)
    assert requests.get(url.replace("v3", "v3/sample"), timeout=10).status_code == 404


def test_a_matching_etag_gets_304_and_another_an_empty_200(server: SandboxServer) -> None:
    url = f"{server.url}/grand_bend/2025/metadata/data/v3/descriptors/swagger.json"
    tag = requests.get(url, timeout=10).headers["ETag"]
    same = requests.get(url, headers={"If-None-Match": tag}, timeout=10)
    other = requests.get(url, headers={"If-None-Match": '"stale"'}, timeout=10)
    assert (same.status_code, same.content) == (304, b"")
    assert (other.status_code, other.content) == (200, b"")


def test_sections_are_listed_without_a_token(server: SandboxServer) -> None:
    url = f"{server.url}/grand_bend/2025/metadata/"
    sections = requests.get(url, timeout=10).json()
    assert [(s["name"], s["prefix"]) for s in sections] == [
        ("Descriptors", ""),
        ("Resources", ""),
        ("Change-Queries", "Other"),
    ]
    assert all(requests.get(s["endpointUri"], timeout=10).json()["openapi"] for s in sections)
    sdk = requests.get(url, params={"sdk": "true"}, timeout=10).json()
    assert [s["prefix"] for s in sdk] == ["Extensions", "Extensions", "SDKGen"]
    assert all(requests.get(s["endpointUri"], timeout=10).ok for s in sdk)


def test_dependencies_order_what_is_referred_to_first_and_list_people_twice(api: Api) -> None:
    rows = api.get("/metadata/data/v3/dependencies").json()
    assert {row["order"] for row in rows} == set(range(1, max(row["order"] for row in rows) + 1))
    created = {row["resource"]: row["order"] for row in rows if "Create" in row["operations"]}
    assert len(created) == 153 + 229
    for endpoint in model().endpoints:
        for target in endpoint.references.values():
            if target != endpoint.path and f"/{target}" in created:
                assert created[f"/{target}"] < created[f"/{endpoint.path}"], (endpoint.path, target)
    people = [(row["resource"], row["operations"]) for row in rows if row["resource"] == "/ed-fi/students"]
    assert people == [("/ed-fi/students", ["Create"]), ("/ed-fi/students", ["Update"])]
    assert created["/ed-fi/gradeLevelDescriptors"] == 1


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_metadata_and_discovery_are_read_only(server: SandboxServer, method: str) -> None:
    for path in ("", "metadata/"):
        answer = requests.request(method, f"{server.url}/grand_bend/2025/{path}", timeout=10)
        assert answer.status_code == 405
