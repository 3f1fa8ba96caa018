"""What a run of a bundle is given: hooks and what they return, grains, students, files, commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.earthbeam import BundleError, EarthbeamError
from edfi_dagster.earthbeam.hooks import HookCall
from edfi_dagster_tests.earthbeam.conftest import BUNDLES, DEMO, Prepare
from edfi_dagster_tests.earthbeam.prepared import (
    STUDENTS,
    parameters,
    write_results,
)

CALLS: list[HookCall] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


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


def test_a_failing_earthmover_leaves_a_row_in_the_run_log_and_no_file_behind(prepare: Prepare) -> None:
    bench = prepare(hooks={"postprocess": f"{__name__}:remember"})
    shutil.rmtree(bench.folder / "prepared")
    found = bench.run()
    assert found.failed_step == "earthmover" and found.failure is not None
    assert found.failure.startswith("Earthmover failed: exit code 1")
    (row,) = bench.run_log()
    assert (row["failure"], row["run_type"], row["grain"]) == (found.failure, "riverbend", None)
    assert CALLS == [] and [p.rpartition("/")[2] for p in found.archived] == ["in.csv.zst"]


def keep_books(call: HookCall) -> None:
    assert call.result is not None
    rows = [{"bundle": call.bundle, "records": output.rows} for output in call.result.outputs] * 150
    call.insert_rows("agency_log", rows)
    (call.folder / "note.txt").write_text(call.keep(call.inputs["INPUT_FILE"], "agency/in.csv"))


def fail_halfway(call: HookCall) -> None:
    call.insert_rows(
        "agency_log", [{"bundle": "x", "records": 1}] * 200 + [{"bundle": "x", "records": "many"}]
    )


@pytest.mark.both_storages
def test_a_hook_keeps_files_in_the_lake_and_appends_rows_to_a_table_all_or_none(prepare: Prepare) -> None:
    bench = prepare(destination="none", hooks={"postprocess": f"{__name__}:keep_books"})
    with bench.warehouse.connected() as connection:
        connection.run(f"CREATE TABLE {connection.table('agency_log')} (bundle VARCHAR, records INTEGER)")
    assert bench.run().failure is None
    count = "SELECT count(*), sum(records) FROM edfi3.agency_log"
    assert bench.query(count) == [(300, 450)]
    assert bench.lake.read("agency/in.csv") == b"a,b\n1,2\n"
    failing = prepare(destination="none", hooks={"postprocess": f"{__name__}:fail_halfway"})
    failing.warehouse = bench.warehouse
    assert "raised WarehouseError" in str(failing.run(force=True).failure)
    assert bench.query(count) == [(300, 450)]


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
