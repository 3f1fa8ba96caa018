"""Old runs are forgotten, and what the UI tells of each partition stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg

from edfi_dagster.automation.old_runs import forget_old_runs, forget_runs

GRID = dg.StaticPartitionsDefinition(["grand_bend", "lakeview"])
STUDENTS = dg.AssetKey(["ed_fi", "students"])


@dg.asset(key=STUDENTS, partitions_def=GRID)
def students() -> None: ...


@dg.asset
def report() -> None: ...


def run_of(instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, partition: str | None = None) -> str:
    return dg.materialize(assets, instance=instance, partition_key=partition).run_id


def test_old_runs_go_but_for_the_last_of_each_partition(instance: dg.DagsterInstance) -> None:
    first = run_of(instance, students, partition="grand_bend")
    lakeview = run_of(instance, students, partition="lakeview")
    last = run_of(instance, students, partition="grand_bend")
    old_report, new_report = run_of(instance, report), run_of(instance, report)

    assert forget_runs(instance, datetime.now(UTC) - timedelta(days=1)) == (0, 0)
    assert forget_runs(instance, datetime.now(UTC) + timedelta(seconds=1)) == (2, 3)

    assert {run.run_id for run in instance.get_runs()} == {lakeview, last, new_report}
    assert instance.all_logs(first) == instance.all_logs(old_report) == []
    assert instance.get_materialized_partitions(STUDENTS) == {"grand_bend", "lakeview"}
    assert forget_runs(instance, datetime.now(UTC) + timedelta(seconds=1)) == (0, 3)


def test_run_in_progress_is_never_forgotten(instance: dg.DagsterInstance) -> None:
    """The job's own is one."""
    for _ in range(3):
        done = forget_old_runs.execute_in_process(
            instance=instance, run_config={"ops": {"forget": {"config": {"keep_days": 1}}}}
        )
        assert done.success
    assert instance.get_runs_count() == 3
    assert forget_runs(instance, datetime.now(UTC) + timedelta(seconds=1)) == (3, 0)
