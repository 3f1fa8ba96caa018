"""Where the lake keeps what bundles read and write.

<tenant>/<year>/<YYYYMMDD>/<YYYYMMDDTHHMMSS>/earthbeam/<bundle>[__<grain>]/<fingerprint>/raw|transformed/<file>.zst
<tenant>/<year>/<YYYYMMDD>/<YYYYMMDDTHHMMSS>/sideload/<name>.jsonl.zst and <name>.manifest.json
_restricted/<tenant>/<year>/…                rows of students who were not recognised: give this to few
_earthbeam/<tenant>/<year>/<bundle>[__<grain>]/      what was done last, and what the ODS has been sent
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.config.earthbeam import grain_piece
from edfi_dagster.earthbeam.errors import EarthbeamError
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import PulledFile
from edfi_dagster.lake.store import RESTRICTED, LakeStore
from edfi_dagster.lake.written import Written
from edfi_dagster.ods.answers import NO_JSON
from edfi_dagster.ods.source import Ods

_SUFFIXES = {"zstd": ".zst", "gzip": ".gz"}
_CHUNK = 1 << 20


class Done(msgspec.Struct, frozen=True):
    """What a bundle's last complete run was of, and the files it left. ``newest`` is the ODS's change version after it,
    ``loaded`` the names and stamps of what it loaded straight into raw tables, ``source`` the ODS it was sent to.
    """

    fingerprint: str
    archived: tuple[str, ...]
    newest: int | None
    at: datetime
    loaded: dict[str, datetime] = {}
    source: Ods | None = None


@dataclass(frozen=True)
class Archive:
    """The lake as one run of a bundle sees it."""

    lake: LakeStore
    pair: TenantYear
    bundle: str
    grain: str | None
    compression: str

    @property
    def name(self) -> str:
        """``psat_sat__PSAT_10``: the bundle and grain in names of paths, tables' rows and match rates."""
        return self.bundle if self.grain is None else f"{self.bundle}__{grain_piece(self.grain)}"

    @property
    def state(self) -> str:
        return f"_earthbeam/{paths.pair_folder(self.pair)}/{self.name}"

    def folder(self, stamp: datetime, fingerprint: str) -> str:
        return f"{paths.run_folder(self.pair, stamp)}/earthbeam/{self.name}/{fingerprint[:12]}"

    def keep(self, file: Path, folder: str) -> str:
        """Store a file as it is, compressed; its path below the lake's root."""
        path = f"{folder}/{file.name}{_SUFFIXES[self.compression]}"
        with (
            self.lake.writing(path) as stream,
            Written().compressing(stream, self.compression) as out,
            file.open("rb") as source,
        ):
            shutil.copyfileobj(source, out, _CHUNK)
        return path

    def keep_restricted(self, file: Path, stamp: datetime, fingerprint: str) -> str:
        """Store rows of students who were not recognised, apart from all else."""
        return self.keep(file, f"{RESTRICTED}/{self.folder(stamp, fingerprint)}")

    def keep_records(self, file: Path, path: str) -> PulledFile:
        """Store records one a line, without blanks around them. Raises EarthbeamError for a line that is no JSON."""
        written = Written()
        with (
            file.open("rb") as lines,
            self.lake.writing(path) as stream,
            written.compressing(stream, self.compression) as out,
        ):
            for number, line in enumerate(lines, 1):
                record = line.strip()
                if record:
                    _check_record(record, file, number)
                    out.write(record + b"\n")
                    written.rows += 1
        return PulledFile(path, written.rows, written.size, written.digest)

    def last_done(self) -> Done | None:
        """None where there is none, or where one of its files is gone."""
        path = f"{self.state}/done.json"
        if not self.lake.exists(path):
            return None
        try:
            done = msgspec.json.decode(self.lake.read(path), type=Done)
        except NO_JSON:
            return None
        return done if all(map(self.lake.exists, done.archived)) else None

    def note_done(self, done: Done) -> None:
        with self.lake.writing(f"{self.state}/done.json") as stream:
            stream.write(msgspec.json.encode(done))

    def forget_done(self) -> None:
        self.lake.delete(f"{self.state}/done.json")


def _check_record(record: bytes, file: Path, number: int) -> None:
    try:
        found = msgspec.json.decode(record, type=msgspec.Raw)
    except NO_JSON:
        found = None
    if found is None or not record.startswith(b"{"):
        raise EarthbeamError(
            f"{file.name}, line {number}: is no JSON object; correct the bundle's template of it"
        )
