"""Bytes on their way into the lake: compressed, counted and hashed as they pass."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import GzipFile
from typing import BinaryIO, cast

import zstandard


class Written:
    """Counts and hashes what reaches the store. ``rows`` is for whoever writes them."""

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._stream: BinaryIO | None = None

    @property
    def digest(self) -> str:
        return self._sha256.hexdigest()

    def write(self, data: bytes) -> int:
        assert self._stream is not None
        self._sha256.update(data)
        self.size += len(data)
        return self._stream.write(data)

    def flush(self) -> None:
        """The store flushes when the file is closed."""

    @contextmanager
    def compressing(self, stream: BinaryIO, compression: str) -> Iterator[BinaryIO]:
        """A stream whose content reaches ``stream`` compressed (zstd or gzip), at the level that is fastest."""
        self._stream = stream
        if compression == "gzip":
            with GzipFile(fileobj=self, mode="wb", compresslevel=1, mtime=0) as out:
                yield cast(BinaryIO, out)
        else:
            with zstandard.ZstdCompressor(level=1).stream_writer(cast(BinaryIO, self), closefd=False) as out:
                yield cast(BinaryIO, out)


def decompressed(stored: BinaryIO, path: str) -> BinaryIO:
    """The content of a file of the lake; ``path`` tells by its end how it is compressed."""
    if path.endswith(".gz"):
        return cast(BinaryIO, GzipFile(fileobj=stored))
    return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(stored))
