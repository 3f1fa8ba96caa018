"""What an extract says at its end: whether tables match what the ODS counts, where that is news, and the run at a glance."""

from __future__ import annotations

import dagster as dg
import pytest

from edfi_dagster_tests.assets.runs import materialized, run
from edfi_dagster_tests.bench import MakeBench
from edfi_dagster_tests.checks.asking import latest, lose

TENANT_YEARS = dg.AssetKey(["health", "tenant_years"])


@pytest.mark.parametrize("run_type", ["bulk", pytest.param("default", marks=pytest.mark.slow)])
def test_tables_are_compared_with_the_count_of_the_ods_and_the_run_is_summed_up(
    make_bench: MakeBench, instance: dg.DagsterInstance, run_type: str
) -> None:
    bench = make_bench(
        "students",
        "sessions",
        descriptors=("sexDescriptors",),
        pull_total_counts=True,
        change_version_overlap=0,
        run_type=run_type,
    )
    assert run(bench, instance).success
    for table in ("students", "sessions", "_descriptors"):
        assert latest(instance, f"raw_edfi_3/{table}").passed, table

    quiet = run(bench, instance)
    assert quiet.success
    assert materialized(instance, quiet).keys() == {"raw_edfi_3/_meta_total_counts"}
    told = instance.all_logs(quiet.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    assert told == []

    bench.add_student(1)
    lose(bench, "sessions")
    assert run(bench, instance).success
    assert latest(instance, "raw_edfi_3/students").passed
    assert not latest(instance, "raw_edfi_3/sessions").passed

    (record,) = instance.fetch_observations(TENANT_YEARS, limit=1).records
    observation = record.event_log_entry.asset_observation
    assert observation is not None
    summary = observation.metadata["edfi/summary"]
    assert isinstance(summary, dg.TableMetadataValue)
    assert ("ed-fi/students", 1, "loaded") in [
        (row.data["endpoint"], row.data["loaded"], row.data["result"]) for row in summary.records
    ]


@pytest.mark.parametrize("run_type", ["bulk", "default"])
@pytest.mark.parametrize("mode", ["report", "repair"])
def test_what_left_without_a_tombstone_is_reported_or_refreshed_in_every_shape(
    make_bench: MakeBench, instance: dg.DagsterInstance, run_type: str, mode: str
) -> None:
    bench = make_bench(
        "students", "schoolYearTypes", run_type=run_type, verify_counts=mode, change_version_overlap=0
    )
    body = {"schoolYear": 2061, "schoolYearDescription": "2061", "currentSchoolYear": False}
    year = bench.store.post("schoolYearTypes", body)
    assert run(bench, instance).success
    bench.query("UPDATE edfi3._meta_count_checks SET pull_timestamp = pull_timestamp - INTERVAL '1 day'")
    bench.store.delete("schoolYearTypes", year)
    bench.store.hide("students", bench.store.ids("students")[0])
    result = run(bench, instance)
    assert result.success
    bench.verify(["schoolYearTypes"])
    rows = bench.store.count("students") - (mode == "repair")
    assert len(bench.current("students")) == rows
    made = materialized(instance, result)
    assert made["raw_edfi_3/school_year_types"]["edfi/full_refresh"]
    assert ("raw_edfi_3/students" in made) == (mode == "repair")

    (record,) = instance.fetch_observations(TENANT_YEARS, limit=1).records
    observation = record.event_log_entry.asset_observation
    assert observation is not None
    assert observation.metadata["edfi/compared"].value == 2
    warned = [
        e.user_message for e in instance.all_logs(result.run_id) if "no delta settles that" in e.user_message
    ]
    told = instance.fetch_observations(dg.AssetKey(["raw_edfi_3", "students"]), limit=1).records
    if mode == "repair":
        assert not warned and not told
        return
    numbers = {"ods_count": rows - 1, "current_rows": rows}
    assert observation.metadata["edfi/differing"].value == {"ed-fi/students": numbers}
    assert len(warned) == 1
    on_table = told[0].event_log_entry.asset_observation
    assert on_table is not None
    assert {n: on_table.metadata[f"edfi/{n}"].value for n in numbers} == numbers
