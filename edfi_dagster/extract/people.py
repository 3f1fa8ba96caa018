"""People whose UniqueId the host of an ODS corrected, and the records that still show the old one here.

A script changes the UniqueId; the API itself refuses that. ``/keyChanges`` of the person tells of it. Records that refer
to the person show the new UniqueId at once, but hold a surrogate of the person: no change version of theirs moves.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec

from edfi_dagster.extract.collections import Collections
from edfi_dagster.extract.work import Job
from edfi_dagster.ods.catalogue import Endpoint, standard_endpoints
from edfi_dagster.ods.changes import ChangeWindow
from edfi_dagster.ods.errors import NotOffered, NotPermitted
from edfi_dagster.ods.pagers import change_walk
from edfi_dagster.ods.pages import KEY_CHANGES
from edfi_dagster.warehouse.current import ids_that_say, seen_key_changes

_PEOPLE = ("ed-fi/students", "ed-fi/staffs", "ed-fi/contacts", "ed-fi/parents")


class _Correction(msgspec.Struct, rename="camel"):
    """A row of a person's ``/keyChanges``."""

    id: str
    change_version: int
    old_key_values: dict[str, msgspec.Raw] = {}
    new_key_values: dict[str, msgspec.Raw] = {}


class CorrectedPeople:
    """The corrections of one run, asked for once for each window; threads may share it."""

    def __init__(self, job: Job, collections: Collections) -> None:
        standard = standard_endpoints(job.session.settings.extract.data_standard)
        self._people = [endpoint for endpoint in standard if endpoint.path in _PEOPLE]
        self._job = job
        self._collections = collections
        self._lock = threading.Lock()
        self._found: dict[tuple[str, int | None], Sequence[_Correction]] = {}

    def shown_by(self, endpoint: Endpoint, window: ChangeWindow, low: int | None) -> list[str]:
        """The ids of an endpoint whose latest raw row shows a UniqueId that was corrected in the window.

        Corrections up to ``low`` were dealt with, unless they were committed late. Raises EdFiError, WarehouseError.
        """
        said: list[tuple[str, str]] = []
        for person in self._people:
            if person != endpoint:
                corrections = self._corrections(person, window)
                said += [old for c in self._new(person, endpoint, corrections, low) for old in _old_values(c)]
        if not said:
            return []
        with self._job.warehouse.connected() as connection:
            return ids_that_say(connection, self._job.pair, endpoint, said)

    def _corrections(self, person: Endpoint, window: ChangeWindow) -> Sequence[_Correction]:
        with self._lock:
            if (person.path, window.low) not in self._found:
                self._found[person.path, window.low] = self._read(person, window)
            return self._found[person.path, window.low]

    def _read(self, person: Endpoint, window: ChangeWindow) -> list[_Correction]:
        collection = self._collections.open(person, KEY_CHANGES)
        try:
            return [_correction(row) for page in change_walk(collection, window) for row in page.rows]
        except (NotOffered, NotPermitted):  # then nothing tells of corrections
            return []

    def _new(
        self, person: Endpoint, endpoint: Endpoint, corrections: Sequence[_Correction], low: int | None
    ) -> list[_Correction]:
        """Those that the endpoint's last key changes were read without."""
        early = [c.id for c in corrections if low is not None and c.change_version <= low]
        if not early:
            return list(corrections)
        with self._job.warehouse.connected() as connection:
            seen = seen_key_changes(connection, self._job.pair, person, early, by=endpoint)
        return [c for c in corrections if (c.id, c.change_version) not in seen]


def _old_values(correction: _Correction) -> list[tuple[str, str]]:
    """(property, JSON text) of what a correction took away."""
    return [
        (name, bytes(value).decode())
        for name, value in correction.old_key_values.items()
        if bytes(value) != bytes(correction.new_key_values.get(name, b""))
    ]


_correction = msgspec.json.Decoder(_Correction).decode
