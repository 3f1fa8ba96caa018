"""Dagster runs of one tenant and year, in this process."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from rich.table import Table
from rich.text import Text

from edfi_dagster.assets.keys import AssetKeys, partition_key
from edfi_dagster.automation.jobs import EXTRACT_JOB
from edfi_dagster.cli.screen import Screen
from edfi_dagster.cli.terse import progress
from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.dagster_private import InstanceRef
from edfi_dagster.definitions import build
from edfi_dagster.ods.catalogue import endpoints_of, find_endpoints
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS

_SHOWN = 30
_TERSE: dict[str, Any] = {"loggers": {"terse": {}}}
_SILENT: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Report:
    """What a run did: (asset, metadata) of everything it materialized, what it warned of, and why it failed if it did."""

    pair: TenantYear
    run_id: str
    success: bool
    assets: list[tuple[str, dict[str, Any]]]
    warnings: list[str]
    failure: str

    def document(self) -> dict[str, Any]:
        return {
            "tenant": self.pair.tenant,
            "year": self.pair.year,
            "run_id": self.run_id,
            "success": self.success,
            "failure": self.failure or None,
            "warnings": self.warnings,
            "materialized": dict(self.assets),
        }


def open_instance(platform: Platform) -> dg.DagsterInstance:
    """The instance of DAGSTER_HOME, else of the dagster.yaml found here, else ``.dagster/`` beside the configuration."""
    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    local = Path("dagster.yaml").is_file()
    home = (Path.cwd() if local else platform.folder) / ".dagster"
    home.mkdir(exist_ok=True)
    with (home / "instance.lock").open("w") as lock:
        # Two processes that make a new SQLite instance at once trip over each other's tables.
        fcntl.flock(lock, fcntl.LOCK_EX)
        instance = (
            dg.DagsterInstance.from_config(str(Path.cwd()))
            if local
            else dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home)))
        )
        instance.get_run_records(limit=1)
        instance.get_asset_keys(limit=1)
    return instance


def materialize_pair(
    platform: Platform,
    pair: TenantYear,
    *,
    endpoints: Sequence[str] = (),
    select: Sequence[str] = (),
    full_refresh: bool = False,
    terse: bool = True,
) -> Report:
    """Run the extract job for one pair, whole or for a selection; ``terse`` says on standard error what it does.

    Raises ConfigError for an unknown selection.
    """
    keys = _selected(platform, pair, endpoints, select)
    loggers: dict[str, dg.LoggerDefinition] = {"console": dg.colored_console_logger}
    with ExitStack() as stack:
        if terse:
            loggers["terse"] = stack.enter_context(progress(str(pair)))
        defs = dg.Definitions.merge(build(platform), dg.Definitions(loggers=loggers))
        job = defs.resolve_job_def(EXTRACT_JOB)
        instance = stack.enter_context(open_instance(platform))
        result = job.execute_in_process(
            instance=instance,
            partition_key=partition_key(pair),
            asset_selection=keys or None,
            run_config={
                "resources": {"edfi_run": {"config": {"full_refresh": full_refresh}}},
                **(_TERSE if terse else _SILENT),
            },
            raise_on_error=False,
        )
        return Report(
            pair,
            result.run_id,
            result.success,
            _materialized(instance, result.run_id),
            _warnings(instance, result.run_id),
            _failure(result),
        )


def print_report(report: Report) -> None:
    """The run as a table: what was materialized, and the failure if there is one."""
    console = Screen()
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("asset", overflow="fold")
    for heading in ("rows", "loaded", "from", "to"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = _rows(report)
    for row in rows[:_SHOWN]:
        table.add_row(*row)
    if rows:
        run = f"  run {report.run_id[:8]}, {len(report.assets)} assets materialized"
        console.print(Text.assemble((str(report.pair), "bold"), run))
        console.print(table)
    elif report.success:
        console.print(f"{report.pair}: nothing changed")
    if len(rows) > _SHOWN:
        console.print(f"… and {len(rows) - _SHOWN} more; all with --json, or in the UI")
    if report.failure:
        Screen(stderr=True).print(f"Error: {report.failure}", style="red")


def _rows(report: Report) -> list[tuple[str, ...]]:
    """Name and figures of each asset; an endpoint and its table with the same figures are one, under the endpoint's name."""
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for asset, metadata in report.assets:
        numbers = [
            metadata.get(f"edfi/{name}", "")
            for name in ("rows", "rows_loaded", "min_change_version", "max_change_version")
        ]
        cells = [f"{n:,}" if isinstance(n, int) else str(n) for n in numbers]
        found.setdefault((asset.rpartition("/")[2], *cells), (asset, *cells))
    return list(found.values())


def _selected(
    platform: Platform, pair: TenantYear, endpoints: Sequence[str], select: Sequence[str]
) -> list[dg.AssetKey]:
    keys = AssetKeys(platform)
    wanted = [dg.AssetKey.from_user_string(key) for key in select]
    for endpoint in find_endpoints(endpoints, endpoints_of(platform, pair)):
        wanted.append(keys.endpoint(endpoint))
        if endpoint.has_changes:
            wanted += [keys.endpoint(endpoint, DELETES), keys.endpoint(endpoint, KEY_CHANGES)]
        if not endpoint.is_descriptor:
            wanted.append(keys.table(endpoint))
    known = {keys.endpoint(e, k) for e in keys.endpoints for k in (RECORDS, DELETES, KEY_CHANGES)}
    known |= {keys.table(e) for e in keys.endpoints if not e.is_descriptor}
    unknown = [key.to_user_string() for key in wanted if key not in known]
    if unknown:
        raise ConfigError(
            f"--select: no asset called {', '.join(unknown)}; write it as in the UI, e.g. ed_fi/students"
        )
    return wanted


def _materialized(instance: dg.DagsterInstance, run_id: str) -> list[tuple[str, dict[str, Any]]]:
    """What the run materialized, from the instance: a failed step's result does not carry it."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    told = [entry.asset_materialization for entry in entries if entry.asset_materialization]
    return [
        (m.asset_key.to_user_string(), {name: value.value for name, value in m.metadata.items()})
        for m in told
    ]


def _warnings(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What the op itself warned of: what was skipped, an ODS that was restored."""
    return [
        entry.user_message
        for entry in instance.all_logs(run_id)
        if entry.level == logging.WARNING and not entry.is_dagster_event
    ]


def _failure(result: dg.ExecuteInProcessResult) -> str:
    if result.success:
        return ""
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return data.user_failure_data.description
            return data.error.message if data.error else "the run failed"
    return "the run failed; see it in the UI"
