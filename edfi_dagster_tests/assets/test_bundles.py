"""Bundles as Dagster runs them: what was made and sent is materialized and checked, what went wrong is told once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from edfi_dagster.assets.keys import partition_key
from edfi_dagster.automation.file_drop import BUNDLE_JOB
from edfi_dagster.config import TenantYear
from edfi_dagster.definitions import build
from edfi_dagster.earthbeam.process import find_tool
from edfi_dagster_tests.assets.runs import failure, materialized
from edfi_dagster_tests.bench import PAIR
from edfi_dagster_tests.earthbeam.conftest import (
    BUNDLES,
    DEMO,
    BundleBench,
    MakeBundleBench,
    bundles,  # noqa: F401  (a fixture)
)

OUTPUTS = {
    "performance_level_descriptors": 3,
    "assessment_reporting_method_descriptors": 2,
    "assessments": 1,
    "objective_assessments": 2,
    "student_assessments": 10,
}
STRAIGHT = {"destination": "warehouse", "sideload": {"ods_version": "7.3", "data_model_version": "5.2.0"}}
KEY = "earthbeam/riverbend"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(
    bench: BundleBench,
    instance: dg.DagsterInstance,
    *,
    pair: TenantYear = PAIR,
    select: list[str] | None = None,
    **config: Any,
) -> dg.ExecuteInProcessResult:
    """A run of the demo's bundle; ``config`` is that of its op."""
    return (
        build(bench.platform)
        .resolve_job_def(BUNDLE_JOB)
        .execute_in_process(
            instance=instance,
            partition_key=partition_key(pair),
            asset_selection=[dg.AssetKey.from_user_string(key) for key in select] if select else None,
            run_config={"ops": {"earthbeam__riverbend": {"config": config}}},
            raise_on_error=False,
        )
    )


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """``asset check`` below the bundle → what it found."""
    return {
        f"{found.asset_key.to_user_string().removeprefix(f'{KEY}/')} {found.check_name}": found
        for found in result.get_asset_check_evaluations()
    }


def specs_of(bench: BundleBench) -> dict[str, dg.AssetSpec]:
    specs = build(bench.platform).resolve_all_asset_specs()
    return {spec.key.to_user_string(): spec for spec in specs if spec.group_name == "earthbeam"}


