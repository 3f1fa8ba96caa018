"""One run of a bundle: what is done before is not done again, what fails is told and cleaned up, nothing is half reported.

Earthmover is stood in for by a copy of prepared outputs, as its seconds prove nothing here; Lightbeam is the real one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.earthbeam import BundleError, BundleResult, EarthbeamError
from edfi_dagster.earthbeam.hooks import HookCall
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster_tests.earthbeam.conftest import BUNDLES, DEMO, BundleBench, MakeBundleBench
from edfi_dagster_tests.earthbeam.sending import ASSESSMENT, result, write_lines

STUDENTS = (600052, 600053)
CALLS: list[HookCall] = []
Prepare = Callable[..., BundleBench]


@pytest.fixture
def prepare(bundles: MakeBundleBench, tmp_path: Path) -> Iterator[Prepare]:
    """A bench whose Earthmover writes what lies in ``prepared``; a bundle that makes assessments and their results."""
    CALLS.clear()
    folder = tmp_path / "bundle"
    folder.mkdir()
    destinations = "".join(
        f"  {name}: {{source: $sources.input, extension: jsonl}}\n"
        for name in ("assessments", "studentAssessments")
    )
    (folder / "earthmover.yaml").write_text(
        f'version: 2\nsources:\n  input: {{file: "${{INPUT_FILE}}"}}\ndestinations:\n{destinations}'
    )
    tool = tmp_path / "earthmover"
    tool.write_text(
        '#!/bin/sh\nwhile [ "$1" != "-p" ]; do shift; done\n'
        f'echo "$2" >> {tmp_path / "parameters"}\n'
        'while [ "$1" != "config.output_dir" ]; do shift; done\n'
        f'cp {tmp_path / "prepared"}/* "$2"\n'
    )
    tool.chmod(0o755)
    write_results(tmp_path, *STUDENTS)
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")

    def make(**settings: Any) -> BundleBench:
        defaults = {
            "path": str(folder),
            "parameters": {},
            "inputs": {"INPUT_FILE": str(tmp_path / "in.csv")},
            "lightbeam": {"command": "send"},
        }
        bench = bundles(tools={"earthmover": {"path": str(tool)}}, **{**defaults, **settings})
        object.__setattr__(bench.platform.extract, "tmp_dir", tmp_path / "rooms")
        return bench

    yield make
    # Nothing is left in the rooms of runs, however they ended.
    assert not list((tmp_path / "rooms").glob("*"))


def write_results(folder: Path, *students: object, score: object = 7) -> None:
    """What Earthmover will write from now on."""
    (folder / "prepared").mkdir(exist_ok=True)
    write_lines(folder / "prepared" / "assessments.jsonl", [ASSESSMENT])
    write_lines(folder / "prepared" / "studentAssessments.jsonl", (result(s, score) for s in students))


def sent(found: BundleResult) -> dict[str, tuple[int, int, int]]:
    return {o.resource: (o.accepted, o.skipped, o.failed) for o in found.sent}


def parameters(bench: BundleBench) -> list[dict[str, str]]:
    """What each run of Earthmover was told."""
    return [json.loads(line) for line in (bench.folder / "parameters").read_text().splitlines()]


# -- nothing to do ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_again_is_nothing_to_do_until_something_of_it_is_another(prepare: Prepare) -> None:
    bench = prepare()
    first = bench.run()
    assert sent(first) == {"assessments": (1, 0, 0), "studentAssessments": (2, 0, 0)}
    again = bench.run()
    assert (again.unchanged, again.outputs, again.sent, again.fingerprint) == (
        True,
        (),
        (),
        first.fingerprint,
    )
    assert [row["unchanged"] for row in bench.run_log()] == [False, True]
    # An edited file of the bundle, whichever it is; Earthmover's own state would not see it.
    (bench.folder / "bundle" / "notes.jsont").write_text("{}")
    edited = bench.run()
    assert not edited.unchanged and edited.fingerprint != first.fingerprint
    assert sent(edited) == {"assessments": (0, 1, 0), "studentAssessments": (0, 2, 0)}


@pytest.mark.slow
def test_force_reaches_both_tools(prepare: Prepare) -> None:
    bench = prepare()
    bench.run()
    forced = bench.run(force=True)
    assert sent(forced) == {"assessments": (1, 0, 0), "studentAssessments": (2, 0, 0)}


def test_what_was_kept_of_the_last_run_must_still_be_there(prepare: Prepare) -> None:
    bench = prepare(destination="none")
    first = bench.run()
    assert bench.run().unchanged
    bench.lake.delete(first.archived[-1])
    again = bench.run()
    assert not again.unchanged and len(again.archived) == len(first.archived) == 3


def test_an_ods_that_was_restored_is_sent_to_again_though_nothing_else_changed(prepare: Prepare) -> None:
    bench = prepare()
    bench.run()
    bench.store.restore("first")
    again = bench.run()
    assert sent(again) == {"assessments": (1, 0, 0), "studentAssessments": (2, 0, 0)}
    assert any("it was restored" in told for told in bench.told)


@pytest.mark.slow
def test_a_file_is_sent_again_after_another_one_changed_its_students(prepare: Prepare) -> None:
    bench = prepare()
    other = bench.folder / "other.csv"
    other.write_text("a,b\n3,4\n")
    bench.run()
    write_results(bench.folder, *STUDENTS, score=9)
    bench.run(file=other)
    write_results(bench.folder, *STUDENTS)
    assert sent(bench.run())["studentAssessments"] == (2, 0, 0)


# -- failures ---------------------------------------------------------------------------------------------


def test_a_refused_record_fails_the_run_and_it_is_tried_again(prepare: Prepare) -> None:
    bench = prepare()
    write_results(bench.folder, *STUDENTS, "bench-1")
    found = bench.run()
    assert found.failed_step == "send" and found.failure is not None
    assert (
        found.failure.startswith("1 of 3 studentAssessments refused (409: ")
        and "bench-1" not in found.failure
    )
    assert sent(found)["studentAssessments"] == (2, 0, 1)
    assert [(row["is_done"], row["failed_step"]) for row in bench.run_log()] == [(False, "send")]
    bench.add_student(1)
    again = bench.run()
    assert (again.unchanged, again.failure) == (False, None)
    assert sent(again)["studentAssessments"] == (1, 2, 0)


def test_a_share_of_refusals_may_be_borne_but_is_never_taken_for_done(prepare: Prepare) -> None:
    bench = prepare(lightbeam={"command": "send", "max_failed_share": 0.4})
    write_results(bench.folder, *STUDENTS, "bench-1")
    found = bench.run()
    assert (found.failure, sent(found)["studentAssessments"]) == (None, (2, 0, 1))
    assert not bench.run().unchanged


def test_nothing_is_sent_where_the_check_before_it_fails(prepare: Prepare) -> None:
    bench = prepare(lightbeam={})
    write_lines(
        bench.folder / "prepared" / "studentAssessments.jsonl", [result(STUDENTS[0], assessedMinutes="long")]
    )
    found = bench.run()
    assert found.failed_step == "validate" and found.failure is not None
    assert found.failure.startswith("1 of 1 studentAssessments invalid (schema: ")
    assert found.sent == () and len(bench.store.rows("assessments")) == 3


def test_a_failing_earthmover_leaves_a_row_in_the_run_log_and_no_file_behind(prepare: Prepare) -> None:
    bench = prepare(hooks={"postprocess": f"{__name__}:remember"})
    shutil.rmtree(bench.folder / "prepared")
    found = bench.run()
    assert found.failed_step == "earthmover" and found.failure is not None
    assert found.failure.startswith("Earthmover failed: exit code 1")
    (row,) = bench.run_log()
    assert (row["failure"], row["run_type"], row["grain"]) == (found.failure, "riverbend", None)
    assert CALLS == [] and [p.rpartition("/")[2] for p in found.archived] == ["in.csv.zst"]


def test_a_file_that_is_still_being_written_is_told(prepare: Prepare) -> None:
    bench = prepare(destination="none")
    tool = bench.folder / "earthmover"
    tool.write_text(f"{tool.read_text()}echo 5,6 >> {bench.folder / 'in.csv'}\n")
    assert bench.run().failure == "INPUT_FILE was changed while it was read; run again when it is complete"


def test_a_fault_of_ours_is_logged_cleaned_up_and_raised(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = prepare(destination="none")

    def stumble(*_: object, **__: object) -> None:
        raise ZeroDivisionError("600052")

    monkeypatch.setattr("edfi_dagster.earthbeam.transform.Transformation.run", stumble)
    with pytest.raises(ZeroDivisionError):
        bench.run()
    (row,) = bench.run_log()
    assert row["failure"] == "ZeroDivisionError in step earthmover"


def test_a_run_log_that_cannot_be_written_does_not_fail_the_run(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise WarehouseError("the disk is full")

    bench = prepare(destination="none")
    monkeypatch.setattr("edfi_dagster.earthbeam.run.write_run_log", full)
    assert bench.run().failure is None
    assert "the run log could not be written: the disk is full" in bench.told


def test_an_ods_that_is_down_is_told_before_earthmover_runs(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edfi_dagster.ods.retries.seconds_before_retry", lambda *_: 0.0)
    bench = prepare(year={"base_url": "http://127.0.0.1:9/api"})
    found = bench.run()
    assert found.failed_step == "sign in" and found.failure is not None
    assert not (bench.folder / "parameters").exists()


# -- hooks, grains, inputs --------------------------------------------------------------------------------


def unpack(call: HookCall) -> dict[str, str]:
    file = call.folder / "unpacked.csv"
    file.write_text("a,b\n7,8\n")
    return {"unpacked": str(file), "season": "Fall"}


def remember(call: HookCall) -> None:
    assert call.outputs is not None
    assert {f.name for f in call.outputs.iterdir()} == {"assessments.jsonl", "studentAssessments.jsonl"}
    CALLS.append(call)


def fail(call: HookCall) -> None:
    raise ValueError("row of student 600052")


def test_what_a_hook_returns_fills_parameters_and_inputs(prepare: Prepare) -> None:
    bench = prepare(
        destination="none",
        inputs={"INPUT_FILE": "{unpacked}"},
        parameters={"SEASON": "{season} {year}", "NAME": "{tenant} {file}"},
        hooks={"preprocess": f"{__name__}:unpack", "postprocess": f"{__name__}:remember"},
    )
    found = bench.run()
    assert found.failure is None
    (told,) = parameters(bench)
    assert (told["SEASON"], told["NAME"]) == ("Fall 2025", "grand_bend unpacked.csv")
    assert Path(told["INPUT_FILE"]).name == "unpacked.csv"
    (call,) = CALLS
    assert call.result is not None and call.result.outputs == found.outputs


def test_a_command_is_a_hook_as_well(prepare: Prepare, tmp_path: Path) -> None:
    script = 'cp "$0" "$EARTHBEAM_FOLDER/${EARTHBEAM_YEAR}.csv"; echo {grain}done; echo "{\\"made\\": \\"$PWD/{year}.csv\\"}"'
    hooks = {"preprocess": ["sh", "-c", script, str(tmp_path / "in.csv")]}
    found = prepare(destination="none", inputs={"INPUT_FILE": "{made}"}, hooks=hooks).run()
    assert found.failure is None and Path(found.files["INPUT_FILE"]).name == "2025.csv"


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        (f"{__name__}:fail", "raised ValueError; run it alone to see why"),
        (f"{__name__}:missing", "cannot be found"),
        (["false"], "hook false ended with exit code 1"),
        (["echo", "{not json"], "printed a last line that is no JSON object"),
    ],
)
def test_a_hook_that_fails_stops_the_run_and_says_nothing_of_students(
    prepare: Prepare, hook: str | list[str], told: str
) -> None:
    bench = prepare(destination="none", hooks={"preprocess": hook})
    found = bench.run()
    assert found.failed_step == "preprocess" and found.failure is not None
    assert told in found.failure and "600052" not in found.failure


@pytest.mark.both_storages
def test_grains_share_neither_paths_nor_state_nor_rows(prepare: Prepare) -> None:
    bench = prepare(
        destination="warehouse",
        grains=["SAT", "PSAT"],
        grain_parameter="TEST_TYPE",
        sideload={"endpoints": ["studentAssessments"], "ods_version": "7.3", "data_model_version": "5.2.0"},
    )
    first = bench.run(grain="SAT")
    write_results(bench.folder, STUDENTS[0])
    second = bench.run(grain="PSAT")
    assert (first.failure, second.failure) == (None, None)
    assert [p["TEST_TYPE"] for p in parameters(bench)] == ["SAT", "PSAT"]
    assert [o.name for o in (*first.loaded, *second.loaded)] == [
        "student_assessments__riverbend__SAT",
        "student_assessments__riverbend__PSAT",
    ]
    assert bench.words("student_assessments__riverbend__SAT").keys() == {"600052", "600053"}
    assert bench.words("student_assessments__riverbend__PSAT").keys() == {"600052"}
    assert all("/earthbeam/riverbend__SAT/" in path for path in first.archived)
    assert all("/earthbeam/riverbend__PSAT/" in path for path in second.archived)
    assert [row["grain"] for row in bench.run_log()] == ["SAT", "PSAT"]
    assert bench.run(grain="PSAT").unchanged
    write_results(bench.folder, *STUDENTS)
    assert bench.run(grain="SAT").unchanged


def test_too_few_known_students_stop_a_run_that_earthmover_calls_a_success(prepare: Prepare) -> None:
    """What the student-id wrapper leaves below its threshold: exit code 0, no results, every row without a student."""
    bench = prepare(
        path=str(BUNDLES / "assessments" / "Brook"),
        parameters={"API_YEAR": "{year}", "TEST_TYPE": "Short"},
        student_ids={"roster": "roster_{tenant}.jsonl", "required_match_rate": 0.6},
    )
    assert "there is no roster" in str(bench.run().failure)
    (bench.folder / "roster_grand_bend.jsonl").write_text("{}\n")
    prepared = bench.folder / "prepared"
    (prepared / "studentAssessments.jsonl").write_text("")
    (prepared / "input_no_student_id_match.csv").write_text('"a","b"\n"600052","2"\n')
    (prepared / "student_id_match_rates.csv").write_text(
        'source_column_name,edfi_column_name,num_matches,num_rows,match_rate\n"a","State","1","5","0.2"\n'
    )
    found = bench.run()
    assert found.failed_step == "student ids" and found.failure is not None
    assert found.failure.startswith("only 0.0% of 1 rows found their student, 60.0% are required")
    assert found.match is not None and found.match.rates == (("a", "State", 1, 5, 0.2),)
    assert found.sent == () and len(bench.store.rows("assessments")) == 3
    rates = bench.query("SELECT assessment_name, match_rate FROM edfi3._meta_student_id_match_rates")
    assert rates == [("riverbend", 0.2)]
    (path,) = [path for path in found.archived if path.startswith("_restricted/grand_bend/2025/")]
    assert bench.lake.exists(path) and "600052" not in json.dumps(bench.run_log())
    # The rate of 0.2 is not enough to go by, so it is computed again.
    assert parameters(bench)[-1]["MATCH_RATES_SOURCE_TYPE"] == "none"


def test_a_sideload_asks_the_ods_for_its_versions(prepare: Prepare) -> None:
    bench = prepare(destination="warehouse", sideload={"full_refresh": True})
    found = bench.run()
    assert found.failure is None
    assert {(o.table, o.inserted) for o in found.loaded} == {("assessments", 1), ("student_assessments", 2)}
    versions = bench.query("SELECT DISTINCT ods_version, data_model_version FROM edfi3.student_assessments")
    assert versions == [("7.3.1", "5.2.0")]
    wrong = prepare(destination="warehouse", sideload={"endpoints": ["grades"]})
    assert wrong.run(force=True).failure == "riverbend makes no grades; correct sideload.endpoints"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bundle": "other"}, "there is no bundle 'other'; bundles are: riverbend"),
        ({"grain": "SAT"}, "has no grain 'SAT'; it has none"),
        ({"file": Path("/nowhere.csv")}, "INPUT_FILE: there is no file /nowhere.csv"),
        ({"parameters": {"SEASON": "Summer"}}, "SEASON is 'Summer'; write one of Fall, Winter, Spring"),
    ],
)
def test_what_is_asked_wrongly_is_told_and_no_tool_runs(
    prepare: Prepare, options: dict[str, Any], told: str
) -> None:
    bench = prepare(path=str(DEMO), parameters={"API_YEAR": "{year}"})
    found = bench.run(**options)
    assert found.failure is not None and told in found.failure
    assert not (bench.folder / "parameters").exists()


def test_of_a_folder_the_only_file_of_its_pattern_is_taken(prepare: Prepare) -> None:
    place = {"folder": "drop/{tenant}/{year}", "pattern": "*.csv"}
    bench = prepare(destination="none", inputs={"INPUT_FILE": place})
    drop = bench.folder / "drop" / "grand_bend" / "2025"
    assert "there is no folder" in str(bench.run().failure)
    drop.mkdir(parents=True)
    (drop / "readme.txt").write_text("")
    assert "no file in" in str(bench.run().failure)
    (drop / "a.csv").write_text("a,b\n1,2\n")
    assert Path(bench.run().files["INPUT_FILE"]) == drop / "a.csv"
    (drop / "b.csv").write_text("a,b\n1,2\n")
    assert "2 files in" in str(bench.run().failure) and "a.csv, b.csv" in str(bench.run().failure)


@pytest.mark.parametrize(("command", "rows"), [("validate", 0), ("delete", 0)])
@pytest.mark.slow
def test_the_command_decides_what_is_done_with_the_records(prepare: Prepare, command: str, rows: int) -> None:
    if command == "delete":
        assert prepare(lightbeam={"command": "send"}).run().failure is None
    bench = prepare(lightbeam={"command": command})
    found = bench.run()
    assert found.failure is None
    done = {"validate": found.validated, "send": found.sent, "delete": found.deleted}
    assert {name for name, outcomes in done.items() if outcomes} == {command}
    assert (
        sum(
            r["studentAssessmentIdentifier"].endswith("-brook")
            for r in bench.store.rows("studentAssessments")
        )
        == rows
    )


def test_errors_are_of_one_family() -> None:
    assert issubclass(BundleError, EarthbeamError)
