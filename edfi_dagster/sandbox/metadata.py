"""Discovery, metadata sections, OpenAPI documents, dependencies and token information (ODS/API 7.3)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edfi_dagster.sandbox import errors, openapi
from edfi_dagster.sandbox.data import JSON, json_response
from edfi_dagster.sandbox.model import Endpoint, Model, load_orders
from edfi_dagster.sandbox.store import Store

Json = dict[str, Any]
VERSION = {"version": "7.3", "informationalVersion": "7.3.1", "suite": "3", "build": "7.3.10000.0"}
PLACEHOLDERS = "{tenantIdentifier}/{schoolYearFromRoute}"
PEOPLE = {
    "ed-fi/students": "ed-fi/studentSchoolAssociations",
    "ed-fi/staffs": "ed-fi/staffEducationOrganizationAssignmentAssociations",
    "ed-fi/contacts": "ed-fi/studentContactAssociations",
}


def base_url(request: Request, store: Store) -> str:
    """The URL of an ODS as this client sees it, without a trailing slash."""
    root = str(request.base_url).rstrip("/")
    return f"{root}/{store.name}" if store.name else root


def discovery(request: Request, store: Store | None) -> Response:
    """The root document; without an ODS in the path its URLs hold the route's placeholders."""
    if request.method != "GET":
        raise errors.method_not_allowed("GET")
    base = base_url(request, store) if store else f"{str(request.base_url).rstrip('/')}/{PLACEHOLDERS}"
    return json_response(
        {
            "version": VERSION["version"],
            "applicationName": "Ed-Fi Alliance ODS/API",
            "informationalVersion": VERSION["informationalVersion"],
            "suite": VERSION["suite"],
            "build": VERSION["build"],
            "dataModels": [
                {"name": "Ed-Fi", "version": "5.2.0", "informationalVersion": "The Ed-Fi Data Model 5.2"},
                {"name": "TPDM", "version": "1.1.0", "informationalVersion": "TPDM-Core"},
            ],
            "urls": {
                "dependencies": f"{base}/metadata/data/v3/dependencies",
                "openApiMetadata": f"{base}/metadata/",
                "oauth": f"{base}/oauth/token",
                "oauthTokenIntrospection": f"{base}/oauth/token_info",
                "dataManagementApi": f"{base}/data/v3/",
                "xsdMetadata": f"{base}/metadata/xsd",
                "changeQueries": f"{base}/changeQueries/v1/",
            },
        }
    )


def answer(request: Request, store: Store, segments: list[str], max_page: int) -> Response:
    """Answer ``/metadata/…``, which needs no token."""
    if request.method != "GET":
        raise errors.method_not_allowed("GET")
    base, path = base_url(request, store), [segment.lower() for segment in segments]
    if not path:
        sdk = request.query_params.get("sdk", "").lower() == "true"
        return json_response(_sdk_sections(base) if sdk else _sections(base))
    if path == ["data", "v3", "dependencies"]:
        return json_response(list(_dependencies(store)))
    withdrawn = frozenset(store.withdrawn)
    if path[:2] == ["data", "v3"] and path[-1] == "swagger.json" and len(path) <= 4:
        section = path[2] if len(path) == 4 else "all"
        text = _document(store.model, section, withdrawn, f"{base}/data/v3", max_page)
    elif path == ["changequeries", "v1", "swagger.json"]:
        text = msgspec.json.encode(_change_queries(base))
    else:
        raise errors.no_such_route()
    if text is None:
        raise errors.no_such_route()
    return _cached(request, text)


