"""Where a bundle's records go: checked and sent by Lightbeam, or loaded straight into the raw tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edfi_dagster.earthbeam.archive import Archive
from edfi_dagster.earthbeam.errors import EarthbeamError, ToolFailed
from edfi_dagster.earthbeam.job import BundleJob
from edfi_dagster.earthbeam.lightbeam import Lightbeam
from edfi_dagster.earthbeam.result import LoadOutcome, ResourceOutcome, WrittenOutput
from edfi_dagster.earthbeam.sent import SentState
from edfi_dagster.earthbeam.sideload import Versions, endpoint_for, sideload
from edfi_dagster.earthbeam.target import Target, find_target, newest_of, sending_session
from edfi_dagster.earthbeam.workspace import Workspace
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.session import OdsSession


@dataclass
class Delivery:
    """One run's way to the ODS. What was done so far stays readable when a step raises."""

    job: BundleJob
    archive: Archive
    space: Workspace
    session: OdsSession
    target: Target
    validated: tuple[ResourceOutcome, ...] = ()
    sent: tuple[ResourceOutcome, ...] = ()
    deleted: tuple[ResourceOutcome, ...] = ()
    newest: int | None = None
    _resources: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, job: BundleJob, archive: Archive, space: Workspace) -> Delivery:
        """Signs in and asks the ODS what it is. Raises EdFiError, EarthbeamError. Close it after use."""
        session = sending_session(job.platform.ods(job.pair), job.pair, base_url=job.base_url)
        try:
            target = find_target(session, base_url=job.base_url)
        except BaseException:
            session.close()
            raise
        return cls(job, archive, space, session, target, newest=target.newest)

    def close(self) -> None:
        self.session.close()

    def validate(self, outputs: Sequence[WrittenOutput]) -> None:
        """Raises ToolFailed where more records fail than may."""
        lightbeam = self._lightbeam(outputs, SentState(self.space.scratch / "checking", self._cache))
        lightbeam.state.folder.mkdir()
        lightbeam.state.take_cache()
        with self.job.turn("lightbeam"):
            self.validated = lightbeam.validate(self._resources)
        lightbeam.state.keep_cache()
        for endpoint in lightbeam.unread:
            self.job.warn(f"{endpoint} may not be read with this key, so its values were not checked")
        check_share("invalid", self.validated, self.job.settings.lightbeam.max_failed_share)

    def send(self, outputs: Sequence[WrittenOutput]) -> None:
        """Raises ToolFailed where more records are refused than may."""
        with self._sent_before() as state:
            lightbeam = self._lightbeam(outputs, state)
            try:
                self.sent = lightbeam.send(self._resources)
            finally:
                self.newest = newest_of(self.session) if self.sent else self.newest
                state.keep_only(self.space.outputs, self._resources)
        for outcome in self.sent:
            if not outcome.offered and outcome.records:
                self.job.warn(
                    f"{outcome.records} records of {outcome.resource} were not sent: the ODS has no such endpoint"
                )
        check_share("refused", self.sent, self.job.settings.lightbeam.max_failed_share)

    def delete(self, outputs: Sequence[WrittenOutput]) -> None:
        """Raises ToolFailed where more records stay than may."""
        with self._sent_before() as state:
            self.deleted = self._lightbeam(outputs, state).delete(self._resources)
        check_share("not deleted", self.deleted, self.job.settings.lightbeam.max_failed_share)

    @contextmanager
    def _sent_before(self) -> Iterator[SentState]:
        """Lightbeam's turn, and what the ODS was sent before; it is kept after the block, however that ends.

        Read only when it is our turn: a run of another file of this bundle may have sent until then.
        """
        state = SentState(self.space.scratch / "state")
        path = f"{self.archive.state}/sent_{self.target.short}.json.zst"
        with self.job.turn("lightbeam"), self.job.turn_of(path):
            # As it is now: that run has moved the ODS on, which must not look like an ODS that went back.
            if not state.load(self.job.lake, path, self.target.identity, newest_of(self.session)):
                self.job.warn(
                    "the ODS is older than what it was sent before: it was restored, so all records are sent again"
                )
            try:
                yield state
            finally:
                state.save(self.job.lake, path, self.target.identity, self.newest)

    @property
    def _cache(self) -> Path:
        return self.job.folder / "cache" / self.target.short

    def _lightbeam(self, outputs: Sequence[WrittenOutput], state: SentState) -> Lightbeam:
        self._resources = [str(o.resource) for o in outputs if o.resource]
        options = self.job.settings.lightbeam
        if self.job.force:
            options = options.model_copy(update={"force": True})
        namespaces = {
            name: namespace
            for name in self._resources
            if (namespace := endpoint_for(name, self.job.platform, self.job.pair).namespace) != "ed-fi"
        }
        return Lightbeam(
            self.job.platform.earthbeam.lightbeam,
            options,
            self.target,
            self.space.outputs,
            state,
            self.space.scratch,
            self.session,
            namespaces,
        )


def check_share(what: str, outcomes: Sequence[ResourceOutcome], most: float) -> None:
    """Raises ToolFailed where of any resource a greater share of records failed than ``most``."""
    problems = []
    for outcome in outcomes:
        if outcome.failed and outcome.failed_share > most:
            told = [refusal.text for refusal in outcome.refusals[:3]]
            why = f" ({'; '.join(told)})" if told else ""
            problems.append(f"{outcome.failed} of {outcome.records} {outcome.resource} {what}{why}")
    if problems:
        raise ToolFailed("; ".join(problems))


def load_straight(
    job: BundleJob, archive: Archive, space: Workspace, outputs: Sequence[WrittenOutput]
) -> tuple[LoadOutcome, ...]:
    """Sideload the outputs that the configuration chooses. Raises EarthbeamError, LakeError, WarehouseError, EdFiError."""
    options = job.settings.sideload
    chosen = [
        output
        for output in outputs
        if output.resource and (options.endpoints == "all" or output.resource in options.endpoints)
    ]
    if options.endpoints != "all":
        missing = set(options.endpoints) - {output.resource for output in outputs}
        if missing:
            raise EarthbeamError(
                f"{job.bundle} makes no {', '.join(sorted(missing))}; correct sideload.endpoints"
            )
    found = sideload(
        job.platform,
        archive,
        job.warehouse,
        space,
        chosen,
        _versions(job),
        full_refresh=options.full_refresh,
        tell=job.tell,
    )
    return tuple(found)


def _versions(job: BundleJob) -> Versions:
    """As configured; what is not configured is asked of the ODS."""
    options = job.settings.sideload
    if options.ods_version and options.data_model_version:
        return Versions(options.ods_version, options.data_model_version)
    session = OdsSession(job.platform.ods(job.pair), job.pair, base_url=job.base_url)
    try:
        with closing(session):
            discovery = session.discovery
    except EdFiError as error:
        raise EarthbeamError(
            f"{error}; the ODS would have told its versions: write sideload.ods_version and data_model_version"
        ) from error
    return Versions(
        options.ods_version or discovery.ods_version,
        options.data_model_version or discovery.data_model_version,
    )
