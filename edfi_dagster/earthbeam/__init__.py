"""Earthbeam: files → Earthmover → Ed-Fi records → Lightbeam → ODS, or straight into the raw tables.

``bundle`` tells what a bundle makes, ``run`` runs one for a (tenant, year). No Dagster here.
"""

from edfi_dagster.earthbeam.bundle import BundleInput, BundleOutline, BundleParameter, Output, read_outline
from edfi_dagster.earthbeam.errors import BundleError, EarthbeamError, ToolFailed, ToolTimedOut
from edfi_dagster.earthbeam.job import BundleJob
from edfi_dagster.earthbeam.result import (
    BundleResult,
    LoadOutcome,
    MatchOutcome,
    Refusal,
    ResourceOutcome,
    WrittenOutput,
)
from edfi_dagster.earthbeam.run import run_bundle
from edfi_dagster.earthbeam.run_log import summary
from edfi_dagster.earthbeam.sideload import replay_sideloads

__all__ = [
    "BundleError",
    "BundleInput",
    "BundleJob",
    "BundleOutline",
    "BundleParameter",
    "BundleResult",
    "EarthbeamError",
    "LoadOutcome",
    "MatchOutcome",
    "Output",
    "Refusal",
    "ResourceOutcome",
    "ToolFailed",
    "ToolTimedOut",
    "WrittenOutput",
    "read_outline",
    "replay_sideloads",
    "run_bundle",
    "summary",
]
