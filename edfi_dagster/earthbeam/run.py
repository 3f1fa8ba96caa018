"""One run of a bundle, from the file to the ODS or the raw tables.

preprocess → fingerprint → archive raw → roster and match rates → Earthmover → archive outputs → validate → send, or
sideload → run log → postprocess → clean-up. What goes wrong is in the result, not raised, so that it can be reported.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edfi_dagster.config import ConfigError
from edfi_dagster.earthbeam.archive import Archive, Done
from edfi_dagster.earthbeam.bundle import (
    MATCH_RATES,
    NO_MATCH,
    BundleOutline,
    project_folder,
    read_outline,
    secret_parameters,
)
from edfi_dagster.earthbeam.delivery import Delivery, load_straight
from edfi_dagster.earthbeam.earthmover import tool_versions
from edfi_dagster.earthbeam.errors import EarthbeamError, ToolFailed
from edfi_dagster.earthbeam.hooks import HookCall, run_hook
from edfi_dagster.earthbeam.job import BundleJob
from edfi_dagster.earthbeam.result import BundleResult
from edfi_dagster.earthbeam.run_log import write_run_log
from edfi_dagster.earthbeam.sources import outside_files
from edfi_dagster.earthbeam.student_ids import roster_table
from edfi_dagster.earthbeam.transform import ROSTER, Transformation
from edfi_dagster.earthbeam.workspace import Workspace, file_digest, fingerprint, workspace
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.source import Ods
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.ledger import latest_loaded

# What may go wrong in a run and is told in its result; anything else is a fault of this program.
EXPECTED = (EarthbeamError, EdFiError, LakeError, WarehouseError, ConfigError, OSError)


def run_bundle(job: BundleJob) -> BundleResult:
    """Run a bundle once. Every step's failure is in the result, which is also written to the run log.

    Raises EarthbeamError where the run could not even begin, as there is no room for its files.
    """
    with workspace(job.platform.extract.tmp_dir) as space:
        run = _Run(job, space)
        try:
            run.work()
        except EXPECTED as error:
            run.fail(error)
        except BaseException as error:
            run.fail(error)
            run.log()
            raise
        run.log()
        if run.result.is_done and not run.result.unchanged:
            run.postprocess()
            run.note_done()
        return run.result


@dataclass
class _Run:
    """One run as it goes on; ``result`` holds what is known so far."""

    job: BundleJob
    space: Workspace
    step: str = "begin"
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        job = self.job
        self.result = BundleResult(
            job.bundle, job.pair, job.grain, {}, datetime.now(UTC), seconds=self.seconds
        )
        self.archive = Archive(job.lake, job.pair, job.bundle, job.grain, job.platform.lake.compression)
        self.known: dict[str, str] = {}
        self.outside: dict[str, str] | None = {}
        self.newest: int | None = None
        self.source: Ods | None = None

    def work(self) -> None:
        settings = self.job.settings
        with self._timed("preprocess"):
            if settings.hooks.preprocess is not None:
                call = self._call(inputs={name: Path(path) for name, path in self.job.inputs.items()})
                self.known = run_hook(settings.hooks.preprocess, call, self._values())
        with self._timed("inputs"):
            inputs = self.job.found_inputs(self.known)
            self._set(files={name: str(path) for name, path in inputs.items()})
            parameters = self.job.all_parameters(inputs, self.known)
            secrets = secret_parameters(settings)
            outline = read_outline(settings, [self.job.pair], cache=self.job.folder / "outlines")
            given = {**dict.fromkeys(secrets, ""), **parameters}
            outline.check(given, inputs, asked=self.job.parameters)
            self._tell_unknown(outline)
            self._set(commit=outline.commit)
        transformation = Transformation(self.job, self.archive, self.space, inputs, secrets)
        if settings.student_ids is not None:
            # With the table of the roster, for where that was never loaded it is told by its emptiness.
            standard = self.job.platform.ods(self.job.pair).extract.data_standard
            self.job.warehouse.prepare([roster_table(standard)])
        with self._timed("roster"):
            parameters |= transformation.roster(self._values())
        with self._timed("bundle"):
            parameters |= transformation.absent(parameters)
            composed = transformation.composed(parameters)
            self.space.install(project_folder(settings), composed)
            digests = {name: file_digest(path) for name, path in inputs.items()}
            known = [Path(parameters[ROSTER])] if ROSTER in parameters else []
            self.outside = outside_files(composed, [*inputs.values(), *known])
            self._set(fingerprint=self._fingerprint(parameters, digests))
        if settings.destination != "ods":
            self._process(transformation, outline, parameters, digests, None)
            return
        with self._timed("sign in"):
            delivery = Delivery.open(self.job, self.archive, self.space)
        with closing(delivery):
            self._process(transformation, outline, parameters, digests, delivery)

    def _process(
        self,
        transformation: Transformation,
        outline: BundleOutline,
        parameters: Mapping[str, str],
        digests: Mapping[str, str],
        delivery: Delivery | None,
    ) -> None:
        if self._is_done_before(delivery):
            self._set(unchanged=True)
            return
        self.archive.forget_done()
        inputs = transformation.inputs
        with self._timed("archive raw"):
            if self.job.settings.archive.raw:
                self._keep("raw", inputs)
        with self._timed("encodings"):
            transformation = transformation.decided(parameters)
            assert transformation.texts is not None
            self._set(encodings=transformation.texts.encodings)
        with self._timed("earthmover"):
            run, match = transformation.run(outline, parameters)
        self._set(outputs=run.outputs, match=match)
        changed = [name for name, path in inputs.items() if file_digest(path) != digests[name]]
        if changed:
            raise ToolFailed(
                f"{', '.join(changed)} was changed while it was read; run again when it is complete"
            )
        with self._timed("archive"):
            self._archive_outputs(transformation.results_file)
        with self._timed("student ids"):
            self._check_matches()
        with self._timed("records"):
            self._check_records(transformation, parameters)
        self._deliver(delivery)
        if delivery:
            self.newest, self.source = delivery.newest, delivery.target.source

    def _fingerprint(self, parameters: Mapping[str, str], digests: Mapping[str, str]) -> str:
        settings = self.job.settings
        roster = {ROSTER: file_digest(Path(parameters[ROSTER]))} if ROSTER in parameters else {}
        plain = {name: value for name, value in parameters.items() if name not in roster}
        delivery = settings.model_dump_json(include={"destination", "lightbeam", "sideload", "student_ids"})
        ods = self.job.platform.ods(self.job.pair).base_url
        selector = settings.earthmover.selector or ""
        content = self.space.content()
        return fingerprint(
            content, plain, digests, roster, self.outside or {}, tool_versions(), delivery, ods, selector
        )

    def _tell_unknown(self, outline: BundleOutline) -> None:
        """A configured parameter that a bundle does not ask for may be a slip, or be there for its next version."""
        if unknown := outline.unknown(self.job.settings.parameters):
            self.job.warn(f"{self.job.bundle} asks for no parameter {', '.join(unknown)}")

    def _is_done_before(self, delivery: Delivery | None) -> bool:
        """Whether the last complete run was of the very same, left its files, and the ODS has what was sent to it."""
        settings = self.job.settings
        if self.job.force or settings.earthmover.force or settings.lightbeam.force or self.outside is None:
            return False
        done = self.archive.last_done()
        if done is None or done.fingerprint != self.result.fingerprint or not self._are_loaded(done):
            return False
        if delivery is None:
            return True
        if done.source and done.source != delivery.target.source:
            return False
        now = delivery.newest
        if done.newest is not None and now is not None and now < done.newest:
            return False
        return delivery.has_what_was_sent()

    def _are_loaded(self, done: Done) -> bool:
        """Whether the warehouse of today has what that run loaded; another one may be configured since."""
        if not done.loaded:
            return True
        self.job.warehouse.prepare([])
        with self.job.warehouse.connected() as connection:
            latest = latest_loaded(connection, self.job.pair)
        return all(latest.get(name) == stamp for name, stamp in done.loaded.items())

    def _check_matches(self) -> None:
        match = self.result.match
        if match is not None and not match.is_enough:
            assert match.share is not None
            raise EarthbeamError(
                f"only {match.share:.1%} of {match.rows} rows found their student, {match.required:.1%} are required; see "
                "the rows without a student in the lake's restricted folder"
            )

    def _check_records(self, transformation: Transformation, parameters: Mapping[str, str]) -> None:
        """Rows that came to nothing are no success, unless the bundle says so."""
        if self.job.settings.allow_empty_output:
            return
        if found := transformation.fruitless(parameters, self.result.outputs):
            variable, outputs = found
            raise EarthbeamError(
                f"{variable} has rows, but no record of {', '.join(outputs)} came of them; correct the file or the bundle, "
                "or set allow_empty_output: true if that is right"
            )

    # -- after Earthmover --------------------------------------------------------------------------------

    def _archive_outputs(self, results: Path) -> None:
        settings = self.job.settings
        loaded = settings.destination == "warehouse"
        transformed = []
        for output in self.result.outputs:
            file = self.space.outputs / output.file
            if output.name == NO_MATCH:
                self._restricted(file)
            elif not (loaded and output.resource) and (
                settings.archive.transformed or output.name == MATCH_RATES
            ):
                transformed.append(file)
        graphs = [file for file in self.space.project.glob("graph.*") if settings.earthmover.show_graph]
        kept = [*transformed, *graphs, *([results] if results.is_file() else [])]
        self._keep("transformed", {file.name: file for file in kept})

    def _restricted(self, file: Path) -> None:
        path = self.archive.keep_restricted(file, self.result.started_at, self.result.fingerprint)
        self._set(archived=(*self.result.archived, path))

    def _keep(self, kind: str, files: Mapping[str, Path]) -> None:
        """Archive files; those of one name, as inputs from several folders may have, in a folder by variable."""
        folder = f"{self.archive.folder(self.result.started_at, self.result.fingerprint)}/{kind}"
        names = Counter(file.name for file in files.values())
        for name, file in files.items():
            place = f"{folder}/{name}" if names[file.name] > 1 else folder
            self._set(archived=(*self.result.archived, self.archive.keep(file, place)))

    def _deliver(self, delivery: Delivery | None) -> None:
        settings = self.job.settings
        if settings.destination == "warehouse":
            with self._timed("sideload"):
                self._set(loaded=load_straight(self.job, self.archive, self.space, self.result.outputs))
        if delivery is not None:
            try:
                self._send(delivery)
            finally:
                self._set(validated=delivery.validated, sent=delivery.sent, deleted=delivery.deleted)

    def _send(self, delivery: Delivery) -> None:
        command, outputs = self.job.settings.lightbeam.command, self.result.outputs
        if command in {"validate", "validate+send"}:
            with self._timed("validate"):
                delivery.validate(outputs)
        if command in {"send", "validate+send"}:
            with self._timed("send"):
                delivery.send(outputs)
        if command == "delete":
            with self._timed("delete"):
                delivery.delete(outputs)

    def _left_nothing_behind(self) -> bool:
        """Whether there is nothing to try again: every record is where it belongs, and it was no deletion, which is to be
        done when asked.
        """
        outcomes = (*self.result.validated, *self.result.sent)
        is_left = any(o.failed or (o.records and not o.offered) for o in outcomes)
        return not is_left and not self.result.deleted and self.result.is_done

    def note_done(self) -> None:
        """Note that this is done, with all that comes after it; what left something behind is done again."""
        if not self._left_nothing_behind():
            return
        result = self.result
        loaded = {outcome.name: outcome.pull_timestamp for outcome in result.loaded}
        done = Done(result.fingerprint, result.archived, self.newest, result.started_at, loaded, self.source)
        try:
            self.archive.note_done(done)
        except LakeError as error:
            self.job.warn(f"it was not noted that this is done, so it will be done again: {error}")

    # -- at the end --------------------------------------------------------------------------------------

    def log(self) -> None:
        """Write the run log; where that fails too, say so."""
        try:
            self.job.warehouse.prepare([])
            with self.job.warehouse.connected() as connection:
                write_run_log(connection, self.result)
        except WarehouseError as error:
            self.job.warn(f"the run log could not be written: {error}")

    def postprocess(self) -> None:
        hook = self.job.settings.hooks.postprocess
        if hook is None:
            return
        try:
            with self._timed("postprocess"):
                files = {name: Path(path) for name, path in self.result.files.items()}
                call = self._call(inputs=files, outputs=self.space.outputs, result=self.result)
                run_hook(hook, call, self._values())
        except EXPECTED as error:
            self.fail(error)
            self.log()

    def fail(self, error: BaseException) -> None:
        expected = isinstance(error, EXPECTED) and not isinstance(error, OSError)
        words = str(error) if expected else f"{type(error).__name__} in step {self.step}"
        if isinstance(error, OSError):
            words = f"{error.strerror or type(error).__name__}: {error.filename or self.space.root}"
        self._set(failure=words, failed_step=self.step)

    def _call(self, **about: Any) -> HookCall:
        job, pair = self.job, self.job.pair
        return HookCall(
            job.bundle,
            pair.tenant,
            pair.year,
            job.grain,
            self.space.scratch,
            lake=job.lake,
            warehouse=job.warehouse,
            **about,
        )

    def _values(self) -> dict[str, str]:
        pair = self.job.pair
        first = next(iter(self.result.files.values()), None) or next(map(str, self.job.inputs.values()), "")
        return {
            "tenant": pair.tenant,
            "year": str(pair.year),
            "grain": self.job.grain or "",
            "file": Path(first).name,
            "folder": str(self.space.scratch),
            **self.known,
        }

    def _set(self, **known: Any) -> None:
        self.result = replace(self.result, **known)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        self.step, started = step, time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = round(time.monotonic() - started, 3)
