"""What all generators share: the district's size and calendar, deterministic chance, what exists so far."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from importlib.resources import files
from itertools import islice
from typing import Any, TypeVar

from edfi_dagster.sandbox.bulk import Loader
from edfi_dagster.sandbox.model import Body, Endpoint
from edfi_dagster.sandbox.store import Store

Item = TypeVar("Item")
DEFAULT_STUDENTS = 120
REMEMBERED = 400
_MASK = 2**64 - 1


class World:
    """One district in one school year, as it is being generated.

    ``year`` is the year the school year ends in. Chance is a pure function of the seed, the tenant
    and some numbers, so that a student has the same name in every year of a tenant.
    """

    def __init__(self, store: Store, seed: int, rows: Mapping[str, int]) -> None:
        self.store = store
        self.rows = {store.endpoint(name).path: count for name, count in rows.items()}
        self.tenant, self.year = _tenant_and_year(store.name)
        self.students = self.rows.get("ed-fi/students", DEFAULT_STUDENTS)
        self.salt = int.from_bytes(blake2b(f"{seed}|{self.tenant}".encode(), digest_size=8).digest(), "big")
        start = dt.datetime(self.year - 1, 7, 15, 6, 30, tzinfo=dt.UTC)
        self.loader = Loader(store, seed, start)
        self._existing: dict[str, list[Body]] = {}
        self._uris = dict(_descriptor_uris(store))

    # chance ---------------------------------------------------------------------------------------

    def number(self, *parts: int) -> int:
        """A well-mixed 64-bit number for some integers (splitmix64)."""
        state = self.salt
        for part in parts:
            state = (state + part * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & _MASK
            state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
            state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
            state ^= state >> 31
        return state

    def pick(self, items: Sequence[Item], *parts: int) -> Item:
        return items[self.number(*parts) % len(items)]

    def chance(self, percent: int, *parts: int) -> bool:
        return self.number(*parts) % 100 < percent

    # what exists ----------------------------------------------------------------------------------

    def add(self, endpoint: str, records: Iterable[Body]) -> list[Body]:
        """Load records (as many as ``rows`` asks for), without what the data standard lacks; the records loaded."""
        target = self.store.model.get(endpoint)
        if target is None:
            return []
        known = (_known(target, record) for record in records)
        kept = list(islice(known, self.rows.get(target.path)))
        self.loader.load(target.path, kept)
        self._existing.setdefault(target.path, []).extend(kept[:REMEMBERED])
        return kept

    def existing(self, endpoint: str) -> list[Body]:
        """The first few hundred records of an endpoint."""
        return self._existing.get(self.store.endpoint(endpoint).path, [])

    def wanted(self, endpoint: str, default: int) -> int:
        return self.rows.get(self.store.endpoint(endpoint).path, default)

    def has(self, endpoint: str) -> bool:
        """Whether the data standard has an endpoint."""
        return self.store.model.get(endpoint) is not None

    @functools.cached_property
    def contact(self) -> str:
        """What a student's contact is called: it was a parent before Data Standard 5."""
        return "contact" if self.has("contacts") else "parent"

    def reference(self, endpoint: str, record: Mapping[str, Any]) -> Body:
        """A reference object to a record."""
        return self.store.endpoint(endpoint).key_values(record)

    def reference_of(self, endpoint: str, **values: Any) -> Body:
        """A reference object of values by flattened names; the data standard picks those of its key."""
        return {name: values[name] for name in self.store.model.reference_names(f"ed-fi/{endpoint}")}

    def uri(self, descriptor: str, code: str) -> str:
        """The URI of a descriptor value, by its name without ``Descriptors``. Raises ``KeyError``."""
        return self._uris[descriptor, code]

    def some_uri(self, target: Endpoint, *parts: int) -> str:
        """Some value of a descriptor endpoint."""
        record = self.pick(self.existing(target.path), *parts)
        return f"{record['namespace']}#{record['codeValue']}"

    # the calendar ---------------------------------------------------------------------------------

    @functools.cached_property
    def first_day(self) -> dt.date:
        return _monday_from(dt.date(self.year - 1, 8, 18))

    def day(self, offset: int) -> str:
        """The date that many days after the first day of school."""
        return (self.first_day + dt.timedelta(days=offset)).isoformat()


def _known(endpoint: Endpoint, record: Body) -> Body:
    if record.keys() <= endpoint.fields.keys():
        return record
    return {name: value for name, value in record.items() if name in endpoint.fields}


def descriptor_records(store: Store) -> dict[str, list[Body]]:
    """The records of every descriptor endpoint of the store's data standard."""
    lines = (files(__package__) / "descriptors.txt").read_text("utf-8").splitlines()
    codes = {name: values.split("|") for name, values in (line.split(": ", 1) for line in lines if line)}
    return {
        endpoint.path: [
            _descriptor(endpoint, code) for code in codes[endpoint.name.removesuffix("Descriptors")]
        ]
        for endpoint in store.model.endpoints
        if endpoint.is_descriptor
    }


def _descriptor(endpoint: Endpoint, code: str) -> Body:
    kind = endpoint.singular[:1].upper() + endpoint.singular[1:]
    host = "ed-fi.org" if endpoint.namespace == "ed-fi" else f"{endpoint.namespace}.ed-fi.org"
    return {
        "codeValue": code,
        "namespace": f"uri://{host}/{kind}",
        "shortDescription": code,
        "description": code,
    }


def _descriptor_uris(store: Store) -> Iterable[tuple[tuple[str, str], str]]:
    for path, records in descriptor_records(store).items():
        name = path.split("/")[1].removesuffix("Descriptors")
        for record in records:
            yield (name, record["codeValue"]), f"{record['namespace']}#{record['codeValue']}"


def _tenant_and_year(name: str) -> tuple[str, int]:
    parts = [part for part in name.split("/") if part]
    year = int(parts[-1]) if parts and parts[-1].isdigit() else 2025
    return (parts[0] if parts else "default"), year


def _monday_from(day: dt.date) -> dt.date:
    return day + dt.timedelta(days=-day.weekday() % 7)
