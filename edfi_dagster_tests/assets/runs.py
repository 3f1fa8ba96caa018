"""Dagster runs of a bench's platform on an ephemeral instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from edfi_dagster.assets.keys import partition_key
from edfi_dagster.automation.jobs import EXTRACT_JOB
from edfi_dagster.config import TenantYear
from edfi_dagster.definitions import build
from edfi_dagster_tests.bench import PAIR, Bench


def run(
    bench: Bench,
    instance: dg.DagsterInstance,
    select: Sequence[str] = (),
    *,
    full_refresh: bool = False,
    pair: TenantYear = PAIR,
) -> dg.ExecuteInProcessResult:
    """One run of the extract job; ``select`` takes asset keys as the UI writes them."""
    return (
        build(bench.platform)
        .resolve_job_def(EXTRACT_JOB)
        .execute_in_process(
            instance=instance,
            partition_key=partition_key(pair),
            asset_selection=[dg.AssetKey.from_user_string(key) for key in select] or None,
            run_config={"resources": {"edfi_run": {"config": {"full_refresh": full_refresh}}}},
            raise_on_error=False,
        )
    )


def materialized(
    instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult
) -> dict[str, dict[str, Any]]:
    """Asset key → metadata of what the run materialized."""
    found = {}
    for entry in instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        told = entry.asset_materialization
        assert told is not None
        assert told.partition == partition_key(PAIR)
        found[told.asset_key.to_user_string()] = {k: v.value for k, v in told.metadata.items()}
    return found


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What a person reads at the failed step."""
    (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    data = event.step_failure_data
    assert data.user_failure_data is not None, data.error
    return str(data.user_failure_data.description)
