from __future__ import annotations

import json
from typing import Any

import pytest

from edfi_dagster.ods.catalogue import standard_endpoints
from edfi_dagster.ods.openapi import DescribedEndpoint, described_endpoints, flattened_name
from edfi_dagster.ods.published import PublishedEndpoints
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.ods.platforms import session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

Json = dict[str, Any]

SCHEMAS: Json = {
    "edFi_schoolReference": {"properties": {"schoolId": {"type": "integer"}, "link": {"$ref": "link"}}},
    "edFi_programReference": {
        "properties": {
            "educationOrganizationId": {"type": "integer"},
            "programName": {"type": "string"},
            "programTypeDescriptor": {"type": "string"},
        }
    },
    "edFi_sessionReference": {
        "properties": {"schoolId": {"type": "integer"}, "sessionName": {"type": "string"}}
    },
    "sample_courseVisit": {
        "required": [
            "visitDate",
            "schoolReference",
            "sessionReference",
            "feederSchoolReference",
            "programReference",
        ],
        "properties": {
            "id": {"type": "string"},
            "visitDate": {"type": "string", "format": "date"},
            "hostSchoolReference": {"$ref": "edFi_schoolReference"},
            "schoolReference": {"$ref": "edFi_schoolReference"},
            "feederSchoolReference": {"$ref": "edFi_schoolReference"},
            "sessionReference": {"$ref": "edFi_sessionReference"},
            "programReference": {"$ref": "edFi_programReference"},
            "purposeDescriptor": {"type": "string"},
            "guests": {"type": "array", "items": {"$ref": "sample_guest"}},
            "score": {"type": "number"},
            "period": {"$ref": "sample_period"},
            "_etag": {"type": "string"},
        },
        "x-Ed-Fi-domains": ["Enrollment"],
    },
}
IDENTITY = [
    "visitDate",
    "schoolId",
    "feederSchoolId",
    "sessionName",
    "programEducationOrganizationId",
    "programName",
]
OTHERS = ["hostSchoolId", "purposeDescriptor", "programTypeDescriptor"]
KEY = {
    "visitDate": "visitDate",
    "schoolId": "schoolReference.schoolId",
    "feederSchoolId": "feederSchoolReference.schoolId",
    "sessionName": "sessionReference.sessionName",
    "programEducationOrganizationId": "programReference.educationOrganizationId",
    "programName": "programReference.programName",
}


def document(*, openapi3: bool, identity: list[str] | None = None) -> Json:
    """One extension endpoint, as ODS/API up to 7.0 (Swagger 2) or from 7.1 (OpenAPI 3) describes it."""
    where = "#/components/schemas/" if openapi3 else "#/definitions/"
    shared = "#/components/parameters/" if openapi3 else "#/parameters/"
    schemas = json.loads(json.dumps(SCHEMAS).replace('"$ref": "', f'"$ref": "{where}'))
    listed = {"type": "array", "items": {"$ref": f"{where}sample_courseVisit"}}
    good = {"content": {"application/json": {"schema": listed}}} if openapi3 else {"schema": listed}
    identity = IDENTITY if identity is None else identity
    parameters: list[Json] = [{"$ref": f"{shared}offset"}]
    parameters += [{"name": name, "x-Ed-Fi-isIdentity": True} for name in identity]
    parameters += [{"name": name} for name in OTHERS]
    paths: Json = {
        "/sample/courseVisits": {"get": {"parameters": parameters, "responses": {"200": good}}, "post": {}},
        "/sample/courseVisits/{id}": {"get": {}, "put": {"x-Ed-Fi-isUpdatable": True}},
        "/sample/courseVisits/deletes": {"get": {}},
        "/sample/courseVisits/keyChanges": {"get": {}},
        "/sample/courseVisits/partitions": {"get": {}},
        "/sample/writeOnlies": {"post": {}},
    }
    found = {"offset": {"name": "offset"}}
    if openapi3:
        return {"openapi": "3.0.1", "paths": paths, "components": {"schemas": schemas, "parameters": found}}
    return {"swagger": "2.0", "paths": paths, "definitions": schemas, "parameters": found}


@pytest.mark.parametrize("openapi3", [False, True], ids=["swagger 2", "openapi 3"])
def test_both_shapes_of_document_say_the_same(openapi3: bool) -> None:
    (found,) = described_endpoints(document(openapi3=openapi3))
    assert found == DescribedEndpoint(
        namespace="sample",
        name="courseVisits",
        key=tuple(KEY.values()),
        key_names=tuple(KEY),
        fields={
            "visitDate": "date!",
            "hostSchoolReference": "ref:edFi_school",
            "schoolReference": "ref:edFi_school!",
            "feederSchoolReference": "ref:edFi_school!",
            "sessionReference": "ref:edFi_session!",
            "programReference": "ref:edFi_program!",
            "purposeDescriptor": "descriptor",
            "guests": "array",
            "score": "number",
            "period": "object",
        },
        updatable_key=True,
        has_deletes=True,
        has_key_changes=True,
        domains=("Enrollment",),
    )


