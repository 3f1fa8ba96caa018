"""Endpoints, natural keys and columns, read from the OpenAPI documents an ODS publishes.

Reads Swagger 2.0 (ODS/API up to 7.0) and OpenAPI 3 (7.1 and later). The natural key of an endpoint
is the set of collection-GET parameters marked ``x-Ed-Fi-isIdentity``; each is mapped to the path of
the value inside a record (``sectionReference.schoolId``). Ed-Fi flattens a reference's key into the
referring resource by four naming rules, tried in this order: prefixed with the reference's name
(``programEducationOrganizationId``), prefixed with its role (``feederSchoolId``), unprefixed and unified with
equal names (``schoolId``), prefixed with the reference's name where the words they share are said once
(``gradingPeriodSequence``, of ``periodSequence``). A name that none of them finds is a required reference's own,
whose prefixed name belongs to another (``namespace`` of a certificationExamResult). Documents of ODS/API before
7.3 mark a descriptor's surrogate id, which no record holds: its key is ``namespace`` and ``codeValue`` in all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edfi_dagster.ods.errors import UnusableBody

Json = Mapping[str, Any]

_SERVER_FIELDS = {"id", "_etag", "_lastModifiedDate", "link"}


@dataclass(frozen=True)
class DescribedEndpoint:
    """What one collection path of a document says of its endpoint.

    ``key`` holds the JSON paths of the natural key, in document order, empty where the document
    marks none; ``key_names`` the flat names of the same values, as ``/deletes`` and ``/keyChanges``
    give them in ``keyValues``. ``fields`` maps each top-level property to its type: ``string``, ``integer``,
    ``number``, ``boolean``, ``date``, ``date-time``, ``time``, ``descriptor``, ``array``,
    ``object`` or ``ref:<Schema>``; a trailing ``!`` marks a required one. ``filters`` are the query
    parameters of the collection GET, paging and change versions among them.
    """

    namespace: str
    name: str
    key: tuple[str, ...]
    key_names: tuple[str, ...]
    fields: Mapping[str, str]
    filters: frozenset[str]
    updatable_key: bool
    has_deletes: bool
    has_key_changes: bool
    domains: tuple[str, ...]


def read_document(body: bytes) -> tuple[list[DescribedEndpoint], int | None]:
    """The endpoints of an OpenAPI document, and its ``limit_maximum``. Raises UnusableBody where it is none."""
    try:
        document = json.loads(body)
        return list(described_endpoints(document)), limit_maximum(document)
    except (ValueError, AttributeError, TypeError, KeyError, OverflowError, RecursionError):
        raise UnusableBody("the body is no OpenAPI document") from None


def described_endpoints(document: Json) -> Iterator[DescribedEndpoint]:
    """Yield the endpoints of one OpenAPI document, resources or descriptors, in the order of its paths."""
    paths: Json = document.get("paths", {})
    for path, item in paths.items():
        parts = path.strip("/").split("/")[-2:]
        if not _is_collection(path) or "get" not in item:
            continue
        schema = _item_schema(document, item["get"])
        if schema is None:
            continue
        by_id: Json = paths.get(f"{path}/{{id}}", {})
        parameters = _parameters(document, item["get"])
        key = _natural_key(document, schema, parameters) or _descriptor_key(parts[1], schema)
        yield DescribedEndpoint(
            namespace=parts[0],
            name=parts[1],
            key=tuple(key.values()),
            key_names=tuple(key),
            fields={name: _type(document, name, value, schema) for name, value in _properties(schema)},
            filters=frozenset(parameters),
            updatable_key=any(
                isinstance(op, Mapping) and op.get("x-Ed-Fi-isUpdatable") for op in by_id.values()
            ),
            has_deletes=f"{path}/deletes" in paths,
            has_key_changes=f"{path}/keyChanges" in paths,
            domains=tuple(schema.get("x-Ed-Fi-domains", ())),
        )


def limit_maximum(document: Json) -> int | None:
    """The largest ``limit`` the ODS takes, in rows; None where the document does not say (api.md 3.1)."""
    limit = _shared_parameters(document).get("limit", {})
    maximum = limit.get("maximum", limit.get("schema", {}).get("maximum"))
    is_number = isinstance(maximum, int | float) and not isinstance(maximum, bool)
    return int(maximum) if is_number and maximum >= 1 else None


def _is_collection(path: str) -> bool:
    parts = path.strip("/").split("/")
    return (
        len(parts) >= 2 and "{" not in parts[-1] and parts[-1] not in {"deletes", "keyChanges", "partitions"}
    )


def _schemas(document: Json) -> Json:
    schemas: Json = document.get("components", {}).get("schemas") or document.get("definitions", {})
    return schemas


def _resolve(document: Json, node: Json) -> tuple[str, Json]:
    """The (schema name, schema) behind a node, following one ``$ref``."""
    name = str(node.get("$ref", "")).rsplit("/", 1)[-1]
    return name, (_schemas(document).get(name, {}) if name else node)


def _item_schema(document: Json, operation: Json) -> Json | None:
    response: Json = operation.get("responses", {}).get("200", {})
    content: Json = response.get("content", {}).get("application/json", response)
    items = content.get("schema", {}).get("items")
    return _resolve(document, items)[1] if items else None


def _shared_parameters(document: Json) -> Json:
    shared: Json = document.get("components", {}).get("parameters") or document.get("parameters", {})
    return shared


def _parameters(document: Json, operation: Json) -> dict[str, bool]:
    """Query parameter's name → whether it is part of the natural key."""
    shared = _shared_parameters(document)
    found: dict[str, bool] = {}
    for parameter in operation.get("parameters", ()):
        resolved = shared.get(parameter["$ref"].rsplit("/", 1)[-1], {}) if "$ref" in parameter else parameter
        if "name" in resolved and resolved.get("in", "query") == "query":
            mark = resolved.get("x-Ed-Fi-isIdentity") or resolved.get("schema", {}).get("x-Ed-Fi-isIdentity")
            found[resolved["name"]] = bool(mark)
    return found


