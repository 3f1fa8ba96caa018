"""Endpoint and window → files and manifest: the pull, with its proof of completeness.

A pull is complete when the API said the end and the distinct ids read are at least the Total-Count asked
after the walk for the same window; what lacks is read again, three times at the most. A full pull ends with
a closing walk above ``newest``, because a row updated or re-created during the first walk has left its window.
Without change versions nothing tells what changed meanwhile: there the counts before and after must agree.
What an ODS counts several times is in ``repeats``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.lake import paths
from edfi_dagster.lake.ids import DistinctIds
from edfi_dagster.lake.manifest import Manifest, PulledFile, write_manifest
from edfi_dagster.lake.odd_rows import OddRows, with_repaired
from edfi_dagster.lake.repeats import Repeats, Walked
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.lake.written import Written
from edfi_dagster.ods.changes import EVERYTHING, ChangeWindow, closing_window, whole_window
from edfi_dagster.ods.errors import IncompletePull, NotOffered, NotPermitted
from edfi_dagster.ods.odd import loadable
from edfi_dagster.ods.pagers import change_walk, record_walks
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, Collection, Page
from edfi_dagster.ods.rows import lines_of
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.ods.source import Source

MOST_REPULLS = 3
# Ids of tombstones that a pull keeps in memory, to within a page.
MOST_TOMBSTONES = 10_000


@dataclass(frozen=True)
class PullRun:
    """What every pull of one run shares: where it goes, its stamp, and what the ODS said of itself.

    ``newest`` is None where the run does without change versions. ``tmp_dir`` takes the ids of large pulls.
    """

    lake: LakeStore
    pair: TenantYear
    stamp: datetime
    newest: int | None
    ods_version: str
    data_model_version: str
    threads: int
    compression: str = "zstd"
    tmp_dir: Path | None = None


def newest_to_read(session: OdsSession) -> int | None:
    """The change version up to which a run reads; None where it must do without. Asked before the first page.

    Raises OdsNotReady where the ODS does not publish it, or has not the snapshot that should be read.
    """
    extract = session.settings.extract
    if extract.use_snapshot:
        session.start_snapshot()
    if not extract.use_change_version or not session.abilities.change_versions:
        return None
    return session.newest_change_version()


class NewKey(msgspec.Struct, rename={"change_version": "changeVersion", "values": "newKeyValues"}):
    """What a key-change row says of its record: the flat names and values of its new natural key."""

    id: str
    change_version: int
    values: dict[str, msgspec.Raw] = {}


class Pull:
    """One pull in the making. It exists for nobody else until ``publish`` has written its manifest."""

    def __init__(self, run: PullRun, collection: Collection, table: str, *, first_part: int = 0) -> None:
        self.collection = collection
        self.ids = DistinctIds(run.tmp_dir)
        self.new_keys: dict[str, NewKey] = {}
        self.tombstones: set[str] = set()
        self.gone: tuple[str, ...] = ()
        # What somebody should know of it, a sentence each.
        self.warnings: list[str] = []
        self._odd = OddRows()
        self._changes = DistinctIds(run.tmp_dir)
        self.window = ChangeWindow(0)
        self.expected = 0
        self.full = False
        self._run = run
        self._table = table
        self._folder = paths.pull_folder(run.pair, run.stamp, collection.endpoint, collection.kind)
        self._files: dict[int, PulledFile] = {}
        self._parts = first_part
        self._lock = threading.Lock()
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()

    # -- the three ways to read ----------------------------------------------------------------------

    def read_delta(self, window: ChangeWindow) -> None:
        """Records of a window. One request where there are none."""
        self.window = window
        self._read_complete(window)

    def read_full(self) -> None:
        """All records: the walk of ``[0, newest]``, proven, then the closing walk above it.

        Where the run has no change versions, all there are, as proven by the counts before and after.
        """
        self.full = True
        if self._run.newest is None:
            self.window = EVERYTHING
            self._read_unmoved()
            return
        self.window = whole_window(self._run.newest)
        self._read_complete(self.window)
        self._read_closing(closing_window(self._run.newest))

    def read_changes(self, window: ChangeWindow) -> None:
        """Deletes or key changes of a window."""
        self.window = window
        repeats = Repeats()
        for attempt in range(MOST_REPULLS + 1):
            pages: list[int | None] = []
            with self._walked(attempt) as walked:
                self._write(_noting(change_walk(self.collection, window), pages), *walked)
                if None in pages:  # not counted by this ODS: the walk went on to an empty page
                    self.expected = len(self._changes)
                elif len(pages) <= 1 and not attempt:  # a single page carries the count of its own instant
                    self.expected = sum(total or 0 for total in pages)
                else:
                    self.expected = self.collection.count(window)
                if len(self._changes) >= self.expected or self._are_repeats(repeats, walked):
                    return
        raise self._incomplete(window, self._changes)

    def add(self, records: Iterable[tuple[str, bytes]]) -> None:
        """More records, (id, row) each, read by their ids after all the others."""
        self._write(Page(lines_of(record_id, row)) for record_id, row in records)

    def read_anew(self) -> None:
        """All records and nothing else, in the place of what was read until now."""
        self.abandon()
        self.gone = ()
        self.read_full()

    def amend(self, manifest: Manifest, *, new_ids: int, key: Mapping[str, str]) -> Manifest:
        """Put what was added, and the ids that are gone, behind a pull that was published; ``new_ids`` it did not have."""
        amended = msgspec.structs.replace(
            manifest,
            files=(*manifest.files, *(self._files[part] for part in sorted(self._files))),
            rows=manifest.rows + new_ids,
            gone=(*manifest.gone, *self.gone),
            key=dict(key),
            odd_rows=manifest.odd_rows + self._odd.count,
        )
        write_manifest(self._run.lake, paths.manifest_path(self._folder, manifest.name), amended)
        self.close()
        return amended

    def publish(self, low: int | None, source: Source | None = None) -> Manifest | None:
        """Write the manifest, which makes the pull exist; None where a delta brought nothing."""
        if not self._files and not self.full and not self.gone:
            self.close()
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
            odd_rows=self._odd.count,
            odd=self._odd.ids,
            source=source,
        )
        if self._odd.count:
            self.warnings.append(f"{run.pair} {self.collection.label}: {self._odd.sentence()}")
        write_manifest(run.lake, paths.manifest_path(self._folder, endpoint.snake), manifest)
        self.close()
        return manifest

    def abandon(self) -> None:
        """Take away what was written; without a manifest it would not count anyway."""
        for file in self._files.values():
            self._run.lake.delete(file.path)
            if file.repaired:
                self._run.lake.delete(file.repaired.path)
        self._files.clear()
        self._odd = OddRows()
        for ids in (self.ids, self._changes):
            ids.clear()

    def close(self) -> None:
        for ids in (self.ids, self._changes):
            ids.close()

    # -- walks ---------------------------------------------------------------------------------------

    def _read_complete(self, window: ChangeWindow) -> None:
        repeats = Repeats()
        for attempt in range(MOST_REPULLS + 1):
            first = self.collection.first_page(window)
            if not attempt and not len(first) and not first.total:
                return
            with closing(DistinctIds(self._run.tmp_dir)) as left, self._walked(attempt) as walked:
                self._walk(window, first, *walked)
                if (first.total or 0) > len(first):
                    self._note_left(window, left)
                self.expected = self.collection.count(window)
                if len(self.ids) - len(left) >= self.expected or self._are_repeats(repeats, walked):
                    return
            self.collection.has_partitions = False  # their ranges may have left something out
        raise self._incomplete(window, self.ids)

    def _note_left(self, window: ChangeWindow, left: DistinctIds) -> None:
        """Note which of the ids read have left the window since, for the walk could have skipped as many others.

        A walk by offset proves that nothing was skipped only as long as no row moves in the order of keys, and before 7.3
        a cascading key change moves rows and leaves their change versions alone. A walk by cursor ends early where all
        rows of a page were deleted between the ODS's finding and its reading them. So every row that is counted in the end
        must be among those read that are still there.
        """
        if window.high is None:
            return
        later = ChangeWindow(window.high + 1)
        first = self.collection.first_page(later)
        for walk in record_walks(self.collection, later, first, threads=1):
            for page in walk:
                left.add(sorted(self.ids.among(page.ids)))
        if self.collection.endpoint.has_changes:
            try:
                for page in change_walk(self.collection.of_deletes(), later):
                    left.add(sorted(self.ids.among(page.ids)))
            except (NotPermitted, NotOffered):  # then those that were deleted count as if they were there
                return

    @contextmanager
    def _walked(self, attempt: int) -> Iterator[list[Walked]]:
        """What notes the rows of a walk, where repeated ones may have to be explained: that is dear, and rarely needed."""
        if not attempt and not self.collection.abilities.repeats_rows:
            yield []
            return
        with closing(Walked(self._run.tmp_dir)) as walked:
            yield [walked]

    def _are_repeats(self, repeats: Repeats, walked: Sequence[Walked]) -> bool:
        """Whether rows that come several times, walk for walk the same, are all that the count has beyond the ids."""
        if not walked or not repeats.explain(walked[0], self.expected):
            return False
        ids = walked[0].ids
        self.warnings.append(
            f"{self._run.pair} {self.collection.label}: the ODS counts and serves {ids.added} rows of {len(ids)} "
            "distinct ids, in two walks alike; each was taken once"
        )
        return True

    def _read_closing(self, window: ChangeWindow) -> None:
        repeats = Repeats()
        for _ in range(MOST_REPULLS + 1):
            first = self.collection.first_page(window)
            if not len(first) and not first.total:
                return
            with closing(Walked(self._run.tmp_dir)) as read:
                self._walk(window, first, read)
                if len(read.ids) >= (first.total or 0) or repeats.explain(read, first.total or 0):
                    return
        raise self._incomplete(window, self.ids)

    def _read_unmoved(self) -> None:
        """Everything, from the start again until nothing moved meanwhile, as far as the ODS lets us see.

        That is, as many records as were counted before and after; or, where it does not count, the same records twice.
        """
        before: tuple[int, int] | None = None
        repeats = Repeats()
        for attempt in range(MOST_REPULLS + 1):
            self.abandon()
            first = self.collection.first_page(EVERYTHING)
            with self._walked(attempt) as walked:
                self._walk(EVERYTHING, first, *walked)
                if first.total is not None:
                    self.expected = self.collection.count(EVERYTHING)
                    is_all = self.expected == len(self.ids) or self._are_repeats(repeats, walked)
                    if first.total == self.expected and is_all:
                        return
                    continue
            read = self.ids.fingerprint()
            if read == before:
                self.expected = read[0]
                return
            before = read
        raise IncompletePull(
            f"{len(self.ids)} distinct records read; without change versions a pull is complete only if no record comes or "
            f"goes while it is read, and some did, {MOST_REPULLS + 1} times; pull when the ODS is quiet",
            pair=self._run.pair,
            endpoint=self.collection.label,
        )

    def _walk(self, window: ChangeWindow, first: Page, *also: Walked) -> None:
        """Read a window once, noting the rows in ``also`` as well; walks that may go side by side do."""
        walks = record_walks(self.collection, window, first, threads=self._run.threads)
        if len(walks) == 1:
            self._write(walks[0], *also)
            return
        with ThreadPoolExecutor(min(len(walks), self._run.threads) or 1) as threads:
            written = [threads.submit(self._write, walk, *also) for walk in walks]
            try:
                for one in as_completed(written):
                    one.result()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _write(self, pages: Iterable[Page], *also: Walked) -> None:
        """Write pages into one part of their own."""
        with self._lock:
            part = self._parts
            self._parts += 1
        filled = (page for page in pages if len(page))
        first = next(filled, None)
        if first is None:
            return
        name = self.collection.endpoint.snake
        path = paths.part_path(self._folder, name, part, self._run.compression)
        written = Written()
        with (
            self._run.lake.writing(path) as stream,
            written.compressing(stream, self._run.compression) as out,
        ):
            is_odd = False
            for page in _from(first, filled):
                out.write(page.lines.text)
                written.rows += len(page)
                is_odd = is_odd or bool(page.lines.odd)
                self._note(page, also)
        file = PulledFile(path, written.rows, written.size, written.digest)
        if is_odd:
            file = with_repaired(self._run.lake, file, self._run.compression)
        with self._lock:
            self._files[part] = file

    def _note(self, page: Page, also: Sequence[Walked]) -> None:
        is_change = self.collection.kind != RECORDS
        keys = page.change_keys if is_change else page.ids
        with self._lock:
            self.ids.add(page.ids)
            if is_change:
                self._changes.add(keys)
            for walked in also:
                walked.add(keys, page.rows)
            self._odd.note(page.lines.odd)
            if self.collection.kind == DELETES and len(self.tombstones) < MOST_TOMBSTONES:
                self.tombstones.update(page.ids)
            if self.collection.kind == KEY_CHANGES:
                rows = map(loadable, page.rows) if page.lines.odd else page.rows
                self.new_keys |= {key.id: key for key in map(_new_key, rows)}

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


def _noting(pages: Iterable[Page], totals: list[int | None]) -> Iterator[Page]:
    for page in pages:
        totals.append(page.total)
        yield page


_new_key = msgspec.json.Decoder(NewKey).decode
