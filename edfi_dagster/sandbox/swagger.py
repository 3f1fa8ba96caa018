"""Swagger 2.0 from OpenAPI 3: what the ODS/API publishes up to 7.0, and later for ``?version=2``."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
_MOVED = {"#/components/schemas/": "#/definitions/", "#/components/parameters/": "#/parameters/"}
_PORTS = {"http": 80, "https": 443}


def converted(document: Json) -> Json:
    """The same description in Swagger 2.0; ``document`` is one that this package has built."""
    server = urlsplit(document["servers"][0]["url"])
    components = document.get("components", {})
    return {
        "swagger": "2.0",
        "basePath": f"{server.path}/",
        "consumes": ["application/json"],
        "definitions": _moved(components.get("schemas", {})),
        "host": f"{server.hostname}:{server.port or _PORTS[server.scheme]}",
        "info": document["info"],
        "parameters": {name: _parameter(shape) for name, shape in components.get("parameters", {}).items()},
        "paths": {path: _operations(found) for path, found in document["paths"].items()},
        "produces": ["application/json"],
        "schemes": [server.scheme],
        "tags": document.get("tags", []),
    }


def _operations(path: Json) -> Json:
    return {method: _operation(found) for method, found in path.items()}


def _operation(operation: Json) -> Json:
    kept = {name: value for name, value in operation.items() if name not in ("requestBody", "responses")}
    kept["parameters"] = [_parameter(shape) for shape in operation.get("parameters", [])]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        body = {"in": "body", "name": "body", "required": True, "schema": _moved(schema)}
        kept["parameters"].append(body)
    success: Json = operation["responses"].get("200", {})
    if (types := list(success.get("content", {}))) not in ([], ["application/json"]):
        kept["produces"] = types
    kept["responses"] = {status: _response(found) for status, found in operation["responses"].items()}
    return kept


def _response(response: Json) -> Json:
    kept = {name: value for name, value in response.items() if name != "content"}
    if "content" in response:
        (described,) = response["content"].values()
        kept["schema"] = _moved(described["schema"])
    return kept


def _parameter(parameter: Json) -> Json:
    """A parameter with its type beside its name instead of in a schema of its own."""
    kept = {name: value for name, value in parameter.items() if name != "schema"}
    return {**_moved(kept), **parameter.get("schema", {})}


def _moved(node: Any) -> Any:
    """A copy with every ``$ref`` where Swagger 2.0 keeps its target."""
    if isinstance(node, list):
        return [_moved(item) for item in node]
    if not isinstance(node, dict):
        return node
    copy = {name: _moved(value) for name, value in node.items()}
    if isinstance(node.get("$ref"), str):
        for before, after in _MOVED.items():
            copy["$ref"] = copy["$ref"].replace(before, after)
    return copy
