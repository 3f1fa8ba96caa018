"""One ODS: its rows and sequences, with the direct methods that tests and the demo use."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edfi_dagster.sandbox import changes, documents, errors
from edfi_dagster.sandbox.database import ALL_VERSIONS, EVERYTHING, Reader, Row, connect, first_position
from edfi_dagster.sandbox.generations import NEWEST, generation
from edfi_dagster.sandbox.model import Body, Endpoint, Model, model
from edfi_dagster.sandbox.oddities import Oddities
from edfi_dagster.sandbox.snapshots import Snapshots
from edfi_dagster.sandbox.writes import Overlay, Writer


class Store:
    """One ODS. Endpoints are named ``students`` or ``tpdm/candidates``; bodies are API records.

    Writes follow the API's rules and raise ``ApiError``. Unlike requests they keep properties that
    the data standard does not know. Safe to use from any thread. Raises ``ValueError`` for an
    unknown version.
    """

    def __init__(
        self, name: str = "", *, path: Path | None = None, ods_version: str = NEWEST.version
    ) -> None:
        self.name = name
        self.generation = generation(ods_version)
        self.model: Model = model(self.generation.standard)
        self.lock = threading.RLock()
        self.connection = connect(path)
        self.reader = self._reader(self.connection)
        self.snapshots = Snapshots(self.generation, self._reader)
        self.cascade_bumps = self.generation.cascades_bump
        self.denied_reads: set[str] = set()
        self.denied_changes: set[str] = set()
        self.withdrawn: set[str] = set()
        self.hidden: dict[int, set[str]] = {}
        self.oddities = Oddities()
        self.transactions: dict[str, Transaction] = {}
        self._path = path
        self._states: dict[str, sqlite3.Connection] = {}
        self._last_ticks = 0
        self._read_counters()

    # sequences ------------------------------------------------------------------------------------

    @property
    def newest(self) -> int:
        """``newestChangeVersion``: the sequence's value, uncommitted work included; 1 on a fresh ODS."""
        return max(1, self._counters.get("sequence", 0))

    def next_version(self) -> int:
        return self._next("sequence")

    def next_position(self, endpoint: Endpoint) -> int:
        return first_position(endpoint) + self._next(str(endpoint.number)) - 1

    def ticks(self) -> int:
        """Now, in .NET ticks; never the same twice."""
        self._last_ticks = max(documents.ticks_of(dt.datetime.now(dt.UTC)), self._last_ticks + 1)
        return self._last_ticks

    # writes ---------------------------------------------------------------------------------------

    def post(self, endpoint: str, body: Mapping[str, Any]) -> str:
        """Insert or update by natural key; the row's id."""
        with self.writing() as writer:
            return writer.upsert(self.endpoint(endpoint), body, keep_unknown=True)[0].id

    def put(self, endpoint: str, row_id: str, body: Mapping[str, Any]) -> None:
        """Replace a record by id, also its natural key where that may change."""
        with self.writing() as writer:
            writer.update(self.endpoint(endpoint), row_id, body, None, keep_unknown=True)

    def correct(self, endpoint: str, row_id: str, **fields: Any) -> None:
        """Change a record as a script of the host does in the database, also the UniqueId of a person.

        A person's new UniqueId is written to ``/keyChanges``. Records that refer to the person show it from then on, but
        keep their change versions and have no ``/keyChanges`` of their own: they hold a surrogate of the person.
        """
        with self.writing() as writer:
            writer.correct(self.endpoint(endpoint), row_id, fields)

    def delete(self, endpoint: str, row_id: str) -> None:
        with self.writing() as writer:
            writer.delete(self.endpoint(endpoint), row_id, None)

    def begin(self, name: str | None = None) -> Transaction:
        """Open a transaction: its writes take numbers at once and become visible at ``commit``."""
        with self.lock:
            opened = Transaction(self, name or f"{len(self.transactions) + 1}-{self.newest}")
            self.transactions[opened.id] = opened
            return opened

    @contextlib.contextmanager
    def writing(self, transaction: str | None = None) -> Iterator[Writer]:
        """A writer whose changes are applied on leaving, or kept for a transaction's commit."""
        with self.lock:
            if transaction is not None:
                with self._joining(self.transaction(transaction)) as writer:
                    yield writer
                return
            writer = self.writer()
            yield writer
            self._check_locks(writer.overlay)
            self.apply(writer.overlay)

    @contextlib.contextmanager
    def _joining(self, transaction: Transaction) -> Iterator[Writer]:
        """The writer of a transaction; what a refused write has begun there is taken back."""
        before = transaction.writer.overlay.copy()
        try:
            yield transaction.writer
            self._check_locks(transaction.writer.overlay)
        except BaseException:
            transaction.writer.overlay = before
            raise
        finally:
            self.save_counters()

    def writer(self) -> Writer:
        return Writer(self.model, self, Overlay(self.reader), self.generation, self.cascade_bumps)

    def transaction(self, name: str) -> Transaction:
        try:
            return self.transactions[name]
        except KeyError:
            raise errors.not_found(f"There is no open transaction '{name}'.") from None

    def apply(self, overlay: Overlay) -> None:
        """Make an overlay visible. Raises ``ApiError`` (409) where another write took a key."""
        try:
            self.connection.execute("BEGIN")
            overlay.apply(self.connection)
            self.save_counters()
            self.connection.execute("COMMIT")
        except sqlite3.IntegrityError:
            self.connection.execute("ROLLBACK")
            raise errors.concurrent_write() from None
        self.reader.forget({position >> 32 for position in overlay.rows})

    # reads ----------------------------------------------------------------------------------------

    def endpoint(self, path: str) -> Endpoint:
        return self.model.endpoint(path)

    def rows(self, endpoint: str) -> list[Body]:
        """Every live record, as GET would give it, in the order of pages."""
        return [msgspec.json.decode(text) for text in self.texts(endpoint)]

    def texts(self, endpoint: str) -> list[bytes]:
        with self.lock:
            return self.reader.bodies(self.reader.positions(self.endpoint(endpoint), EVERYTHING))

    def get(self, endpoint: str, row_id: str) -> Body:
        """One record. Raises ``KeyError``."""
        with self.lock:
            row = self.reader.by_id(self.endpoint(endpoint), row_id)
        if row is None:
            raise KeyError(row_id)
        record: Body = msgspec.json.decode(row.text)
        return record

    def row(self, endpoint: str, row_id: str) -> Row | None:
        """The stored row of an id, with its change version (which the API never shows)."""
        with self.lock:
            return self.reader.by_id(self.endpoint(endpoint), row_id)

    def ids(self, endpoint: str) -> list[str]:
        """The id of every live record, in the order of pages."""
        order = "key" if self.generation.key_order else "position"
        with self.lock:
            rows = self.connection.execute(
                f"SELECT id FROM row WHERE endpoint = ? ORDER BY {order}",  # noqa: S608 - one of two columns
                (self.endpoint(endpoint).number,),
            )
            return [row_id for (row_id,) in rows]

    def count(self, endpoint: str) -> int:
        with self.lock:
            return self.reader.count(self.endpoint(endpoint), EVERYTHING)

    def counts(self) -> dict[str, int]:
        """Rows of every endpoint that has any."""
        with self.lock:
            rows = self.connection.execute(
                "SELECT endpoint, count(*) FROM row GROUP BY endpoint ORDER BY endpoint"
            )
            return {self.model.endpoints[number].path: count for number, count in rows}

    def tombstones(self, endpoint: str) -> list[Body]:
        """Every tombstone, also those that ``/deletes`` hides because the key lives again."""
        with self.lock:
            return _plain(
                changes.tombstones(self.reader, self.endpoint(endpoint), ALL_VERSIONS, suppress=False)
            )

    def deletes(self, endpoint: str) -> list[Body]:
        """What ``/deletes`` answers without a window."""
        with self.lock:
            return _plain(
                changes.tombstones(self.reader, self.endpoint(endpoint), ALL_VERSIONS, suppress=True)
            )

    def key_changes(self, endpoint: str) -> list[Body]:
        """What ``/keyChanges`` answers without a window."""
        with self.lock:
            return _plain(changes.key_changes(self.reader, self.endpoint(endpoint), ALL_VERSIONS))

    # permissions ----------------------------------------------------------------------------------

    def deny(self, endpoint: str, *, read: bool = True, read_changes: bool = True) -> None:
        """Answer 403: to reads, and to ``/deletes`` and ``/keyChanges`` (the ReadChanges claim)."""
        path = self.endpoint(endpoint).path
        if read:
            self.denied_reads.add(path)
        if read_changes:
            self.denied_changes.add(path)

    def withdraw(self, endpoint: str) -> None:
        """Answer 404 and leave the endpoint out of the metadata documents."""
        self.withdrawn.add(self.endpoint(endpoint).path)

    def allow(self, endpoint: str) -> None:
        """Undo ``deny``, ``withdraw`` and ``hide``."""
        found = self.endpoint(endpoint)
        for refused in (self.denied_reads, self.denied_changes, self.withdrawn):
            refused.discard(found.path)
        self.hidden.pop(found.number, None)

    def hide(self, endpoint: str, *ids: str) -> None:
        """Make records invisible to the key, as those of an organization that is not the key's.

        The ODS leaves them out of pages, counts, ``/deletes`` and ``/keyChanges``, and answers 403 by id. Nothing
        about the records changes: no change version, no tombstone.
        """
        self.hidden.setdefault(self.endpoint(endpoint).number, set()).update(ids)

    def show(self, endpoint: str, *ids: str) -> None:
        """Undo ``hide`` for some records: they appear with the change versions that they had."""
        self.hidden.get(self.endpoint(endpoint).number, set()).difference_update(ids)

    def hidden_ids(self, endpoint: Endpoint) -> set[str]:
        """The ids that the key may not see."""
        return self.hidden.get(endpoint.number, set())

    # states ---------------------------------------------------------------------------------------

    def save(self, name: str) -> None:
        """Keep the present state, sequences included, under a name."""
        with self.lock:
            copy = connect(self._state_path(name))
            self.connection.backup(copy)
            self._states[name] = copy

    def restore(self, name: str) -> None:
        """Return to a saved state, as a restored database would; open transactions are lost.

        Raises ``KeyError`` for an unknown name.
        """
        with self.lock:
            path = self._state_path(name)
            if name not in self._states and path is not None and path.exists():
                self._states[name] = connect(path)
            self._states[name].backup(self.connection)
            self.transactions.clear()
            self._read_counters()

    @property
    def is_complete(self) -> bool:
        """Whether generation has come to its end here (a process killed in the middle leaves a part)."""
        return self.reader.counter("complete") == 1

    def mark_complete(self) -> None:
        with self.lock:
            self._counters["complete"] = 1
            self._unsaved.add("complete")
            self.save_counters()

    def copy_from(self, source: sqlite3.Connection) -> None:
        """Take over all data of another database of this schema."""
        with self.lock:
            source.backup(self.connection)
            self._read_counters()

    def take_snapshot(self) -> str:
        """Keep the present state for requests that ask for a snapshot; the identifier for 5.x and 6.x.

        From 7.0 an ODS has one snapshot: taking another replaces it.
        """
        with self.lock:
            return self.snapshots.take(self.connection)

    def drop_snapshot(self, identifier: str | None = None) -> None:
        """Remove a snapshot, or all. Raises ``KeyError`` for an unknown one."""
        with self.lock:
            self.snapshots.drop(identifier)

    def replace_snapshot(self) -> str:
        """Put a new snapshot in the place of all others, as a nightly job of the host does; its identifier."""
        with self.lock:
            self.snapshots.drop()
            return self.snapshots.take(self.connection)

    def close(self) -> None:
        with self.lock:
            self.drop_snapshot()
            for connection in (*self._states.values(), self.connection):
                connection.close()
            self._states.clear()

    # ----------------------------------------------------------------------------------------------

    def take_numbers(self, endpoint: Endpoint, count: int) -> tuple[int, int]:
        """Reserve ``count`` change versions and positions: the first of each."""
        version = self._counters.get("sequence", 0) + 1
        offset = self._counters.get(str(endpoint.number), 0)
        self._counters.update({"sequence": version + count - 1, str(endpoint.number): offset + count})
        self._unsaved.update({"sequence", str(endpoint.number)})
        return version, first_position(endpoint) + offset

    def _next(self, name: str) -> int:
        self._counters[name] = self._counters.get(name, 0) + 1
        self._unsaved.add(name)
        return self._counters[name]

    def _reader(self, connection: sqlite3.Connection) -> Reader:
        return Reader(connection, key_order=self.generation.key_order)

    def save_counters(self) -> None:
        """Write the sequences; part of whatever transaction is open."""
        self.connection.executemany(
            "INSERT OR REPLACE INTO counter VALUES (?, ?)",
            [(name, self._counters[name]) for name in self._unsaved],
        )
        self._unsaved.clear()

    def _read_counters(self) -> None:
        self.reader.forget()
        self._counters: dict[str, int] = dict(self.connection.execute("SELECT name, value FROM counter"))
        self._unsaved: set[str] = set()

    def _check_locks(self, overlay: Overlay) -> None:
        for transaction in self.transactions.values():
            other = transaction.writer.overlay
            if other is not overlay and (overlay.collides(other) or other.collides(overlay)):
                raise errors.concurrent_write()

    def _state_path(self, name: str) -> Path | None:
        return self._path.with_suffix(f".{name}.state") if self._path else None


