"""Earthmover as a child process, judged by what it wrote.

Its exit code is 99 for an unchanged project whether or not the outputs are there, also after an edit of the
transformations; so whether there is anything to do is decided here, by fingerprint, and 99 is run again by force.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from edfi_dagster.config.earthbeam import EarthmoverOptions, EarthmoverTool
from edfi_dagster.earthbeam.bundle import BundleOutline, Output
from edfi_dagster.earthbeam.encodings import UTF_8
from edfi_dagster.earthbeam.errors import ToolFailed
from edfi_dagster.earthbeam.process import Finished, find_tool, run_child, scrubbed_environment
from edfi_dagster.earthbeam.rendering import Composed
from edfi_dagster.earthbeam.result import WrittenOutput
from edfi_dagster.earthbeam.scrubbing import scrubbed
from edfi_dagster.earthbeam.text_inputs import TextInputs
from edfi_dagster.earthbeam.workspace import Workspace

UNCHANGED = 99
_LOG_LINE = re.compile(r"^\S+ \S+ earthmover (ERROR|CRITICAL) (?P<message>.*)")
# Where it happened, which Earthmover says once for each block around it.
_PLACE = re.compile(r"\(near line (\d+) of `([^`]*)` in `[^`]*`(?:\.[^)]*)?\) *")


@dataclass(frozen=True)
class EarthmoverRun:
    """What one Earthmover run wrote."""

    outputs: tuple[WrittenOutput, ...]
    seconds: float


@dataclass(frozen=True)
class Earthmover:
    """How one run calls Earthmover. ``state_file`` counts only without ``skip_hashing``.

    ``secrets`` are parameters that go by its environment: the words of a command are there for every user of the machine.
    """

    tool: EarthmoverTool
    options: EarthmoverOptions
    space: Workspace
    state_file: Path | None = None
    results_file: Path | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def run(
        self,
        outline: BundleOutline,
        composed: Composed,
        parameters: Mapping[str, str],
        inputs: TextInputs,
    ) -> EarthmoverRun:
        """Run it over ``inputs``. Raises ToolFailed, ToolTimedOut."""
        files = {name: str(path) for name, path in inputs.files.items()}
        given = {**parameters, **files, **self._own_parameters()}
        seconds = 0.0
        for forced in (self.options.force, True):
            self.space.clear_outputs()
            argv = self._argv(given, inputs.declaring, force=forced)
            environment = scrubbed_environment(self.space.scratch, without={**composed.parameters, **given})
            ended = run_child(
                argv,
                folder=self.space.project,
                environment={**environment, **self.secrets},
                seconds=self.tool.timeout_minutes * 60,
                log=self.space.scratch / "earthmover.log",
            )
            seconds += ended.seconds
            if ended.code != UNCHANGED:
                break
        if ended.code != 0:
            raise ToolFailed(f"Earthmover failed: {_first_error(ended, self.secrets)}")
        written = written_outputs(outline.outputs, self.space.outputs, self._expected(composed))
        return EarthmoverRun(written, seconds)

    def _own_parameters(self) -> dict[str, str]:
        scratch = str(self.space.scratch)
        return {
            "OUTPUT_DIR": str(self.space.outputs),
            "STATE_FILE": str(self.state_file or self.space.scratch / "runs.csv"),
            "TMP_DIR": scratch,
            "TEMPORARY_DIRECTORY": scratch,
        }

    def _argv(self, parameters: Mapping[str, str], declaring: Iterable[str], *, force: bool) -> list[str]:
        options = self.options
        config = next(self.space.project.glob("earthmover.y*ml")).name
        argv = [find_tool(self.tool.path), "run", "-c", f"./{config}", "-p", json.dumps(dict(parameters))]
        argv += ["-s", options.selector] if options.selector else []
        argv += ["-f"] if force else []
        argv += ["-k"] if options.skip_hashing else []
        argv += ["-g"] if options.show_graph else []
        argv += ["-e"] if options.show_stacktrace else []
        if options.results_file and self.results_file is not None:
            argv += ["-r", str(self.results_file)]
        overrides = {"config.output_dir": str(self.space.outputs), "config.tmp_dir": str(self.space.scratch)}
        if not options.skip_hashing:
            overrides["config.state_file"] = str(self.state_file or self.space.scratch / "runs.csv")
        overrides |= {f"sources.{source}.encoding": UTF_8 for source in sorted(declaring)}
        return [*argv, "--set", *(word for pair in overrides.items() for word in pair)]

    def _expected(self, composed: Composed) -> frozenset[str]:
        """The outputs that this very run must write: with a selector, those it names."""
        made = frozenset(composed.block("destinations"))
        if not self.options.selector or self.options.selector == "*":
            return made
        patterns = [pattern.strip().split(".")[-1] for pattern in self.options.selector.split(",")]
        return frozenset(name for name in made if any(fnmatchcase(name, pattern) for pattern in patterns))


def tool_versions() -> dict[str, str]:
    """The versions of the tools that are installed beside this package."""
    found = {}
    for name in ("earthmover", "lightbeam"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def written_outputs(
    outputs: Sequence[Output], folder: Path, expected: frozenset[str]
) -> tuple[WrittenOutput, ...]:
    """The outputs that are there, with their records counted. Raises ToolFailed where one of ``expected`` is missing."""
    missing = [o.file for o in outputs if o.name in expected and not (folder / o.file).is_file()]
    if missing:
        raise ToolFailed(f"Earthmover ended without an error, but did not write {', '.join(missing)}")
    found = tuple(
        WrittenOutput(o.name, o.file, o.resource, count_records(folder / o.file))
        for o in outputs
        if (folder / o.file).is_file()
    )
    if not found:
        raise ToolFailed("Earthmover ended without an error, but wrote none of the bundle's outputs")
    return found


def count_records(file: Path) -> int:
    """Lines that are not blank; of a CSV file its rows without the header."""
    if file.suffix != ".csv":
        return _filled_lines(file)
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as text:
            rows = sum(1 for row in csv.reader(text, strict=True) if any(row))
    except csv.Error:
        # A template quotes values as they are, with the quotes that are in them; it writes a row a line.
        rows = _filled_lines(file)
    return max(0, rows - 1)


def _filled_lines(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for line in lines if not line.isspace())


def drop_blank_lines(file: Path) -> None:
    """Templates may write blank lines, which Lightbeam would send as records."""
    with file.open("rb") as lines:
        if not any(line.isspace() for line in lines):
            return
    part = file.with_name(f".{file.name}")
    with file.open("rb") as lines, part.open("wb") as kept:
        kept.writelines(line for line in lines if not line.isspace())
    part.replace(file)


def _first_error(ended: Finished, secrets: Mapping[str, str]) -> str:
    """The last line that Earthmover logged as an error; it goes on in the next lines where the message does."""
    message = ""
    for line in ended.lines():
        if found := _LOG_LINE.match(line):
            message = found["message"]
        elif line.startswith("Traceback"):
            break
        elif message:
            message = f"{message} {line.strip()}"
    if not message:
        return f"exit code {ended.code}, and no error in its log"
    for name, secret in secrets.items():
        message = message.replace(secret, f"<{name}>")
    places = [f"line {line} of {Path(file).name}" for line, file in _PLACE.findall(message)]
    words = scrubbed(_PLACE.sub("", message))
    return f"{words} ({places[-1]})" if places else words