@pytest.mark.parametrize("openapi3", [False, True], ids=["swagger 2", "openapi 3"])
def test_a_key_that_cannot_be_placed_whole_is_not_known(openapi3: bool) -> None:
    for identity in ([], [*IDENTITY, "inheritedId"]):
        (found,) = described_endpoints(document(openapi3=openapi3, identity=identity))
        assert (found.key, found.key_names) == ((), ())


@pytest.mark.parametrize(
    ("reference", "target", "part", "name"),
    [
        ("schoolReference", "edFi_schoolReference", "schoolId", "schoolId"),
        ("feederSchoolReference", "edFi_schoolReference", "schoolId", "feederSchoolId"),
        (
            "programReference",
            "edFi_programReference",
            "educationOrganizationId",
            "programEducationOrganizationId",
        ),
        ("programReference", "edFi_programReference", "programName", "programName"),
        ("gradingPeriodReference", "edFi_gradingPeriodReference", "periodSequence", "gradingPeriodSequence"),
        ("sessionReference", "edFi_sessionReference", "schoolId", "schoolId"),
    ],
)
def test_the_four_rules_of_flat_names(reference: str, target: str, part: str, name: str) -> None:
    names = {
        "schoolId": 1,
        "feederSchoolId": 1,
        "programEducationOrganizationId": 1,
        "gradingPeriodSequence": 1,
    }
    assert flattened_name(reference, target, part, names) == name


# -- what an ODS publishes -----------------------------------------------------------------------------------


def test_the_natural_keys_that_the_ods_publishes_are_those_of_the_catalogue(session: OdsSession) -> None:
    published = PublishedEndpoints(session)
    resources = [e for e in standard_endpoints("5.2") if not e.is_descriptor]
    assert {e.path: dict(published.key(e.path)) for e in resources} == {
        e.path: dict(e.key) for e in resources
    }
    assert dict(published.key("ed-fi/gradeLevelDescriptors")) == {
        "namespace": "namespace",
        "codeValue": "codeValue",
    }


def test_documents_are_asked_for_once_a_run_each_and_only_when_needed(
    server: SandboxServer, session: OdsSession
) -> None:
    published = PublishedEndpoints(session)
    for path in ("ed-fi/students", "ed-fi/Sections", "tpdm/candidates"):
        assert published.offers(path)
    assert [r.path.split("/")[-2] for r in server.requests.matching("swagger.json")] == ["resources"]
    assert published.offers("ed-fi/gradeLevelDescriptors")
    assert not published.offers("sample/busDescriptors")
    assert [r.path.split("/")[-2] for r in server.requests.matching("swagger.json")] == [
        "resources",
        "descriptors",
    ]


def test_what_is_withdrawn_is_not_offered(store: Store, session: OdsSession) -> None:
    store.withdraw("ed-fi/surveys")
    published = PublishedEndpoints(session)
    assert not published.offers("ed-fi/surveys")
    assert published.offers("ed-fi/students")
    assert dict(published.key("ed-fi/surveys")) == {}


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 404},
        {"status": 403},
        {"status": 500},
        {"action": "html", "status": 200},
        {"action": "reset"},
    ],
    ids=str,
)
def test_without_a_document_everything_may_be_offered_and_no_key_is_known(
    server: SandboxServer, session: OdsSession, fault: Json
) -> None:
    """Else an endpoint that is forbidden for once would pass for one that is no longer there."""
    server.faults.add("descriptors/swagger.json", **fault)
    published = PublishedEndpoints(session)
    assert published.offers("ed-fi/gradeLevelDescriptors")
    assert published.offers("sample/unheardOfDescriptors")
    assert dict(published.key("ed-fi/gradeLevelDescriptors")) == {}
    assert not published.offers("sample/unheardOf")


@pytest.mark.parametrize("body", [[], {"paths": []}, {"paths": {"/a/b": 7}}, "text"])
def test_a_document_of_another_kind_is_none(body: Any) -> None:
    def answer(asked: Asked) -> Reply | None:
        return Reply(body) if "swagger" in asked.path else None

    with StandIn(answer) as ods, session_at(ods.url) as session:
        assert PublishedEndpoints(session).offers("ed-fi/students")
