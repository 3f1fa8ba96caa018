"""What the lake remembers of each file sent to Runway, so that none is sent twice.

_earthbeam/runway/<tenant>/<year>/<fingerprint>.json                 the job, and how far it came
_restricted/_earthbeam/runway/<tenant>/<year>/<fingerprint>.json     where its files go, until they are there
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.earthbeam.runway_client import NewJob, OutputSet
from edfi_dagster.earthbeam.runway_errors import RunwayError
from edfi_dagster.lake import paths
from edfi_dagster.lake.store import LakeStore

_CHUNK = 1 << 20


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


class RunwayMemory:
    """What is remembered of one job, by its fingerprint. Raises LakeError."""

    def __init__(self, lake: LakeStore, pair: TenantYear, fingerprint: str) -> None:
        self._lake = lake
        self._path = f"_earthbeam/runway/{paths.pair_folder(pair)}/{fingerprint}.json"
        self._secret_path = f"_restricted/{self._path}"

    def read(self) -> Remembered | None:
        """None where nothing is. One whose answer was kept, but not noted, has its ``uid`` again. Raises RunwayError."""
        if not self._lake.exists(self._path):
            return None
        try:
            found = msgspec.json.decode(self._lake.read(self._path), type=Remembered)
        except msgspec.DecodeError:
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
