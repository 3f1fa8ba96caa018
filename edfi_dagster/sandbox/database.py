"""The SQLite side of one ODS: rows, references between them, tombstones, key changes, counters.

A row's ``position`` is its endpoint's number times 2^32 plus its offset in the endpoint's AggregateId
sequence, so one integer primary key serves every collection in AggregateId order. Bodies stand in
their own table: paging and counting then walk a table of some fifty bytes a row.
"""

# ruff: noqa: S608 - statements are put together from constants of this module; values are always bound

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edfi_dagster.sandbox.model import Endpoint

FIRST_AGGREGATE_ID = -(2**31)
LAST_AGGREGATE_ID = 2**31 - 1
ALL_VERSIONS = (0, 2**63 - 1)
MOST_VARIABLES = 30_000
KEPT_WINDOWS = 64

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
CREATE INDEX IF NOT EXISTS row_version ON row(endpoint, change_version);
"""


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
    """Reads of one database; the caller holds the store's lock."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._positions: dict[tuple[int, Window], array[int]] = {}

    def by_key(self, key: int) -> Row | None:
        return self._row("row.key = ?", key)

    def by_position(self, position: int) -> Row | None:
        return self._row("row.position = ?", position)

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
        return len(self.positions(endpoint, window))

    def page(
        self, endpoint: Endpoint, window: Window, limit: int, offset: int
    ) -> tuple[list[bytes], int | None]:
        """(bodies, AggregateId of the last one) of a page in AggregateId order."""
        positions: Sequence[int]
        if window.aggregates == EVERYTHING.aggregates:
            positions = self.positions(endpoint, window)[offset : offset + limit]
        else:
            where, values = _where(endpoint, window)
            rows = self.connection.execute(
                f"SELECT position FROM row NOT INDEXED WHERE {where} ORDER BY position LIMIT ?",
                (*values, limit),
            )
            positions = [position for (position,) in rows]
        return self.bodies(positions), aggregate_id_of(positions[-1]) if positions else None

    def positions(self, endpoint: Endpoint, window: Window) -> Sequence[int]:
        """The positions of a window's rows in AggregateId order; kept until the next write."""
        key = endpoint.number, window
        if key not in self._positions:
            where, values = _where(endpoint, window)
            rows = self.connection.execute(
                f"SELECT position FROM row WHERE {where} ORDER BY position", values
            )
            if len(self._positions) >= KEPT_WINDOWS:
                self._positions.pop(next(iter(self._positions)))
            self._positions[key] = array("q", [position for (position,) in rows])
        return self._positions[key]

    def forget(self) -> None:
        """Drop what was remembered of the rows; to be called after every write."""
        self._positions.clear()

    def bodies(self, positions: Sequence[int]) -> list[bytes]:
        if not positions:
            return []
        if positions[-1] - positions[0] + 1 == len(positions):
            return self._bodies("position BETWEEN ? AND ?", (positions[0], positions[-1]))
        found: list[bytes] = []
        for start in range(0, len(positions), MOST_VARIABLES):
            some = positions[start : start + MOST_VARIABLES]
            found += self._bodies(f"position IN ({','.join('?' * len(some))})", some)
        return found

    def candidates(
        self, endpoint: Endpoint, window: Window, literals: Iterable[bytes]
    ) -> list[tuple[int, bytes]]:
        """(position, body) of the rows whose text holds all of the JSON literals."""
        where, values = _where(endpoint, window)
        texts = list(literals)
        tests = "".join(" AND instr(body.text, ?) > 0" for _ in texts)
        return self.connection.execute(
            f"SELECT row.position, body.text FROM row JOIN body USING(position) WHERE {where}{tests}"
            " ORDER BY row.position",
            (*values, *texts),
        ).fetchall()

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

    def _bodies(self, test: str, values: Sequence[int]) -> list[bytes]:
        rows = self.connection.execute(
            f"SELECT text FROM body WHERE {test} ORDER BY position", values
        ).fetchall()
        return [text for (text,) in rows]


def _where(endpoint: Endpoint, window: Window) -> tuple[str, tuple[int, ...]]:
    low, high = (position_of(endpoint, bound) for bound in window.aggregates)
    test, values = "row.endpoint = ? AND row.position BETWEEN ? AND ?", (endpoint.number, low, high)
    if window.versions == ALL_VERSIONS:
        return test, values
    return f"{test} AND row.change_version BETWEEN ? AND ?", (*values, *window.versions)
