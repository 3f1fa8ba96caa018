"""What a bundle makes is known from its YAML, as Earthmover itself would compose it, without running anything."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from edfi_dagster.config import TenantYear
from edfi_dagster.config.earthbeam import Bundle
from edfi_dagster.earthbeam import BundleError, BundleOutline, read_outline
from edfi_dagster.earthbeam.bundle import (
    bundle_parameters,
    composed_bundle,
    crosswalk_parameters,
    project_folder,
    wrapper_folder,
)
from edfi_dagster.earthbeam.checkout import commit_of
from edfi_dagster.earthbeam.process import find_tool, scrubbed_environment
from edfi_dagster.earthbeam.workspace import workspace
from edfi_dagster_tests.earthbeam.conftest import BUNDLES, DEMO

PAIRS = [TenantYear("grand_bend", 2025)]
SMALL = """
version: 2
config:
  output_dir: ${OUTPUT_DIR}
sources:
  input: {file: "${INPUT_FILE}", header_rows: 1}
destinations:
  studentAssessments: {source: $sources.input, extension: jsonl}
"""


def make_bundle(path: Path, **settings: Any) -> Bundle:
    return Bundle.model_validate({"path": str(path), **settings}, context={"folder": path.parent})


def write_bundle(folder: Path, text: str = SMALL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "earthmover.yaml").write_text(text)
    return folder


def brook(**settings: Any) -> Bundle:
    parameters = {"API_YEAR": "{year}", "TEST_TYPE": "Short", **settings.pop("parameters", {})}
    return make_bundle(BUNDLES / "assessments" / "Brook", parameters=parameters, student_ids={}, **settings)


def outputs(outline: BundleOutline) -> dict[str, tuple[str | None, bool]]:
    return {o.file: (o.resource, o.always) for o in outline.outputs}


def test_the_demo_makes_five_resources_of_one_file() -> None:
    outline = read_outline(make_bundle(DEMO, parameters={"API_YEAR": "{year}"}), PAIRS)
    assert outputs(outline) == {
        f"{name}.jsonl": (name, True)
        for name in (
            "performanceLevelDescriptors",
            "assessmentReportingMethodDescriptors",
            "assessments",
            "objectiveAssessments",
            "studentAssessments",
        )
    }
    (file,) = outline.inputs
    assert (file.variable, file.sources, file.file_types) == ("INPUT_FILE", ("input",), ("csv",))
    assert outline.title == "Riverbend Reading Check"
    parameters = {p.name: p for p in outline.parameters}
    assert parameters["SEASON"].allowed == ("Fall", "Winter", "Spring")
    assert parameters["NAMESPACE"].default == "uri://riverbend.example.org"


def test_a_bundle_within_the_student_id_wrapper_also_makes_what_the_wrapper_makes() -> None:
    outline = read_outline(brook(), PAIRS)
    assert outputs(outline) == {
        "input_no_student_id_match.csv": (None, True),
        # Not written where an earlier file's rates are taken.
        "student_id_match_rates.csv": (None, False),
        "assessments.jsonl": ("assessments", True),
        "studentAssessments.jsonl": ("studentAssessments", True),
    }
    assert [o.name for o in outline.outputs if o.is_restricted] == ["input_no_student_id_match"]
    assert {p.name: p.allowed for p in outline.parameters}["TEST_TYPE"] == ("Long", "Short")
    assert [i.variable for i in outline.inputs] == ["INPUT_FILE"]


def test_outputs_that_hang_on_year_or_grain_are_known_and_marked() -> None:
    years = [*PAIRS, TenantYear("grand_bend", 2026)]
    outline = read_outline(brook(grains=["Long", "Short"], grain_parameter="TEST_TYPE"), years)
    found = outputs(outline)
    assert found["accommodationDescriptors.jsonl"] == ("accommodationDescriptors", False)
    assert found["objectiveAssessments.jsonl"] == ("objectiveAssessments", False)
    assert found["studentAssessments.jsonl"] == ("studentAssessments", True)


def test_composed_yaml_is_what_earthmover_compiles(tmp_path: Path) -> None:
    bundle = brook()
    file = tmp_path / "input.csv"
    file.write_text("state_id\n1\n")
    with workspace(tmp_path) as space:
        parameters = {
            **crosswalk_parameters(bundle),
            **bundle_parameters(bundle, PAIRS[0], None, {}),
            "EDFI_ROSTER_FILE": str(file),
            "INPUT_FILE": str(file),
            "OUTPUT_DIR": str(space.outputs),
        }
        composed = composed_bundle(bundle, parameters)
        space.install(project_folder(bundle), composed)
        compiled = compiled_by_earthmover(space.project, space.scratch, parameters)
    for block in ("sources", "transformations", "destinations"):
        ours = composed.document[block]
        assert list(ours) == list(compiled[block])
        for name, settings in compiled[block].items():
            # Earthmover turns paths within packages into absolute ones, which ours need not be.
            plain = {key: value for key, value in settings.items() if key not in ("file", "template")}
            assert {k: v for k, v in ours[name].items() if k not in ("file", "template")} == plain


def compiled_by_earthmover(project: Path, home: Path, parameters: Mapping[str, str]) -> dict[str, Any]:
    import json

    argv = [find_tool("earthmover"), "compile", "-c", "./earthmover.yaml", "-p", json.dumps(dict(parameters))]
    subprocess.run(argv, cwd=project, env=scrubbed_environment(home), check=True, capture_output=True)
    found: dict[str, Any] = yaml.safe_load((project / "earthmover_compiled.yaml").read_text())
    return found


@pytest.mark.slow
def test_fifty_bundles_are_outlined_cold_in_less_than_ten_seconds(tmp_path: Path) -> None:
    columns = "".join(f"      - column_{n}\n" for n in range(150))
    loops = "".join(
        f"  step_{{{{ i }}}}_{n}:\n    source: $sources.input\n    operations:\n"
        "      - {operation: add_columns, columns: {a: '1', b: '2'}}\n"
        for n in range(12)
    )
    text = f"""version: 2
