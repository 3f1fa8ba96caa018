"""What is read back is what was written: a file is loaded only while its sha256 is the one its manifest lists.

Local files, and the copies of remote ones, are hashed before the block that reads them; their place, size and times must
be the same after it. Where a warehouse reads the lake itself, nothing is copied: the store tells the sha256 before and
after. A store knows an object by its ETag, so the second question, and the first one for an object that this process
sent (each part of which the service checked by MD5), is one request without the content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edfi_dagster.lake.manifest import PulledFile
from edfi_dagster.lake.store import LakeError, LakeStore

_HASHED_AT_ONCE = 8
_REMEDY = "restore it from a backup, or run this endpoint again with full_refresh"
_Mark = tuple[int, int, int, int]


class DamagedFile(LakeError):
    """A file of the lake is missing, or is not the one its manifest lists. ``path`` is below the lake's root."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path

    def of(self, label: str) -> DamagedFile:
        """The same, with tenant, year and endpoint in front."""
        return DamagedFile(f"{label}: {self}", self.path)


@contextmanager
def local_copies(lake: LakeStore, files: Sequence[PulledFile]) -> Iterator[list[Path]]:
    """The files on this machine's disk, as ``LakeStore.local_files`` has them, for as long as the block lasts.

    Raises DamagedFile where one is not what its manifest lists, or was replaced while the block read it; LakeError.
    """
    with ExitStack() as stack:
        with _explained(lake, files), ThreadPoolExecutor(_HASHED_AT_ONCE, "hash") as threads:
            places = stack.enter_context(lake.local_files([file.path for file in files]))
            marks = list(threads.map(_checked, [lake] * len(files), files, places))
        yield places
        with _explained(lake, files):
            for file, place, mark in zip(files, places, marks, strict=True):
                if _mark(place) != mark:
                    raise _changed(lake, file)


@contextmanager
def unchanged(lake: LakeStore, files: Sequence[PulledFile]) -> Iterator[None]:
    """For a block in which somebody else reads the files where they lie. Raises DamagedFile, LakeError."""
    check(lake, files)
    yield
    check(lake, files)


def check(lake: LakeStore, files: Sequence[PulledFile]) -> None:
    """Raises DamagedFile where a file is not what its manifest lists; LakeError where it cannot be read."""
    with _explained(lake, files), ThreadPoolExecutor(_HASHED_AT_ONCE, "hash") as threads:
        digests = threads.map(lake.digest, [file.path for file in files])
        for file, digest in zip(files, digests, strict=True):
            if digest != file.sha256:
                raise _changed(lake, file)


def _checked(lake: LakeStore, file: PulledFile, place: Path) -> _Mark:
    """The mark of a file whose content is what its manifest lists."""
    mark = _mark(place)
    with place.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
            raise _changed(lake, file)
    return mark


def _mark(place: Path) -> _Mark:
    """Tells a file from one that takes its place."""
    found = place.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def _explained(lake: LakeStore, files: Sequence[PulledFile]) -> Iterator[None]:
    """Raises DamagedFile in the place of an error whose reason is that a file is missing, LakeError for any other."""
    try:
        yield
    except DamagedFile:
        raise
    except (LakeError, OSError) as error:
        for file in files:
            if not lake.exists(file.path):
                raise DamagedFile(f"{lake.uri(file.path)} is missing; {_REMEDY}", file.path) from None
        if isinstance(error, LakeError):
            raise
        raise LakeError(
            f"lake {lake.uri('')}: {error.strerror} while its files are read; check the disk"
        ) from error


def _changed(lake: LakeStore, file: PulledFile) -> DamagedFile:
    uri = lake.uri(file.path)
    return DamagedFile(
        f"{uri} is not the file that its manifest lists (sha256 differs); {_REMEDY}", file.path
    )
