"""Snapshots of an ODS: copies that read requests may ask for, named (before 7.0) or the only one (from 7.0 on)."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from edfi_dagster.sandbox import errors
from edfi_dagster.sandbox.database import Reader, connect
from edfi_dagster.sandbox.generations import Generation

LISTED_HEADER = "snapshot-identifier"
SINGLE_HEADER = "use-snapshot"


@dataclass(frozen=True)
class Snapshot:
    """One snapshot. ``id`` is its row's id in the list, ``identifier`` what the header names."""

    id: str
    identifier: str
    taken: dt.datetime
    reader: Reader

    def listed(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "snapshotIdentifier": self.identifier,
            "snapshotDateTime": self.taken.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        }


class Snapshots:
    """The snapshots of one ODS, oldest first. ``read`` makes a reader of a database."""

    def __init__(self, generation: Generation, read: Callable[[sqlite3.Connection], Reader]) -> None:
        self._generation = generation
        self._read = read
        self._held: dict[str, Snapshot] = {}

    def take(self, source: sqlite3.Connection) -> str:
        """Keep the present state; its identifier. Where there is one snapshot only, it replaces the one before."""
        copy = connect(None)
        source.backup(copy)
        if self._generation.snapshots == "single":
            self.drop()
        taken = Snapshot(uuid4().hex, str(uuid4()), dt.datetime.now(dt.UTC), self._read(copy))
        self._held[taken.identifier] = taken
        return taken.identifier

    def drop(self, identifier: str | None = None) -> None:
        """Remove a snapshot, or all. Raises ``KeyError`` for an unknown one."""
        for name in tuple(self._held) if identifier is None else (identifier,):
            self._held.pop(name).reader.connection.close()

    def all(self) -> list[Snapshot]:
        return list(self._held.values())

    def asked_for(self, headers: Mapping[str, str]) -> bool:
        """Whether a request (header names in lower case) asks for a snapshot by the protocol of the version."""
        if self._generation.snapshots == "listed":
            return bool(headers.get(LISTED_HEADER))
        return self._generation.snapshots == "single" and headers.get(SINGLE_HEADER, "").lower() == "true"

    def wanted(self, headers: Mapping[str, str]) -> Reader:
        """The snapshot that a request asks for. Raises ``ApiError``: 410 for one that is gone, 404 where none is."""
        if self._generation.snapshots == "listed":
            found = self._held.get(headers[LISTED_HEADER])
            if found is None:
                raise errors.snapshot_gone()
            return found.reader
        if not self._held:
            raise errors.not_found("Snapshot not found.")
        return next(iter(self._held.values())).reader
