"""``check`` tells where an ODS marks other natural keys than our catalogue has."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from edfi_dagster.health.findings import State
from edfi_dagster.ods import catalogue
from edfi_dagster_tests.health.asking import MakeBench, asked

ELIGIBILITY = "studentSpecialEducationProgramEligibilityAssociations"


def known_as(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Let the catalogue have another key of one resource."""
    real = catalogue._read

    def read(document: object, kind: str) -> object:
        for endpoint in real(document, kind):  # type: ignore[arg-type]
            key = change(dict(endpoint.key)) if endpoint.name == ELIGIBILITY else endpoint.key
            yield catalogue.replace(endpoint, key=key)

    monkeypatch.setattr(catalogue, "_read", read)
    monkeypatch.setattr(catalogue, "standard_endpoints", catalogue.standard_endpoints.__wrapped__)


def without(*names: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda key: {name: path for name, path in key.items() if name not in names}


def test_a_key_that_lacks_a_part_is_told(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    known_as(monkeypatch, without("programEducationOrganizationId"))
    bench = make_bench("students", ELIGIBILITY)
    finding = asked(bench.platform)["natural keys"]
    assert finding.state == State.WARNING
    assert f"ed-fi/{ELIGIBILITY} by " in finding.found
    assert "programEducationOrganizationId" in finding.found
    assert "students by" not in finding.found


def test_a_key_with_a_part_that_the_ods_does_not_mark_is_told(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_as(monkeypatch, lambda key: {**key, "consentToEvaluationDate": "consentToEvaluationDate"})
    bench = make_bench(ELIGIBILITY)
    assert "consentToEvaluationDate" in asked(bench.platform)["natural keys"].found


@pytest.mark.ods("7.1")
def test_a_part_that_the_document_cannot_name_is_no_contradiction(make_bench: MakeBench) -> None:
    """As Ed-Fi's own documents of data standards 5.0 to 5.2, which name one of two organizations."""
    bench = make_bench(ELIGIBILITY)
    assert "natural keys" not in asked(bench.platform)
    paths = {f"/ed-fi/{ELIGIBILITY}": {"get": _get()}}
    described = json.dumps({"openapi": "3.0.1", "paths": paths, "components": {"schemas": _SCHEMAS}})
    bench.server.faults.add("resources/swagger.json$", status=200, body=described.encode())
    assert "natural keys" not in asked(bench.platform)


def test_an_ods_without_documents_is_not_asked_for_its_keys(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_as(monkeypatch, without("programEducationOrganizationId"))
    bench = make_bench(ELIGIBILITY)
    bench.server.faults.add("/metadata/", status=404)
    assert "natural keys" not in asked(bench.platform)


def _get() -> dict[str, object]:
    marked = (
        "consentToEvaluationReceivedDate",
        "educationOrganizationId",
        "programName",
        "programTypeDescriptor",
        "studentUniqueId",
    )
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/edFi_eligibility"}}
    return {
        "parameters": [{"name": name, "in": "query", "x-Ed-Fi-isIdentity": True} for name in marked],
        "responses": {"200": {"content": {"application/json": {"schema": rows}}}},
    }


def _reference(*parts: str) -> dict[str, object]:
    return {"type": "object", "properties": {part: {"type": "string"} for part in parts}}


_SCHEMAS = {
    "edFi_eligibility": {
        "required": [
            "consentToEvaluationReceivedDate",
            "educationOrganizationReference",
            "programReference",
            "studentReference",
        ],
        "properties": {
            "consentToEvaluationReceivedDate": {"type": "string", "format": "date"},
            **{
                f"{name}Reference": {"$ref": f"#/components/schemas/edFi_{name}Reference"}
                for name in ("educationOrganization", "program", "student")
            },
        },
    },
    "edFi_educationOrganizationReference": _reference("educationOrganizationId"),
    "edFi_programReference": _reference("educationOrganizationId", "programName", "programTypeDescriptor"),
    "edFi_studentReference": _reference("studentUniqueId"),
}
