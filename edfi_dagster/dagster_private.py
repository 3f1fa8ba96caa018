"""Everything that we use of Dagster and that Dagster does not export, in one place.

Dagster may move or change these in any release; ``edfi_dagster_tests/test_dagster_private.py`` fails if it does. Each
name has the reason why the public interface is not enough. Import from here, nowhere else.
"""

from __future__ import annotations

# What `dg.define_asset_job` returns, which has no public name.
# Several check results with the materialization they speak of, in one event each, outside of a step.
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

# The state of schedules and sensors: which are on, and the cursor of the change sensor.
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# The last result of a check in one partition.
from dagster._core.event_api import PartitionKeyFilter

# An instance in a folder that is not DAGSTER_HOME.
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import InstigatorStatus, SensorInstigatorData
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

# The runs that still count as under way.
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

# Whether a failed run will be started again, and the key by which a sensor asked for a run.
from dagster._core.storage.tags import RUN_KEY_TAG, WILL_RETRY_TAG

# How long a sensor's tick may take before the daemon gives it up.
from dagster._grpc.utils import default_sensor_grpc_timeout

# The moments of a cron exactly as Dagster's scheduler has them, summer time included.
from dagster._utils.schedules import cron_string_iterator, reverse_cron_string_iterator

# The error of a run's failure event.
from dagster_shared.error import SerializableErrorInfo

__all__ = [
    "NOT_FINISHED_STATUSES",
    "RUN_KEY_TAG",
    "WILL_RETRY_TAG",
    "AssetCheckEvaluationTargetMaterializationData",
    "AssetCheckExecutionRecordStatus",
    "InstanceRef",
    "InstigatorStatus",
    "InstigatorType",
    "PartitionKeyFilter",
    "SensorInstigatorData",
    "SerializableErrorInfo",
    "UnresolvedAssetJobDefinition",
    "cron_string_iterator",
    "default_sensor_grpc_timeout",
    "reverse_cron_string_iterator",
]
