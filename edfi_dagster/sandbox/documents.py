"""Records as text: normalising what a client sends, its references and descriptors, the served JSON."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from edfi_dagster.sandbox.errors import bad_data
from edfi_dagster.sandbox.model import Body, Endpoint, Model, hash_key, pascal

SERVER_FIELDS = ("id", "_etag", "_lastModifiedDate")
UTC_KIND = 0x4000000000000000  # DateTime.ToBinary marks UTC in the two highest bits
TICKS_PER_SECOND = 10_000_000
TICKS_PER_DAY = 86_400 * TICKS_PER_SECOND
_FIRST_DAY = dt.datetime(1, 1, 1)


class Reference(NamedTuple):
    """One reference found in a record: the object itself, its property, and what it points to."""

    node: Body
    name: str
    target: str
    values: tuple[Any, ...]


def normalised(endpoint: Endpoint, body: Mapping[str, Any], *, keep_unknown: bool) -> Body:
    """The record as the ODS keeps it: declared order, no nulls, no links, absent collections empty.

    Raises ``ApiError`` (400) for a value of the wrong type.
    """
    given = {name: value for name, value in body.items() if name not in SERVER_FIELDS and value is not None}
    record: Body = {}
    for name, kind in endpoint.fields.items():
        if name in given:
            record[name] = _pruned(_coerced(f"$.{name}", kind, given.pop(name)))
        elif kind == "array":
            record[name] = []
    extension = given.pop("_ext", None)
    if keep_unknown:
        record.update((name, _pruned(value)) for name, value in given.items())
    if extension is not None:
        record["_ext"] = _pruned(extension)
    return record


def check_required(model: Model, endpoint: Endpoint, record: Body) -> None:
    """Raise ``ApiError`` (400) naming each required property that is missing; type reference keys."""
    missing: dict[str, list[str]] = {}
    for name in endpoint.required:
        if record.get(name) in (None, [], {}, ""):
            missing[f"$.{name}"] = [f"{pascal(name)} is required."]
    for name, target in endpoint.references.items():
        if not record.get(name):
            continue
        for part, kind in model.reference_types(target).items():
            if record[name].get(part) is None:
                missing[f"$.{name}.{part}"] = [f"{pascal(part)} is required."]
            else:
                record[name][part] = _coerced(f"$.{name}.{part}", kind, record[name][part])
    if missing:
        raise bad_data(missing)


def references(model: Model, endpoint: Endpoint, record: Mapping[str, Any]) -> Iterator[Reference]:
    """Every reference of a record with a complete key, also those inside collections."""
    targets = endpoint.references
    for name, value in record.items():
        if value.__class__ is dict and name in targets:
            yield from _reference(model, value, name, targets[name])
        elif value and (value.__class__ is list or value.__class__ is dict):
            yield from _nested_references(model, value)


def _nested_references(model: Model, node: Any) -> Iterator[Reference]:
    if node.__class__ is list:
        for item in node:
            if item.__class__ is dict:
                yield from _nested_references(model, item)
        return
    for name, value in node.items():
        if value.__class__ is dict and name.endswith("Reference"):
            target = model.reference_target(name)
            yield from _reference(model, value, name, target) if target else ()
        elif value and (value.__class__ is list or value.__class__ is dict):
            yield from _nested_references(model, value)


def _reference(model: Model, node: Body, name: str, target: str) -> tuple[Reference, ...]:
    try:
        values = tuple([node[part] for part in model.reference_names(target)])
    except KeyError:
        return ()
    return (Reference(node, name, target, values),)


def target_hash(model: Model, target: str, values: tuple[Any, ...]) -> int:
    """The key hash of the row that a reference points to."""
    found = model.get(target)
    return hash_key(found.key_space if found else target, list(values))


def target_hashes(model: Model, endpoint: Endpoint, record: Mapping[str, Any]) -> set[int]:
    return {target_hash(model, found.target, found.values) for found in references(model, endpoint, record)}


def descriptors(node: Any, path: str = "$") -> Iterator[tuple[str, str, str]]:
    """(JSON path, property name, URI) of every descriptor value of a record."""
    if isinstance(node, list):
        for position, item in enumerate(node):
            yield from descriptors(item, f"{path}[{position}]")
    elif isinstance(node, dict):
        for name, value in node.items():
            if name.endswith("Descriptor") and isinstance(value, str):
                yield f"{path}.{name}", name, value
            elif value.__class__ in (list, dict):
                yield from descriptors(value, f"{path}.{name}")


def without_links(node: Any) -> Any:
    """A deep copy of a record without the server's ``link`` objects."""
    if isinstance(node, dict):
        return {name: without_links(value) for name, value in node.items() if name != "link"}
    return [without_links(item) for item in node] if isinstance(node, list) else node


