"""What we use of Dagster's private parts still behaves as we rely on it."""

from __future__ import annotations

from datetime import UTC, datetime
from inspect import signature
from pathlib import Path

import dagster as dg

from edfi_dagster import dagster_private as private


def test_jobs_of_assets_are_of_the_type_that_has_no_public_name() -> None:
    assert type(dg.define_asset_job("job", selection="*")) is private.UnresolvedAssetJobDefinition


def test_crons_give_the_moments_of_the_scheduler() -> None:
    start = datetime(2026, 3, 8, tzinfo=UTC).timestamp()
    after = private.cron_string_iterator(start, "0 2 * * *", "UTC")
    before = private.reverse_cron_string_iterator(start, "0 2 * * *", "UTC")
    assert [next(after).hour, next(after).day, next(before).day] == [2, 9, 7]


def test_runs_that_are_under_way_are_those_that_have_not_ended() -> None:
    status = dg.DagsterRunStatus
    under_way = set(private.NOT_FINISHED_STATUSES)
    assert {status.QUEUED, status.STARTING, status.STARTED, status.CANCELING} <= under_way
    assert not under_way & {status.SUCCESS, status.FAILURE, status.CANCELED}


def test_instance_of_a_folder_keeps_its_runs_there(tmp_path: Path) -> None:
    with dg.DagsterInstance.from_ref(private.InstanceRef.from_dir(str(tmp_path))) as instance:
        assert instance.get_runs_count() == 0
        assert instance.root_directory == str(tmp_path)
        assert list(instance.all_instigator_state(instigator_type=private.InstigatorType.SENSOR)) == []


def test_fields_that_are_read_are_there() -> None:
    assert {"cursor", "last_tick_timestamp"} <= set(signature(private.SensorInstigatorData).parameters)
    assert {"cls_name", "cause"} <= set(signature(private.SerializableErrorInfo).parameters)
    target = private.AssetCheckEvaluationTargetMaterializationData(storage_id=1, run_id="run", timestamp=2.0)
    assert (target.storage_id, target.run_id, target.timestamp) == (1, "run", 2.0)
    assert private.PartitionKeyFilter(key="2025|grand_bend").key == "2025|grand_bend"
    assert {"RUNNING", "STOPPED"} <= {status.name for status in private.InstigatorStatus}
    assert "PLANNED" in {status.name for status in private.AssetCheckExecutionRecordStatus}
    assert (private.WILL_RETRY_TAG, private.RUN_KEY_TAG) == ("dagster/will_retry", "dagster/run_key")
    assert private.default_sensor_grpc_timeout() > 0
