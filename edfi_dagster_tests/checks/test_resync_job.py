"""``resync`` as the job of the UI: what it loads is reported as an extract reports it, and what is left is a failure."""

from typing import Any

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys, partition_key, partitions_of
from edfi_dagster.checks.resync import build_resync_job
from edfi_dagster.checks.tenant_years import TENANT_YEARS
from edfi_dagster_tests.assets.runs import failure, materialized
from edfi_dagster_tests.bench import PAIR, Bench, MakeBench
from edfi_dagster_tests.checks.asking import latest, lose


def run(bench: Bench, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    job = build_resync_job(bench.platform, AssetKeys(bench.platform), partitions_of(bench.platform))
    return job.execute_in_process(
        instance=instance,
        partition_key=partition_key(PAIR),
        run_config={"ops": {"resync_tenant_year": {"config": config}}},
        raise_on_error=False,
    )


def observed(instance: dg.DagsterInstance) -> dict[str, Any]:
    (record,) = instance.fetch_observations(TENANT_YEARS, limit=1).records
    observation = record.event_log_entry.asset_observation
    assert observation is not None
    assert observation.partition == partition_key(PAIR)
    return {name: value.value for name, value in observation.metadata.items()}


def test_what_drifted_is_refreshed_and_reported_with_its_checks(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "sessions", pull_total_counts=True, change_version_overlap=0)
    bench.materialize()
    lose(bench, "students")
    session = bench.store.ids("sessions")[0]
    bench.change("sessions", session, totalInstructionalDays=1)
    result = run(bench, instance)
    assert result.success
    told = materialized(instance, result)
    assert told["raw_edfi_3/sessions"]["edfi/full_refresh"] is False
    assert told["raw_edfi_3/students"]["edfi/full_refresh"] is True
    for table in ("raw_edfi_3/students", "raw_edfi_3/sessions"):
        evaluation = latest(instance, table)
        assert evaluation is not None
        assert evaluation.passed
    assert observed(instance)["edfi/refreshed"] == ["ed-fi/students"]
    bench.verify()


def test_a_dry_run_of_some_endpoints_fails_on_what_differs_and_loads_nothing(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    lose(bench, "students")
    lose(bench, "sessions")
    before = bench.state()
    result = run(bench, instance, dry_run=True, endpoints=["students"])
    assert failure(result) == f"{PAIR}: 1 counted, 1 drifted"
    assert bench.state() == before
    assert materialized(instance, result) == {}
    (row,) = observed(instance)["edfi/differing"].records
    assert (row.data["endpoint"], row.data["difference"]) == ("ed-fi/students", -1)
