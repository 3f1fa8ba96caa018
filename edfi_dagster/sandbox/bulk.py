"""Bulk insert of generated records: the same rows as single writes, without their checks one by one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from hashlib import blake2b
from itertools import islice
from types import TracebackType
from typing import Any, Self

from edfi_dagster.sandbox import documents
from edfi_dagster.sandbox.database import begin_bulk, end_bulk
from edfi_dagster.sandbox.model import Body, Endpoint
from edfi_dagster.sandbox.store import Store
from edfi_dagster.sandbox.writes import link

CHUNK = 5_000
MOST_TARGETS = 100_000
TICKS_APART = 12_345_678


class Loader:
    """Loads generated records into an empty store, inside a ``with`` block.

    Ids and timestamps derive from ``seed``, the store's name and the record's key, so that the same
    calls give the same bytes. References must point to records loaded before; they get their links.
    """

    def __init__(self, store: Store, seed: int, start: dt.datetime) -> None:
        self.store = store
        self._salt = f"{seed}|{store.name}".encode()
        self._start = documents.ticks_of(start)
        self._loaded: dict[int, Endpoint] = {}
        self._targets: dict[tuple[str, tuple[Any, ...]], tuple[int, Body]] = {}

    def __enter__(self) -> Self:
        begin_bulk(self.store.connection)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_bulk(self.store.connection)
        self.store.reader.forget()

    def load(self, endpoint: str, records: Iterable[Body]) -> int:
        """Insert the records of one endpoint; how many. Raises ``ValueError`` for a missing reference."""
        target, pending, count = self.store.endpoint(endpoint), iter(records), 0
        with self.store.lock:
            while chunk := list(islice(pending, CHUNK)):
                self._insert(target, chunk)
                count += len(chunk)
        return count

    def _insert(self, endpoint: Endpoint, chunk: list[Body]) -> None:
        version, first = self.store.take_numbers(endpoint, len(chunk))
        rows: list[tuple[int, int, str, int, int]] = []
        bodies: list[tuple[int, bytes]] = []
        references: list[tuple[int, int]] = []
        keys = [endpoint.key_hash(record) for record in chunk]
        dated = self.store.generation.modified_dates
        for record, key, position in zip(chunk, keys, self._positions(keys, first), strict=True):
            self._link(endpoint, record, position, references)
            row_id = self._id(key)
            ticks = self._start + version * TICKS_APART
            text = documents.serialised(row_id, _ordered(endpoint, record), ticks, dated=dated)
            self._loaded[key] = endpoint
            rows.append((position, endpoint.number, row_id, key, version))
            bodies.append((position, text))
            version += 1
        connection = self.store.connection
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO row VALUES (?, ?, ?, ?, ?)", rows)
        connection.executemany("INSERT INTO body VALUES (?, ?)", bodies)
        connection.executemany("INSERT INTO temp.pending VALUES (?, ?)", references)
        self.store.save_counters()
        connection.execute("COMMIT")

    def _positions(self, keys: list[int], first: int) -> list[int]:
        """The positions of a chunk's rows, in order; where pages come in key order, so that they read neighbours."""
        positions = list(range(first, first + len(keys)))
        if self.store.generation.key_order:
            for rank, number in enumerate(sorted(range(len(keys)), key=keys.__getitem__)):
                positions[number] = first + rank
        return positions

    def _id(self, key: int) -> str:
        return blake2b(self._salt + key.to_bytes(8, "big", signed=True), digest_size=16).hexdigest()

    def _link(
        self, endpoint: Endpoint, record: Body, position: int, references: list[tuple[int, int]]
    ) -> None:
        for found in documents.references(self.store.model, endpoint, record):
            known = self._targets.get((found.target, found.values)) or self._resolve(endpoint, found)
            found.node["link"] = known[1]
            references.append((known[0], position))

    def _resolve(self, endpoint: Endpoint, found: documents.Reference) -> tuple[int, Body]:
        key = documents.target_hash(self.store.model, found.target, found.values)
        if key not in self._loaded:
            raise ValueError(
                f"{endpoint.path}: {found.name} refers to a missing {found.target} {found.values}"
            )
        if len(self._targets) >= MOST_TARGETS:
            self._targets.clear()
        known = key, link(self._loaded[key], self._id(key))
        self._targets[found.target, found.values] = known
        return known


def _ordered(endpoint: Endpoint, record: Body) -> Body:
    ordered = {}
    for name, kind in endpoint.fields.items():
        if name in record:
            ordered[name] = record[name]
        elif kind == "array":
            ordered[name] = []
    return ordered
