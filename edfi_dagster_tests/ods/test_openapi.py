from __future__ import annotations

import json
from typing import Any

import pytest

from edfi_dagster.ods.catalogue import standard_endpoints
from edfi_dagster.ods.openapi import (
    DescribedEndpoint,
    described_endpoints,
    flattened_name,
    limit_maximum,
)
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
            "_ext": {"$ref": "sample_courseVisitExtensions"},
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
    parameters: list[Json] = [{"$ref": f"{shared}{name}"} for name in ("offset", "limit", "If-None-Match")]
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
    most: Json = {"schema": {"maximum": 250}} if openapi3 else {"maximum": 250}
    found = {
        "offset": {"name": "offset", "in": "query"},
        "limit": {"name": "limit", "in": "query", **most},
        "If-None-Match": {"name": "If-None-Match", "in": "header"},
    }
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
            "_ext": "object",
        },
        filters=frozenset({"offset", "limit", *IDENTITY, *OTHERS}),
        updatable_key=True,
        has_deletes=True,
        has_key_changes=True,
        domains=("Enrollment",),
    )


@pytest.mark.parametrize("openapi3", [False, True], ids=["swagger 2", "openapi 3"])
def test_the_largest_limit_is_read(openapi3: bool) -> None:
    assert limit_maximum(document(openapi3=openapi3)) == 250


@pytest.mark.parametrize("limit", [None, {}, {"maximum": None}, {"schema": {}}, {"maximum": 0}])
def test_a_largest_limit_that_is_not_said_is_not_known(limit: Json | None) -> None:
    assert limit_maximum({"parameters": {} if limit is None else {"limit": limit}}) is None
    assert limit_maximum({"components": {"parameters": {} if limit is None else {"limit": limit}}}) is None


@pytest.mark.parametrize("paths", [[], ["deletes"], ["deletes", "keyChanges"]])
def test_which_changes_an_endpoint_publishes_is_read_from_its_paths(paths: list[str]) -> None:
    described = document(openapi3=False)
    for kind in {"deletes", "keyChanges"}.difference(paths):
        del described["paths"][f"/sample/courseVisits/{kind}"]
    (found,) = described_endpoints(described)
    assert (found.has_deletes, found.has_key_changes) == ("deletes" in paths, "keyChanges" in paths)


def described_one(name: str, properties: Json, parameters: list[Json], schemas: Json) -> DescribedEndpoint:
    """One endpoint of a Swagger 2 document, all of whose properties are required."""
    listed = {"schema": {"type": "array", "items": {"$ref": "#/definitions/it"}}}
    (found,) = described_endpoints(
        {
            "paths": {f"/ed-fi/{name}": {"get": {"parameters": parameters, "responses": {"200": listed}}}},
            "definitions": {"it": {"required": [*properties], "properties": properties}, **schemas},
        }
    )
    return found


def test_the_surrogate_id_that_old_documents_mark_is_no_key_of_a_descriptor() -> None:
    found = described_one(
        "termDescriptors",
        {name: {"type": "string"} for name in ("id", "codeValue", "description", "namespace")},
        [{"name": "termDescriptorId", "in": "query", "x-Ed-Fi-isIdentity": True}],
        {},
    )
    assert (found.key_names, found.key) == (("namespace", "codeValue"), ("namespace", "codeValue"))
    assert found.filters == {"termDescriptorId"}


def test_a_name_that_a_prefix_hides_is_the_required_references_own() -> None:
    """certificationExamNamespace belongs to the other reference, in the role of certificationExam."""
    found = described_one(
        "certificationExamResults",
        {
            "certificationExamReference": {"$ref": "#/definitions/edFi_certificationExamReference"},
            "certificationExamStudentAssessmentReference": {
                "$ref": "#/definitions/edFi_studentAssessmentReference"
            },
        },
        [
            {"name": "certificationExamIdentifier", "x-Ed-Fi-isIdentity": True},
            {"name": "namespace", "x-Ed-Fi-isIdentity": True},
            {"name": "certificationExamNamespace"},
        ],
        {
            "edFi_certificationExamReference": {
                "properties": {"certificationExamIdentifier": {}, "namespace": {}}
            },
            "edFi_studentAssessmentReference": {"properties": {"namespace": {}}},
        },
    )
    assert dict(zip(found.key_names, found.key, strict=True)) == {
        "certificationExamIdentifier": "certificationExamReference.certificationExamIdentifier",
        "namespace": "certificationExamReference.namespace",
    }


def test_only_references_lend_their_parts_to_a_key() -> None:
    found = described_one(
        "visits",
        {"period": {"$ref": "#/definitions/period"}},
        [{"name": "beginDate", "x-Ed-Fi-isIdentity": True}],
        {"period": {"properties": {"beginDate": {}}}},
    )
    assert found.key == ()


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
        ("feederSchoolReference", "EdFi_School_Reference", "schoolId", "feederSchoolId"),
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


def test_filters_key_changes_and_the_largest_page_are_told_of_what_is_published(session: OdsSession) -> None:
    published = PublishedEndpoints(session)
    assert {"schoolYear", "schoolId", "sessionName", "limit"} <= published.filters("ed-fi/Sessions")
    assert "schoolYear" not in published.filters("ed-fi/students")
    assert published.has_key_changes("ed-fi/sessions") is True
    assert published.has_key_changes("ed-fi/schoolYearTypes") is False
    assert published.page_limit() == 50
    assert published.filters("sample/unheardOf") == frozenset()
    assert published.has_key_changes("sample/unheardOf") is None


def test_without_a_document_filters_key_changes_and_the_largest_page_are_not_known(
    server: SandboxServer, session: OdsSession
) -> None:
    server.faults.add("resources/swagger.json", status=404)
    published = PublishedEndpoints(session)
    assert published.filters("ed-fi/sessions") == frozenset()
    assert published.has_key_changes("ed-fi/sessions") is None
    assert published.page_limit() is None


@pytest.mark.parametrize(
    ("root", "place"),
    [
        ({"version": "5.3", "apiMode": "Shared Instance"}, "/metadata/data/v3/resources/swagger.json"),
        ({"version": "6.1", "apiMode": "Year Specific"}, "/metadata/data/v3/2025/resources/swagger.json"),
        ({"version": "7.1"}, "/metadata/data/v3/resources/swagger.json"),
        ({"version": "8.0"}, "/metadata/specifications/resources-spec.json"),
    ],
    ids=["5.3", "6.1", "7.1", "8.0"],
)
def test_the_document_stands_where_each_version_puts_it(root: Json, place: str) -> None:
    def answer(asked: Asked) -> Reply | None:
        if asked.path == "/":
            return Reply({**root, "dataModels": [{"name": "Ed-Fi", "version": "4.0.0"}], "urls": {}})
        return Reply(document(openapi3=False)) if asked.path == place else None

    with StandIn(answer) as ods, session_at(ods.url) as session:
        published = PublishedEndpoints(session)
        assert published.page_limit() == 250
        assert published.has_key_changes("sample/courseVisits") is True
        assert not published.offers("ed-fi/students")
