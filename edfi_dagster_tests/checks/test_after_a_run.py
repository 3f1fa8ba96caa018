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
