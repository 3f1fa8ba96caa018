"""Dagster runs of bundles, in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from rich.table import Table

from edfi_dagster.assets.bundle_specs import PREFIX, BundleAssets, bundles_of
from edfi_dagster.assets.bundles import BundleRun, build_bundles, run_config
from edfi_dagster.assets.keys import AssetKeys, partition_key, partitions_of
from edfi_dagster.automation.file_drop import BUNDLE_JOB, BUNDLE_TAG, GRAIN_TAG, build_bundle_job
from edfi_dagster.cli.runs import open_instance
from edfi_dagster.cli.screen import Screen
from edfi_dagster.cli.terse import terse as terse_logger
from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.ods.catalogue import snake_case

_DONE = ("sent", "deleted", "rows_loaded")


@dataclass(frozen=True)
class BundleReport:
    """What a run of a bundle did: (asset, metadata) of what it materialized, its checks, and why it failed if it did."""

    bundle: str
    pair: TenantYear
    grain: str | None
    run_id: str
    success: bool
    assets: list[tuple[str, dict[str, Any]]]
    checks: list[dict[str, Any]]
    warnings: list[str]
    failure: str

    @property
    def unchanged(self) -> bool:
        """Whether there was nothing to do."""
        return self.success and not self.assets

    def document(self) -> dict[str, Any]:
        return {
            "bundle": self.bundle,
            "tenant": self.pair.tenant,
            "year": self.pair.year,
            "grain": self.grain,
            "run_id": self.run_id,
            "success": self.success,
            "unchanged": self.unchanged,
            "failure": self.failure or None,
            "warnings": self.warnings,
            "materialized": dict(self.assets),
            "checks": self.checks,
        }


def run_bundle_assets(
    platform: Platform, pair: TenantYear, name: str, config: BundleRun, *, terse: bool = True
) -> BundleReport:
    """Run a configured bundle; ``terse`` says on standard error what it does.

    Raises ConfigError for a file or parameter that the bundle does not ask for.
    """
    keys = AssetKeys(platform)
    (assets,) = bundles_of(platform, keys, [name])
    _check_inputs(assets, config)
    # Only this bundle: the hundreds of assets of the endpoints would cost half a second and are none of this run's.
    job = dg.Definitions(
        assets=build_bundles(platform, [assets], keys, partitions_of(platform)),
        jobs=[build_bundle_job([assets])],
        loggers={"terse": terse_logger, "console": dg.colored_console_logger},
    ).resolve_job_def(BUNDLE_JOB)
    said = {"terse": {}} if terse else {"console": {"config": {"log_level": "CRITICAL"}}}
    with open_instance(platform) as instance:
        result = job.execute_in_process(
            instance=instance,
            partition_key=partition_key(pair),
            asset_selection=[spec.key for spec in assets.specs()],
            run_config={**run_config(assets, config), "loggers": said},
            tags={BUNDLE_TAG: name, **({GRAIN_TAG: config.grain} if config.grain else {})},
            raise_on_error=False,
        )
        entries = instance.all_logs(result.run_id)
    return BundleReport(
        name,
        pair,
        config.grain,
        result.run_id,
        result.success,
        list(_materialized(entries)),
        list(_checks(entries)),
        [
            entry.user_message
            for entry in entries
            if entry.level == logging.WARNING and not entry.is_dagster_event
        ],
        "" if result.success else _failure(entries),
    )


def print_report(report: BundleReport) -> None:
    """The run as a table, the checks that did not pass, and the failure if there is one."""
    console = Screen()
    grain = f" ({report.grain})" if report.grain else ""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("asset", overflow="fold")
    for heading in ("records", "done", "skipped", "failed"):
        table.add_column(heading, justify="right")
    for asset, metadata in report.assets:
        table.add_row(_short(asset, report), *_figures(metadata))
    if report.assets:
        console.print(f"{report.pair}  {report.bundle}{grain}  run {report.run_id[:8]}", style="italic")
        console.print(table)
    elif report.success:
        console.print(
            f"{report.pair}: nothing to do, {report.bundle}{grain} was done with the same files before"
        )
    for check in report.checks:
        if not check["passed"]:
            told = f"- {_short(check['asset'], report)} {check['check']}: {check['description']}"
            console.print(told)
    if report.failure:
        Screen(stderr=True).print(f"Error: {report.failure}", style="red")


def _short(asset: str, report: BundleReport) -> str:
    """An asset's key below its bundle's."""
    return asset.removeprefix(f"{PREFIX}/{snake_case(report.bundle)}/")


def _check_inputs(assets: BundleAssets, config: BundleRun) -> None:
    outline = assets.outline
    if outline is None:
        return
    if unknown := outline.unknown(config.parameters):
        named = ", ".join(parameter.name for parameter in outline.parameters)
        raise ConfigError(f"--param: {assets.name} asks for no {', '.join(unknown)}; it asks for {named}")
    known = {one.variable for one in outline.inputs} | set(assets.settings.inputs)
    unknown = sorted(set(config.files) - known)
    if unknown:
        raise ConfigError(
            f"--input: {assets.name} reads no {', '.join(unknown)}; it reads {', '.join(sorted(known)) or 'none'}"
        )


def _figures(metadata: dict[str, Any]) -> Iterator[str]:
    """How many records there were, how many were sent or loaded, skipped, refused; empty where that has no meaning."""
    yield _number(metadata.get("edfi/records", metadata.get("edfi/rows")))
    yield _number(next((metadata[f"edfi/{done}"] for done in _DONE if f"edfi/{done}" in metadata), None))
    yield _number(metadata.get("edfi/skipped"))
    yield _number(metadata.get("edfi/failed"))


def _number(figure: int | None) -> str:
    return "" if figure is None else f"{figure:,}"


def _materialized(entries: Sequence[dg.EventLogEntry]) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in entries:
        event = entry.asset_materialization
        if event is not None:
            metadata = {name: value.value for name, value in event.metadata.items()}
            yield event.asset_key.to_user_string(), metadata


def _checks(entries: Sequence[dg.EventLogEntry]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        event = entry.asset_check_evaluation
        if event is not None:
            yield {
                "asset": event.asset_key.to_user_string(),
                "check": event.check_name,
                "passed": event.passed,
                "severity": event.severity.value,
                "description": event.description,
            }


def _failure(entries: Sequence[dg.EventLogEntry]) -> str:
    for entry in entries:
        event = entry.dagster_event
        if event is None or event.event_type is not dg.DagsterEventType.STEP_FAILURE:
            continue
        data = event.step_failure_data
        if data.user_failure_data and data.user_failure_data.description:
            return data.user_failure_data.description
        return data.error.message if data.error else "the run failed"
    return "the run failed; see it in the UI"
