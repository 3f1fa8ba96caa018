"""OpenAPI 3 documents of the data management API, built from the catalogue as the ODS/API writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from edfi_dagster.sandbox.filters import filter_names
from edfi_dagster.sandbox.generations import Generation
from edfi_dagster.sandbox.items import item_identity, item_type
from edfi_dagster.sandbox.model import EDUCATION_ORGANIZATIONS, Endpoint, Model, pascal, singular

Json = dict[str, Any]

_SCALAR_SCHEMAS: dict[str, Json] = {
    "string": {"type": "string"},
    "descriptor": {"type": "string"},
    "integer": {"type": "integer", "format": "int32"},
    "number": {"type": "number", "format": "double"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "date-time": {"type": "string", "format": "date-time"},
    "time": {"type": "string", "format": "time"},
    "array": {"type": "array", "items": {"type": "object"}},
    "object": {"type": "object"},
}
_CURSOR_PARAMETERS = ("pageToken", "pageSize", "numberOfPartitions")
_ERROR_RESPONSES = {status: {"description": text} for status, text in (
    ("400", "Bad Request. The request was invalid and cannot be completed."),
    ("401", "Unauthorized. The request requires authentication."),
    ("403", "Forbidden. The request cannot be completed in the current authorization context."),
    ("404", "Not Found."),
    ("409", "Conflict."),
    ("500", "An unhandled error occurred on the server."),
)}  # fmt: skip


def document(
    model: Model,
    endpoints: Iterable[Endpoint],
    server: str,
    title: str,
    max_page: int,
    generation: Generation,
) -> Json:
    """The document of some endpoints; ``server`` is the URL that paths are relative to."""
    chosen = tuple(endpoints)
    paths: Json = {}
    for endpoint in chosen:
        paths.update(_paths(model, endpoint, generation))
    schemas = dict(pair for endpoint in chosen for pair in _schemas(model, endpoint, generation))
    shared = {
        name: shape
        for name, shape in _shared_parameters(max_page).items()
        if generation.cursor or name not in _CURSOR_PARAMETERS
    }
    return {
        "openapi": "3.0.1",
        "info": {"title": title, "description": title, "version": "3"},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"parameters": shared, "schemas": dict(sorted(schemas.items()))},
        "tags": [{"name": endpoint.name} for endpoint in chosen],
    }


def schema_name(path: str) -> str:
    """``ed-fi/students`` → ``edFi_student``."""
    namespace, name = path.split("/")
    first, *others = namespace.split("-")
    return f"{first}{''.join(map(pascal, others))}_{singular(name)}"


def _shared_parameters(max_page: int) -> Json:
    def query(name: str, kind: str, description: str, **extra: Any) -> Json:
        shape = {"type": kind, **({"format": extra.pop("format")} if "format" in extra else {}), **extra}
        return {"name": name, "in": "query", "description": description, "schema": shape}

    return {
        "offset": query("offset", "integer", "How many items to skip.", format="int32", default=0),
        "limit": query(
            "limit", "integer", "The most items to return.", format="int32", minimum=0, maximum=max_page, default=25
        ),
        "pageToken": query("pageToken", "string", "The token of the page to return, for cursor paging."),
        "pageSize": query(
            "pageSize", "integer", "The most items in a page of cursor paging.", format="int32", minimum=0,
            maximum=max_page, default=25,
        ),
        "numberOfPartitions": query(
            "number", "integer", "How many partitions.", format="int32", minimum=1, maximum=200, default=10
        ),
        "totalCount": query("totalCount", "boolean", "Whether to send the total in a header.", default=False),
        "MinChangeVersion": query("minChangeVersion", "integer", "The lowest ChangeVersion.", format="int64"),
        "MaxChangeVersion": query("maxChangeVersion", "integer", "The highest ChangeVersion.", format="int64"),
        "If-None-Match": {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
    }  # fmt: skip


def _paths(model: Model, endpoint: Endpoint, generation: Generation) -> Iterator[tuple[str, Json]]:
    path, kind = f"/{endpoint.path}", pascal(endpoint.name)
    filters = list(_filter_parameters(model, endpoint, generation))
    item = _schema_reference(schema_name(endpoint.path))
    versions, paging = _shared("MinChangeVersion", "MaxChangeVersion"), _shared("offset", "limit")
    tokens = _shared("pageToken", "pageSize") if generation.cursor else []
    collection = [*paging, *tokens, *versions, *_shared("totalCount"), *filters]
    yield (
        path,
        {
            "get": _get(endpoint, f"get{kind}", collection, {"type": "array", "items": item}),
            "post": _write(endpoint, f"post{pascal(endpoint.singular)}", "201", [], item),
        },
    )
    yield f"{path}/{{id}}", _item_operations(endpoint, item)
    if endpoint.tracks_changes:
        rows = {"type": "array", "items": {"type": "object"}}
        counted = _shared("totalCount") if generation.keyed_deletes else []
        for change in ("deletes", "keyChanges") if generation.key_changes else ("deletes",):
            get = _get(endpoint, f"{change}{kind}", [*paging, *versions, *counted], rows)
            yield f"{path}/{change}", {"get": get}
    if generation.cursor:
        texts = {"type": "array", "items": {"type": "string"}}
        found = {"type": "object", "properties": {"pageTokens": texts}}
        parameters = [*_shared("numberOfPartitions"), *versions, *filters]
        yield f"{path}/partitions", {"get": _get(endpoint, f"get{kind}Partitions", parameters, found)}


def _item_operations(endpoint: Endpoint, item: Json) -> Json:
    name = pascal(endpoint.singular)
    row_id: Json = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    put = _write(endpoint, f"put{name}", "204", [row_id], item)
    if endpoint.key_changes:
        put["x-Ed-Fi-isUpdatable"] = True
    return {
        "get": _get(endpoint, f"get{pascal(endpoint.name)}ById", [row_id, *_shared("If-None-Match")], item),
        "put": put,
        "delete": _write(endpoint, f"delete{name}ById", "204", [row_id], None),
    }


def _get(endpoint: Endpoint, name: str, parameters: list[Json], schema: Json) -> Json:
    success = {
        "description": "The requested resource was successfully retrieved.",
        "content": {"application/json": {"schema": schema}},
    }
    return _operation(endpoint, name, parameters, {"200": success})


def _write(endpoint: Endpoint, name: str, success: str, parameters: list[Json], item: Json | None) -> Json:
    operation = _operation(endpoint, name, parameters, {success: {"description": "Done."}})
    if item is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": item}}}
    return operation


def _operation(endpoint: Endpoint, name: str, parameters: list[Json], success: Json) -> Json:
    return {
        "tags": [endpoint.name],
        "operationId": name,
        "parameters": parameters,
        "responses": {**success, **_ERROR_RESPONSES},
    }


def _filter_parameters(model: Model, endpoint: Endpoint, generation: Generation) -> Iterator[Json]:
    identity = {part.flat for part in endpoint.key}
    for name, (kind, _) in filter_names(model, endpoint, generation).items():
        parameter: Json = {"name": name, "in": "query", "schema": _SCALAR_SCHEMAS[kind]}
        if name in identity:
            parameter["x-Ed-Fi-isIdentity"] = True
        yield parameter
    yield {"name": "id", "in": "query", "schema": {"type": "string"}}


def _schemas(model: Model, endpoint: Endpoint, generation: Generation) -> Iterator[tuple[str, Json]]:
    identity = {part.path[0] for part in endpoint.key}
    properties: Json = {"id": {"type": "string", "description": ""}}
    for name, kind in endpoint.fields.items():
        if name in endpoint.references:
            target = f"{schema_name(endpoint.references[name])}Reference"
            properties[name] = _schema_reference(target)
            yield target, _reference_schema(model, endpoint.references[name])
        elif kind == "array":
            target = f"{schema_name(endpoint.path)}{pascal(singular(name))}"
            properties[name] = {"type": "array", "items": _schema_reference(target)}
            yield target, _item_schema(endpoint, name)
        else:
            properties[name] = dict(_SCALAR_SCHEMAS[kind])
            if name in identity:
                properties[name]["x-Ed-Fi-isIdentity"] = True
    properties["_etag"] = {"type": "string"}
    if generation.modified_dates:
        properties["_lastModifiedDate"] = {"type": "string", "format": "date-time"}
    schema: Json = {
        "required": [name for name in endpoint.fields if name in endpoint.required],
        "type": "object",
        "properties": properties,
    }
    if generation.marks_domains:
        schema["x-Ed-Fi-domains"] = ["".join(map(pascal, endpoint.domain.split("_")))]
    yield schema_name(endpoint.path), schema


def _item_schema(endpoint: Endpoint, array: str) -> Json:
    """What identifies an item; of its other properties nothing is said."""
    identity = item_identity(endpoint, array)
    return {
        "required": list(identity),
        "type": "object",
        "properties": {name: {"type": item_type(name), "x-Ed-Fi-isIdentity": True} for name in identity},
    }


def _reference_schema(model: Model, target: str) -> Json:
    properties: Json = {
        name: {**_SCALAR_SCHEMAS[kind], "x-Ed-Fi-isIdentity": True}
        for name, kind in model.reference_types(target).items()
    }
    if target == EDUCATION_ORGANIZATIONS:
        properties["educationOrganizationId"]["format"] = "int64"
    required = list(properties)
    link = {"type": "object", "properties": {"rel": {"type": "string"}, "href": {"type": "string"}}}
    return {"required": required, "type": "object", "properties": {**properties, "link": link}}


def _schema_reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _shared(*names: str) -> list[Json]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]