def errors_told(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    """All that anybody can read of a run: logs, metadata, failure."""
    return " ".join(str(entry) for entry in instance.all_logs(result.run_id))


# -- what is there before anything runs -----------------------------------------------------------------------


def test_a_bundle_is_an_asset_for_each_output_and_for_each_resource_it_sends(
    bundles: MakeBundleBench,  # noqa: F811
) -> None:
    bench = bundles()
    specs = specs_of(bench)
    assert set(specs) == {f"{KEY}/{name}" for name in OUTPUTS} | {f"{KEY}/sent/{name}" for name in OUTPUTS}
    made, sent = specs[f"{KEY}/student_assessments"], specs[f"{KEY}/sent/student_assessments"]
    assert (made.kinds, sent.kinds) == ({"earthmover", "json"}, {"lightbeam", "edfi"})
    assert made.metadata["edfi/resource"] == sent.metadata["edfi/resource"] == "studentAssessments"
    assert made.metadata["edfi/output"] == "studentAssessments.jsonl"
    assert [dep.asset_key for dep in sent.deps] == [made.key] and not list(made.deps)
    assert "Riverbend Reading Check" in (made.description or "")
    graph = build(bench.platform).resolve_asset_graph()
    extract = next(key for key in graph.get_all_asset_keys() if key.to_user_string() == "ed_fi/students")
    assert graph.get(made.key).partitions_def == graph.get(extract).partitions_def
    found = {(key.asset_key.path[-1], key.name) for key in graph.asset_check_keys}
    assert {
        ("student_assessments", "records_valid"),
        ("student_assessments", "sent_without_failures"),
    } <= found


def test_what_is_not_sent_has_no_sent_assets_and_students_are_looked_up_in_the_raw_table(
    bundles: MakeBundleBench,  # noqa: F811
) -> None:
    bench = bundles(path=str(BUNDLES / "assessments" / "Brook"), inputs={}, student_ids={}, **STRAIGHT)
    specs = specs_of(bench)
    assert {f"{KEY}/student_id_match_rates", f"{KEY}/input_no_student_id_match"} < set(specs)
    assert not any("/sent/" in key for key in specs)
    rates = specs[f"{KEY}/student_id_match_rates"]
    table = dg.AssetKey(["raw_edfi_3", "student_education_organization_associations"])
    assert [dep.asset_key for dep in rates.deps] == [table]
    graph = build(bench.platform).resolve_asset_graph()
    (check,) = [check for check in graph.asset_check_keys if check.asset_key == rates.key]
    assert check.name == "student_ids_match"
    assert graph.get(check).blocking


def test_a_bundle_whose_yaml_is_broken_is_there_tells_why_and_fails_and_the_others_load(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
) -> None:
    bench = bundles(endpoints=("students",))
    broken = bench.folder / "broken"
    broken.mkdir()
    (broken / "earthmover.yaml").write_text("version: 2\nsources: [\n")
    document = yaml.safe_load(bench.config.read_text())
    whole = document["earthbeam"]["bundles"]["riverbend"]
    document["earthbeam"]["bundles"] = {"riverbend": {**whole, "path": str(broken)}, "whole": whole}
    bench.config.write_text(yaml.safe_dump(document))
    bench = BundleBench(bench.config, bench.server)
    specs = specs_of(bench)
    assert f"{broken / 'earthmover.yaml'}, line" in (specs[f"{KEY}/unreadable"].description or "")
    assert "earthbeam/whole/student_assessments" in specs
    result = run(bench, instance, select=[f"{KEY}/unreadable"])
    told = failure(result)
    assert (
        told.startswith("grand_bend/2025: bundle riverbend, step inputs: ")
        and "earthmover.yaml, line" in told
    )
    (row,) = bench.run_log()
    assert row["failed_step"] == "inputs" and not row["is_done"]


# -- runs that go no further than their beginning ---------------------------------------------------------------


def test_a_pair_or_grain_that_is_not_declared_fails_at_once_with_those_that_are(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
) -> None:
    bench = bundles(applies_to={PAIR.tenant: []}, grains=["Fall", "Winter"])
    assert "riverbend does not apply to grand_bend/2025" in failure(run(bench, instance, grain="Fall"))
    bench = bundles(grains=["Fall", "Winter"], grain_parameter="SEASON")
    assert "has grains; give one of Fall, Winter" in failure(run(bench, instance))
    assert "no grain 'Spring'; write one of Fall, Winter" in failure(run(bench, instance, grain="Spring"))
    assert not bench.server.requests and bench.run_log() == []


def test_a_file_that_is_not_there_is_one_failure_that_says_where_it_was_looked_for(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
) -> None:
    bench = bundles(destination="none")
    result = run(bench, instance, files={"INPUT_FILE": "incoming/none.csv"})
    assert failure(result) == (
        "grand_bend/2025: bundle riverbend, step inputs: INPUT_FILE: there is no file "
        f"{bench.folder / 'incoming' / 'none.csv'}"
    )
    assert materialized(instance, result) == {}


# -- runs ------------------------------------------------------------------------------------------------------


def test_a_run_materializes_and_checks_what_was_made_and_sent_and_the_same_again_yields_nothing(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
) -> None:
    bench = bundles()
    first = run(bench, instance)
    assert first.success
    told = materialized(instance, first)
    assert {name: told[f"{KEY}/{name}"]["edfi/rows"] for name in OUTPUTS} == OUTPUTS
    assert {name: told[f"{KEY}/sent/{name}"]["edfi/sent"] for name in OUTPUTS} == OUTPUTS
    assert len(told) == 2 * len(OUTPUTS)
    made, sent = told[f"{KEY}/student_assessments"], told[f"{KEY}/sent/student_assessments"]
    assert made["edfi/files"] == {"INPUT_FILE": str(DEMO / "data" / "fall.csv")}
    assert len(made["edfi/fingerprint"]) == 64 and made["edfi/seconds"] > 0
    assert Path(made["dagster/uri"]).is_file() and made["dagster/uri"].endswith(
        "/studentAssessments.jsonl.zst"
    )
    assert sent["edfi/accepted_by_status"] == {"201": 10}
    assert (sent["edfi/records"], sent["edfi/skipped"], sent["edfi/failed"]) == (10, 0, 0)
    assert "edfi/grain" not in made and "edfi/rejections" not in sent
    found = checks(first)
    assert len(found) == 2 * len(OUTPUTS) and all(check.passed for check in found.values())
    assert len(bench.results_in_ods()) == 10

    again = run(bench, instance)
    assert again.success and materialized(instance, again) == {} and checks(again) == {}
    assert "nothing to do, the same files were done with the same bundle before" in errors_told(
        instance, again
    )


@pytest.mark.slow
def test_a_student_the_ods_does_not_know_fails_the_check_and_the_run_and_nobody_reads_who_it_is(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
) -> None:
    bench = bundles()
    file = bench.file(600052, 987654321)
    result = run(bench, instance, files={"INPUT_FILE": str(file)}, parameters={"SEASON": "Winter"})
    told = failure(result)
    assert told.startswith(
        "grand_bend/2025: bundle riverbend, step send: 1 of 2 studentAssessments refused (409: "
    )
    sent = materialized(instance, result)[f"{KEY}/sent/student_assessments"]
    assert (sent["edfi/sent"], sent["edfi/failed"]) == (1, 1)
    assert sent["edfi/rejected_by_status"] == {"409": 1}
    assert sent["edfi/rejections"][0]["line"] == 2
    check = checks(result)["sent/student_assessments sent_without_failures"]
    assert not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
    assert (check.description or "").startswith("1 of 2 taken, 0 there already, 1 failed; first: 409: ")
    everything = errors_told(instance, result)
    assert "987654321" not in everything and "Doe" not in everything
    assert set(bench.results_in_ods()) == {"600052-Winter-2025"}


def test_a_sideload_reports_the_raw_tables_for_its_partition_and_only_the_selected_assets_as_outputs(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
) -> None:
    bench = bundles(**STRAIGHT)
    result = run(bench, instance, select=[f"{KEY}/student_assessments"])
    assert result.success
    told = materialized(instance, result)
    assert set(told) == {f"{KEY}/{name}" for name in OUTPUTS} | {
        "raw_edfi_3/student_assessments",
        "raw_edfi_3/assessments",
        "raw_edfi_3/objective_assessments",
        "raw_edfi_3/_descriptors",
    }
    table = told["raw_edfi_3/student_assessments"]
    assert (table["edfi/rows"], table["edfi/rows_loaded"], table["edfi/rows_removed"]) == (10, 10, 0)
    assert table["edfi/name"] == "student_assessments__riverbend"
    assert len(bench.words()) == 10
    assert not any(request.path.endswith("studentAssessments") for request in bench.server.requests)


@pytest.mark.slow
def test_too_few_students_recognised_fails_the_blocking_check_and_nothing_goes_further(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
) -> None:
    bench = bundles(
        path=str(BUNDLES / "assessments" / "Brook"),
        parameters={"API_YEAR": "{year}", "TEST_TYPE": "Short"},
        student_ids={"id_types": ["State"], "columns": ["state_id", "local_id"], "required_match_rate": 0.6},
        inputs={},
        **STRAIGHT,
    )
    bench.materialize(["studentEducationOrganizationAssociations"])
    file = bench.folder / "in.csv"
    file.write_text("local_id,state_id,last_name,score\nx1,nobody-7,Unknownson,5\nx2,nobody-8,Unknownson,6\n")
    result = run(bench, instance, files={"INPUT_FILE": str(file)})
    assert failure(result).startswith(
        "grand_bend/2025: bundle riverbend, step student ids: only 0.0% of 2 rows"
    )
    check = checks(result)["student_id_match_rates student_ids_match"]
    assert not check.passed and check.blocking
    assert check.description == "0.0% of 2 rows found their student; 60.0% are required"
    assert check.metadata["edfi/unmatched"].value == 2
    told = materialized(instance, result)
    assert told[f"{KEY}/input_no_student_id_match"]["edfi/rows"] == 2
    assert "/_restricted/" in told[f"{KEY}/input_no_student_id_match"]["dagster/uri"]
    assert not any(key.startswith("raw_edfi_3/") for key in told)
    everything = errors_told(instance, result)
    assert "Unknownson" not in everything and "nobody-7" not in everything


# -- grains ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_grains_of_one_bundle_never_overwrite_each_other(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
) -> None:
    bench = bundles(
        grains=["SAT", "PSAT"], parameters={"API_YEAR": "{year}", "NAMESPACE": "uri://{grain}"}, **STRAIGHT
    )
    files = {
        grain: bench.file(600052, name=f"{grain}.csv", words=words)
        for grain, words in (("SAT", 111), ("PSAT", 99))
    }
    told = {}
    for grain, file in files.items():
        result = run(bench, instance, grain=grain, files={"INPUT_FILE": str(file)})
        assert result.success
        told[grain] = materialized(instance, result)
        assert told[grain][f"{KEY}/student_assessments"]["edfi/grain"] == grain
        name = told[grain]["raw_edfi_3/student_assessments"]["edfi/name"]
        assert name == f"student_assessments__riverbend__{grain}"
        assert told[grain]["raw_edfi_3/student_assessments"]["edfi/rows_loaded"] == 1
    _assert_apart(bench)
    assert bench.words("student_assessments__riverbend__SAT") == {"600052": ["111"]}
    assert bench.words("student_assessments__riverbend__PSAT") == {"600052": ["99"]}
    # What was noted of one grain still holds after the other.
    for grain, file in files.items():
        again = run(bench, instance, grain=grain, files={"INPUT_FILE": str(file)})
        assert again.success and materialized(instance, again) == {}


