"""Earthmover over one run's files, with the students found among those of the roster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edfi_dagster.earthbeam import student_ids
from edfi_dagster.earthbeam.archive import Archive
from edfi_dagster.earthbeam.bundle import NO_MATCH, BundleOutline, composed_bundle
from edfi_dagster.earthbeam.crosswalk import Crosswalk
from edfi_dagster.earthbeam.earthmover import Earthmover, EarthmoverRun, drop_blank_lines
from edfi_dagster.earthbeam.encodings import UTF_8, is_unicode_text
from edfi_dagster.earthbeam.errors import BundleError, EarthbeamError
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
        """Run Earthmover; with student ids by the column that matches best in this file. Raises ToolFailed, WarehouseError."""
        if self.job.settings.student_ids is None:
            return self._earthmover(outline, parameters), None

        def earthmover(more: Mapping[str, str]) -> EarthmoverRun:
            return self._earthmover(outline, {**parameters, **more})

        composed = self.composed(parameters)
        tells_unmatched = any(output.name == NO_MATCH for output in outline.outputs)
        crosswalk = Crosswalk(
            self.job,
            self.archive,
            self.space,
            earthmover,
            composed.parameters,
            self._input_rows(composed),
            tells_unmatched,
        )
        return crosswalk.run()

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
