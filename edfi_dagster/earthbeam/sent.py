"""What an ODS has been sent of a bundle: the state by which Lightbeam skips records it need not send again.

Lightbeam keeps it as pickles in a folder, for ever, whatever happens to the ODS. Here it lies in the lake as JSON, per
(tenant, year, ODS, bundle, grain), so that every machine finds it, and it is dropped where the ODS went back in time. It
holds the records of the last run only: a record that another file has overwritten since must be sent again.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from edfi_dagster.config.earthbeam import LightbeamOptions
from edfi_dagster.earthbeam.errors import ToolFailed
from edfi_dagster.earthbeam.target import Target
from edfi_dagster.earthbeam.witnesses import Witness
from edfi_dagster.lake.store import LakeError, LakeStore
from edfi_dagster.ods.answers import NO_JSON
from edfi_dagster.ods.source import Ods

ACCEPTED = range(200, 300)
_CREATED = 201
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# What unpickling raises of bytes that are no pickle of plain values.
_NO_STATE = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError, OverflowError,
    MemoryError, RecursionError,
)  # fmt: skip
_CACHE_SECONDS = 24 * 3600.0
# Hash of a record's text → (Unix time, HTTP status) of its last sending: what Lightbeam pickles.
Entries = dict[bytes, tuple[float, int]]


class _Stored(msgspec.Struct, frozen=True):
    ods: str
    newest: int | None
    entries: dict[str, dict[str, tuple[float, int]]]
    witnesses: tuple[Witness, ...] = ()
    source: Ods | None = None

    def is_of(self, target: Target) -> bool:
        """One of an earlier version tells no source, and is taken for the target's."""
        return self.ods == target.identity and self.source in (None, target.source)


@dataclass(frozen=True)
class SentState:
    """A state folder for one run. ``cache`` is where documents of the ODS are remembered between runs on this machine."""

    folder: Path
    cache: Path | None = None

    def load(self, lake: LakeStore, path: str, target: Target, newest: int | None) -> bool:
        """Fill the folder from the lake. ``newest`` is the ODS's newest change version now, None where it tells none.

        False, with nothing filled in, where it was another ODS, or the ODS has gone back behind what it was sent.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not lake.exists(path):
            return True
        stored, found = _stored(lake, path)
        before = stored.newest or 0
        if not stored.is_of(target) or before > (before if newest is None else newest):
            return False
        for resource, entries in found.items():
            self._write(resource, entries)
        return True

    def save(
        self,
        lake: LakeStore,
        path: str,
        target: Target,
        newest: int | None,
        witnesses: tuple[Witness, ...] = (),
    ) -> None:
        """Keep the state in the lake, with a few of the records that the ODS accepted last."""
        entries = {
            resource: {key.hex(): entry for key, entry in self.entries(resource).items()}
            for resource in self._resources()
        }
        content = msgspec.json.encode(_Stored(target.identity, newest, entries, witnesses, target.source))
        with lake.writing(path) as stream:
            stream.write(zstandard.ZstdCompressor(level=1).compress(content))

    def entries(self, resource: str) -> Entries:
        """Raises ToolFailed where what Lightbeam left is not of the kind it always is."""
        file = self._file(resource)
        if not file.is_file():
            return {}
        try:
            return msgspec.convert(_PlainUnpickler(io.BytesIO(file.read_bytes())).load(), Entries)
        except _NO_STATE as error:
            raise ToolFailed(
                f"Lightbeam left a state of {resource} that cannot be read ({type(error).__name__}); see which version of "
                "lightbeam is installed, then run again"
            ) from None

    def statuses(self, resource: str) -> Mapping[bytes, int]:
        """Hash of a record's text → HTTP status of its last sending. A record refused with 400 is not in it."""
        return {key: status for key, (_, status) in self.entries(resource).items()}

    def forget_due(self, options: LightbeamOptions) -> None:
        """Drop what the options say must be sent again, so that what is left afterwards is the truth of this run."""
        older = _timestamp(options.older_than)
        newer = _timestamp(options.newer_than)

        def due(when: float, status: int) -> bool:
            return (
                options.force
                or status in options.resend_status_codes
                or (older is not None and when < older)
                or (newer is not None and when > newer)
            )

        for resource in self._resources():
            self._write(
                resource, {k: entry for k, entry in self.entries(resource).items() if not due(*entry)}
            )

    def keep_only(self, records: Path, resources: Iterable[str]) -> None:
        """Drop what is not among the records of this run."""
        for resource in resources:
            present = {record_hash(line) for line in record_lines(records, resource)}
            self._write(resource, {k: entry for k, entry in self.entries(resource).items() if k in present})

    def forget(self, resources: Iterable[str]) -> None:
        for resource in resources:
            self._file(resource).unlink(missing_ok=True)

    def accepted_since(self, moment: float) -> Mapping[str, Mapping[bytes, tuple[bool, float]]]:
        """Resource → hash → (whether the ODS had no such record before, when) of what it accepted since a Unix time."""
        found = {
            resource: {
                key: (status == _CREATED, when)
                for key, (when, status) in self.entries(resource).items()
                if when >= int(moment) and status in ACCEPTED
            }
            for resource in self._resources()
        }
        return {resource: entries for resource, entries in found.items() if entries}

    def _resources(self) -> list[str]:
        return sorted(file.stem for file in self.folder.glob("*.dat"))

    def _file(self, resource: str) -> Path:
        return self.folder / f"{resource}.dat"

    def _write(self, resource: str, entries: Entries) -> None:
        self._file(resource).write_bytes(pickle.dumps(entries))

    def take_cache(self) -> None:
        """Copy what is remembered and not older than a day; Lightbeam itself would believe it for a month."""
        own = self.folder / "cache"
        own.mkdir(exist_ok=True)
        for file in _files(self.cache):
            with suppress(OSError):  # another run is renewing it
                if time.time() - file.stat().st_mtime < _CACHE_SECONDS:
                    shutil.copy2(file, own / file.name)

    def keep_cache(self) -> None:
        """Remember what Lightbeam asked the ODS for, for the next run on this machine."""
        if self.cache is None:
            return
        # A machine whose disk is read-only or full asks the ODS each time.
        with suppress(OSError):
            self.cache.mkdir(parents=True, exist_ok=True)
            for file in _files(self.folder / "cache"):
                part = self.cache / f".{file.name}.{time.monotonic_ns()}"
                shutil.copy2(file, part)
                part.replace(self.cache / file.name)