def _properties(schema: Json) -> Iterator[tuple[str, Json]]:
    for name, value in schema.get("properties", {}).items():
        if name not in _SERVER_FIELDS:
            yield name, value


def _type(document: Json, name: str, value: Json, schema: Json) -> str:
    required = "!" if name in schema.get("required", ()) else ""
    if "$ref" in value:
        target, _ = _resolve(document, value)
        kind = f"ref:{_without_reference(target)}" if target.endswith("Reference") else "object"
    elif value.get("type") == "string" and name.endswith("Descriptor"):
        kind = "descriptor"
    elif value.get("type") == "string" and value.get("format") in {"date", "date-time", "time"}:
        kind = value["format"]
    else:
        kind = str(value.get("type", "object"))
    return kind + required


def _natural_key(document: Json, schema: Json, parameters: Mapping[str, bool]) -> dict[str, str]:
    """Flat name → JSON path of the natural key; a required reference is preferred to an optional one."""
    candidates: dict[str, list[tuple[int, str]]] = {}
    required = set(schema.get("required", ()))
    for name, value in _properties(schema):
        if not (name.endswith("Reference") and "$ref" in value):
            candidates.setdefault(name, []).append((0, name))
            continue
        target, reference = _resolve(document, value)
        for part, _ in _properties(reference):
            flat = flattened_name(name, target, part, parameters)
            candidates.setdefault(flat, []).append((1 if name in required else 2, f"{name}.{part}"))
            if name in required:
                candidates.setdefault(part, []).append((3, f"{name}.{part}"))
    identity = [flat for flat, is_identity in parameters.items() if is_identity]
    if not candidates.keys() >= set(identity):
        return {}
    return {flat: min(candidates[flat], key=lambda c: c[0])[1] for flat in identity}


def _descriptor_key(name: str, schema: Json) -> dict[str, str]:
    parts = ("namespace", "codeValue")
    is_descriptor = name.endswith("Descriptors") and schema.get("properties", {}).keys() >= set(parts)
    return {part: part for part in parts} if is_descriptor else {}


def flattened_name(reference: str, target: str, part: str, names: Mapping[str, Any]) -> str:
    """The flat name under which ``part`` of a reference appears among ``names``.

    ``reference`` is the property (``feederSchoolReference``), ``target`` the schema it points to
    (``edFi_schoolReference``, or ``EdFi_School_Reference`` as Ed-Fi's API 8 spells it).
    """
    prefix = reference.removesuffix("Reference")
    entity = _without_reference(target).rsplit("_", 1)[-1]
    role = prefix[: -len(entity)] if prefix.lower().endswith(entity.lower()) else ""
    capital = part[:1].upper() + part[1:]
    for flat in (prefix + capital, role + capital if role else "", part, _said_once(prefix, capital)):
        if flat in names:
            return flat
    return part


def _without_reference(schema: str) -> str:
    return schema.removesuffix("Reference").removesuffix("_")


def _said_once(prefix: str, capital: str) -> str:
    for start, letter in enumerate(prefix):
        if letter.isupper() and capital.startswith(prefix[start:]):
            return prefix[:start] + capital
    return ""
