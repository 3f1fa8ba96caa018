"""What the lake remembers of each file sent to Runway, so that none is sent twice.

_earthbeam/runway/<tenant>/<year>/<fingerprint>.json                 the job, and how far it came
_earthbeam/runway/<tenant>/<year>/<fingerprint>.sending/<since>_…    who sends the file right now
_restricted/_earthbeam/runway/<tenant>/<year>/<fingerprint>.json     where its files go, until they are there
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.earthbeam.runway_client import NewJob, OutputSet
from edfi_dagster.earthbeam.runway_errors import RunwayError
from edfi_dagster.lake import paths
from edfi_dagster.lake.store import RESTRICTED, LakeStore
from edfi_dagster.ods.answers import NO_JSON

_CHUNK = 1 << 20
_SINCE = "%Y%m%dT%H%M%S"
# The addresses to upload to are good for one hour.
_LONGEST_SENDING = timedelta(hours=2)


class Remembered(msgspec.Struct, frozen=True):
    """A job and how far it came. Without ``uid`` it was asked for, and no answer was kept."""

    bundle: str
    files: dict[str, str]
    asked_at: datetime
    uid: str | None = None
    is_uploaded: bool = False
    start_asked_at: datetime | None = None
    started_at: datetime | None = None
    output_set: OutputSet | None = None


class _Addresses(msgspec.Struct, frozen=True):
    uid: str
    upload_urls: dict[str, str]


def this_machine() -> str:
    """A name that no other machine, or container, has."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", f"{socket.gethostname()}-{uuid.getnode():x}")


class RunwayMemory:
    """What is remembered of one job, by its fingerprint. Raises LakeError."""

    def __init__(
        self, lake: LakeStore, pair: TenantYear, fingerprint: str, *, machine: str | None = None
    ) -> None:
        self._lake = lake
        self._machine = machine or this_machine()
        self._path = f"_earthbeam/runway/{paths.pair_folder(pair)}/{fingerprint}.json"
        self._secret_path = f"{RESTRICTED}/{self._path}"

    @contextmanager
    def sending(self, *, force: bool = False) -> Iterator[None]:
        """Keep other machines from sending the file meanwhile; those of this one take turns by a lock. Raises RunwayError.

        A lake cannot write only what is not there yet. So whoever sends says so first, and looks then whether anybody else
        did: of two at once at least one sees the other and steps back. What a machine that died has said counts for two hours.
        """
        folder = f"{self._path.removesuffix('.json')}.sending"
        own = f"{folder}/{datetime.now(UTC):{_SINCE}}_{self._machine}_{uuid.uuid4().hex[:8]}"
        with self._lake.writing(own):
            pass
        try:
            others = [] if force else list(self._others(folder))
            if others:
                since, machine = min(others)
                raise RunwayError(
                    f"{machine} has been sending this file since {since:%H:%M} UTC; if that run is gone, send it after "
                    f"{since + _LONGEST_SENDING:%H:%M} UTC, or with force: true"
                )
            yield
        finally:
            self._lake.delete(own)

    def _others(self, folder: str) -> Iterator[tuple[datetime, str]]:
        oldest = datetime.now(UTC) - _LONGEST_SENDING
        for name in self._lake.children(folder):
            said, machine, _ = name.split("_")
            since = datetime.strptime(said, _SINCE).replace(tzinfo=UTC)
            if machine != self._machine and since > oldest:
                yield since, machine

    def read(self) -> Remembered | None:
        """None where nothing is. One whose answer was kept, but not noted, has its ``uid`` again. Raises RunwayError."""
        if not self._lake.exists(self._path):
            return None
        try:
            found = msgspec.json.decode(self._lake.read(self._path), type=Remembered)
        except NO_JSON:
            raise RunwayError(
                f"what the lake remembers of this file, {self._path}, cannot be read; look in Runway whether it was sent, "
                "and if not, send it with force: true"
            ) from None
        if found.uid is None and (job := self.addresses()):
            found = msgspec.structs.replace(found, uid=job.uid)
        return found

    def note(self, remembered: Remembered) -> Remembered:
        with self._lake.writing(self._path) as stream:
            stream.write(msgspec.json.encode(remembered))
        return remembered

    def forget(self) -> None:
        self.drop_addresses()
        self._lake.delete(self._path)

    def addresses(self) -> NewJob | None:
        if not self._lake.exists(self._secret_path):
            return None
        found = msgspec.json.decode(self._lake.read(self._secret_path), type=_Addresses)
        return NewJob(found.uid, found.upload_urls)

    def keep_addresses(self, job: NewJob) -> None:
        with self._lake.writing(self._secret_path) as stream:
            stream.write(msgspec.json.encode(_Addresses(job.uid, dict(job.upload_urls))))

    def drop_addresses(self) -> None:
        self._lake.delete(self._secret_path)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def fingerprint(named: Mapping[str, str], params: Mapping[str, str], digests: Mapping[str, str]) -> str:
    """One text for one job: who, where and which bundle, parameters, and the files' contents, not their names."""
    parts = [sorted(named.items()), sorted(params.items()), sorted(digests.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]
