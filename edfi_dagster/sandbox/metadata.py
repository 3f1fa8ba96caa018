"""Discovery, metadata sections, OpenAPI documents, dependencies and token information."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edfi_dagster.sandbox import errors, openapi, swagger
from edfi_dagster.sandbox.addresses import Address, mode_title
from edfi_dagster.sandbox.answers import JSON, json_response
from edfi_dagster.sandbox.generations import Generation
from edfi_dagster.sandbox.model import Endpoint, Model, load_orders
from edfi_dagster.sandbox.oddities import Oddities, content_types
from edfi_dagster.sandbox.site import Located, Settings, Site
from edfi_dagster.sandbox.store import Store

Json = dict[str, Any]
# Who can be updated only once an association makes them visible.
PEOPLE = {
    "ed-fi/students": "ed-fi/studentSchoolAssociations",
    "ed-fi/staffs": "ed-fi/staffEducationOrganizationAssignmentAssociations",
    "ed-fi/contacts": "ed-fi/studentContactAssociations",
    "ed-fi/parents": "ed-fi/studentParentAssociations",
}


def root_url(request: Request) -> str:
    """The URL of the site as this client sees it, without a trailing slash."""
    return str(request.base_url).rstrip("/")


def discovery(request: Request, site: Site, place: Located) -> Response:
    """The root document; where the path names no ODS, its URLs hold what stands for tenant, instance or year."""
    generation = site.generation
    if not generation.documents or (place.base is None and generation.modes):
        raise errors.no_such_route()
    if request.method != "GET":
        raise errors.method_not_allowed("GET")
    if place.store is not None:
        address = site.address(place.store)
    elif place.base is None:
        address = site.book.placeholder
    else:
        instance = "{instance}" if site.book.mode == "instance_year_specific" else ""
        address = Address(place.base, instance, str(dt.datetime.now(dt.UTC).year))
    named = {"applicationName": "Ed-Fi Alliance ODS/API"} if generation.names_application else {}
    mode = {"apiMode": mode_title(site.book.mode)} if site.book.mode else {}
    oddities = place.store.oddities if place.store else Oddities()
    standard = {
        "name": "Ed-Fi",
        "version": oddities.data_model or generation.standard_version,
        "informationalVersion": generation.standard_title,
    }
    extension = {"name": "TPDM", "version": "1.1.0", "informationalVersion": "TPDM-Core"}
    return json_response(
        {
            "version": generation.version,
            **named,
            "informationalVersion": generation.informational_version,
            "suite": "3",
            "build": generation.build,
            **mode,
            "dataModels": [standard, extension],
            "urls": {
                name: url
                for name, url in _urls(address, root_url(request), generation).items()
                if oddities.change_queries or name != "changeQueries"
            },
        }
    )


def _urls(address: Address, root: str, generation: Generation) -> Json:
    """The URLs of discovery: those that end in an area have a slash unless instance or year stand behind it."""
    slash = "" if address.inside else "/"
    urls = {
        "dependencies": f"{address.url(root, 'metadata', 'data', 'v3')}/dependencies",
        "openApiMetadata": f"{address.url(root, 'metadata')}{slash}",
        "oauth": f"{address.oauth_url(root, generation)}/token",
        "oauthTokenIntrospection": f"{address.oauth_url(root, generation)}/token_info",
        "dataManagementApi": f"{address.url(root, 'data', 'v3')}{slash}",
        "xsdMetadata": f"{address.url(root, 'metadata')}/xsd",
        "changeQueries": f"{address.url(root, 'changeQueries', 'v1')}{slash}",
    }
    return {name: urls[name] for name in generation.url_names}


def answer(
    request: Request, store: Store, address: Address, segments: list[str], settings: Settings
) -> Response:
    """Answer ``/metadata/…``, which needs no token."""
    if request.method != "GET":
        raise errors.method_not_allowed("GET")
    generation, path = store.generation, [segment.lower() for segment in segments]
    old_asked = request.query_params.get("version") == "2" and generation.openapi == 3
    root = root_url(request)
    if not path:
        sdk = request.query_params.get("sdk", "").lower() == "true"
        return json_response(
            list(_sections(address, root, sdk=sdk, suffix="?version=2" if old_asked else ""))
        )
    if path == ["data", "v3", "dependencies"]:
        return json_response(list(_dependencies(store)))
    format_number = 2 if old_asked else generation.openapi
    if path[:3] == ["data", "v3", "profiles"] and len(path) == 5:
        text = _profile_document(store, segments[3], address.url(root, "data", "v3"), settings, format_number)
    elif path[:2] == ["data", "v3"] and path[-1] == "swagger.json" and len(path) <= 4:
        section = path[2] if len(path) == 4 else "all"
        server = address.url(root, "data", "v3")
        withdrawn = frozenset(store.withdrawn)
        text = _document(
            store.model, generation, section, withdrawn, server, settings.max_page, format_number
        )
        text = text and _renamed(text, store.oddities.endpoints)
    elif path == ["changequeries", "v1", "swagger.json"]:
        text = _encoded(_change_queries(address.url(root, "changeQueries", "v1"), generation), format_number)
    else:
        raise errors.no_such_route()
    if text is None:
        raise errors.no_such_route()
    return _cached(request, text)


def token_info(store: Store, key: str) -> Json:
    """The answer of ``/oauth/token_info`` for a valid token."""
    agencies = store.rows("localEducationAgencies")
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
        **({"student_identification_system": None} if store.generation.token_details else {}),
        "assigned_profiles": sorted(store.oddities.profiles),
        **(_token_details(store) if store.generation.token_details else {}),
    }


def _token_details(store: Store) -> Json:
    resources = []
    for endpoint in store.model.endpoints:
        if endpoint.path not in store.withdrawn:
            operations = ["Create", "Update", "Delete"]
            operations[1:1] = [] if endpoint.path in store.denied_reads else ["Read"]
            operations += [] if endpoint.path in store.denied_changes else ["ReadChanges"]
            known_as = store.oddities.endpoints.get(endpoint.path, endpoint.path)
            resources.append({"resource": f"/{known_as}", "operations": operations})
    return {"claim_set": {"name": "Ed-Fi Sandbox"}, "resources": resources, "services": []}


def _sections(address: Address, root: str, *, sdk: bool, suffix: str) -> Iterator[Json]:
    data, changes = address.url(root, "metadata", "data", "v3"), ("metadata", "changequeries", "v1")
    listed = (
        ("Ed-Fi", f"{data}/ed-fi", "Extensions"),
        ("TPDM", f"{data}/tpdm", "Extensions"),
        ("All", data, "SDKGen"),
    )
    if not sdk:
        listed = (
            ("Descriptors", f"{data}/descriptors", ""),
            ("Resources", f"{data}/resources", ""),
            ("Change-Queries", address.url(root, *changes), "Other"),
        )
    for name, folder, prefix in listed:
        yield {"name": name, "endpointUri": f"{folder}/swagger.json{suffix}", "prefix": prefix}


@functools.lru_cache(maxsize=64)
def _document(
    model: Model,
    generation: Generation,
    section: str,
    withdrawn: frozenset[str],
    server: str,
    max_page: int,
    format_number: int,
) -> bytes | None:
    def belongs(endpoint: Endpoint) -> bool:
        kind = "descriptors" if endpoint.is_descriptor else "resources"
        return endpoint.path not in withdrawn and section in ("all", kind, endpoint.namespace)

    chosen = tuple(endpoint for endpoint in model.endpoints if belongs(endpoint))
    if not chosen:
        return None
    title = f"Ed-Fi Operational Data Store API ({section})"
    return _encoded(openapi.document(model, chosen, server, title, max_page, generation), format_number)


def _renamed(text: bytes, endpoints: Mapping[str, str]) -> bytes:
    """A document with the paths by which some endpoints are known here."""
    for own, here in endpoints.items():
        text = text.replace(f'"/{own}"'.encode(), f'"/{here}"'.encode())
        text = text.replace(f'"/{own}/'.encode(), f'"/{here}/'.encode())
    return text


def _profile_document(
    store: Store, name: str, server: str, settings: Settings, format_number: int
) -> bytes | None:
    """The document of a profile: its endpoints, with the content types that name it."""
    profiles = {known.lower(): known for known in store.oddities.profiles}
    found = profiles.get(name.lower())
    if found is None:
        return None
    chosen = [e for e in store.model.endpoints if e.path in store.oddities.profiles[found]]
    document = openapi.document(store.model, chosen, server, found, settings.max_page, store.generation)
    for endpoint in chosen:
        (wanted,) = content_types(endpoint, [found])
        answer = document["paths"][f"/{endpoint.path}"]["get"]["responses"]["200"]
        answer["content"] = {wanted: answer["content"]["application/json"]}
    return _encoded(document, format_number)


def _encoded(document: Json, format_number: int) -> bytes:
    return msgspec.json.encode(swagger.converted(document) if format_number == 2 else document)


def _change_queries(server: str, generation: Generation) -> Json:
    get = {
        "operationId": "getAvailableChangeVersions",
        "responses": {"200": {"description": "The versions."}},
    }
    paths: Json = {"/availableChangeVersions": {"get": get}}
    if generation.snapshots == "listed":
        answers = {"200": {"description": "The snapshots."}}
        paths["/snapshots"] = {"get": {"operationId": "getSnapshots", "responses": answers}}
    return {
        "openapi": "3.0.1",
        "info": {"title": "Ed-Fi API Change Queries", "version": "1"},
        "servers": [{"url": server}],
        "paths": paths,
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
    orders, updates = load_orders(store.model), store.generation.update_dependencies
    rows = []
    for endpoint in store.model.endpoints:
        if endpoint.path in store.withdrawn:
            continue
        if not updates:
            rows.append((orders[endpoint.path], endpoint.path, ["Create"]))
        elif endpoint.path in PEOPLE:
            rows.append((orders[endpoint.path], endpoint.path, ["Create"]))
            rows.append((orders[PEOPLE[endpoint.path]] + 1, endpoint.path, ["Update"]))
        else:
            rows.append((orders[endpoint.path], endpoint.path, ["Create", "Update"]))
    for order, path, operations in sorted(rows):
        yield {"resource": f"/{path}", "order": order, "operations": operations}