config:
  parameter_defaults: {{TEST_TYPE: ''}}
sources:
  input:
    file: ${{INPUT_FILE}}
    optional_fields:
{columns}
transformations:
  {{% for i in range(8) %}}
{loops}
  {{% endfor %}}
destinations:
  # of ${{API_YEAR}}
  {{% for name in ["assessments", "objectiveAssessments", "studentAssessments"] %}}
  {{{{ name }}}}: {{source: $sources.input, extension: jsonl}}
  {{% endfor %}}
"""
    folders = [write_bundle(tmp_path / "assessments" / f"Bundle_{n}", text) for n in range(50)]
    pairs = [TenantYear("grand_bend", year) for year in (2025, 2026)]
    settings = {"parameters": {"API_YEAR": "{year}"}, "inputs": {"INPUT_FILE": "in.csv"}}
    bundles = [make_bundle(folder, **settings) for folder in folders]
    started = time.process_time()
    for bundle in bundles:
        assert len(read_outline(bundle, pairs, cache=tmp_path / "cache").outputs) == 3
    assert time.process_time() - started < 10
    started = time.process_time()
    for bundle in bundles:
        assert len(read_outline(bundle, pairs, cache=tmp_path / "cache").outputs) == 3
    assert time.process_time() - started < 1


def test_an_outline_is_kept_until_a_file_it_was_read_from_changes(tmp_path: Path) -> None:
    folder, cache = write_bundle(tmp_path / "a"), tmp_path / "cache"
    bundle = make_bundle(folder)
    first = read_outline(bundle, PAIRS, cache=cache)
    assert [file.suffix for file in cache.iterdir()] == [".json"]
    text = SMALL.replace("studentAssessments:", "assessments:")
    (folder / "earthmover.yaml").write_text(text)
    assert [o.name for o in first.outputs] == ["studentAssessments"]
    assert [o.name for o in read_outline(bundle, PAIRS, cache=cache).outputs] == ["assessments"]
    # A file that was looked for and was not there counts as well.
    (folder / "_metadata.yaml").write_text("display_name: Now with a name\n")
    assert read_outline(bundle, PAIRS, cache=cache).title == "Now with a name"


def test_a_cache_that_cannot_be_written_or_read_is_done_without(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a")
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert len(read_outline(make_bundle(folder), PAIRS, cache=tmp_path / "cache").outputs) == 1
    read_outline(make_bundle(folder), PAIRS, cache=tmp_path / "other")
    (kept,) = (tmp_path / "other").iterdir()
    kept.write_text("cut o")
    assert len(read_outline(make_bundle(folder), PAIRS, cache=tmp_path / "other").outputs) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("{% if %}\n", ("earthmover.yaml, line 7:", "correct the Jinja there")),
        ("{% for i in ${HOW_MANY} %}{% endfor %}\n", ("earthmover.yaml, line 7:", "or give the parameter")),
        ("{{ undefined.part }}\n", ("earthmover.yaml, line 7:", "'undefined' is undefined")),
        (": : :\n", ("earthmover.yaml, line 7:", "correct the YAML there")),
        ("{{ ''.__class__.__mro__ }}\n", ("earthmover.yaml, line 7:", "unsafe")),
        ("{% for i in range(10000000) %}{% endfor %}\n", ("earthmover.yaml, line 7:", "Range too big")),
    ],
)
def test_what_cannot_be_read_is_told_with_file_and_line(
    tmp_path: Path, change: str, told: tuple[str, ...]
) -> None:
    text = SMALL.lstrip().replace(
        "  output_dir: ${OUTPUT_DIR}\n", "  macros: >\n    {% macro m() %}x{% endmacro %}\n"
    )
    text = text.replace("destinations:", f"{change}destinations:")
    with pytest.raises(BundleError) as failure:
        read_outline(make_bundle(write_bundle(tmp_path, text)), PAIRS)
    for words in told:
        assert words in str(failure.value)


def test_a_folder_without_yaml_one_without_destinations_and_a_wrong_version_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"empty: holds no earthmover\.yaml"):
        read_outline(make_bundle(tmp_path / "empty"), PAIRS)
    nothing = SMALL.partition("destinations:")[0]
    with pytest.raises(BundleError, match="has no destinations"):
        read_outline(make_bundle(write_bundle(tmp_path / "b", nothing)), PAIRS)
    with pytest.raises(BundleError, match="does not say version: 2"):
        read_outline(make_bundle(write_bundle(tmp_path / "c", "version: 1\n")), PAIRS)


def test_a_package_that_would_be_fetched_from_git_must_be_checked_out(tmp_path: Path) -> None:
    shutil.copytree(BUNDLES / "assessments", tmp_path / "assessments")
    shutil.copytree(BUNDLES / "packages" / "student_id_wrapper", tmp_path / "packages" / "student_id_wrapper")
    parameters = {"API_YEAR": "{year}", "TEST_TYPE": "Short"}
    bundle = make_bundle(tmp_path / "assessments" / "Brook", parameters=parameters, student_ids={})
    assert wrapper_folder(bundle) == tmp_path / "packages" / "student_id_wrapper"
    with pytest.raises(BundleError, match=r"package student_ids would be fetched from https://git"):
        read_outline(bundle, PAIRS)


def test_a_run_is_refused_before_any_tool_starts_if_parameters_or_files_are_wrong() -> None:
    outline = read_outline(brook(), PAIRS)
    outline.check({"API_YEAR": "2025", "TEST_TYPE": "Long"}, ["INPUT_FILE"])
    with pytest.raises(BundleError, match="TEST_TYPE is 'Middle'; write one of Long, Short"):
        outline.check({"API_YEAR": "2025", "TEST_TYPE": "Middle"}, ["INPUT_FILE"])
    with pytest.raises(BundleError, match=r"TEST_TYPE is not given.*INPUT_FILE is not given"):
        outline.check({"API_YEAR": "2025"}, [])


def test_the_commit_of_a_checkout_is_known_without_git(tmp_path: Path) -> None:
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (tmp_path / "assessments" / "A").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(f"# pack-refs\n{'a' * 40} refs/heads/main\n")
    assert commit_of(tmp_path / "assessments" / "A") == "a" * 40
    (git / "refs" / "heads" / "main").write_text(f"{'b' * 40}\n")
    assert commit_of(tmp_path / "assessments" / "A") == "b" * 40
    (git / "HEAD").write_text(f"{'c' * 40}\n")
    assert commit_of(tmp_path) == "c" * 40
