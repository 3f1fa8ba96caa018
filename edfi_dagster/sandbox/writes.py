"""What a write does, worked out on an overlay over the database and applied at once or at a commit.

Change versions and AggregateIds are taken while a write is worked out, as a database sequence hands
them out: a transaction that commits late brings rows with low numbers, one that rolls back leaves a gap.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import msgspec

from edfi_dagster.sandbox import documents, errors
from edfi_dagster.sandbox.database import Reader, Row
from edfi_dagster.sandbox.generations import Generation
from edfi_dagster.sandbox.model import Body, Endpoint, Model, pascal


class Numbers(Protocol):
    """The sequences of an ODS, and its clock (in .NET ticks)."""

    def next_version(self) -> int: ...

    def next_position(self, endpoint: Endpoint) -> int: ...

    def ticks(self) -> int: ...


@dataclass(frozen=True)
class Tombstone:
    change_version: int
    endpoint: int
    id: str
    key: int
    surrogates: str
    key_values: bytes


@dataclass(frozen=True)
class KeyChange:
    change_version: int
    endpoint: int
    id: str
    old_values: bytes
    new_values: bytes


@dataclass
class Overlay:
    """Rows as they will stand, over the rows of the database."""

    reader: Reader
    rows: dict[int, Row | None] = field(default_factory=dict)
    keys: dict[int, int | None] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    gained: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    lost: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    tombstones: list[Tombstone] = field(default_factory=list)
    key_changes: list[KeyChange] = field(default_factory=list)

    def by_key(self, key: int) -> Row | None:
        if key in self.keys:
            position = self.keys[key]
            return None if position is None else self.rows[position]
        return self._current(self.reader.by_key(key))

    def by_position(self, position: int) -> Row | None:
        return self.rows[position] if position in self.rows else self.reader.by_position(position)

    def by_id(self, endpoint: Endpoint, row_id: str) -> Row | None:
        if row_id in self.ids:
            row = self.rows[self.ids[row_id]]
            return row if row and row.endpoint == endpoint.number else None
        return self._current(self.reader.by_id(endpoint, row_id))

    def referrers(self, key: int) -> list[int]:
        found = set(self.reader.referrers(key)) - self.lost.get(key, set())
        return sorted(found | self.gained.get(key, set()))

    def mentions(self, literal: bytes) -> Iterator[int]:
        yield from (position for position, row in self.rows.items() if row and literal in row.text)
        yield from (position for position in self.reader.mentions(literal) if position not in self.rows)

    def replace(self, before: Row | None, after: Row | None, gained: set[int], lost: set[int]) -> None:
        """Record that a row appears, changes or goes, with the keys it begins and ceases to refer to."""
        if before is not None:
            self.keys[before.key] = None
            self.rows[before.position] = None
        if after is not None:
            self.keys[after.key] = after.position
            self.ids[after.id] = after.position
            self.rows[after.position] = after
        position = (after or before).position  # type: ignore[union-attr]  # one of the two is there
        for target in lost - gained:
            self.lost[target].add(position)
            self.gained[target].discard(position)
        for target in gained - lost:
            self.gained[target].add(position)
            self.lost[target].discard(position)

    def collides(self, other: Overlay) -> bool:
        """Whether both touch a row or key, or one removes what the other refers to."""
        if self.rows.keys() & other.rows.keys() or self.keys.keys() & other.keys.keys():
            return True
        removed = {key for key, position in self.keys.items() if position is None}
        return any(other.gained.get(key) for key in removed)

    def copy(self) -> Overlay:
        """A copy to return to when a write among several is refused."""
        return Overlay(
            self.reader,
            dict(self.rows),
            dict(self.keys),
            dict(self.ids),
            defaultdict(set, {key: set(positions) for key, positions in self.gained.items()}),
            defaultdict(set, {key: set(positions) for key, positions in self.lost.items()}),
            list(self.tombstones),
            list(self.key_changes),
        )

    def apply(self, connection: sqlite3.Connection) -> None:
        """Write everything; the caller holds the transaction. Raises ``sqlite3.IntegrityError``."""
        touched = [(position,) for position in self.rows]
        connection.executemany("DELETE FROM row WHERE position = ?", touched)
        connection.executemany("DELETE FROM body WHERE position = ?", touched)
        rows = [row for row in self.rows.values() if row is not None]
        connection.executemany(
            "INSERT INTO row VALUES (?, ?, ?, ?, ?)",
            [(row.position, row.endpoint, row.id, row.key, row.change_version) for row in rows],
        )
        connection.executemany("INSERT INTO body VALUES (?, ?)", [(row.position, row.text) for row in rows])
        connection.executemany("DELETE FROM reference WHERE target = ? AND position = ?", _pairs(self.lost))
        connection.executemany("INSERT OR IGNORE INTO reference VALUES (?, ?)", _pairs(self.gained))
        connection.executemany(
            "INSERT INTO tombstone VALUES (?, ?, ?, ?, ?, ?)",
            [
                (t.change_version, t.endpoint, t.id, t.key, t.surrogates, t.key_values)
                for t in self.tombstones
            ],
        )
        connection.executemany(
            "INSERT INTO key_change VALUES (?, ?, ?, ?, ?)",
            [(k.change_version, k.endpoint, k.id, k.old_values, k.new_values) for k in self.key_changes],
        )

    def _current(self, row: Row | None) -> Row | None:
        return row if row is None or row.position not in self.rows else self.rows[row.position]


def _pairs(references: Mapping[int, set[int]]) -> list[tuple[int, int]]:
    return [(target, position) for target, positions in references.items() for position in sorted(positions)]


@dataclass
class Writer:
    """The write rules of the API over one overlay. Every method raises ``ApiError`` for a refusal."""

    model: Model
    numbers: Numbers
    overlay: Overlay
    generation: Generation
    cascade_bumps: bool
    new_id: Callable[[], str] = lambda: uuid4().hex

    def upsert(self, endpoint: Endpoint, body: Mapping[str, Any], *, keep_unknown: bool) -> tuple[Row, bool]:
        """POST: (the row, whether it is new). An equal record changes nothing."""
        record = self._checked(endpoint, body, keep_unknown)
        key = endpoint.key_hash(record)
        existing = self.overlay.by_key(key)
        if existing is not None and existing.endpoint != endpoint.number:
            raise errors.key_taken(endpoint.singular)
        if existing is not None:
            return self._rewrite(endpoint, existing, record), False
        targets = self._link(endpoint, record)
        version, position = self.numbers.next_version(), self.numbers.next_position(endpoint)
        row_id = self.new_id()
        row = Row(position, row_id, key, version, self._text(row_id, record, self.numbers.ticks()))
        self.overlay.replace(None, row, targets, set())
        return row, True

    def update(
        self,
        endpoint: Endpoint,
        row_id: str,
        body: Mapping[str, Any],
        if_match: str | None,
        *,
        keep_unknown: bool,
    ) -> Row:
        """PUT: the row as it now stands."""
        row = self._existing(endpoint, row_id, if_match, "update")
        record = self._checked(endpoint, body, keep_unknown)
        if not (endpoint.key_changes or self.generation.refuses_key_changes):
            _keep_key(endpoint, documents.content(row.text), record)
        return self._rewrite(endpoint, row, record)

    def correct(self, endpoint: Endpoint, row_id: str, fields: Mapping[str, Any]) -> Row:
        """What a script of the host does in the database: see ``Store.correct``."""
        row = self._existing(endpoint, row_id, None, "correct")
        record = self._checked(endpoint, {**documents.content(row.text), **fields}, True)
        return self._rewrite(endpoint, row, record, by_script=True)

    def delete(self, endpoint: Endpoint, row_id: str, if_match: str | None) -> None:
        row = self._existing(endpoint, row_id, if_match, "delete")
        record = documents.content(row.text)
        self._refuse_if_used(endpoint, row, record)
        self.overlay.replace(row, None, set(), documents.target_hashes(self.model, endpoint, record))
        if endpoint.tracks_changes:
            values = msgspec.json.encode(endpoint.key_values(record))
            surrogates = ",".join(map(str, self._surrogates(endpoint, record)))
            version = self.numbers.next_version()
            self.overlay.tombstones.append(
                Tombstone(version, endpoint.number, row.id, row.key, surrogates, values)
            )

    def _existing(self, endpoint: Endpoint, row_id: str, if_match: str | None, action: str) -> Row:
        row = self.overlay.by_id(endpoint, row_id)
        if row is None:
            raise errors.not_found(f"Resource to {action} was not found.")
        if if_match is not None and if_match.strip('"') != msgspec.json.decode(row.text)["_etag"]:
            raise errors.etag_mismatch()
        return row

    def _checked(self, endpoint: Endpoint, body: Mapping[str, Any], keep_unknown: bool) -> Body:
        record = documents.normalised(endpoint, body, keep_unknown=keep_unknown)
        documents.check_required(self.model, endpoint, record)
        if not endpoint.is_descriptor:
            self._check_descriptors(record)
        return record

    def _check_descriptors(self, record: Body) -> None:
        wrong: dict[str, list[str]] = {}
        for path, name, uri in documents.descriptors(record):
            target = self.model.descriptor_for(name)
            if target is not None and self._descriptor(target, uri) is None:
                wrong[path] = [f"{pascal(name)} value '{uri}' does not exist."]
        if wrong:
            raise errors.bad_data(wrong)

    def _descriptor(self, target: Endpoint, uri: str) -> Row | None:
        namespace, _, code = uri.partition("#")
        return self.overlay.by_key(documents.target_hash(self.model, target.path, (namespace, code)))

    def _link(self, endpoint: Endpoint, record: Body) -> set[int]:
        """Add ``link`` to every reference; the keys referred to."""
        targets = set()
        for found in documents.references(self.model, endpoint, record):
            key = documents.target_hash(self.model, found.target, found.values)
            row = self.overlay.by_key(key)
            declared = self.model.get(found.target)
            if row is None or (declared is not None and row.endpoint != declared.number):
                raise errors.unresolved_reference(pascal(found.name.removesuffix("Reference")))
            found.node["link"] = link(self.model.endpoints[row.endpoint], row.id)
            targets.add(key)
        return targets

    def _rewrite(
        self, endpoint: Endpoint, row: Row, record: Body, *, cascading: bool = False, by_script: bool = False
    ) -> Row:
        before = documents.content(row.text)
        if record == before:
            return row
        key = endpoint.key_hash(record)
        if key != row.key and not cascading:
            self._check_new_key(endpoint, key, by_script=by_script)
        lost = documents.target_hashes(self.model, endpoint, before)
        targets = self._link(endpoint, record)
        keeps_version = cascading and (by_script or not self.cascade_bumps)
        version = row.change_version if keeps_version else self.numbers.next_version()
        ticks = _ticks(row) if keeps_version else self.numbers.ticks()
        after = Row(row.position, row.id, key, version, self._text(row.id, record, ticks))
        self.overlay.replace(row, after, targets, lost)
        if key != row.key:
            if not (cascading and (by_script or not endpoint.key_changes)):
                self._record_key_change(endpoint, row, before, record)
            self._cascade(endpoint, row.key, record, by_script=by_script)
        return after

    def _check_new_key(self, endpoint: Endpoint, key: int, *, by_script: bool) -> None:
        if not (endpoint.key_changes or by_script):
            raise errors.key_change_refused(pascal(endpoint.singular))
        if self.overlay.by_key(key) is not None:
            raise errors.key_taken(endpoint.singular)

    def _record_key_change(self, endpoint: Endpoint, row: Row, before: Body, after: Body) -> None:
        if self.generation.key_changes:
            old, new = (msgspec.json.encode(endpoint.key_values(body)) for body in (before, after))
            version = self.numbers.next_version()
            self.overlay.key_changes.append(KeyChange(version, endpoint.number, row.id, old, new))

    def _cascade(self, endpoint: Endpoint, old_key: int, record: Body, *, by_script: bool) -> None:
        """Give every row that refers to the old key the new one, and so on to their referrers."""
        values = endpoint.key_values(record)
        for position in self.overlay.referrers(old_key):
            row = self.overlay.by_position(position)
            if row is None:
                continue
            referrer = self.model.endpoints[row.endpoint]
            changed = documents.content(row.text)
            for found in list(documents.references(self.model, referrer, changed)):
                if documents.target_hash(self.model, found.target, found.values) == old_key:
                    found.node.update(
                        zip(self.model.reference_names(found.target), values.values(), strict=True)
                    )
            self._rewrite(referrer, row, changed, cascading=True, by_script=by_script)

    def _text(self, row_id: str, record: Body, ticks: int) -> bytes:
        return documents.serialised(row_id, record, ticks, dated=self.generation.modified_dates)

    def _refuse_if_used(self, endpoint: Endpoint, row: Row, record: Body) -> None:
        used_by = next(iter(self.overlay.referrers(row.key)), None)
        if endpoint.is_descriptor:
            uri = f"{record['namespace']}#{record['codeValue']}"
            used_by = next(self.overlay.mentions(msgspec.json.encode(uri)), None)
        if used_by is not None:
            raise errors.still_referenced(pascal(self.model.endpoints[used_by >> 32].singular))

    def _surrogates(self, endpoint: Endpoint, record: Body) -> Iterator[int]:
        """The positions of the descriptors in a key: a re-created descriptor has another one."""
        for part in endpoint.key:
            target = self.model.descriptor_for(part.flat) if part.type == "descriptor" else None
            row = self._descriptor(target, endpoint.key_values(record)[part.flat]) if target else None
            if row is not None:
                yield row.position


def link(endpoint: Endpoint, row_id: str) -> Body:
    return {"rel": pascal(endpoint.singular), "href": f"/{endpoint.path}/{row_id}"}


def _keep_key(endpoint: Endpoint, before: Body, record: Body) -> None:
    """Put the key of a record back to what it was."""
    for name in {part.path[0] for part in endpoint.key}:
        record.pop(name, None)
        if name in before:
            record[name] = before[name]


def _ticks(row: Row) -> int:
    return int(msgspec.json.decode(row.text)["_etag"]) - documents.UTC_KIND
