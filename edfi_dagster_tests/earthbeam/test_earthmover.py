"""Earthmover is judged by what it wrote, whatever its exit code says."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.config.earthbeam import Bundle, EarthmoverOptions, EarthmoverTool
from edfi_dagster.earthbeam import BundleOutline, ToolFailed, ToolTimedOut, read_outline
from edfi_dagster.earthbeam.bundle import composed_bundle
from edfi_dagster.earthbeam.earthmover import Earthmover, EarthmoverRun, count_records, drop_blank_lines
from edfi_dagster.earthbeam.process import find_tool
from edfi_dagster.earthbeam.text_inputs import text_inputs
from edfi_dagster.earthbeam.workspace import Workspace, workspace

PAIR = TenantYear("grand_bend", 2025)
YAML = """version: 2
config:
  output_dir: ${OUTPUT_DIR}
  state_file: ${STATE_FILE}
  parameter_defaults: {GREETING: hello}
sources:
  input: {file: "${INPUT_FILE}", header_rows: 1}
transformations:
  greeted:
    source: $sources.input
    operations:
      - {operation: add_columns, columns: {greeting: "${GREETING}"}}
destinations:
  students: {source: $transformations.greeted, extension: jsonl, template: ./all.jsont}
  names: {source: $sources.input, extension: jsonl, template: ./all.jsont}
