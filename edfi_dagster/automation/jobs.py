"""The jobs of a platform."""

from __future__ import annotations

import dagster as dg

from edfi_dagster.assets.extract import OP_NAME

EXTRACT_JOB = "extract_and_load"


def build_extract_job(extract: dg.AssetsDefinition) -> dg.UnresolvedAssetJobDefinition:
    """Pull and load every endpoint of one tenant and year."""
    return dg.define_asset_job(
        EXTRACT_JOB,
        selection=dg.AssetSelection.assets(*extract.keys),
        executor_def=dg.in_process_executor,
        description="Pull every endpoint of one tenant and year, and load what changed.",
        tags={"edfi/job": OP_NAME},
    )
