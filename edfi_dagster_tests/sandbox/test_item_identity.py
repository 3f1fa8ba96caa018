"""The published schemas tell the items of arrays apart, as tools that check records before they send them need it."""

from __future__ import annotations

from typing import Any

import pytest

from edfi_dagster.sandbox.generations import NEWEST
from edfi_dagster.sandbox.items import item_identity
from edfi_dagster.sandbox.openapi import document
from edfi_dagster.sandbox.store import Store


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    model = Store().model
    found: dict[str, Any] = document(model, model.endpoints, "http://x/data/v3", "all", 500, NEWEST)
    return found["components"]["schemas"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "array", "identity"),
    [
        ("ed-fi/students", "identificationDocuments", ("identificationDocumentUseDescriptor", "personalInformationVerificationDescriptor")),
        ("ed-fi/studentEducationOrganizationAssociations", "races", ("raceDescriptor",)),
        ("ed-fi/studentAssessments", "scoreResults", ("assessmentReportingMethodDescriptor",)),
        ("ed-fi/studentAssessments", "studentObjectiveAssessments", ("objectiveAssessmentReference",)),
        ("ed-fi/assessments", "identificationCodes", ("assessmentIdentificationSystemDescriptor",)),
        ("ed-fi/schools", "identificationCodes", ("educationOrganizationIdentificationSystemDescriptor",)),
        ("ed-fi/sections", "classPeriods", ("classPeriodReference",)),
    ],
)  # fmt: skip
def test_items_are_known_by_their_identity(path: str, array: str, identity: tuple[str, ...]) -> None:
    assert item_identity(Store().endpoint(path), array) == identity


def test_every_array_of_every_resource_refers_to_a_schema_with_an_identity(schemas: dict[str, Any]) -> None:
    arrays = 0
    for schema in schemas.values():
        for shape in schema["properties"].values():
            if shape.get("type") == "array":
                arrays += 1
                item = schemas[shape["items"]["$ref"].rpartition("/")[2]]
                assert item["required"]
                assert all(item["properties"][name]["x-Ed-Fi-isIdentity"] for name in item["required"])
    assert arrays > 250


def test_generated_records_have_no_two_items_alike(schemas: dict[str, Any]) -> None:
    from edfi_dagster.sandbox import SandboxServer

    store = SandboxServer(["x"], rows={"students": 4}).store("x")
    for endpoint in store.model.endpoints:
        for array in endpoint.arrays:
            names = item_identity(endpoint, array)
            for row in store.rows(endpoint.path)[:5]:
                keys = [str([item.get(name) for name in names]) for item in row.get(array, [])]
                assert len(set(keys)) == len(keys), (endpoint.path, array)
