"""Where a bundle's records go: checked and sent by Lightbeam, or loaded straight into the raw tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edfi_dagster.earthbeam.archive import Archive
from edfi_dagster.earthbeam.errors import EarthbeamError, ToolFailed
from edfi_dagster.earthbeam.job import BundleJob
from edfi_dagster.earthbeam.lightbeam import Lightbeam
from edfi_dagster.earthbeam.result import LoadOutcome, ResourceOutcome, WrittenOutput
from edfi_dagster.earthbeam.sent import SentState, record_hash, record_lines, witnesses_of
from edfi_dagster.earthbeam.sideload import Versions, endpoint_for, sideload
from edfi_dagster.earthbeam.target import Target, find_target, newest_of, sending_session
from edfi_dagster.earthbeam.witnesses import Witness, any_lives, find_witnesses
from edfi_dagster.earthbeam.workspace import Workspace
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.session import OdsSession

# Of so many resources, the last to be sent first, records are looked for until some are found.
_RESOURCES_READ = 3


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
    _witnesses: tuple[Witness, ...] = ()
    _living: dict[tuple[Witness, ...], bool] = field(default_factory=dict)
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

    def has_what_was_sent(self) -> bool:
        """Whether the ODS still has what this bundle sent it last, as far as that can be known. Raises EdFiError, LakeError."""
        return self._lives(witnesses_of(self.job.lake, self._state_path, self.target))

    def send(self, outputs: Sequence[WrittenOutput]) -> None:
        """Raises ToolFailed where more records are refused than may."""
        with self._sent_before() as state:
            lightbeam = self._lightbeam(outputs, state)
            began, before = time.time(), newest_of(self.session)
            try:
                self.sent = lightbeam.send(self._resources)
            finally:
                self.newest = newest_of(self.session) if self.sent else self.newest
                self._note_witnesses(state, began, before)
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
            self._witnesses = ()  # what is deleted now is no sign of anything later
            self.deleted = self._lightbeam(outputs, state).delete(self._resources)
        check_share("not deleted", self.deleted, self.job.settings.lightbeam.max_failed_share)

    @contextmanager
    def _sent_before(self) -> Iterator[SentState]:
        """Lightbeam's turn, and what the ODS was sent before; it is kept after the block, however that ends.

        Read only when it is our turn: a run of another file of this bundle may have sent until then.
        """
        state = SentState(self.space.scratch / "state")
        lake, path, target = self.job.lake, self._state_path, self.target
        with self.job.turn("lightbeam"), self.job.turn_of(path):
            self._witnesses = witnesses_of(lake, path, target)
            if not self._lives(self._witnesses):
                state.folder.mkdir(parents=True, exist_ok=True)
                self._witnesses = ()
            # As it is now: that run has moved the ODS on, which must not look like an ODS that went back.
            elif not state.load(lake, path, target, newest_of(self.session)):
                self._witnesses = ()
                self.job.warn(
                    "the ODS is not the one that was sent to before, or is older: it was restored, or its address or the key "
                    "was changed, so all records are sent again"
                )
            try:
                yield state
            finally:
                state.save(lake, path, target, self.newest, self._witnesses)

    @property
    def _state_path(self) -> str:
        return f"{self.archive.state}/sent_{self.target.short}.json.zst"

    def _lives(self, witnesses: tuple[Witness, ...]) -> bool:
        """Whether any witness lives, asked once; says so where none does."""
        if witnesses not in self._living:
            endpoints = {w.endpoint: self._endpoint(w.endpoint.rpartition("/")[2]) for w in witnesses}
            self._living[witnesses] = any_lives(self.session, witnesses, endpoints)
            if not self._living[witnesses]:
                self.job.warn(
                    f"the ODS has none of {len(witnesses)} records that it accepted last and that were looked for: it was "
                    "restored, or they were deleted there, so all records are sent again"
                )
        return self._living[witnesses]

    def _note_witnesses(self, state: SentState, began: float, before: int | None) -> None:
        """Look for a few of the records accepted just now, of the resource that was sent last and may be read."""
        if before is None:  # this key may not ask for change versions
            return
        accepted = state.accepted_since(began)
        latest = sorted(accepted, key=lambda name: max(when for _, when in accepted[name].values()))
        for resource in latest[: -_RESOURCES_READ - 1 : -1]:
            of_it, lines = accepted[resource], record_lines(self.space.outputs, resource)
            hashed = ((record_hash(line), line) for line in lines)
            sent = ((of_it[key], line) for key, line in hashed if key in of_it)
            try:
                found = find_witnesses(self.session, self._endpoint(resource), sent, before)
            except EdFiError as error:
                self.job.tell(f"{error}; what was sent of it is not looked for before the next run")
                continue
            if found:
                self._witnesses = found
                return

    def _endpoint(self, resource: str) -> Endpoint:
        return endpoint_for(resource, self.job.platform, self.job.pair)

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
            if (namespace := self._endpoint(name).namespace) != "ed-fi"
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
