"""Parameters of bundles: those that everybody needs, those that nobody knows, those that nobody may see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.earthbeam import read_outline
from edfi_dagster_tests.earthbeam.conftest import BundleBench, MakeBundleBench, Prepare
from edfi_dagster_tests.earthbeam.prepared import parameters
from edfi_dagster_tests.earthbeam.test_bundle import PAIRS, SMALL, make_bundle, write_bundle

SECRET = "snowflake://loader:hunter2@acme"
WITH_DATABASE = """
version: 2
config: {output_dir: "${OUTPUT_DIR}"}
sources:
  input: {connection: "${DATABASE}", query: "select 1 as a"}
destinations:
  assessments: {source: $sources.input, extension: jsonl}
  studentAssessments: {source: $sources.input, extension: jsonl}
"""


def told_of(bench: BundleBench) -> str:
    return json.dumps(bench.run_log()) + " ".join(bench.told)


def add_to_bundle(bench: BundleBench, text: str) -> None:
    file = bench.folder / "bundle" / "earthmover.yaml"
    file.write_text(file.read_text() + text)


def test_the_school_year_is_known_without_being_configured_and_can_be_another(prepare: Prepare) -> None:
    assert prepare(destination="none").run().failure is None
    bench = prepare(destination="none", parameters={"API_YEAR": "2024"})
    assert bench.run().failure is None
    assert [told["API_YEAR"] for told in parameters(bench)] == ["2025", "2024"]


def test_a_variable_that_nothing_fills_in_stops_the_run_instead_of_reaching_the_records(
    prepare: Prepare,
) -> None:
    """Earthmover takes it as it stands, ends with 0 and writes ``${SEASON}`` into every record."""
    bench = prepare(destination="none")
    add_to_bundle(bench, "  notes: {source: $sources.input, header: 'of ${SEASON}', extension: csv}\n")
    found = bench.run()
    assert found.failure == "notes needs SEASON, which nothing gives; write it under parameters"
    assert not (bench.folder / "parameters").exists()
    (bench.folder / "prepared" / "notes.csv").write_text("of Fall\n1\n")
    assert bench.run(parameters={"SEASON": "Fall"}).failure is None


def test_a_parameter_given_for_one_run_must_be_one_that_the_bundle_asks_for(prepare: Prepare) -> None:
    bench = prepare(destination="none")
    found = bench.run(parameters={"API_YEAR": "2024", "SEASN": "Fall"})
    assert found.failure is not None and "there is no parameter SEASN; known are API_YEAR" in found.failure


def test_a_configured_parameter_that_the_bundle_does_not_ask_for_is_told_of(prepare: Prepare) -> None:
    bench = prepare(destination="none", parameters={"SEASN": "Fall"})
    assert bench.run().failure is None
    assert "riverbend asks for no parameter SEASN" in bench.told


def test_a_secret_reaches_earthmover_by_its_environment_and_nobody_else(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENCY_DATABASE", SECRET)
    bench = prepare(destination="none", inputs={}, parameters={"DATABASE": {"env": "AGENCY_DATABASE"}})
    (bench.folder / "bundle" / "earthmover.yaml").write_text(WITH_DATABASE)
    tool = bench.folder / "earthmover"
    looking = f'echo "$@" > {bench.folder}/words; env > {bench.folder}/environment\n'
    tool.write_text(tool.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{looking}"))
    assert bench.run().failure is None
    assert f"DATABASE={SECRET}" in (bench.folder / "environment").read_text().splitlines()
    seen = told_of(bench) + (bench.folder / "words").read_text() + repr(bench.platform)
    assert "hunter2" not in seen
    # What a database holds can be another tomorrow, so this is never done before.
    assert not bench.run().unchanged
    monkeypatch.delenv("AGENCY_DATABASE")
    assert "AGENCY_DATABASE is not set" in str(bench.run().failure)


def test_the_real_earthmover_takes_the_secret_and_its_errors_do_not_tell_it(
    bundles: MakeBundleBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENCY_DATABASE", "no-address-with-hunter2")
    folder = write_bundle(tmp_path / "Database", WITH_DATABASE)
    bench = bundles(
        path=str(folder),
        inputs={},
        destination="none",
        parameters={"DATABASE": {"env": "AGENCY_DATABASE"}},
    )
    found = bench.run()
    assert found.failed_step == "earthmover" and found.failure is not None
    assert "SQLAlchemy URL" in found.failure and "hunter2" not in found.failure + told_of(bench)


def test_a_secret_is_named_in_the_configuration_not_written(bundles: MakeBundleBench) -> None:
    bench = bundles(parameters={"API_YEAR": "{year}", "NAMESPACE": {"env": "AGENCY_NAMESPACE"}})
    assert "{env: AGENCY_NAMESPACE}" in repr(bench.platform)


@pytest.mark.parametrize(
    ("text", "required"),
    [
        ('input: {file: "${INPUT_FILE}"}', {"INPUT_FILE": True}),
        ('input: {file: "${INPUT_FILE}", optional: true, columns: [a]}', {"INPUT_FILE": False}),
        # A variable with an empty default is not to be seen in what is rendered.
        ("\n  input:\n    file: ${WITH_DEFAULT}\n", {"WITH_DEFAULT": False}),
    ],
)
def test_a_bundle_tells_which_files_it_needs(tmp_path: Path, text: str, required: dict[str, bool]) -> None:
    text = SMALL.replace('input: {file: "${INPUT_FILE}", header_rows: 1}', text).replace(
        "config:\n", "config:\n  parameter_defaults: {WITH_DEFAULT: ''}\n"
    )
    outline = read_outline(make_bundle(write_bundle(tmp_path / "Files", text)), PAIRS)
    assert {one.variable: one.required for one in outline.inputs} == required


def test_an_optional_file_that_nobody_gives_is_told_as_none(prepare: Prepare) -> None:
    """Earthmover would take the literal ``${DETAILS_FILE}`` for a file of an unknown format."""
    bench = prepare(destination="none")
    file = bench.folder / "bundle" / "earthmover.yaml"
    optional = "  details: {file: '${DETAILS_FILE}', type: csv, optional: true, columns: [a]}\n"
    file.write_text(file.read_text().replace("destinations:\n", f"{optional}destinations:\n"))
    assert bench.run().failure is None
    (told,) = parameters(bench)
    assert told["DETAILS_FILE"] == ""


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/passwd", ".hidden"])
def test_an_output_that_would_lie_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    text = SMALL.replace("studentAssessments", json.dumps(name))
    with pytest.raises(Exception, match="is no name of a file"):
        read_outline(make_bundle(write_bundle(tmp_path / "Away", text)), PAIRS)


# -- grains ---------------------------------------------------------------------------------------------------


def test_a_grain_may_be_called_what_the_test_is_called(prepare: Prepare) -> None:
    """The College Board's own: each reaches Earthmover as it is, and none breaks a path or meets another there."""
    grains = ["SAT", "PSAT/NMSQT", "PSAT 8/9", "PSAT 10"]
    drop = {"folder": "drop/{grain}", "pattern": "*.csv"}
    options: dict[str, Any] = {
        "grains": grains,
        "grain_parameter": "TEST_TYPE",
        "inputs": {"INPUT_FILE": drop},
    }
    bench = prepare(destination="warehouse", **options)
    for grain in grains:
        folder = bench.folder / "drop" / grain.replace(" ", "_").replace("/", "_")
        folder.mkdir(parents=True)
        (folder / "in.csv").write_text("a,b\n1,2\n")
        found = bench.run(grain=grain)
        assert found.failure is None
        assert {load.name.rpartition("__")[2] for load in found.loaded} == {folder.name}
        assert all(f"/riverbend__{folder.name}/" in path for path in found.archived)
    assert [told["TEST_TYPE"] for told in parameters(bench)] == grains
    assert [row["grain"] for row in bench.run_log()] == grains
    assert bench.platform.bundle_pairs("riverbend") == (TenantYear("grand_bend", 2025),)
