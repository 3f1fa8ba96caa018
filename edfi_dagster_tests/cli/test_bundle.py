"""``bundle run`` as a person and a script use it: a table of 80 columns, one JSON document, exit codes that tell."""

from __future__ import annotations

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from edfi_dagster_tests.cli.in_process import document, fits, invoke
from edfi_dagster_tests.earthbeam.conftest import MakeBundleBench, bundles  # noqa: F401

PARTITION = ("--tenant", "grand_bend", "--year", "2025")


@pytest.fixture(autouse=True)
def _instance_of_the_bench(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands keep their instance beside the configuration, wherever the tests are started from."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(str(tmp_path))


@pytest.mark.slow
def test_a_run_prints_what_was_made_and_sent_and_the_next_says_that_there_is_nothing_to_do(
    bundles: MakeBundleBench,  # noqa: F811
) -> None:
    bench = bundles(endpoints=("students",))
    file = bench.file(600052, 600053)
    run = (
        "bundle",
        "run",
        "riverbend",
        *PARTITION,
        "--input",
        f"INPUT_FILE={file}",
        "--param",
        "SEASON=Winter",
    )
    first = invoke(bench, *run)
    assert first.exit_code == 0, first.stderr
    assert fits(first)
    rows = {line.split()[0]: line.split()[1:] for line in first.stdout.splitlines() if line.strip()}
    assert rows["student_assessments"] == ["2"]
    assert rows["sent/student_assessments"] == ["2", "2", "0", "0"]
    assert set(bench.results_in_ods()) == {"600052-Winter-2025", "600053-Winter-2025"}
    again = invoke(bench, *run, "--json")
    assert again.exit_code == 0
    told = document(again)
    assert told["unchanged"] and told["materialized"] == {} and told["failure"] is None
    assert (told["bundle"], told["tenant"], told["year"]) == ("riverbend", "grand_bend", 2025)
    assert "did not yield" not in again.stderr
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(bench.folder / ".dagster"))) as instance:
        runs = instance.get_runs()
    assert [run.tags["edfi/bundle"] for run in runs] == ["riverbend", "riverbend"]


@pytest.mark.slow
def test_refused_records_are_exit_code_1_with_the_check_and_the_cause(
    bundles: MakeBundleBench,  # noqa: F811
) -> None:
    bench = bundles(endpoints=("students",))
    file = bench.file(600052, 987654321)
    done = invoke(bench, "bundle", "run", "riverbend", *PARTITION, "--input", f"INPUT_FILE={file}", "--json")
    assert done.exit_code == 1
    told = document(done)
    assert told["failure"].startswith(
        "grand_bend/2025: bundle riverbend, step send: 1 of 2 studentAssessments refused"
    )
    failed = [check for check in told["checks"] if not check["passed"]]
    assert [check["asset"] for check in failed] == ["earthbeam/riverbend/sent/student_assessments"]
    assert told["materialized"]["earthbeam/riverbend/sent/student_assessments"]["edfi/failed"] == 1
    assert "987654321" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nothing", *PARTITION), "there is no bundle 'nothing'; bundles are: riverbend"),
        (("riverbend", "--tenant", "lakeview", "--year", "2025"), "declared are grand_bend/2025"),
        (("riverbend", *PARTITION), "has grains; give --grain, one of Fall, Winter"),
        (("riverbend", *PARTITION, "--grain", "SAT"), "no grain 'SAT'; they are: Fall, Winter"),
        (("riverbend", *PARTITION, "--grain", "Fall", "--input", "INPUT_FILE=gone.csv"), "there is no file"),
        (("riverbend", *PARTITION, "--grain", "Fall", "--input", "gone.csv"), "has no ="),
        (
            ("riverbend", *PARTITION, "--grain", "Fall", "--input", "OTHER=platform.yaml"),
            "riverbend reads no OTHER; it reads INPUT_FILE",
        ),
        (
            ("riverbend", *PARTITION, "--grain", "Fall", "--param", "SEASN=Fall"),
            "--param: riverbend asks for no SEASN; it asks for API_YEAR, NAMESPACE",
        ),
    ],
)
def test_wrong_use_is_exit_code_2_and_tells_what_there_is(
    bundles: MakeBundleBench,  # noqa: F811
    arguments: tuple[str, ...],
    told: str,
) -> None:
    bench = bundles(grains=["Fall", "Winter"], grain_parameter="SEASON")
    done = invoke(bench, "bundle", "run", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr and not done.stdout
    assert not bench.server.requests


def test_a_bundle_whose_folder_is_gone_is_told_of_and_keeps_nothing_else_from_running(
    bundles: MakeBundleBench,  # noqa: F811
) -> None:
    bench = bundles(endpoints=("students",))
    config = yaml.safe_load(bench.config.read_text())
    config["earthbeam"]["bundles"]["gone"] = {"path": "bundles/GONE"}
    bench.config.write_text(yaml.safe_dump(config))
    done = invoke(bench, "bundle", "run", "gone", *PARTITION)
    assert done.exit_code == 1
    told = f"{bench.folder}/bundles/GONE: there is no such folder; check the bundle out there or correct the path"
    assert any(line.endswith(told) for line in done.stderr.splitlines())
    checked = invoke(bench, "check", "--json")
    assert checked.exit_code == 1
    (found,) = (block for block in document(checked)["checked"] if block["subject"] == "bundles")
    states = {finding["question"]: finding["state"] for finding in found["findings"]}
    assert states == {"tool": "ok", "riverbend": "ok", "gone": "failed"}
    assert invoke(bench, "materialize", *PARTITION, "--endpoints", "students").exit_code == 0