class Transaction:
    """Writes that wait for a commit. See ``Store.begin``."""

    def __init__(self, store: Store, name: str) -> None:
        self.id = name
        self.store = store
        self.writer = store.writer()

    def post(self, endpoint: str, body: Mapping[str, Any]) -> str:
        with self.store.writing(self.id) as writer:
            return writer.upsert(self.store.endpoint(endpoint), body, keep_unknown=True)[0].id

    def put(self, endpoint: str, row_id: str, body: Mapping[str, Any]) -> None:
        with self.store.writing(self.id) as writer:
            writer.update(self.store.endpoint(endpoint), row_id, body, None, keep_unknown=True)

    def delete(self, endpoint: str, row_id: str) -> None:
        with self.store.writing(self.id) as writer:
            writer.delete(self.store.endpoint(endpoint), row_id, None)

    def commit(self) -> None:
        """Make the writes visible, with the numbers they took."""
        with self.store.lock:
            self.store.transaction(self.id)
            del self.store.transactions[self.id]
            self.store.apply(self.writer.overlay)

    def rollback(self) -> None:
        """Forget the writes; the numbers they took stay taken."""
        with self.store.lock:
            self.store.transaction(self.id)
            del self.store.transactions[self.id]


def _plain(rows: list[Body]) -> list[Body]:
    """Rows of changes with their key values read."""
    plain: list[Body] = msgspec.json.decode(msgspec.json.encode(rows))
    return plain
