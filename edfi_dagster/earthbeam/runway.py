"""Files sent to Runway: one job for each, made once, started once, waited for.

What was done is noted in the lake before and after each step that cannot be repeated, so a run that was killed anywhere
goes on with the same job. The content decides which job a file has, not its name.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from edfi_dagster.config import ConfigError, TenantYear
from edfi_dagster.config.errors import is_unicode, printable
from edfi_dagster.earthbeam.runway_client import NewJob, OutputSet, RunwayClient, RunwayService
from edfi_dagster.earthbeam.runway_errors import (
    RunwayError,
    RunwayRefused,
    RunwayTimedOut,
    RunwayUnreachable,
    RunwayUnsure,
    Step,
    UploadExpired,
    WrongRunwayCredentials,
)
from edfi_dagster.earthbeam.runway_http import ATTEMPTS
from edfi_dagster.earthbeam.runway_memory import Remembered, RunwayMemory, file_digest, fingerprint
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.ods.answers import seconds_before_retry
from edfi_dagster.ods.shelf import Locked, find_shelf

# Runway's clock and ours may differ.
_CLOCK = timedelta(days=1)
_CLAIMS = 5


def _nothing(sentence: str) -> None:
    """Nobody wants to be told."""


@dataclass(frozen=True)
class RunwayJob:
    """What one job is asked to do: ``files`` and ``params`` by the variables of the bundle, such as ``INPUT_FILE``.

    ``bundle`` is Runway's name of it, ``assessments/PSAT_SAT``; ``tenant`` its code of the tenant, if that is not ours.
    """

    pair: TenantYear
    bundle: str
    files: Mapping[str, Path]
    params: Mapping[str, str] = field(default_factory=dict)
    tenant: str | None = None

    @property
    def tenant_code(self) -> str:
        return self.tenant or self.pair.tenant

    @property
    def label(self) -> str:
        return ", ".join(file.name for file in self.files.values())


@dataclass(frozen=True)
class RunwayOutcome:
    """What came of a job. ``was_sent_before``: by an earlier run, with nothing left to do. ``output_set`` is None for a job
    that was not waited for.
    """

    job: RunwayJob
    uid: str
    started_at: datetime | None
    output_set: OutputSet | None
    was_sent_before: bool = False


@dataclass(frozen=True)
class RunwaySending:
    """How jobs are sent. ``wait_minutes`` is how long all of them are waited for, 0 not at all; ``force`` makes a new job
    for a file that has one.
    """

    wait_minutes: float = 60.0
    poll_seconds: float = 15.0
    force: bool = False
    tell: Callable[[str], None] = _nothing
    warn: Callable[[str], None] = _nothing
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class RunwaySent:
    """What came of several jobs: one that failed does not hold up the others."""

    outcomes: tuple[RunwayOutcome, ...]
    failures: tuple[RunwayError, ...]


def send_to_runway(
    service: RunwayService,
    lake: LakeStore,
    jobs: Sequence[RunwayJob],
    sending: RunwaySending | None = None,
) -> RunwaySent:
    """Make, fill and start each job, then wait until Runway shows its output set.

    A file whose content was sent before, for the same tenant, year, bundle and parameters, keeps its job: it is
    continued, waited for, or, if it is done, left alone. Raises LakeError, and ConfigError for missing credentials;
    what goes wrong with a job, a RunwayError, is among ``failures``.
    """
    sending = sending or RunwaySending()
    client = RunwayClient(service, sleep=sending.sleep)
    submissions: dict[str, _Submission] = {}
    failures: list[RunwayError] = []
    for job in jobs:
        try:
            submission = _Submission(client, lake, job, sending)
            if submission.fingerprint in submissions:
                sending.tell(f"{job.pair} {job.label}: has the content of another file; sent once")
                continue
            submission.submit()
            submissions[submission.fingerprint] = submission
        except RunwayError as error:
            failures.append(error)
            if isinstance(error, WrongRunwayCredentials):
                break
    failures += _wait(client, list(submissions.values()), sending)
    outcomes = [s.outcome() for s in submissions.values() if s.is_settled]
    return RunwaySent(tuple(outcomes), tuple(failures))


class _Submission:
    """One job on its way. ``remembered`` is what the lake has of it."""

    def __init__(self, client: RunwayClient, lake: LakeStore, job: RunwayJob, sending: RunwaySending) -> None:
        self.job = job
        self._client = client
        self._sending = sending
        with self.placed("read"):
            self._digests = _digests(job)
        service = client.service
        named = {
            "runway": service.base_url,
            "partner": service.partner,
            "tenant": job.tenant_code,
            "year": str(job.pair.year),
            "bundle": job.bundle,
        }
        self.fingerprint = fingerprint(named, job.params, self._digests)
        self._memory = RunwayMemory(lake, job.pair, self.fingerprint)
        self._remembered: Remembered | None = None
        self._was_sent_before = False

    @property
    def remembered(self) -> Remembered:
        assert self._remembered is not None
        return self._remembered

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to wait for, or nobody waits."""
        return self.remembered.output_set is not None or self._sending.wait_minutes == 0

    def outcome(self) -> RunwayOutcome:
        known = self.remembered
        assert known.uid is not None
        return RunwayOutcome(self.job, known.uid, known.started_at, known.output_set, self._was_sent_before)

    def submit(self) -> None:
        """Go on from where an earlier run came to. Raises RunwayError."""
        try:
            # Two runs of one file would each make a job.
            with find_shelf(f"runway-{self.fingerprint[:2]}").locked():
                if self._sending.force or not self._is_started():
                    with self._alone():
                        self._go_on()
        except Locked as error:
            raise RunwayError(f"another run is sending this file ({error})").at(
                self.job.pair, self.job.label, "read"
            ) from None
        what = "was sent before" if self._was_sent_before else "started"
        self._sending.tell(f"{self.job.pair} {self.job.label}: {what}, Runway's job {self.remembered.uid}")

    def _is_started(self) -> bool:
        """Whether nothing is left but to wait, as far as the lake remembers."""
        with self.placed("read"):
            self._remembered = self._memory.read()
        self._was_sent_before = self._remembered is not None and self._remembered.started_at is not None
        return self._was_sent_before

    def _go_on(self) -> None:
        if self._sending.force:
            self._memory.forget()
        if not self._is_started():
            self._make_and_fill()
            self._start()

    def settle(self, output_set: OutputSet) -> None:
        """Note what the job left."""
        self._note(output_set=output_set, started_at=self.remembered.started_at or datetime.now(UTC))
        self._was_sent_before = False

    @contextmanager
    def placed(self, step: Step) -> Iterator[None]:
        """Errors in the block name tenant, year, file and step."""
        try:
            yield
        except RunwayError as error:
            raise error.at(self.job.pair, self.job.label, step) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other machine sends the file in the block; where two step back from each other, they try again."""
        with ExitStack() as held:
            for attempt in range(1, _CLAIMS + 1):
                try:
                    held.enter_context(self._memory.sending(force=self._sending.force))
                    break
                except RunwayError as error:
                    if attempt == _CLAIMS:
                        raise error.at(self.job.pair, self.job.label, "read") from None
                self._sending.sleep(random.uniform(0.5, 3.0))
            yield

    def _make_and_fill(self) -> None:
        if self._remembered is None:
            self._make()
        elif self.remembered.uid is None:
            with self.placed("create"):
                raise RunwayUnsure(
                    "an earlier run asked Runway for this file's job and did not learn its id. Such a job has no files and "
                    "does nothing; look in Runway, and send the file again with force: true"
                )
        if self.remembered.is_uploaded:
            return
        try:
            self._upload()
        except UploadExpired:
            self._sending.warn(
                f"{self.job.pair} {self.job.label}: Runway's job {self.remembered.uid} never got its files and can no longer "
                "get them; a new one is made"
            )
            self._memory.forget()
            self._make()
            self._upload()

    def _make(self) -> None:
        job = self.job
        names = {variable: file.name for variable, file in job.files.items()}
        self._remembered = self._memory.note(Remembered(job.bundle, names, datetime.now(UTC)))
        with self.placed("create"):
            try:
                made = self._client.create_job(job.tenant_code, job.pair.year, job.bundle, names, job.params)
            except RunwayUnsure:
                raise
            except (RunwayError, ConfigError):
                # None was made, so the next run may ask again.
                self._memory.forget()
                raise
        self._memory.keep_addresses(made)
        self._note(uid=made.uid)

    def _upload(self) -> None:
        with self.placed("upload"):
            made = self._memory.addresses() or NewJob("", {})
            if set(made.upload_urls) != set(self.job.files):
                raise UploadExpired("the upload addresses are not known any more")
            age = (datetime.now(UTC) - self.remembered.asked_at).total_seconds()
            for variable, file in self.job.files.items():
                self._client.upload(made.upload_urls[variable], file, self._digests[variable], age=age)
        self._note(is_uploaded=True)
        self._memory.drop_addresses()

    def _start(self) -> None:
        """A job that runs already must not be started again, and one that is done would run once more."""
        uid = self.remembered.uid
        assert uid is not None
        may_run = self.remembered.start_asked_at is not None
        self._note(start_asked_at=datetime.now(UTC))
        with self.placed("start"):
            for attempt in range(1, ATTEMPTS + 1):
                if may_run and (found := _output_sets(self._client, [self]).get(uid)):
                    self.settle(found)
                    return
                try:
                    self._client.start(uid)
                    break
                except RunwayRefused as error:
                    if may_run and error.status == 400:
                        break
                    raise
                except RunwayUnreachable as error:
                    if attempt == ATTEMPTS:
                        raise
                    may_run = may_run or error.unsure
                    self._sending.sleep(seconds_before_retry(attempt))
        self._note(started_at=datetime.now(UTC))

    def _note(self, **changes: object) -> None:
        self._remembered = self._memory.note(msgspec.structs.replace(self.remembered, **changes))


def _digests(job: RunwayJob) -> dict[str, str]:
    """Variable → SHA-256. Raises RunwayError."""
    found = {}
    if not job.files:
        raise RunwayError("the job has no files; give one under files, as INPUT_FILE: path")
    for variable, file in job.files.items():
        if not is_unicode(file.name):
            raise RunwayError(f"{file} has a name that is not UTF-8; rename it")
        try:
            if not file.stat().st_size:
                raise RunwayError(f"{file} is empty")
            found[variable] = file_digest(file)
        except OSError as error:
            raise RunwayError(f"{file} cannot be read ({error.strerror or type(error).__name__})") from None
    return found


def _wait(
    client: RunwayClient, submissions: Sequence[_Submission], sending: RunwaySending
) -> Iterator[RunwayError]:
    """Ask for output sets until every job has its own; the errors of those that have none at the deadline."""
    deadline = time.monotonic() + sending.wait_minutes * 60
    waiting = [s for s in submissions if not s.is_settled]
    told = ""
    while waiting:
        try:
            found = _output_sets(client, waiting)
            for submission in waiting:
                if output_set := found.get(submission.remembered.uid or ""):
                    submission.settle(output_set)
                    sending.tell(
                        f"{submission.job.pair} {submission.job.label}: done, {printable(output_set.uid)}"
                    )
        except RunwayRefused as error:
            files = ", ".join(submission.job.label for submission in waiting)
            yield error.at(waiting[0].job.pair, files, "wait")
            return
        except RunwayError as error:
            if told != str(error):
                told = str(error)
                sending.warn(f"{told}; the jobs go on without us, and we ask again")
        waiting = [s for s in waiting if not s.is_settled]
        if waiting and time.monotonic() >= deadline:
            break
        if waiting:
            sending.sleep(min(sending.poll_seconds, max(0.0, deadline - time.monotonic())))
    for submission in waiting:
        yield _timed_out(submission, sending)


def _timed_out(submission: _Submission, sending: RunwaySending) -> RunwayTimedOut:
    error = RunwayTimedOut(
        f"no output set of Runway's job {submission.remembered.uid} after {sending.wait_minutes:g} minutes: it failed or is "
        "slow, which Runway's API does not tell. Look at the job in Runway; run this again to wait on, or with force: true "
        "for a new job"
    )
    return error.at(submission.job.pair, submission.job.label, "wait")


def _output_sets(client: RunwayClient, submissions: Sequence[_Submission]) -> dict[str, OutputSet]:
    """Job → the last output set it left, of the tenants and years of ``submissions``."""
    found = {}
    asked: dict[tuple[str, int], datetime] = {}
    for submission in submissions:
        place = (submission.job.tenant_code, submission.job.pair.year)
        at = submission.remembered.asked_at
        asked[place] = min(asked.get(place, at), at)
    for (tenant, year), at in asked.items():
        for output_set in client.output_sets(tenant, year, at - _CLOCK):
            found[output_set.job_uid] = output_set
    return found
