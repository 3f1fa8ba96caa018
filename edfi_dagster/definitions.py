"""The code location: configuration → assets, resources, jobs. Contacts nothing."""

from __future__ import annotations

import dagster as dg

from edfi_dagster.assets.extract import build_extract
from edfi_dagster.assets.keys import AssetKeys, partitions_of
from edfi_dagster.assets.specs import LAKE_IO_MANAGER, WAREHOUSE_IO_MANAGER, Specs
from edfi_dagster.automation.everything import Outside, build_automation
from edfi_dagster.config import Platform, load_platform
from edfi_dagster.io_managers import LakeIOManager, Stores, WarehouseIOManager
from edfi_dagster.resources import EdfiRun, store_resources


def build(platform: Platform, outside: Outside | None = None) -> dg.Definitions:
    """The definitions of one platform; ``outside`` is what its sensors meet, the real world unless given."""
    keys = AssetKeys(platform)
    partitions = partitions_of(platform)
    extract = build_extract(platform, keys, partitions)
    stores = Stores(platform)
    automation = build_automation(platform, keys, outside)
    return dg.Definitions(
        assets=[*extract, *Specs(platform, keys, partitions).reported()],
        jobs=automation.jobs,
        schedules=automation.schedules,
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
    """The definitions of the configured platform, or of the embedded default."""
    return build(load_platform())