"""


class Project:
    """A small project in a workspace of its own."""

    def __init__(self, folder: Path, space: Workspace) -> None:
        self.folder, self.space = folder, space
        self.state = folder / "state" / "runs.csv"
        self.input = folder / "input.csv"
        self.input.write_text("id,name\n1,Ada\n2,Grace\n")
        template = '{ {% for k, v in __row_data__.items() if k[:2] != "__" %}"{{ k }}": {{ v | tojson }}'
        (folder / "all.jsont").write_text(template + "{% if not loop.last %}, {% endif %}{% endfor %} }")
        self.write(YAML)

    def write(self, text: str) -> None:
        (self.folder / "earthmover.yaml").write_text(text)

    @property
    def bundle(self) -> Bundle:
        return Bundle.model_validate({"path": str(self.folder)}, context={"folder": self.folder})

    @property
    def outline(self) -> BundleOutline:
        return read_outline(self.bundle, [PAIR])

    def run(
        self,
        options: Mapping[str, Any] | None = None,
        parameters: Mapping[str, str] | None = None,
        **tool: Any,
    ) -> EarthmoverRun:
        given = {**(parameters or {}), "INPUT_FILE": str(self.input)}
        composed = composed_bundle(self.bundle, given)
        self.space.install(self.folder, composed)
        earthmover = Earthmover(
            EarthmoverTool(**tool),
            EarthmoverOptions(**(options or {})),
            self.space,
            state_file=self.state,
            results_file=self.space.root / "results.json",
        )
        self.texts = text_inputs(composed, {"INPUT_FILE": self.input}, self.space.scratch / "inputs")
        return earthmover.run(self.outline, composed, parameters or {}, self.texts)

    def records(self, name: str = "students") -> list[dict[str, Any]]:
        lines = (self.space.outputs / f"{name}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "bundle" / "state").mkdir(parents=True)
    with workspace(tmp_path / "tmp") as space:
        yield Project(tmp_path / "bundle", space)


def test_parameters_count_whatever_the_environment_says_and_rows_are_counted_from_the_outputs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Earthmover lets the environment override parameters, against what its help says.
    monkeypatch.setenv("GREETING", "goodbye")
    monkeypatch.setenv("OUTPUT_DIR", "/nowhere")
    run = project.run(parameters={"GREETING": "it's $HOME, {file}"})
    assert [(o.name, o.rows) for o in run.outputs] == [("students", 2), ("names", 2)]
    assert [r["greeting"] for r in project.records()] == ["it's $HOME, {file}"] * 2
    assert sorted(path.name for path in project.folder.iterdir()) == [
        "all.jsont",
        "earthmover.yaml",
        "input.csv",
        "state",
    ]


@pytest.mark.slow
def test_edited_transformations_and_deleted_outputs_are_made_again_where_earthmover_says_nothing_changed(
    project: Project, tmp_path: Path
) -> None:
    out, state = tmp_path / "out", tmp_path / "runs.csv"
    argv = [find_tool("earthmover"), "run", "-c", "earthmover.yaml", "-p"]
    given = {"INPUT_FILE": str(project.input), "OUTPUT_DIR": str(out), "STATE_FILE": str(state)}

    def bare() -> int:
        run = subprocess.run([*argv, json.dumps(given)], cwd=project.folder, capture_output=True)
        return run.returncode

    assert bare() == 0
    shutil.rmtree(out)
    project.write(YAML.replace('"${GREETING}"', "changed"))
    assert bare() == 99 and not out.exists()
    # Ours, with the very state that Earthmover went by:
    state.rename(project.state)
    project.run({"skip_hashing": False})
    assert [r["greeting"] for r in project.records()] == ["changed", "changed"]


def test_what_fails_is_told_in_one_line_and_without_an_exit_code(project: Project) -> None:
    project.write(YAML.replace("header_rows: 1", "header_rows: 1, columns: [id, missing]"))
    with pytest.raises(
        ToolFailed,
        match=r"Earthmover failed: error with source file .*columns not found.*\[missing\].*\(line 7 of earthmover\.yaml\)",
    ):
        project.run()


def test_an_output_that_is_not_written_is_a_failure_although_the_exit_code_is_zero(
    project: Project, tmp_path: Path
) -> None:
    lazy = tmp_path / "lazy"
    lazy.write_text("#!/bin/sh\nexit 0\n")
    lazy.chmod(0o755)
    with pytest.raises(ToolFailed, match=r"did not write students\.jsonl, names\.jsonl"):
        project.run(path=str(lazy))


def test_an_unchanged_project_is_run_again_by_force(project: Project, tmp_path: Path) -> None:
    stubborn = tmp_path / "stubborn"
    stubborn.write_text(
        '#!/bin/sh\ncase " $* " in *" -f "*) ;; *) exit 99;; esac\n'
        'while [ "$1" != "config.output_dir" ]; do shift; done\n'
        'echo "{}" > "$2/students.jsonl"; touch "$2/names.jsonl"\n'
    )
    stubborn.chmod(0o755)
    assert [o.rows for o in project.run({"skip_hashing": False}, path=str(stubborn)).outputs] == [1, 0]


def test_a_run_that_takes_too_long_is_ended(project: Project, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(ToolTimedOut, match="slow did not end"):
        project.run(path=str(slow), timeout_minutes=0.005)


def test_a_file_that_is_not_utf_8_is_read_as_what_it_is(project: Project) -> None:
    project.input.write_bytes("id,name\n1,Núñez\n2,Grace\n".encode("latin-1"))
    project.run()
    assert project.texts.encodings == {"INPUT_FILE": "cp1252"}
    assert [r["name"] for r in project.records("names")] == ["Núñez", "Grace"]


def test_every_option_reaches_earthmover(project: Project, tmp_path: Path) -> None:
    told = tmp_path / "told"
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\nexec {find_tool("earthmover")} "$@"\n')
    spy.chmod(0o755)
    options = {"selector": "students", "force": True, "skip_hashing": False, "results_file": True}
    run = project.run({**options, "show_stacktrace": True}, path=str(spy))
    words = told.read_text().splitlines()
    assert words[:4] == ["run", "-c", "./earthmover.yaml", "-p"]
    assert words[words.index("-s") + 1] == "students"
    assert {"-f", "-e"} <= set(words) and not {"-k", "-g"} & set(words)
    assert (
        json.loads((project.space.root / "results.json").read_text())["row_counts"]["$destinations.students"]
        == 2
    )
    assert [o.name for o in run.outputs] == ["students"]
    assert words[words.index("config.state_file") + 1] == str(project.state)


def test_records_are_counted_without_blank_lines_and_headers(tmp_path: Path) -> None:
    jsonl, table = tmp_path / "a.jsonl", tmp_path / "b.csv"
    jsonl.write_text('{"a": 1}\n\n   \n  {"a": 2}\n')
    table.write_text('a,b\n"1","two\nlines"\n3,4\n')
    assert (count_records(jsonl), count_records(table)) == (2, 2)
    drop_blank_lines(jsonl)
    assert jsonl.read_text() == '{"a": 1}\n  {"a": 2}\n'