def content(text: bytes) -> Body:
    """The record behind a served item: without id, etag, timestamp and links."""
    record: Body = without_links(msgspec.json.decode(text))
    for name in SERVER_FIELDS:
        record.pop(name, None)
    return record


def serialised(row_id: str, record: Body, ticks: int, *, dated: bool = True) -> bytes:
    """One item as it stands in a page: indented JSON, shifted to its depth in the root array.

    ``dated`` items have a ``_lastModifiedDate``, as from 7.0 on.
    """
    document = {"id": row_id, **record, "_etag": etag(ticks)}
    if dated:
        document["_lastModifiedDate"] = timestamp(ticks)
    return b"  " + msgspec.json.format(msgspec.json.encode(document), indent=2).replace(b"\n", b"\n  ")


def etag(ticks: int) -> str:
    return str(ticks + UTC_KIND)


def timestamp(ticks: int) -> str:
    day, rest = divmod(ticks, TICKS_PER_DAY)
    seconds, fraction = divmod(rest, TICKS_PER_SECOND)
    minutes, second = divmod(seconds, 60)
    return f"{_date_of(day)}T{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{fraction:07d}Z"


@functools.lru_cache(maxsize=4096)
def _date_of(day: int) -> str:
    return dt.date.fromordinal(day + 1).isoformat()


def ticks_of(moment: dt.datetime) -> int:
    """.NET ticks (100 ns since year 1) of an aware datetime."""
    elapsed = moment.astimezone(dt.UTC).replace(tzinfo=None) - _FIRST_DAY
    return (elapsed.days * 86_400 + elapsed.seconds) * TICKS_PER_SECOND + elapsed.microseconds * 10


def _pruned(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _pruned(value) for name, value in node.items() if value is not None and name != "link"}
    return [_pruned(item) for item in node if item is not None] if isinstance(node, list) else node


def _integer(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError
    return value if isinstance(value, int | float) else float(value)


def _boolean(value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise ValueError
    return str(value).lower() == "true"


def _string(value: Any) -> str:
    if isinstance(value, list | dict):
        raise ValueError
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _date(value: Any) -> str:
    return dt.date.fromisoformat(_string(value)[:10]).isoformat()


def _date_time(value: Any) -> str:
    dt.datetime.fromisoformat(_string(value))
    return _string(value)


def _array(value: Any) -> Any:
    if not isinstance(value, list):
        raise ValueError
    return value


def _object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError
    return value


_COERCIONS: Mapping[str, Callable[[Any], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "string": _string,
    "descriptor": _string,
    "time": _string,
    "date": _date,
    "date-time": _date_time,
    "array": _array,
    "object": _object,
}


def _coerced(path: str, kind: str, value: Any) -> Any:
    """The value in the type of its property, converted as leniently as the ODS's JSON reader does."""
    try:
        return _COERCIONS.get(kind, _object)(value)
    except (TypeError, ValueError, OverflowError):
        raise bad_data({path: [f"Could not convert the value to {kind.split(':')[0]}."]}) from None