@pytest.mark.slow
def test_grains_that_are_sent_have_a_state_of_their_own(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
) -> None:
    bench = bundles(grains=["Fall", "Winter"], grain_parameter="SEASON")
    for grain in ("Fall", "Winter", "Fall"):
        file = bench.file(600052, 600053, name=f"{grain}.csv", words=100 + len(grain))
        result = run(bench, instance, grain=grain, files={"INPUT_FILE": str(file)})
        assert result.success
    assert materialized(instance, result) == {}
    assert set(bench.results_in_ods()) == {
        f"{student}-{grain}-2025" for student in (600052, 600053) for grain in ("Fall", "Winter")
    }
    _assert_apart(bench)
    states = bench.lake.children("_earthbeam/grand_bend/2025")
    for state in states:
        inside = bench.lake.children(f"_earthbeam/grand_bend/2025/{state}")
        assert any(name.startswith("sent_") for name in inside) and "done.json" in inside


def _assert_apart(bench: BundleBench) -> None:
    """State and archived files of the two grains lie in folders of their own, and the run log tells which is which."""
    first, second = sorted(bench.platform.earthbeam.bundles["riverbend"].grains)
    folders = {f"riverbend__{first}", f"riverbend__{second}"}
    assert set(bench.lake.children("_earthbeam/grand_bend/2025")) == folders
    logged = [row for row in bench.run_log() if not row["unchanged"]]
    assert {row["grain"] for row in logged} == {first, second}
    for row in logged:
        assert row["archived"] and all(f"/riverbend__{row['grain']}/" in path for path in row["archived"]), (
            json.dumps(row["archived"])
        )


# -- the pool --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_four_files_at_once_are_as_many_earthmovers_as_configured(
    bundles: MakeBundleBench,  # noqa: F811
    tmp_path: Path,
) -> None:
    log, tool = tmp_path / "earthmovers", tmp_path / "counting.sh"
    tool.write_text(
        f'#!/bin/sh\necho + >> {log}\n{find_tool("earthmover")} "$@"\ncode=$?\necho - >> {log}\nexit $code\n'
    )
    tool.chmod(0o755)
    bench = bundles(tools={"earthmover": {"path": str(tool), "concurrency": 2}}, destination="none")
    files = [bench.file(600052 + number, name=f"{number}.csv") for number in range(4)]

    def one(file: Path) -> bool:
        with dg.DagsterInstance.ephemeral() as own:
            return run(bench, own, files={"INPUT_FILE": str(file)}).success

    with closing(bench.warehouse), ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, files)) == [True] * 4
    running = most = 0
    for sign in log.read_text().split():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert (running, most) == (0, 2)
