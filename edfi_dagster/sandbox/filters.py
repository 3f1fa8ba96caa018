"""Filters of a collection GET: equality on scalar properties and on the parts of references."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edfi_dagster.sandbox.database import Reader, Window
from edfi_dagster.sandbox.errors import bad_data, bad_id
from edfi_dagster.sandbox.model import Endpoint, Model, flat_path, value_at

_SCALARS = {"string", "integer", "number", "boolean", "date", "date-time", "time", "descriptor"}


@dataclass(frozen=True)
class Filter:
    """``paths`` are the places a value of that flattened name can stand in; any of them may match."""

    paths: tuple[tuple[str, ...], ...]
    value: Any

    def matches(self, record: Mapping[str, Any]) -> bool:
        return any(value_at(record, path) == self.value for path in self.paths)


def filter_names(model: Model, endpoint: Endpoint) -> dict[str, tuple[str, tuple[tuple[str, ...], ...]]]:
    """Flattened parameter name → (type, paths), in the order of keys first, then properties."""
    found: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {}
    for part in endpoint.key:
        found[part.flat] = (part.type, (part.path,))
    for name, kind in endpoint.fields.items():
        if kind in _SCALARS:
            found.setdefault(name, (kind, ((name,),)))
        elif name in endpoint.references:
            target = endpoint.references[name]
            for part_name, part_kind in model.reference_types(target).items():
                flat = flat_path(endpoint.name, name, target, part_name)
                _, paths = found.get(flat, ("", ()))
                found[flat] = (part_kind, tuple(dict.fromkeys((*paths, (name, part_name)))))
    return found


def read_filters(model: Model, endpoint: Endpoint, parameters: Mapping[str, str]) -> list[Filter]:
    """The filters among a request's parameters (lower-case names); unknown parameters are ignored.

    A value type's default (0, false) counts as not given. Raises ``ApiError`` (400) for a value
    that is not of the property's type.
    """
    names = {name.lower(): (name, *rest) for name, rest in filter_names(model, endpoint).items()}
    filters = []
    for given, text in parameters.items():
        if given == "id":
            filters.append(Filter((("id",),), normalised_id(text)))
        elif given in names and text:
            name, kind, paths = names[given]
            value = _typed(name, kind, text)
            if value not in (0, False):
                filters.append(Filter(paths, value))
    return filters


def matching_positions(
    reader: Reader, endpoint: Endpoint, window: Window, filters: list[Filter]
) -> list[int]:
    """Positions of the window's rows that pass every filter, in AggregateId order."""
    literals = [msgspec.json.encode(wanted.value) for wanted in filters]
    return [
        position
        for position, text in reader.candidates(endpoint, window, literals)
        if all(wanted.matches(record) for record in (msgspec.json.decode(text),) for wanted in filters)
    ]


def normalised_id(text: str) -> str:
    """An id as stored (32 lower-case hex digits), from any GUID spelling. Raises ``ApiError`` (400)."""
    try:
        return uuid.UUID(text).hex
    except ValueError:
        raise bad_id(text) from None


def _typed(name: str, kind: str, text: str) -> Any:
    try:
        if kind == "integer":
            return int(text)
        if kind == "number":
            return float(text)
        if kind == "boolean":
            return {"true": True, "false": False}[text.lower()]
    except (KeyError, ValueError):
        raise bad_data({f"$.{name}": [f"The value '{text}' is not valid for {name}."]}) from None
    return text
