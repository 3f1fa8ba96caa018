"""Endpoint and window → files and manifest: the pull, with its proof of completeness.

A pull is complete when the API said the end and the distinct ids read are at least the Total-Count asked
after the walk for the same window; what lacks is read again, three times at the most. A full pull ends with
a closing walk above ``newest``, because a row updated or re-created during the first walk has left its window.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from gzip import GzipFile
from typing import BinaryIO, Protocol, cast

import msgspec
import zstandard

from edfi_dagster.config import TenantYear
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest, PulledFile, write_manifest
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.ods.changes import ChangeWindow, closing_window, whole_window
from edfi_dagster.ods.errors import IncompletePull
from edfi_dagster.ods.pages import KEY_CHANGES, Collection, Page

MOST_REPULLS = 3


@dataclass(frozen=True)
class PullRun:
    """What every pull of one run shares: where it goes, its stamp, and what the ODS said of itself."""

    lake: LakeStore
    pair: TenantYear
    stamp: datetime
    newest: int
    ods_version: str
    data_model_version: str
    threads: int
    compression: str = "zstd"


class NewKey(msgspec.Struct, rename={"change_version": "changeVersion", "values": "newKeyValues"}):
    """What a key-change row says of its record: the flat names and values of its new natural key."""

    id: str
    change_version: int
    values: dict[str, msgspec.Raw] = {}


class Pull:
    """One pull in the making. It exists for nobody else until ``publish`` has written its manifest."""

    def __init__(self, run: PullRun, collection: Collection, table: str) -> None:
        self.collection = collection
        self.ids: set[str] = set()
        self.new_keys: dict[str, NewKey] = {}
        self.gone: tuple[str, ...] = ()
        self._changes: set[tuple[str, int]] = set()
        self.window = ChangeWindow(0)
        self.expected = 0
        self.full = False
        self._run = run
        self._table = table
        self._folder = paths.pull_folder(run.pair, run.stamp, collection.endpoint, collection.kind)
        self._files: dict[int, PulledFile] = {}
        self._parts = 0
        self._lock = threading.Lock()
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()

    # -- the three ways to read ----------------------------------------------------------------------

    def read_delta(self, window: ChangeWindow) -> None:
        """Records of a window. One request where there are none."""
        self.window = window
        self._read_complete(window)

    def read_full(self) -> None:
        """All records: the walk of ``[0, newest]``, proven, then the closing walk above it."""
        self.full = True
        self.window = whole_window(self._run.newest)
        self._read_complete(self.window)
        self._read_closing()

    def read_changes(self, window: ChangeWindow) -> None:
        """Deletes or key changes of a window."""
        self.window = window
        for attempt in range(MOST_REPULLS + 1):
            totals: list[int] = []
            self._write(_noting(self.collection.changes(window), totals))
            # A single page carries the count of its own instant; more pages need one from after the walk.
            alone = len(totals) <= 1 and not attempt
            self.expected = sum(totals) if alone else self.collection.count(window)
            if len(self._changes) >= self.expected:
                return
        raise self._incomplete(window, self._changes)

    def add(self, records: Iterable[tuple[str, bytes]]) -> None:
        """More records, (id, row) each, read by their ids after all the others."""
        self._write(Page([row], [record_id]) for record_id, row in records)

    def publish(self, low: int | None) -> Manifest | None:
        """Write the manifest, which makes the pull exist; None where a delta brought nothing."""
        if not self._files and not self.full:
            return None
        endpoint, run = self.collection.endpoint, self._run
        manifest = Manifest(
            tenant=run.pair.tenant,
            year=run.pair.year,
            namespace=endpoint.namespace,
            endpoint=endpoint.name,
            name=endpoint.snake,
            kind=self.collection.kind,
            table=self._table,
            full=self.full,
            files=tuple(self._files[part] for part in sorted(self._files)),
            rows=len(self.ids),
            expected_rows=self.expected,
            min_change_version=self.window.low or 0,
            max_change_version=self.window.high,
            low=low,
            newest=run.newest,
            ods_version=run.ods_version,
            data_model_version=run.data_model_version,
            pull_timestamp=run.stamp,
            started_at=self._started,
            seconds=round(time.monotonic() - self._clock, 3),
            requests=self.collection.tally.requests,
            retries=self.collection.tally.retries,
            key=dict(endpoint.key),
            gone=self.gone,
        )
        write_manifest(run.lake, paths.manifest_path(self._folder, endpoint.snake), manifest)
        return manifest

    def abandon(self) -> None:
        """Take away what was written; without a manifest it would not count anyway."""
        for file in self._files.values():
            self._run.lake.delete(file.path)
        self._files.clear()

    # -- walks ---------------------------------------------------------------------------------------

    def _read_complete(self, window: ChangeWindow) -> None:
        for attempt in range(MOST_REPULLS + 1):
            first = self.collection.first_page(window)
            if not attempt and not first.rows and not first.total:
                return
            self._walk(window, first)
            self.expected = self.collection.count(window)
            if len(self.ids) >= self.expected:
                return
        raise self._incomplete(window, self.ids)

    def _read_closing(self) -> None:
        window = closing_window(self._run.newest)
        for _ in range(MOST_REPULLS + 1):
            first = self.collection.first_page(window)
            if not first.rows and not first.total:
                return
            before, self.ids = self.ids, set()
            self._walk(window, first)
            closing, self.ids = self.ids, before | self.ids
            if len(closing) >= (first.total or 0):
                return
        raise self._incomplete(window, self.ids)

    def _walk(self, window: ChangeWindow, first: Page) -> None:
        """Read a window once: from the first page on, or its partitions side by side where it is large."""
        total = first.total or 0
        if total <= 2 * self.collection.page_size:
            self._write(_from(first, self.collection.follow(window, first.next_token)))
            return
        tokens = self.collection.partitions(window, total)
        with ThreadPoolExecutor(min(len(tokens), self._run.threads) or 1) as threads:
            walks = [threads.submit(self._write, self.collection.follow(window, token)) for token in tokens]
            for walk in walks:
                walk.result()

    def _write(self, pages: Iterable[Page]) -> None:
        """Write pages into one part of their own."""
        with self._lock:
            part = self._parts
            self._parts += 1
        filled = (page for page in pages if page.rows)
        first = next(filled, None)
        if first is None:
            return
        name = self.collection.endpoint.snake
        path = paths.part_path(self._folder, name, part, self._run.compression)
        written = _Written()
        with (
            self._run.lake.writing(path) as stream,
            written.compressing(stream, self._run.compression) as out,
        ):
            for page in _from(first, filled):
                out.write(b"\n".join(page.rows) + b"\n")
                written.rows += len(page.rows)
                with self._lock:
                    self.ids.update(page.ids)
                    self._changes.update(zip(page.ids, page.change_versions, strict=False))
                    if self.collection.kind == KEY_CHANGES:
                        self.new_keys |= {key.id: key for key in map(_new_key, page.rows)}
        file = PulledFile(path=path, rows=written.rows, bytes=written.size, sha256=written.digest)
        with self._lock:
            self._files[part] = file

    def _incomplete(self, window: ChangeWindow, read: Sized) -> IncompletePull:
        return IncompletePull(
            f"{len(read)} distinct records read, the ODS counts {self.expected} between change versions "
            f"{window.low} and {window.high if window.high is not None else 'now'}, after {MOST_REPULLS} re-pulls",
            pair=self._run.pair,
            endpoint=self.collection.label,
        )


def _from(first: Page, rest: Iterable[Page]) -> Iterator[Page]:
    yield first
    yield from rest


def _noting(pages: Iterable[Page], totals: list[int]) -> Iterator[Page]:
    for page in pages:
        totals.append(page.total or 0)
        yield page


_new_key = msgspec.json.Decoder(NewKey).decode


class _Output(Protocol):
    def write(self, data: bytes, /) -> int: ...


class _Written:
    """Counts and hashes the bytes on their way to the store."""

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
        """The store flushes when the part is closed."""

    @contextmanager
    def compressing(self, stream: BinaryIO, compression: str) -> Iterator[_Output]:
        self._stream = stream
        if compression == "gzip":
            with GzipFile(fileobj=self, mode="wb", compresslevel=1, mtime=0) as out:
                yield out
        else:
            with zstandard.ZstdCompressor(level=1).stream_writer(cast(BinaryIO, self), closefd=False) as out:
                yield out
