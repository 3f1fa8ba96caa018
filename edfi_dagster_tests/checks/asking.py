"""Runs of checks and of the extract on one instance, as the UI would start them."""

from __future__ import annotations

from typing import Any

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter

from edfi_dagster.assets.extract import build_extract
from edfi_dagster.assets.keys import AssetKeys, partition_key, partitions_of
from edfi_dagster.checks.counts import CHECK_NAME, build_counts_check
from edfi_dagster.config import Platform
from edfi_dagster.resources import EdfiRun
from edfi_dagster_tests.bench import PAIR, Bench

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def counts_job(platform: Platform, *tables: str) -> dg.JobDefinition:
    """The check of some tables, as the button on their pages runs it."""
    keys, partitions = AssetKeys(platform), partitions_of(platform)
    checks = [dg.AssetCheckKey(dg.AssetKey.from_user_string(table), CHECK_NAME) for table in tables]
    return dg.Definitions(
        assets=build_extract(platform, keys, partitions),
        asset_checks=[build_counts_check(platform, keys, partitions)],
        jobs=[
            dg.define_asset_job(
                "counts", dg.AssetSelection.checks(*checks), executor_def=dg.in_process_executor
            )
        ],
        resources={
            "edfi_run": EdfiRun(),
            "lake_io_manager": dg.mem_io_manager,
            "warehouse_io_manager": dg.mem_io_manager,
        },
    ).resolve_job_def("counts")


def run_counts(bench: Bench, instance: dg.DagsterInstance, *tables: str) -> dg.ExecuteInProcessResult:
    """In the pair's partition, which a run of nothing but checks is given as a tag."""
    return counts_job(bench.platform, *tables).execute_in_process(
        instance=instance, tags={"dagster/partition": partition_key(PAIR)}, raise_on_error=False
    )


def latest(instance: dg.DagsterInstance, table: str) -> dg.AssetCheckEvaluation | None:
    """What the UI shows of the pair's partition: None for an evaluation of an earlier materialization too."""
    check = dg.AssetCheckKey(dg.AssetKey.from_user_string(table), CHECK_NAME)
    partition = partition_key(PAIR)
    storage = instance.event_log_storage
    (info,) = storage.get_asset_check_partition_info([check], partition_keys=[partition]) or (None,)
    if info is None or not info.is_current:
        return None
    found = storage.get_latest_asset_check_execution_by_key(
        [check], partition_filter=PartitionKeyFilter(key=partition)
    )
    return found[check].evaluation


def numbers(evaluation: dg.AssetCheckEvaluation | None) -> dict[str, Any]:
    """What was counted, without the names' prefix."""
    assert evaluation is not None
    return {
        name.removeprefix("edfi/"): value.value
        for name, value in evaluation.metadata.items()
        if isinstance(value, dg.IntMetadataValue)
    }


def lose(bench: Bench, table: str, rows: int = 1) -> None:
    """Take raw rows away, as nothing that we do would."""
    with bench.warehouse.connected() as connection:
        connection.run(
            f"DELETE FROM edfi3.{table} WHERE rowid IN (SELECT rowid FROM edfi3.{table} LIMIT {rows})"
        )