def witnesses_of(lake: LakeStore, path: str, target: Target) -> tuple[Witness, ...]:
    """The witnesses that a state in the lake has of this ODS. Raises LakeError where the file is damaged."""
    if not lake.exists(path):
        return ()
    stored, _ = _stored(lake, path)
    return stored.witnesses if stored.is_of(target) else ()


def _stored(lake: LakeStore, path: str) -> tuple[_Stored, Mapping[str, Entries]]:
    """What was sent before, and its entries by resource. Raises LakeError where the file is damaged."""
    try:
        stored = msgspec.json.decode(zstandard.ZstdDecompressor().decompress(lake.read(path)), type=_Stored)
        found = {
            resource: {bytes.fromhex(key): entry for key, entry in entries.items()}
            for resource, entries in stored.entries.items()
        }
        if not all(map(_RESOURCE.fullmatch, found)):
            raise ValueError("no resource has such a name")
    except (*NO_JSON, ValueError, zstandard.ZstdError) as error:
        raise LakeError(
            f"{lake.uri(path)} cannot be read ({type(error).__name__}); restore it, or take it away and every record is "
            "sent again"
        ) from None
    return stored, found


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, bytes and containers; no pickle makes it call anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} has no place in it")


def record_hash(line: str) -> bytes:
    """The hash by which Lightbeam knows a record: MD5 of its line without the blanks around it."""
    return hashlib.md5(line.strip().encode(), usedforsecurity=False).digest()


def record_files(records: Path, resource: str) -> list[Path]:
    """The files of a resource's records, by Lightbeam's names for them."""
    places = (records / f"{resource}.{extension}" for extension in ("json", "jsonl", "ndjson"))
    return [file for file in places if file.is_file()]


def record_lines(records: Path, resource: str) -> Iterator[str]:
    for file in record_files(records, resource):
        with file.open(encoding="utf-8") as lines:
            yield from lines


def _files(folder: Path | None) -> list[Path]:
    """Descriptions of the API. Its descriptors are asked anew each time."""
    return list(folder.glob("swagger-*")) if folder else []


def _timestamp(moment: str | None) -> float | None:
    """Unix time of a configured moment. Raises ToolFailed for one that is none."""
    if moment is None:
        return None
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        raise ToolFailed(
            f"{moment!r} is no moment; write for example 2025-08-01 or 2025-08-01T06:00:00"
        ) from None
