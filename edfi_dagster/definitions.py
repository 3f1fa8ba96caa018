"""The code location: configuration → assets, resources, jobs. Contacts nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import dagster as dg

from edfi_dagster.assets.bundle_specs import bundles_of
from edfi_dagster.assets.bundles import build_bundles
from edfi_dagster.assets.extract import build_extract
from edfi_dagster.assets.keys import AssetKeys, partitions_of
from edfi_dagster.assets.runway import build_send_to_runway
from edfi_dagster.assets.specs import LAKE_IO_MANAGER, WAREHOUSE_IO_MANAGER, Specs
from edfi_dagster.automation.everything import Outside, build_automation
from edfi_dagster.checks.everything import build_checks
from edfi_dagster.config import ConfigError, Platform, load_platform
from edfi_dagster.config.env_file import correct_env_file
from edfi_dagster.deploy import check_stores
from edfi_dagster.io_managers import LakeIOManager, Stores, WarehouseIOManager
from edfi_dagster.resources import EdfiRun, store_resources


def build(platform: Platform, outside: Outside | None = None) -> dg.Definitions:
    """The definitions of one platform; ``outside`` is what its sensors meet, the real world unless given."""
    keys = AssetKeys(platform)
    partitions = partitions_of(platform)
    extract = build_extract(platform, keys, partitions)
    stores = Stores(platform)
    bundles = bundles_of(platform, keys)
    automation = build_automation(platform, keys, outside, bundles)
    checks = build_checks(
        platform, keys, partitions, automation.lateness.late, clock=(outside or Outside()).clock
    )
    return dg.Definitions(
        assets=[
            *checks.assets,
            *extract,
            *Specs(platform, keys, partitions).reported(),
            *build_bundles(platform, bundles, keys, partitions),
            *build_send_to_runway(platform, partitions),
        ],
        asset_checks=checks.asset_checks,
        jobs=[*automation.jobs, *checks.jobs],
        schedules=[*automation.schedules, *checks.schedules],
        sensors=automation.sensors,
        resources={
            "edfi_run": EdfiRun(),
            LAKE_IO_MANAGER: LakeIOManager(platform, stores),
            WAREHOUSE_IO_MANAGER: WarehouseIOManager(platform, stores),
            **store_resources(platform),
        },
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the configured platform, or of the embedded default. Raises ConfigError."""
    with suppress(ConfigError):
        correct_env_file(Path.cwd() / ".env")
    platform = load_platform()
    check_stores(platform)
    return build(platform)
