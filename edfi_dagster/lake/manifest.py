"""Manifests: the proof and the table of contents of a pull. A file that no manifest lists does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.lake import paths
from edfi_dagster.lake.sealed import read_sealed, write_sealed
from edfi_dagster.lake.store import LakeError, LakeStore
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import RecordKind
from edfi_dagster.ods.source import Source

_READ_AT_ONCE = 8
_MANIFEST = ".manifest.json"
# What may be a file of a pull: nothing that a warehouse would read as a pattern.
_FILE = re.compile(r"[A-Za-z0-9_.=/-]+\.jsonl\.(zst|gz)")


class PulledFile(msgspec.Struct, frozen=True):
    """One file of a pull: path below the lake's root, rows, bytes as stored, sha256 of those bytes (hex).

    ``repaired`` is the file that a warehouse loads instead, where this one holds records that are not strict JSON.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    repaired: PulledFile | None = None

    @property
    def loadable(self) -> PulledFile:
        """The file that a warehouse loads: the same rows, line by line."""
        return self.repaired or self


class Manifest(msgspec.Struct, frozen=True):
    """One pull of one endpoint and kind.

    ``rows`` counts distinct ids, ``expected_rows`` what the ODS counted in the window; change versions are inclusive.
    ``low`` is the watermark the pull started from (None: there was none), ``newest`` the one its load commits (None: the
    pull did without change versions).
    ``files`` is in reading order: of one id the last read is the right one. ``key`` is the natural key the pull knew
    (flat name → JSON path), so that a rebuild need not ask the ODS for that of an extension. ``gone`` are ids
    that the ODS no longer has, as it said when it was asked for them, though it may hide their tombstones because their
    key lives again; without it a load could not tell, and a rebuild would not leave the same rows.
    ``odd_rows`` counts the records that are not strict JSON, ``odd`` are the ids of the first of them.
    ``source`` is where the rows come from; None in a sideload, and in manifests older than this field.
    """

    tenant: str
    year: int
    namespace: str
    endpoint: str
    name: str
    kind: RecordKind
    table: str
    full: bool
    files: tuple[PulledFile, ...]
    rows: int
    expected_rows: int
    min_change_version: int
    max_change_version: int | None
    low: int | None
    newest: int | None
    ods_version: str
    data_model_version: str
    pull_timestamp: datetime
    started_at: datetime
    seconds: float
    requests: int
    retries: int
    key: dict[str, str] = {}
    gone: tuple[str, ...] = ()
    odd_rows: int = 0
    odd: tuple[str, ...] = ()
    source: Source | None = None

    @property
    def pair(self) -> TenantYear:
        return TenantYear(self.tenant, self.year)

    @property
    def path(self) -> str:
        """``ed-fi/students``."""
        return f"{self.namespace}/{self.endpoint}"

    @property
    def paths(self) -> list[str]:
        """Of the files that a warehouse loads."""
        return [file.loadable.path for file in self.files]

    @property
    def free_part(self) -> int:
        """The number of a part that no file of the pull has."""
        pieces = (file.path.rpartition("/")[2].split(".") for file in self.files)
        numbers = ([int(piece) for piece in of_file if piece.isdecimal()] for of_file in pieces)
        return 1 + max((found[0] if found else 0 for found in numbers), default=-1)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def latest_manifest(
    store: LakeStore, pair: TenantYear, endpoint: Endpoint, kind: RecordKind
) -> Manifest | None:
    """The manifest of the last pull of an endpoint that left one. Raises LakeError for one that cannot be read."""
    for stamp in reversed(stamps(store, pair)):
        path = paths.manifest_path(paths.pull_folder(pair, stamp, endpoint, kind), endpoint.snake)
        if store.exists(path):
            return read_manifest(store, path)
    return None


def discard(store: LakeStore, endpoint: Endpoint, manifest: Manifest) -> None:
    """Take a pull away: first its manifest, so that no half of it is ever found."""
    folder = paths.pull_folder(manifest.pair, manifest.pull_timestamp, endpoint, manifest.kind)
    store.delete(paths.manifest_path(folder, manifest.name))
    for file in manifest.files:
        for stored in {file.path, file.loadable.path}:
            store.delete(stored)


def write_manifest(store: LakeStore, path: str, manifest: Manifest) -> None:
    write_sealed(store, path, manifest)


def read_manifest(store: LakeStore, path: str) -> Manifest:
    """The manifest at ``path``. Raises LakeError where it is missing, was edited, is no manifest or one of another place."""
    manifest = read_sealed(
        store,
        path,
        Manifest,
        what="manifest",
        remedy="restore the file, or take it away and run its endpoint again with full_refresh",
    )
    if not _lies_where_it_says(manifest, path):
        raise LakeError(
            f"{store.uri(path)} tells of another tenant, year, run or folder than it lies in; put the file back where it "
            "came from, or take it away and run its endpoint again with full_refresh"
        )
    return manifest


def _lies_where_it_says(manifest: Manifest, path: str) -> bool:
    """Whether a manifest is of the pair, the run and the name of its path, and lists files beside it only.

    Files may be copied, and lakes edited; by no such accident may one tenant's records become another's.
    """
    folder = path.rpartition("/")[0]
    run = paths.run_folder(manifest.pair, manifest.pull_timestamp)
    return (
        folder.startswith(f"{run}/")
        and path == paths.manifest_path(folder, manifest.name)
        and all(
            file.path.rpartition("/")[0] == folder
            and _FILE.fullmatch(file.path)
            and file.loadable.path in {file.path, paths.repaired_path(file.path)}
            for file in manifest.files
        )
    )


def stamps(store: LakeStore, pair: TenantYear) -> list[datetime]:
    """The stamps of every run that left anything for this pair, oldest first."""
    folder = paths.pair_folder(pair)
    found = (
        paths.parse_stamp(stamp)
        for day in store.children(folder)
        for stamp in store.children(f"{folder}/{day}")
    )
    return sorted(stamp for stamp in found if stamp)


def latest_stamp(store: LakeStore, pair: TenantYear) -> datetime | None:
    """The newest stamp of the pair, by two listings however long the history is."""
    folder = paths.pair_folder(pair)
    for day in reversed(store.children(folder)):
        found = [s for s in map(paths.parse_stamp, store.children(f"{folder}/{day}")) if s]
        if found:
            return max(found)
    return None


def manifests(store: LakeStore, pair: TenantYear, stamp: datetime) -> Iterator[Manifest]:
    """Every manifest of one run. Raises LakeError for one that cannot be read."""
    for _, found in manifests_by_name(store, pair, stamp):
        if isinstance(found, LakeError):
            raise found
        yield found


def manifests_by_name(
    store: LakeStore, pair: TenantYear, stamp: datetime
) -> Iterator[tuple[str, Manifest | LakeError]]:
    """(name, manifest) of one run, or why a manifest cannot be read.

    Several are read side by side: a lake far away takes its time for each.
    """
    run = paths.run_folder(pair, stamp)
    found = [
        f"{run}/{folder}/{name}"
        for folder in store.children(run)
        for name in store.children(f"{run}/{folder}")
        if name.endswith(_MANIFEST)
    ]

    def read(path: str) -> tuple[str, Manifest | LakeError]:
        name = path.rpartition("/")[2].removesuffix(_MANIFEST)
        try:
            return name, read_manifest(store, path)
        except LakeError as error:
            return name, error

    with ThreadPoolExecutor(_READ_AT_ONCE, "manifests") as reading:
        yield from reading.map(read, found)