def token_info(store: Store, key: str) -> Json:
    """The answer of ``/oauth/token_info`` for a valid token."""
    agencies = store.rows("localEducationAgencies")
    resources = []
    for endpoint in store.model.endpoints:
        if endpoint.path not in store.withdrawn:
            operations = ["Create", "Update", "Delete"]
            operations[1:1] = [] if endpoint.path in store.denied_reads else ["Read"]
            operations += [] if endpoint.path in store.denied_changes else ["ReadChanges"]
            resources.append({"resource": f"/{endpoint.path}", "operations": operations})
    return {
        "active": True,
        "client_id": key,
        "namespace_prefixes": ["uri://ed-fi.org", "uri://tpdm.ed-fi.org"],
        "education_organizations": [
            {
                "education_organization_id": agency["localEducationAgencyId"],
                "name_of_institution": agency["nameOfInstitution"],
                "type": "edfi.LocalEducationAgency",
                "local_education_agency_id": agency["localEducationAgencyId"],
            }
            for agency in agencies
        ],
        "student_identification_system": None,
        "assigned_profiles": [],
        "claim_set": {"name": "Ed-Fi Sandbox"},
        "resources": resources,
        "services": [],
    }


def _sections(base: str) -> list[Json]:
    return [
        {
            "name": "Descriptors",
            "endpointUri": f"{base}/metadata/data/v3/descriptors/swagger.json",
            "prefix": "",
        },
        {"name": "Resources", "endpointUri": f"{base}/metadata/data/v3/resources/swagger.json", "prefix": ""},
        {
            "name": "Change-Queries",
            "endpointUri": f"{base}/metadata/changequeries/v1/swagger.json",
            "prefix": "Other",
        },
    ]


def _sdk_sections(base: str) -> list[Json]:
    return [
        {"name": name, "endpointUri": f"{base}/metadata/data/v3/{path}swagger.json", "prefix": prefix}
        for name, path, prefix in (
            ("Ed-Fi", "ed-fi/", "Extensions"),
            ("TPDM", "tpdm/", "Extensions"),
            ("All", "", "SDKGen"),
        )
    ]


@functools.lru_cache(maxsize=64)
def _document(
    model: Model, section: str, withdrawn: frozenset[str], server: str, max_page: int
) -> bytes | None:
    def belongs(endpoint: Endpoint) -> bool:
        kind = "descriptors" if endpoint.is_descriptor else "resources"
        return endpoint.path not in withdrawn and section in ("all", kind, endpoint.namespace)

    chosen = tuple(endpoint for endpoint in model.endpoints if belongs(endpoint))
    if not chosen:
        return None
    title = f"Ed-Fi Operational Data Store API ({section})"
    return msgspec.json.encode(openapi.document(model, chosen, server, title, max_page))


def _change_queries(base: str) -> Json:
    get = {
        "operationId": "getAvailableChangeVersions",
        "responses": {"200": {"description": "The versions."}},
    }
    return {
        "openapi": "3.0.1",
        "info": {"title": "Ed-Fi API Change Queries", "version": "1"},
        "servers": [{"url": f"{base}/changeQueries/v1"}],
        "paths": {"/availableChangeVersions": {"get": get}},
    }


def _cached(request: Request, text: bytes) -> Response:
    """The document, or 304; like the ODS, an ETag that does not match gets an empty 200."""
    tag = hashlib.blake2b(text, digest_size=16).hexdigest()
    given = request.headers.get("if-none-match")
    headers = {**JSON, "ETag": f'"{tag}"'}
    if given is None:
        return Response(text, headers=headers)
    return Response(status_code=304 if given.strip('"') == tag else 200, headers=headers)


def _dependencies(store: Store) -> Iterator[Json]:
    orders = load_orders(store.model)
    rows = []
    for endpoint in store.model.endpoints:
        if endpoint.path in store.withdrawn:
            continue
        if endpoint.path in PEOPLE:
            rows.append((orders[endpoint.path], endpoint.path, ["Create"]))
            rows.append((orders[PEOPLE[endpoint.path]] + 1, endpoint.path, ["Update"]))
        else:
            rows.append((orders[endpoint.path], endpoint.path, ["Create", "Update"]))
    for order, path, operations in sorted(rows):
        yield {"resource": f"/{path}", "order": order, "operations": operations}
