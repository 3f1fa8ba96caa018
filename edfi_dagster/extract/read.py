"""Reading one endpoint: its records, deletes and key changes, from the ODS into the lake."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from edfi_dagster.extract.by_id import read_by_id, with_old_key
from edfi_dagster.extract.comparison import OdsCounts
from edfi_dagster.extract.endpoint_read import Before, EndpointRead
from edfi_dagster.extract.keys import keyed
from edfi_dagster.extract.people import CorrectedPeople
from edfi_dagster.extract.sources import Sources
from edfi_dagster.extract.work import Job, KindResult, Result, Work
from edfi_dagster.lake.manifest import discard
from edfi_dagster.lake.pull import Pull, PullRun
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.changes import EVERYTHING, ChangeWindow, closing_window, delta_window
from edfi_dagster.ods.errors import (
    EdFiError,
    NotOffered,
    NotPermitted,
    OdsDown,
    OdsUnreachable,
    SnapshotGone,
    WrongCredentials,
)
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.counts import current_counts
from edfi_dagster.warehouse.current import latest_keys, settled_ids
from edfi_dagster.warehouse.ledger import Entry, Reading
from edfi_dagster.warehouse.supersede import Judged, Suspects

# Deletes and key changes commit with their records or after them, so without these they are not even read.
_WAITS = KindResult(Result.UNCHANGED, cause="waits for its records")
# Ids in one question to the warehouse.
_ASKED_AT_ONCE = 500


class Reader:
    """Reads the endpoints of one run; every thread of the run uses the same one."""

    def __init__(
        self, job: Job, run: PullRun, before: Before, sources: Sources, *, full_refresh: bool
    ) -> None:
        self._job = job
        self._run = run
        self._before = before
        self._full_refresh = full_refresh
        self._overlap = job.session.settings.extract.change_version_overlap
        self._abilities = job.session.abilities
        self._sources = sources
        self._collections = sources.collections
        self._published = self._collections.published
        self._people = CorrectedPeople(job, self._collections)

    def read(self, work: Work) -> EndpointRead:
        """Read what ``work`` asks for. An error of one kind is that kind's result and stops no other.

        Nothing of an endpoint whose records failed is to be committed: its deletes would then come before them.
        Raises WrongCredentials, after which nothing else of the pair can work.
        """
        work = replace(work, endpoint=self._keyed(work.endpoint))
        full = (
            self._full_refresh
            or self._run.newest is None
            or (work.endpoint.snake, RECORDS) not in self._before.watermarks
        )
        read = EndpointRead(work, full=full and RECORDS in work.kinds)
        pulls: dict[RecordKind, Pull] = {}
        try:
            if RECORDS in work.kinds:
                self._attempt(read, pulls, RECORDS, self._read_records)
            for kind in (DELETES, KEY_CHANGES):
                if not (read.full or kind in work.kinds) or not self._wanted(work.endpoint, kind):
                    continue
                if RECORDS in read.results:
                    read.results[kind] = _WAITS
                else:
                    self._attempt(read, pulls, kind, self._probe if read.full else self._read_changes)
            if not read.full and RECORDS in pulls and KEY_CHANGES in work.kinds:
                self._follow_key_changes(read, pulls)
            self._publish(read, pulls)
        except BaseException:
            for pull in pulls.values():
                pull.abandon()
            raise
        return read

    def has_news(self, work: Work) -> bool:
        """Whether reading the work would find anything, or tell of something; asks for counts only."""
        kinds = [RECORDS, *(kind for kind in (DELETES, KEY_CHANGES) if self._wanted(work.endpoint, kind))]
        read = EndpointRead(replace(work, endpoint=self._keyed(work.endpoint)))
        if any(self._counts_any(read, kind) for kind in kinds) or self._counts_otherwise(read):
            return True
        if KEY_CHANGES in kinds and RECORDS not in read.results:
            self._note_corrected(read)
        return bool(read.corrected)

    def _counts_any(self, read: EndpointRead, kind: RecordKind) -> bool:
        collection = self._collections.open(read.endpoint, kind)
        low = self._low(read, kind)
        try:
            if kind != RECORDS:
                has_any = len(collection.first_page(self._window(-1 if low is None else low))) > 0
                return has_any or (kind == KEY_CHANGES and low is None)  # then all keys are to be looked at
            if low is None:
                collection.count(EVERYTHING)  # only whether the key may
                return True
            if read.endpoint.is_descriptor:
                held = self._before.descriptor_rows.get(read.endpoint.snake, 0)
                if collection.count(EVERYTHING) != held:
                    return True
            return collection.count(self._window(low)) > 0
        except (NotOffered, NotPermitted) as error:
            read.results[kind] = self._refused(read, kind, error)
            return read.results[kind].result == Result.FAILED

    def _counts_otherwise(self, read: EndpointRead) -> bool:
        """Whether an endpoint that may lose rows without a tombstone has another count than its current rows."""
        endpoint, low = read.endpoint, self._low(read, RECORDS)
        may_lose_rows = DELETES in read.results or self._collections.may_lose_rows(endpoint)
        if low is None or RECORDS in read.results or not may_lose_rows or not self._abilities.counts:
            return False
        with self._job.warehouse.connected() as connection:
            rows = current_counts(connection, self._run.pair, [endpoint]).get(endpoint.snake, 0)
        return OdsCounts(self._job, self._collections).up_to(endpoint, low) != rows

    # -- kinds ----------------------------------------------------------------------------------------

    def _read_records(self, read: EndpointRead, pull: Pull) -> None:
        if read.endpoint.is_descriptor:
            self._read_descriptor(read, pull)
        elif read.full:
            pull.read_full()
        else:
            pull.read_delta(self._window(self._low(read, RECORDS) or 0))

    def _read_descriptor(self, read: EndpointRead, pull: Pull) -> None:
        """Whole, if anything is in its window or its count is not that of its current rows; else not at all."""
        name = read.endpoint.snake
        if not read.full:
            window = self._window(self._low(read, RECORDS) or 0)
            same_count = pull.collection.count(EVERYTHING) == self._before.descriptor_rows.get(name, 0)
            if same_count and not pull.collection.count(window):
                return
        read.full = True
        pull.read_full()

    def _read_changes(self, read: EndpointRead, pull: Pull) -> None:
        low = self._low(read, pull.collection.kind)
        window = self._window(-1 if low is None else low)
        pull.read_changes(window)
        if pull.tombstones and low is not None and window.low:
            earlier = self._before_strangers(read.endpoint, pull.tombstones, low)
            if earlier is not None:
                pull.read_changes(self._window(earlier))

    def _before_strangers(self, endpoint: Endpoint, tombstones: Collection[str], low: int) -> int | None:
        """The watermark before ``low``, if there is a tombstone of a record that nobody has ever read.

        It may have been posted while the last run read, with the key of a deleted one, and so have hidden that one's
        tombstone just when it was due (api.md section 5.4: the ODS hides those whose key lives again).
        """
        ids, pair = sorted(tombstones), self._run.pair
        with self._job.warehouse.connected() as connection:
            for start in range(0, len(ids), _ASKED_AT_ONCE):
                batch = ids[start : start + _ASKED_AT_ONCE]
                known = set(latest_keys(connection, pair, endpoint, batch))
                known |= settled_ids(connection, pair, endpoint, dict.fromkeys(batch, -1))
                if not known >= set(batch):
                    return ledger.watermark_before(connection, pair, endpoint.snake, DELETES, low)
        return None

    def _probe(self, read: EndpointRead, pull: Pull) -> None:
        """A full pull covers deletes and key changes, but only where the key may read them later."""
        assert self._run.newest is not None
        pull.collection.page_at(closing_window(self._run.newest), 0)

    def _follow_key_changes(self, read: EndpointRead, pulls: dict[RecordKind, Pull]) -> None:
        """Read by id what key changes of the endpoint or of a person tell of, also where it offers none of its own."""
        own = read.results.get(KEY_CHANGES)
        if not self._wanted(read.endpoint, KEY_CHANGES) or (own and own.result == Result.FAILED):
            return
        self._attempt(read, pulls, KEY_CHANGES, lambda r, _: self._note_corrected(r))
        if (changes := pulls.get(KEY_CHANGES)) is None:
            return
        self._attempt(read, pulls, RECORDS, lambda r, records: self._read_rekeyed(r, records, changes))
        if KEY_CHANGES in read.results:
            pulls.pop(KEY_CHANGES).abandon()

    def _note_corrected(self, read: EndpointRead) -> None:
        """Note the records that show a person's old UniqueId; they are read by id like those whose own key changed."""
        low = self._low(read, KEY_CHANGES)
        read.corrected = self._people.shown_by(read.endpoint, self._window(-1 if low is None else low), low)

    def _read_rekeyed(self, read: EndpointRead, records: Pull, changes: Pull) -> None:
        """Read by id the records whose key changed but which did not come in their window (cascades before 7.3).

        One that is not there any more was deleted after its key had changed. Where the natural key cannot be known, a
        new key change can only be followed by a full refresh.
        """
        held = dict.fromkeys(read.corrected, True)
        if read.endpoint.key:
            came = records.ids.among(changes.new_keys)
            missing = [key for record_id, key in changes.new_keys.items() if record_id not in came]
            held = with_old_key(self._job, read.endpoint, missing) | held
        else:
            low = self._low(read, KEY_CHANGES)
            if any(low is None or key.change_version > low for key in changes.new_keys.values()):
                read.full = True
        ids = sorted(held.keys() - records.ids.among(held))
        strange = {record_id for record_id in ids if not held[record_id]}
        inquiry = None if read.full else read_by_id(self._run, records, ids, strange=strange)
        if inquiry is None:
            read.full = True
            records.read_anew()
        elif inquiry.hidden:
            self._warn_of_hidden(read, inquiry.hidden)
            cause = f"waits for {len(inquiry.hidden)} records that the key may not read by id (HTTP 403)"
            read.results[KEY_CHANGES] = KindResult(Result.UNCHANGED, cause=cause)

    def _warn_of_hidden(self, read: EndpointRead, ids: Sequence[str]) -> None:
        self._job.warn(
            f"{self._run.pair} {read.endpoint.path}: HTTP 403 for {len(ids)} records by id; their rows stay as they are and "
            "the next run asks again. If they are no longer this key's, run the endpoint with full_refresh"
        )

    # -- suspects -------------------------------------------------------------------------------------

    def judge(self, read: EndpointRead, suspects: Suspects) -> None:
        """Ask the ODS for ids that share a natural key with another, and put what it says behind the pull.

        Raises EdFiError, LakeError.
        """
        if self._run.newest is None:  # proven: no record came or went while all of them were read
            read.judged = Judged(read.judged.alive | suspects.ids)
            return
        manifest = read.readings[RECORDS].manifest
        records = self._pull(read.endpoint, RECORDS, first_part=manifest.free_part if manifest else 0)
        try:
            inquiry = read_by_id(self._run, records, sorted(suspects.ids))
            if inquiry is None:
                if manifest and self._correct_key(read):
                    records.abandon()
                    manifest = records.amend(manifest, new_ids=0, key=read.endpoint.key)
                    read.readings[RECORDS] = Reading(read.readings[RECORDS].entry, manifest)
                else:
                    self._read_anew(read, records, suspects)
                return
            if inquiry.alive:
                self._correct_key(read)
            if inquiry.hidden:
                self._warn_of_hidden(read, inquiry.hidden)
            read.judged = Judged(
                read.judged.alive.union(inquiry.alive), read.judged.unseen.union(inquiry.hidden)
            )
            if manifest is None:
                records.window = self._window(self._low(read, RECORDS) or 0)
                manifest = records.publish(self._low(read, RECORDS), self._sources.of(read.endpoint))
            elif inquiry.alive or inquiry.gone:
                new_ids = len(set(inquiry.alive) - suspects.read)
                manifest = records.amend(manifest, new_ids=new_ids, key=read.endpoint.key)
            read.readings[RECORDS] = Reading(read.readings[RECORDS].entry, manifest)
        finally:  # its files stay: the manifest that lists them may have been written though it seemed to fail
            records.close()

    def _read_anew(self, read: EndpointRead, records: Pull, suspects: Suspects) -> None:
        """Read an endpoint whole: who was suspected and is in the walk lives, and who is not is gone."""
        records.abandon()
        for reading in read.readings.values():
            if reading.manifest:
                discard(self._run.lake, read.endpoint, reading.manifest)
        read.full, read.judged = True, Judged(read.judged.alive | suspects.ids)
        pulls = {kind: self._pull(read.endpoint, kind) for kind in read.readings}
        try:
            pulls[RECORDS].read_anew()
            self._write_manifests(read, pulls)
        except BaseException:
            pulls[RECORDS].abandon()
            raise

    def _correct_key(self, read: EndpointRead) -> bool:
        """Records share a natural key, so it may be wrong: then take the ODS's own. Returns whether that is another."""
        endpoint = read.endpoint
        if endpoint.is_descriptor or not (key := self._published.better_key(endpoint.path, endpoint.key)):
            return False
        corrected = replace(endpoint, key=key)
        read.work = replace(read.work, endpoint=corrected)
        for kind, reading in read.readings.items():
            entry = replace(reading.entry, endpoint=corrected)
            read.readings[kind] = Reading(entry, reading.manifest)
        return True

    # -- around them ----------------------------------------------------------------------------------

    def _attempt(
        self,
        read: EndpointRead,
        pulls: dict[RecordKind, Pull],
        kind: RecordKind,
        step: Callable[[EndpointRead, Pull], None],
    ) -> None:
        try:
            pull = pulls[kind] = pulls.get(kind) or self._pull(read.endpoint, kind)
            step(read, pull)
        except (NotOffered, NotPermitted) as error:
            _abandon(pulls, kind)
            read.results[kind] = self._refused(read, kind, error)
        except (WrongCredentials, SnapshotGone):
            raise
        except (EdFiError, LakeError, WarehouseError) as error:
            _abandon(pulls, kind)
            cause = f"{error}{self._otherwise(kind, error)}"
            read.results[kind] = KindResult(Result.FAILED, cause=cause, error=type(error).__name__)

    def _otherwise(self, kind: RecordKind, error: Exception) -> str:
        """What to write where an ODS goes on failing to give deletes or key changes, as some do of a snapshot."""
        if kind == RECORDS or not isinstance(error, OdsUnreachable) or isinstance(error, OdsDown):
            return ""
        keys = ["fetch_deletes: false" if kind == DELETES else "get_key_changes: false"]
        if self._job.session.settings.extract.use_snapshot:
            keys.insert(0, "use_snapshot: false")
        return f"; the next run asks for the same again; if it stays, write {' or '.join(keys)}"

    def _refused(self, read: EndpointRead, kind: RecordKind, error: NotOffered | NotPermitted) -> KindResult:
        """403 or 404 is a fact about an endpoint never loaded, and a failure of one that was."""
        loaded = (read.endpoint.snake, kind) in self._before.ever_loaded
        if loaded and kind == RECORDS and read.endpoint.snake in self._before.of_other_ods:
            cause = f"{error}; {self._foreign_rows(read.endpoint)}"
            return KindResult(Result.FAILED, cause=cause, error=type(error).__name__)
        if loaded and (isinstance(error, NotPermitted) or self._published.offers(read.endpoint.path)):
            cause = (
                f"{error}; it was loaded before, so its rows are kept as they are; have its host open it to this key "
                "again, or write enabled: false for the endpoint"
            )
            return KindResult(Result.FAILED, cause=cause, error=type(error).__name__)
        result = Result.NOT_PERMITTED if isinstance(error, NotPermitted) else Result.NOT_OFFERED
        return KindResult(result, cause=error.reason)

    def _foreign_rows(self, endpoint: Endpoint) -> str:
        """What to do with rows that no run will ever replace, because this ODS does not let them be read."""
        tables = self._job.platform.tables
        table = tables.descriptors if endpoint.is_descriptor else endpoint.snake
        return (
            "its rows in the warehouse were read from another ODS, or with another key, than is configured now; have the "
            f"host open it to this key, or delete the rows of this tenant, year and name {endpoint.snake} from {table}, "
            f"{tables.deletes}, {tables.key_changes} and {tables.change_versions}"
        )

    def _publish(self, read: EndpointRead, pulls: dict[RecordKind, Pull]) -> None:
        """A manifest that cannot be written fails its endpoint; nothing of it is committed then."""
        try:
            self._write_manifests(read, pulls)
        except LakeError as error:
            read.readings.clear()
            failed = KindResult(Result.FAILED, cause=str(error), error=type(error).__name__)
            read.results |= dict.fromkeys(pulls, failed)
            for pull in pulls.values():
                pull.close()

    def _write_manifests(self, read: EndpointRead, pulls: dict[RecordKind, Pull]) -> None:
        if RECORDS in read.work.kinds and RECORDS not in pulls:
            for waiting in [kind for kind in pulls if kind != RECORDS]:
                _abandon(pulls, waiting)
                read.results[waiting] = _WAITS
        if not pulls:
            return
        source = self._sources.of(read.endpoint)
        for kind, pull in pulls.items():
            if kind != RECORDS and read.full:
                pull.abandon()
                manifest = None
                read.results[kind] = KindResult(Result.COVERED)
            else:
                manifest = pull.publish(self._low(read, kind), source)
                for sentence in pull.warnings:
                    self._job.warn(sentence)
            low = self._low(read, kind)
            entry = Entry(self._run.pair, read.endpoint, kind, self._run.stamp, low, self._run.newest, source)
            read.readings[kind] = Reading(entry, manifest)

    def _pull(self, endpoint: Endpoint, kind: RecordKind, *, first_part: int = 0) -> Pull:
        collection = self._collections.open(endpoint, kind)
        tables = self._job.platform.tables
        table = {DELETES: tables.deletes, KEY_CHANGES: tables.key_changes, RECORDS: endpoint.snake}[kind]
        table = tables.descriptors if endpoint.is_descriptor else table
        return Pull(self._run, collection, table, first_part=first_part)

    def _wanted(self, endpoint: Endpoint, kind: RecordKind) -> bool:
        if self._run.newest is None:
            return False
        reads = self._collections.reads_deletes if kind == DELETES else self._collections.reads_key_changes
        return reads(endpoint)

    def _window(self, low: int) -> ChangeWindow:
        assert self._run.newest is not None
        return delta_window(low, self._run.newest, self._overlap)

    def _low(self, read: EndpointRead, kind: RecordKind) -> int | None:
        return self._before.watermarks.get((read.endpoint.snake, kind))

    def _keyed(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint with its natural key."""
        if not self._abilities.change_versions:  # always replaced, so that no key needs to be known
            return endpoint
        return keyed(endpoint, self._run, self._published, self._job.session.settings.extract.data_standard)


def _abandon(pulls: dict[RecordKind, Pull], kind: RecordKind) -> None:
    if kind in pulls:
        pulls.pop(kind).abandon()
