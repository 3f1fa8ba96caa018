"""What is wrong with a configuration, said in words of its file, without repeating its values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from edfi_dagster.config.document import Document, Path
from edfi_dagster.config.errors import ConfigError, Problems

_QUOTE = "write it in quotes"
_WANTED = {
    "string_type": "must be text",
    "int_type": "must be a whole number, without quotes",
    "float_type": "must be a number, without quotes",
    "bool_type": "must be true or false, without quotes",
    "dict_type": "must be a block of keys and values",
    "mapping_type": "must be a block of keys and values",
    "model_type": "must be a block of keys and values",
    "model_attributes_type": "must be a block of keys and values",
    "tuple_type": "must be a list, as in [one, two]",
    "missing": "is missing; add it",
    "finite_number": "must be a finite number",
}


def explain(error: ValidationError, document: Document, schema: Mapping[str, Any]) -> ConfigError:
    """Return a ConfigError that lists every mistake on a line of its own, in the order of the file.

    `schema` is the configuration's JSON Schema, from which the known keys of each block are taken.
    """
    found = sorted(set(_lines(error, document, schema)))
    mistakes = "1 mistake" if len(found) == 1 else f"{len(found)} mistakes"
    return ConfigError("\n".join([f"{document.source} has {mistakes}:", *(f"  {text}" for _, text in found)]))


def mistakes(error: ValidationError, values: object, schema: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of every mistake, in the order in which they were found."""
    for details in error.errors(include_url=False):
        path = _written_path(details, values)
        for below, text in _texts(details, path, values, schema):
            yield (*path, *below), text


def _lines(
    error: ValidationError, document: Document, schema: Mapping[str, Any]
) -> Iterator[tuple[int, str]]:
    for place, text in mistakes(error, document.values, schema):
        line = document.line(place)
        where = document.written(place) if place else "the file"
        yield line or 0, f"{where} (line {line}): {text}" if line else f"{where}: {text}"


def _texts(
    details: ErrorDetails, path: Path, values: object, schema: Mapping[str, Any]
) -> Iterable[tuple[Path, str]]:
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, Problems):
        return cause.problems
    if details["type"] in {"extra_forbidden", "invalid_key"}:
        return [((), _unknown_key(str(path[-1]), known_keys(schema, path[:-1], values)))]
    return [((), str(cause) if cause is not None else _standard_text(details))]


def _standard_text(details: ErrorDetails) -> str:
    kind, context, given = details["type"], details.get("ctx", {}), details["input"]
    if kind in {"literal_error", "union_tag_invalid"}:
        return _choice_text(context, given)
    if kind in _WANTED:
        wanted = _WANTED[kind]
        if kind == "string_type":
            return f"{wanted}, but {_described(given)}"
        return wanted
    limits = {"greater_than_equal": ("ge", "at least"), "greater_than": ("gt", "more than")}
    limits |= {"less_than_equal": ("le", "at most"), "less_than": ("lt", "less than")}
    if kind in limits:
        key, words = limits[kind]
        return f"must be {words} {context[key]:g}"
    return (
        f"is not right here ({details['msg'].rstrip('.')}); compare it with `edfi-dagster docs configuration`"
    )


def _choice_text(context: Mapping[str, Any], given: object) -> str:
    words = str(context.get("expected") or context.get("expected_tags", ""))
    expected = words.replace("'", "").replace(" or ", ", ")
    text = f"must be one of {expected}"
    if isinstance(given, Mapping):
        given, text = given.get("kind"), f"kind must be one of {expected}"
    if not isinstance(given, str):
        return f"{text}; {_QUOTE}"
    near = get_close_matches(given.lower(), expected.split(", "), 1, 0.5)
    return f"{text}; did you mean {near[0]}?" if near else text


def _described(value: object) -> str:
    if value is None:
        return "nothing is given"
    if isinstance(value, bool):
        return f"YAML reads yes, no, on, off, true and false as booleans; {_QUOTE}"
    if isinstance(value, int | float):
        return f"YAML reads a number; {_QUOTE}"
    if isinstance(value, date):
        return f"YAML reads a date; {_QUOTE}"
    return "a list or block is given"


def _unknown_key(key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    folded = {name.replace("_", "").lower(): name for name in known}
    near = get_close_matches(key.replace("_", "").replace("-", "").lower(), folded, 1, 0.6)
    if near:
        return f"is not a key; did you mean {folded[near[0]]}?"
    return (
        f"is not a key here; the keys are {', '.join(known)}" if known else "is not a key here; take it out"
    )


def _written_path(details: ErrorDetails, values: object) -> Path:
    """Return the error's path as it stands in the file: without the names pydantic gives to alternatives."""
    path: list[Any] = []
    last = len(details["loc"]) - 1
    for position, step in enumerate(details["loc"]):
        key = _key(values, step)
        if key is not None:
            path.append(*key)
            values = _below(values, *key)
        elif position == last and details["type"] == "missing":
            path.append(step)
    return tuple(path)


def _key(values: object, step: int | str) -> tuple[Any] | None:
    """Return, in a tuple of its own, the key that pydantic's `step` means: it writes False as 0, dates as repr."""
    if isinstance(values, list):
        return (step,) if isinstance(step, int) and step < len(values) else None
    for key in values if isinstance(values, Mapping) else ():
        if step == key or str(step) in {str(key), repr(key)}:
            return (key,)
    return None


def known_keys(schema: Mapping[str, Any], path: Path, values: object) -> set[str]:
    """Return the keys that the JSON Schema knows for the block at `path` of `values`."""
    nodes = list(_alternatives(schema, schema, values))
    for step in path:
        values = _below(values, step)
        children = [child for node in nodes for child in _children(node, step)]
        nodes = [node for child in children for node in _alternatives(schema, child, values)]
    return {key for node in nodes for key in node.get("properties", {})}


def _below(values: object, step: Any) -> object:
    if isinstance(values, Mapping):
        return values.get(step)
    return values[step] if isinstance(values, list) and isinstance(step, int) else None


def _children(node: Mapping[str, Any], step: Any) -> Iterator[Mapping[str, Any]]:
    child = node.get("properties", {}).get(str(step), node.get("additionalProperties", node.get("items")))
    if isinstance(child, Mapping):
        yield child


def _alternatives(
    schema: Mapping[str, Any], node: Mapping[str, Any], values: object
) -> Iterator[Mapping[str, Any]]:
    """Yield what `node` may be, references followed; of blocks with a `kind` only the one of `values`."""
    if "$ref" in node:
        yield from _alternatives(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], values)
        return
    for option in [*node.get("anyOf", ()), *node.get("oneOf", ())]:
        yield from _alternatives(schema, option, values)
    kind = node.get("properties", {}).get("kind", {}).get("const")
    if kind is None or (isinstance(values, Mapping) and values.get("kind") == kind):
        yield node
