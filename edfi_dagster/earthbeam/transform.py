"""Earthmover over one run's files, with the students found among those of the roster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edfi_dagster.earthbeam import student_ids
from edfi_dagster.earthbeam.archive import Archive
from edfi_dagster.earthbeam.bundle import NO_MATCH, BundleOutline, composed_bundle
from edfi_dagster.earthbeam.earthmover import Earthmover, EarthmoverRun, drop_blank_lines
from edfi_dagster.earthbeam.encodings import UTF_8, is_unicode_text
from edfi_dagster.earthbeam.errors import BundleError, EarthbeamError, ToolFailed, ToolTimedOut
from edfi_dagster.earthbeam.filling import fill_path
from edfi_dagster.earthbeam.job import BundleJob
from edfi_dagster.earthbeam.rendering import Composed
from edfi_dagster.earthbeam.result import MatchOutcome, WrittenOutput
from edfi_dagster.earthbeam.row_counts import count_rows, fruitless_input
from edfi_dagster.earthbeam.sources import absent_inputs, check_filled
from edfi_dagster.earthbeam.text_inputs import TextInputs, source_file, text_inputs
from edfi_dagster.earthbeam.workspace import Workspace

ROSTER = "EDFI_ROSTER_FILE"


@dataclass(frozen=True)
class Transformation:
    """``inputs`` are variable → file, ``texts`` the same as Earthmover reads them, once that is known.

    The parameters of a run are given to each method, as they grow on the way.
    """

    job: BundleJob
    archive: Archive
    space: Workspace
    inputs: Mapping[str, Path]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    texts: TextInputs | None = None

    @property
    def files(self) -> Mapping[str, Path]:
        """Variable → the file that is read."""
        return self.texts.files if self.texts else self.inputs

    def decided(self, parameters: Mapping[str, str]) -> Transformation:
        """The same with every text file in UTF-8, and says which were not. Raises BundleError for one that is no text."""
        texts = text_inputs(self.composed(parameters), self.inputs, self.space.scratch / "inputs")
        for variable, encoding in texts.encodings.items():
            if not is_unicode_text(encoding):
                self.job.warn(f"{variable} is not UTF-8 and was read as {encoding}")
            elif encoding != UTF_8:
                self.job.tell(f"{variable} was read as {encoding}")
        return replace(self, texts=texts)

    @property
    def results_file(self) -> Path:
        """Earthmover's own account, where that is asked for."""
        return self.space.root / "earthmover_results.json"

    def roster(self, values: Mapping[str, str]) -> dict[str, str]:
        """The parameter that names the roster; it is written from the raw tables, or is a file of the configuration.

        Raises EarthbeamError where there is none, WarehouseError.
        """
        ids = self.job.settings.student_ids
        if ids is None:
            return {}
        if ids.roster != "warehouse":
            given = fill_path(ids.roster, values)
            if not Path(given).is_file():
                raise BundleError(f"there is no roster {given}; correct student_ids.roster")
            return {ROSTER: given}
        file = self.space.scratch / f"{student_ids.ASSOCIATIONS}.jsonl"
        standard = self.job.platform.ods(self.job.pair).extract.data_standard
        with (self.job.roster_warehouse or self.job.warehouse).connected() as connection:
            students = student_ids.write_roster(connection, self.job.pair, standard, file)
        if not students:
            raise EarthbeamError(
                f"{self.job.pair}: the warehouse has no {student_ids.ASSOCIATIONS}; load them before this bundle"
            )
        return {ROSTER: str(file)}

    def composed(self, parameters: Mapping[str, str]) -> Composed:
        """The YAML with everything filled in but the secrets. Raises BundleError where a variable is left."""
        composed = self._rendered(parameters)
        check_filled(composed, self.secrets)
        return composed

    def absent(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """The parameters that tell Earthmover of optional files which nobody gives."""
        return absent_inputs(self._rendered(parameters))

    def _rendered(self, parameters: Mapping[str, str]) -> Composed:
        given = {**parameters, **{name: str(path) for name, path in self.files.items()}}
        return composed_bundle(self.job.settings, given)

    def run(
        self, outline: BundleOutline, parameters: Mapping[str, str]
    ) -> tuple[EarthmoverRun, MatchOutcome | None]:
        """Run Earthmover; with student ids by the columns that matched best in an earlier file, and where these are not
        enough for this one, by those that match best in it. Raises ToolFailed, WarehouseError.
        """
        if self.job.settings.student_ids is None:
            return self._earthmover(outline, parameters), None
        rate = self._stored_rate(outline, parameters)
        if rate is not None:
            try:
                run, match = self._with_stored(outline, parameters, rate)
                if match.is_enough:
                    return run, match
                reason = f"only {match.share or 0:.1%} of this file's rows matched"
            except ToolTimedOut:
                raise
            except ToolFailed as error:
                reason = str(error)
            self.job.tell(f"with the columns of an earlier file {reason}; computing match rates anew")
        return self._with_computed(outline, parameters)

    def _with_stored(
        self, outline: BundleOutline, parameters: Mapping[str, str], rate: student_ids.Rate
    ) -> tuple[EarthmoverRun, MatchOutcome]:
        file = self.space.scratch / "stored_rates.csv"
        student_ids.write_rate(rate, file)
        given = {**parameters, "MATCH_RATES_SOURCE_TYPE": "file", "MATCH_RATES_FILE": str(file)}
        run = self._earthmover(outline, given)
        return run, self._matched(run, (rate,), given, stored=True)

    def _with_computed(
        self, outline: BundleOutline, parameters: Mapping[str, str]
    ) -> tuple[EarthmoverRun, MatchOutcome]:
        given = {**parameters, "MATCH_RATES_SOURCE_TYPE": "none"}
        run = self._earthmover(outline, given)
        rates = student_ids.read_rates(self.space.outputs)
        with self.job.warehouse.connected() as connection:
            student_ids.store_rates(connection, self.job.pair, self.archive.name, rates)
        return run, self._matched(run, rates, given, stored=False)

    def _matched(
        self,
        run: EarthmoverRun,
        rates: tuple[student_ids.Rate, ...],
        parameters: Mapping[str, str],
        *,
        stored: bool,
    ) -> MatchOutcome:
        ids = self.job.settings.student_ids
        assert ids is not None
        rows = self._input_rows(self.composed(parameters))
        unmatched = next((output.rows for output in run.outputs if output.name == NO_MATCH), None)
        return student_ids.matched(unmatched, ids.required_match_rate, rates, rows, stored=stored)

    def _stored_rate(self, outline: BundleOutline, parameters: Mapping[str, str]) -> student_ids.Rate | None:
        """The rate to go by. This file's own share must be told afterwards, so only where its rows can be counted, and those
        without a student.
        """
        ids = self.job.settings.student_ids
        assert ids is not None
        tells_unmatched = any(output.name == NO_MATCH for output in outline.outputs)
        if not tells_unmatched or self._input_rows(self.composed(parameters)) is None:
            return None
        with self.job.warehouse.connected() as connection:
            return student_ids.best_stored_rate(
                connection, self.job.pair, self.archive.name, ids.required_match_rate
            )

    def _input_rows(self, composed: Composed) -> int | None:
        """How many rows the file has whose students are looked for; None where that cannot be told without Earthmover."""
        node = composed.parameters.get("EARTHMOVER_NODE_TO_XWALK", "$sources.input")
        kind, _, name = node.partition(".")
        settings = composed.block("sources").get(name) if kind == "$sources" else None
        variable = source_file(settings, self.files) if settings else None
        if settings is None or variable is None:
            return None
        return count_rows({**settings, "encoding": UTF_8}, self.files[variable])

    def fruitless(
        self, parameters: Mapping[str, str], outputs: Sequence[WrittenOutput]
    ) -> tuple[str, tuple[str, ...]] | None:
        """The first input whose rows came to nothing, and the outputs that are made of it."""
        return fruitless_input(self.composed(parameters), self.files, outputs)

    def _earthmover(self, outline: BundleOutline, parameters: Mapping[str, str]) -> EarthmoverRun:
        options = self.job.settings.earthmover
        if self.job.force:
            options = options.model_copy(update={"force": True})
        tool = self.job.platform.earthbeam.earthmover
        earthmover = Earthmover(
            tool, options, self.space, results_file=self.results_file, secrets=self.secrets
        )
        with self.job.turn("earthmover"):
            texts = self.texts or TextInputs(self.inputs)
            run = earthmover.run(outline, self.composed(parameters), parameters, texts)
        for output in run.outputs:
            if output.resource:
                drop_blank_lines(self.space.outputs / output.file)
        return run
