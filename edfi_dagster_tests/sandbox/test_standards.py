"""The data standard of each version: generated data, OpenAPI documents, dependencies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edfi_dagster.ods.openapi import described_endpoints
from edfi_dagster.sandbox.documents import references
from edfi_dagster.sandbox.generations import GENERATIONS
from edfi_dagster_tests.sandbox.api import VersionApi, body

Make = Callable[[str], VersionApi]
DOCUMENTED = tuple(version for version in GENERATIONS if version != "2")
OLDER = tuple(version for version in GENERATIONS if version != "7.3")


def document(api: VersionApi, section: str, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = api.session.get(
        f"{api.documents}/{section}/swagger.json{query}", timeout=20
    ).json()
    return found


@pytest.mark.parametrize("version", OLDER)
def test_every_generated_record_passes_the_rules_of_the_api_unchanged(api_of: Make, version: str) -> None:
    store = api_of(version).store
    newest = store.newest
    for endpoint in store.model.endpoints:
        for row in store.rows(endpoint.path)[::11]:
            assert store.post(endpoint.path, body(row)) == row["id"], endpoint.path
    assert store.newest == newest


@pytest.mark.parametrize("version", OLDER)
def test_every_reference_has_a_link_to_a_row_that_exists(api_of: Make, version: str) -> None:
    store = api_of(version).store
    checked = 0
    for endpoint in store.model.endpoints:
        for row in store.rows(endpoint.path)[::3]:
            for found in references(store.model, endpoint, row):
                path, row_id = found.node["link"]["href"].lstrip("/").rsplit("/", 1)
                assert store.row(path, row_id) is not None, (endpoint.path, found)
                checked += 1
    assert checked > 1_000


@pytest.mark.parametrize("version", OLDER)
def test_most_endpoints_have_rows_and_every_descriptor_values(api_of: Make, version: str) -> None:
    store = api_of(version).store
    counts = store.counts()
    assert all(counts.get(e.path, 0) >= 2 for e in store.model.endpoints if e.is_descriptor)
    filled = [e for e in store.model.endpoints if not e.is_descriptor and e.path in counts]
    assert len(filled) >= 95


@pytest.mark.parametrize("version", ["5.3", "6.1", "7.1"])
def test_contacts_were_parents_before_data_standard_5(api_of: Make, version: str) -> None:
    api = api_of(version)
    name = "contact" if version == "7.1" else "parent"
    other = "parent" if version == "7.1" else "contact"
    relation = api.rows(f"student{name.title()}Associations", limit=1)[0]
    contact = api.rows(f"{name}s", **{f"{name}UniqueId": relation[f"{name}Reference"][f"{name}UniqueId"]})
    assert len(contact) == 1
    assert api.get(f"{other}s").status_code == 404


@pytest.mark.parametrize("version", DOCUMENTED)
def test_the_documents_give_back_the_catalogue(api_of: Make, version: str) -> None:
    api = api_of(version)
    for section, are_descriptors in (("resources", False), ("descriptors", True)):
        found = {f"{e.namespace}/{e.name}": e for e in described_endpoints(document(api, section))}
        declared = {e.path: e for e in api.store.model.endpoints if e.is_descriptor == are_descriptors}
        assert set(found) == set(declared)
        for path, endpoint in declared.items():
            assert list(found[path].key) == [".".join(part.path) for part in endpoint.key], path
            assert found[path].updatable_key == endpoint.key_changes, path
            assert found[path].has_deletes == endpoint.tracks_changes
            assert found[path].has_key_changes == (endpoint.tracks_changes and version != "5.3")


@pytest.mark.parametrize("version", DOCUMENTED)
def test_the_format_is_swagger_2_through_7_0_and_later_on_request(api_of: Make, version: str) -> None:
    api = api_of(version)
    plain, old = document(api, "resources"), document(api, "resources", "?version=2")
    assert ("openapi" in plain) == (version in ("7.1", "7.2", "7.3"))
    assert old["swagger"] == "2.0"
    assert old["parameters"]["limit"]["maximum"] == 500
    assert f"{old['schemes'][0]}://{old['host']}{old['basePath'].rstrip('/')}" == api.data
    assert ("/ed-fi/students/partitions" in old["paths"]) == (version == "7.3")
    assert ("pageToken" in old["parameters"]) == (version == "7.3")
    get = old["paths"]["/ed-fi/students"]["get"]
    unique = next(p for p in get["parameters"] if p.get("name") == "studentUniqueId")
    assert (unique["type"], unique["x-Ed-Fi-isIdentity"]) == ("string", True)
    assert get["responses"]["200"]["schema"]["items"] == {"$ref": "#/definitions/edFi_student"}
    assert "#/components" not in str(old)
    sections = api.session.get(api.sections, params={"version": "2"}, timeout=10).json()
    assert all(s["endpointUri"].endswith("?version=2") for s in sections) == ("openapi" in plain)


@pytest.mark.parametrize("version", DOCUMENTED)
def test_school_years_filter_where_key_or_reference_has_them_and_are_listed_there(
    api_of: Make, version: str
) -> None:
    api = api_of(version)
    described = {e.name: e for e in described_endpoints(document(api, "resources"))}
    listed = {name for name, found in described.items() if "schoolYear" in found.filters}
    assert {"studentSchoolAssociations", "sections", "grades", "calendars", "schoolYearTypes"} <= listed
    assert not {"students", "schools", "locations", "studentEducationOrganizationAssociations"} & listed
    rows = api.store.count("sections")
    counts = [
        api.get("sections", schoolYear=year, limit=0, totalCount="true").headers["Total-Count"]
        for year in (2025, 2024)
    ]
    assert counts == [str(rows), "0"]


@pytest.mark.parametrize("version", DOCUMENTED)
def test_dependencies_list_people_twice_since_6_0(api_of: Make, version: str) -> None:
    api = api_of(version)
    rows = api.session.get(f"{api.documents}/dependencies", timeout=10).json()
    students = [row["operations"] for row in rows if row["resource"] == "/ed-fi/students"]
    if version == "5.3":
        assert students == [["Create"]]
        assert {tuple(row["operations"]) for row in rows} == {("Create",)}
        return
    assert students == [["Create"], ["Update"]]
    contacts = "parents" if version in ("6.1", "7.0") else "contacts"
    assert [row["resource"] for row in rows].count(f"/ed-fi/{contacts}") == 2
