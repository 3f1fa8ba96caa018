"""Where the lake lies. Another object store is one more class with these nine methods."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from edfi_dagster.config.lake import Lake

# Rows of students who were not recognised, and the like: on a local lake, for nobody but its owner.
RESTRICTED = "_restricted"


class LakeError(Exception):
    """The lake could not be read or written; the message names the path and what to look at."""


class LakeStore(Protocol):
    """Files under one root, addressed by relative paths with ``/``. Every method raises LakeError."""

    def writing(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A stream to ``path``: the file is there, whole and durable, once the block ends without an error."""
        ...

    def read(self, path: str) -> bytes: ...

    def digest(self, path: str) -> str:
        """The sha256 of the file's bytes as they are now, in hex.

        A store that can tell an object's version need not read again what this process has read or written.
        """
        ...

    def exists(self, path: str) -> bool: ...

    def children(self, folder: str) -> list[str]:
        """Names of the folders and files directly in ``folder``, sorted; none where there is no such folder."""
        ...

    def delete(self, path: str) -> None:
        """Delete one file; no error where there is none."""
        ...

    def uri(self, path: str) -> str:
        """What a warehouse or a person opens the file by."""
        ...

    def local_files(self, paths: Sequence[str]) -> AbstractContextManager[list[Path]]:
        """The files on this machine's disk, in the same order, for as long as the block lasts.

        A lake elsewhere copies them, compressed as they are, and takes the copies away at the end; nobody writes to them.
        """
        ...

    def check_writable(self) -> None: ...


def below_root(path: str) -> PurePosixPath:
    """``path``, if it leads nowhere but below the lake's root. Raises LakeError."""
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or "\0" in path:
        raise LakeError(f"{path!r} would lie outside the lake")
    return relative


class LocalLake:
    """A folder on this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        target = self._path(path)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        with self._explained(path):
            if below_root(path).parts[0] == RESTRICTED:
                (self._root / RESTRICTED).mkdir(mode=0o700, parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as stream:
                    yield stream
                    stream.flush()
                    os.fsync(stream.fileno())
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

    def read(self, path: str) -> bytes:
        with self._explained(path):
            return self._path(path).read_bytes()

    def digest(self, path: str) -> str:
        with self._explained(path), self._path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def exists(self, path: str) -> bool:
        return self._path(path).is_file()

    def children(self, folder: str) -> list[str]:
        with self._explained(folder):
            try:
                return sorted(e.name for e in self._path(folder).iterdir() if not e.name.startswith("."))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def delete(self, path: str) -> None:
        with self._explained(path):
            self._path(path).unlink(missing_ok=True)

    def uri(self, path: str) -> str:
        return str(self._path(path))

    @contextmanager
    def local_files(self, paths: Sequence[str]) -> Iterator[list[Path]]:
        yield [self._path(path) for path in paths]

    def check_writable(self) -> None:
        with self.writing(".check") as stream:
            stream.write(b"")
        self.delete(".check")

    def _path(self, path: str) -> Path:
        return self._root / below_root(path)

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LakeError(
                f"lake {self._root}: {error.strerror or type(error).__name__} at {path}; "
                "check that the folder is writable and has room"
            ) from error


def open_lake(config: Lake, tmp_dir: Path | None = None) -> LakeStore:
    """The store of a ``lake:`` block; nothing is contacted yet. ``tmp_dir`` takes the copies of ``local_files``."""
    if config.kind == "local":
        return LocalLake(config.root)
    from edfi_dagster.lake.s3 import S3Lake  # boto3 takes long to load, and a local lake does without

    return S3Lake(config, tmp_dir)
