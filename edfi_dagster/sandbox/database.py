"""The SQLite side of one ODS: rows, references between them, tombstones, key changes, counters.

A row's ``position`` is its endpoint's number times 2^32 plus its offset in the endpoint's AggregateId
sequence, so one integer primary key serves every collection in AggregateId order. Bodies stand in
their own table: paging and counting then walk a table of some fifty bytes a row.

Before 7.3 pages come in the order of physical keys, which hold numbers that no client sees: here in the order of
``key``, the hash of the natural key, just as fixed and as opaque. New rows then land amidst the others.
"""

# ruff: noqa: S608 - statements are put together from constants of this module; values are always bound

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from edfi_dagster.sandbox.model import Endpoint

FIRST_AGGREGATE_ID = -(2**31)
LAST_AGGREGATE_ID = 2**31 - 1
ALL_VERSIONS = (0, 2**63 - 1)
MOST_VARIABLES = 30_000
KEPT_ANSWERS = 128
MAPPED_BYTES = 2**36
Answer = TypeVar("Answer")

SCHEMA = """
CREATE TABLE IF NOT EXISTS row(
    position INTEGER PRIMARY KEY, endpoint INTEGER NOT NULL, id TEXT NOT NULL, key INTEGER NOT NULL,
    change_version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS body(position INTEGER PRIMARY KEY, text BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS reference(
    target INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY(target, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstone(
    change_version INTEGER PRIMARY KEY, endpoint INTEGER NOT NULL, id TEXT NOT NULL, key INTEGER NOT NULL,
    surrogates TEXT NOT NULL, key_values BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS tombstone_endpoint ON tombstone(endpoint, change_version);
CREATE TABLE IF NOT EXISTS key_change(
    change_version INTEGER PRIMARY KEY, endpoint INTEGER NOT NULL, id TEXT NOT NULL,
    old_values BLOB NOT NULL, new_values BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS key_change_endpoint ON key_change(endpoint, change_version);
CREATE TABLE IF NOT EXISTS counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
ROW_INDEXES = """
CREATE UNIQUE INDEX IF NOT EXISTS row_id ON row(id);
CREATE UNIQUE INDEX IF NOT EXISTS row_key ON row(key);
CREATE INDEX IF NOT EXISTS row_version ON row(endpoint, change_version, key);
"""
_PAGE = "SELECT CAST(group_concat(text, ',' || char(10)) AS BLOB) FROM "
_RANGE = f"{_PAGE} (SELECT text FROM body WHERE position BETWEEN ? AND ? ORDER BY position)"
_CHOSEN = f"{_PAGE} (SELECT text FROM json_each(?) AS wanted CROSS JOIN body ON body.position = wanted.value)"


@dataclass(frozen=True)
class Row:
    """One live record. ``text`` is the item as it stands in a page."""

    position: int
    id: str
    key: int
    change_version: int
    text: bytes

    @property
    def endpoint(self) -> int:
        return self.position >> 32


@dataclass(frozen=True)
class Window:
    """Which rows a read covers: change versions and AggregateIds, all bounds inclusive."""

    versions: tuple[int, int] = ALL_VERSIONS
    aggregates: tuple[int, int] = (FIRST_AGGREGATE_ID, LAST_AGGREGATE_ID)


EVERYTHING = Window()


def first_position(endpoint: Endpoint) -> int:
    return endpoint.number << 32


def position_of(endpoint: Endpoint, aggregate_id: int) -> int:
    return first_position(endpoint) + min(max(aggregate_id, FIRST_AGGREGATE_ID), LAST_AGGREGATE_ID) + 2**31


def aggregate_id_of(position: int) -> int:
    return (position & 0xFFFFFFFF) - 2**31


def connect(path: Path | None) -> sqlite3.Connection:
    """Open (and set up) a database: a file, or memory without a path."""
    connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = WAL" if path else "PRAGMA journal_mode = MEMORY")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
    connection.executescript(SCHEMA + ROW_INDEXES)
    return connection


def begin_bulk(connection: sqlite3.Connection) -> None:
    """Prepare for many inserts: rows without their indexes, references to a plain table."""
    connection.executescript(
        "DROP INDEX row_id; DROP INDEX row_key; DROP INDEX row_version;"
        "CREATE TEMP TABLE pending(target INTEGER, position INTEGER);"
    )


def end_bulk(connection: sqlite3.Connection) -> None:
    """Build indexes and references. Raises ``sqlite3.IntegrityError`` for a key that occurs twice."""
    connection.executescript(
        "INSERT OR IGNORE INTO reference SELECT target, position FROM pending ORDER BY target, position;"
        f"DROP TABLE pending; {ROW_INDEXES}"
    )


class Reader:
    """Reads of one database; the caller holds the store's lock. ``key_order``: pages come in the order of keys."""

    def __init__(self, connection: sqlite3.Connection, *, key_order: bool = False) -> None:
        self.connection = connection
        self.key_order = key_order
        self._kept: dict[int, dict[Hashable, object]] = {}

    def kept(self, endpoint: Endpoint, question: Hashable, ask: Callable[[], Answer]) -> Answer:
        """An answer about an endpoint's rows, remembered until they are written to."""
        answers = self._kept.setdefault(endpoint.number, {})
        if question not in answers:
            if len(answers) >= KEPT_ANSWERS:
                answers.pop(next(iter(answers)))
            answers[question] = ask()
        return answers[question]  # type: ignore[return-value]  # a question always has the same kind of answer

    def forget(self, endpoints: Iterable[int] | None = None) -> None:
        """Drop what was remembered of some endpoints' rows (of all by default); due after every write."""
        for number in tuple(self._kept) if endpoints is None else endpoints:
            self._kept.pop(number, None)

    def by_key(self, key: int) -> Row | None:
        return self._row("row.key = ?", key)

    def by_position(self, position: int) -> Row | None:
        return self._row("row.position = ?", position)

    def is_live(self, position: int) -> bool:
        found = self.connection.execute("SELECT 1 FROM row WHERE position = ?", (position,)).fetchone()
        return found is not None

    def by_id(self, endpoint: Endpoint, row_id: str) -> Row | None:
        found = self._row("row.id = ?", row_id)
        return found if found and found.endpoint == endpoint.number else None

    def referrers(self, key: int) -> list[int]:
        rows = self.connection.execute(
            "SELECT position FROM reference WHERE target = ? ORDER BY position", (key,)
        )
        return [position for (position,) in rows]

    def mentions(self, literal: bytes) -> Iterator[int]:
        """The positions of the rows whose body holds a JSON literal."""
        for (position,) in self.connection.execute(
            "SELECT position FROM body WHERE instr(text, ?) > 0 ORDER BY position", (literal,)
        ):
            yield position

    def count(self, endpoint: Endpoint, window: Window) -> int:
        where, values = _where(endpoint, window)
        statement = f"SELECT count(*) FROM row WHERE {where}"
        return self.kept(
            endpoint,
            ("count", window),
            lambda: int(self.connection.execute(statement, values).fetchone()[0]),
        )

    def page(self, endpoint: Endpoint, window: Window, limit: int, offset: int) -> Sequence[int]:
        """The positions of a page."""
        if window.aggregates == EVERYTHING.aggregates:
            return self.positions(endpoint, window)[offset : offset + limit]
        if window.versions == ALL_VERSIONS:
            return self._following(*_bounds(endpoint, window), limit)
        found = self.positions(endpoint, Window(window.versions))
        return within(found, endpoint, window)[:limit]

    def _following(self, low: int, high: int, limit: int) -> Sequence[int]:
        """The first positions between two; most often they adjoin, and need not be listed one by one."""
        some = "SELECT position FROM row NOT INDEXED WHERE position BETWEEN ? AND ? ORDER BY position LIMIT ?"
        first, last, count = self.connection.execute(
            f"SELECT min(position), max(position), count(*) FROM ({some})", (low, high, limit)
        ).fetchone()
        if count and last - first + 1 == count:
            return range(first, last + 1)
        return [position for (position,) in self.connection.execute(some, (low, high, limit))]

    def positions(self, endpoint: Endpoint, window: Window) -> Sequence[int]:
        """The positions of all rows of a window, in the order of pages."""
        where, values = _where(endpoint, window)
        order = "key" if self.key_order else "position"
        rows = f"SELECT position FROM row WHERE {where} ORDER BY {order}"

        def ask() -> Sequence[int]:
            # One JSON text costs half of what stepping through the rows would.
            (found,) = self.connection.execute(f"SELECT json_group_array(position) FROM ({rows})", values)
            return array("q", msgspec.json.decode(found[0], type=list[int]))

        return self.kept(endpoint, ("positions", window), ask)

    def joined(self, positions: Sequence[int]) -> bytes | None:
        """The bodies at some positions in their order, as they stand in a page; ``None`` if no row is left there."""
        if not positions:
            return None
        if self._adjoin(positions):
            found = self.connection.execute(_RANGE, (positions[0], positions[-1]))
        else:
            found = self.connection.execute(_CHOSEN, (msgspec.json.encode(list(positions)).decode(),))
        text: bytes | None = found.fetchone()[0]
        return text

    def _adjoin(self, positions: Sequence[int]) -> bool:
        return not self.key_order and positions[-1] - positions[0] + 1 == len(positions)

    def bodies(self, positions: Sequence[int]) -> list[bytes]:
        """The bodies at some positions, in their order; a row that is gone is left out."""
        if not positions:
            return []
        if self._adjoin(positions):
            rows = self.connection.execute(
                "SELECT text FROM body WHERE position BETWEEN ? AND ? ORDER BY position",
                (positions[0], positions[-1]),
            )
            return [text for (text,) in rows.fetchall()]
        found: dict[int, bytes] = {}
        for start in range(0, len(positions), MOST_VARIABLES):
            some = positions[start : start + MOST_VARIABLES]
            marks = ",".join("?" * len(some))
            found.update(
                self.connection.execute(f"SELECT position, text FROM body WHERE position IN ({marks})", some)
            )
        return [found[position] for position in positions if position in found]

    def texts(self, endpoint: Endpoint) -> Iterator[tuple[int, bytes]]:
        """(position, body) of every row of an endpoint."""
        low, high = first_position(endpoint), first_position(endpoint) + 2**32 - 1
        yield from self.connection.execute(
            "SELECT position, text FROM body WHERE position BETWEEN ? AND ? ORDER BY position", (low, high)
        )

    def counter(self, name: str) -> int:
        found = self.connection.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
        return int(found[0]) if found else 0

    def _row(self, test: str, value: int | str) -> Row | None:
        found = self.connection.execute(
            "SELECT row.position, row.id, row.key, row.change_version, body.text"
            f" FROM row JOIN body USING(position) WHERE {test}",
            (value,),
        ).fetchone()
        return Row(*found) if found else None


def within(positions: Sequence[int], endpoint: Endpoint, window: Window) -> Sequence[int]:
    """Those of ascending positions that lie between a window's AggregateIds."""
    low, high = _bounds(endpoint, window)
    return positions[bisect_left(positions, low) : bisect_right(positions, high)]


def _bounds(endpoint: Endpoint, window: Window) -> tuple[int, int]:
    low, high = window.aggregates
    return position_of(endpoint, low), position_of(endpoint, high)


def _where(endpoint: Endpoint, window: Window) -> tuple[str, tuple[int, ...]]:
    test, values = "endpoint = ? AND position BETWEEN ? AND ?", (endpoint.number, *_bounds(endpoint, window))
    if window.versions == ALL_VERSIONS:
        return test, values
    return f"{test} AND change_version BETWEEN ? AND ?", (*values, *window.versions)
