"""Filters of a collection GET: equality on scalar properties, on the parts of references, on identification codes."""

from __future__ import annotations

import uuid
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edfi_dagster.sandbox.database import Reader, Window, within
from edfi_dagster.sandbox.errors import bad_data, bad_id
from edfi_dagster.sandbox.generations import Generation
from edfi_dagster.sandbox.model import Endpoint, Model

Path = tuple[str, ...]
_SCALARS = {"string", "integer", "number", "boolean", "date", "date-time", "time", "descriptor"}
_CODES = ("identificationCodes", "studentIdentificationCodes")
_ID: tuple[Path, ...] = (("id",),)
# Every page asks with these, and no property has their names.
_NO_FILTERS = frozenset(
    {
        "offset",
        "limit",
        "pagetoken",
        "pagesize",
        "totalcount",
        "minchangeversion",
        "maxchangeversion",
        "number",
    }
)


@dataclass(frozen=True)
class Filter:
    """``paths`` are the places a value of that flattened name can stand in; any of them may match."""

    paths: tuple[Path, ...]
    value: Any

    @property
    def is_of_code(self) -> bool:
        return self.paths[0][0] in _CODES


def filter_names(
    model: Model, endpoint: Endpoint, generation: Generation
) -> dict[str, tuple[str, tuple[Path, ...]]]:
    """Flattened parameter name → (type, paths), in the order of keys first, then properties."""
    found: dict[str, tuple[str, tuple[Path, ...]]] = {}
    for part in endpoint.key:
        found[part.flat] = (part.type, (part.path,))
    for name, kind in endpoint.fields.items():
        if kind in _SCALARS:
            found.setdefault(name, (kind, ((name,),)))
        elif name in endpoint.references:
            target = endpoint.references[name]
            for part_name, part_kind in model.reference_types(target).items():
                flat = endpoint.flat(name, part_name)
                _, paths = found.get(flat, ("", ()))
                found[flat] = (part_kind, tuple(dict.fromkeys((*paths, (name, part_name)))))
        elif generation.identification_filters and name in _CODES:
            for code, code_kind in _code_properties(model, endpoint):
                found.setdefault(code, (code_kind, ((name, code),)))
    return found


def _code_properties(model: Model, endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    """What the items of an endpoint's identification codes filter by: the code, and the system it is of."""
    yield "identificationCode", "string"
    owner = "educationOrganization" if endpoint.is_organization else endpoint.singular
    if owner.startswith("studentEducationOrganization"):
        owner = "student"
    system = f"{owner}IdentificationSystemDescriptor"
    if model.get(f"{endpoint.namespace}/{system}s") is not None:
        yield system, "descriptor"


def read_filters(
    model: Model, endpoint: Endpoint, parameters: Mapping[str, str], generation: Generation
) -> tuple[Filter, ...]:
    """The filters among a request's parameters (lower-case names); unknown parameters are ignored.

    A value type's default (0, false) counts as not given. Raises ``ApiError`` (400) for a value
    that is not of the property's type.
    """
    if not parameters.keys() - _NO_FILTERS:
        return ()
    names = {name.lower(): (name, *rest) for name, rest in filter_names(model, endpoint, generation).items()}
    filters = []
    for given, text in parameters.items():
        if given == "id":
            filters.append(Filter(_ID, normalised_id(text)))
        elif given in names and text:
            name, kind, paths = names[given]
            value = _typed(name, kind, text)
            if value not in (0, False):
                filters.append(Filter(paths, value))
    return tuple(filters)


def matching(
    reader: Reader, endpoint: Endpoint, window: Window, filters: tuple[Filter, ...]
) -> Sequence[int]:
    """Positions of the window's rows that pass every filter, in the order of pages."""
    whole = Window(window.versions)

    def ask() -> Sequence[int]:
        wanted = set.intersection(*(_rows_with(reader, endpoint, found) for found in filters))
        codes = [found for found in filters if found.is_of_code]
        if len(codes) > 1:
            wanted = {position for position in wanted if _one_code_matches(reader, position, codes)}
        return array("q", [position for position in reader.positions(endpoint, whole) if position in wanted])

    found = reader.kept(endpoint, ("matching", whole, filters), ask)
    return found if window == whole else within(found, endpoint, window)


def _one_code_matches(reader: Reader, position: int, filters: list[Filter]) -> bool:
    """Whether a single identification code of a row has all the values."""
    row = reader.by_position(position)
    codes = msgspec.json.decode(row.text)[filters[0].paths[0][0]] if row else []
    return any(all(code.get(f.paths[0][1]) == f.value for f in filters) for code in codes)


def _rows_with(reader: Reader, endpoint: Endpoint, wanted: Filter) -> set[int]:
    if wanted.paths == _ID:
        row = reader.by_id(endpoint, wanted.value)
        return {row.position} if row else set()
    found: set[int] = set()
    for path in wanted.paths:
        index = reader.kept(endpoint, ("index", path), lambda path=path: _index(reader, endpoint, path))  # type: ignore[misc]
        found.update(index.get(wanted.value, ()))
    return found


def _index(reader: Reader, endpoint: Endpoint, path: Path) -> dict[Any, array[int]]:
    """Every value at a path of an endpoint's records, with the positions of the rows that have it."""
    index: dict[Any, array[int]] = {}
    read = _value_reader(path)
    for position, text in reader.texts(endpoint):
        for value in read(text):
            index.setdefault(value, array("q")).append(position)
    return index


def _value_reader(path: Path) -> Any:
    """A function from a record's text to the values at a path, through lists too; it decodes nothing else."""
    shape: Any = str | int | float | bool | None
    for step in reversed(path[1:]):
        one: Any = msgspec.defstruct("Part", [("value", shape, msgspec.field(name=step, default=None))])
        shape = one | list[one] | None
    record: Any = msgspec.defstruct("Record", [("value", shape, msgspec.field(name=path[0], default=None))])
    decode = msgspec.json.Decoder(record).decode

    def read(text: bytes) -> Iterator[Any]:
        values = [decode(text).value]
        for _ in path[1:]:
            parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
            values = [part.value for part in parts if part is not None]
        return (value for value in values if value is not None)

    return read


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
