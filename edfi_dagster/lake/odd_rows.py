"""The rows of a pull that are not strict JSON (see ``ods.odd``): counted, and named by their ids."""

from __future__ import annotations

import msgspec

from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import PulledFile
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.lake.written import Written, decompressed
from edfi_dagster.ods.odd import loadable

# A host may write all of its records so.
MOST_IDS = 100
_MOST_NAMED = 5


class OddRows:
    def __init__(self) -> None:
        self.count = 0
        self._ids: dict[str, None] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        """The first of them, a hundred at most."""
        return tuple(self._ids)[:MOST_IDS]

    def note(self, ids: frozenset[str]) -> None:
        """Count them; one that was read before, as the second walk of a first pull does, is not counted again."""
        self.count += len(ids - self._ids.keys())
        if len(self._ids) < MOST_IDS:
            self._ids |= dict.fromkeys(sorted(ids))

    def sentence(self) -> str:
        named = ", ".join(self.ids[:_MOST_NAMED])
        more = ", …" if len(self._ids) > _MOST_NAMED else ""
        return (
            f"{self.count} records are not strict JSON (half characters, control characters, NaN), ids {named}{more}; "
            "they were loaded: the lake has them as sent, the warehouse with U+FFFD or null in those places; have them "
            "corrected in the ODS"
        )


def with_repaired(lake: LakeStore, file: PulledFile, compression: str) -> PulledFile:
    """The file, and beside it one with the same lines as a warehouse can load them. Raises LakeError."""
    path, written = paths.repaired_path(file.path), Written()
    with (
        lake.local_files([file.path]) as (copy,),
        copy.open("rb") as stored,
        decompressed(stored, file.path) as lines,
        lake.writing(path) as stream,
        written.compressing(stream, compression) as out,
    ):
        for line in lines:
            out.write(loadable(line) + b"\n")
    return msgspec.structs.replace(file, repaired=PulledFile(path, file.rows, written.size, written.digest))
