"""The jobs of a platform."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from edfi_dagster.assets.extract import OP_NAME
from edfi_dagster.assets.keys import AssetKeys
from edfi_dagster.automation.cadence import Part, routine
from edfi_dagster.config import Platform
from edfi_dagster.dagster_private import UnresolvedAssetJobDefinition

EXTRACT_JOB = "extract_and_load"
JOB_OF = {
    Part.EVERYTHING: EXTRACT_JOB,
    Part.RESOURCES: "extract_resources",
    Part.DESCRIPTORS: "extract_descriptors",
}

Selections = Mapping[Part, frozenset[dg.AssetKey]]
"""The assets that belong to each part."""

_DESCRIPTIONS = {
    Part.EVERYTHING: "Pull every endpoint of one tenant and year, and load what changed.",
    Part.RESOURCES: "Pull every resource of one tenant and year, no descriptor, and load what changed.",
    Part.DESCRIPTORS: "Pull every descriptor of one tenant and year, no resource, and load what changed.",
}


def selections_of(keys: AssetKeys) -> Selections:
    """The assets that an extract makes: resources with their deletes, key changes and tables, and descriptors."""
    descriptors = frozenset(keys.endpoint(e) for e in keys.endpoints if e.is_descriptor)
    resources = frozenset(key for e in keys.endpoints if not e.is_descriptor for key in keys.family(e))
    return {
        Part.EVERYTHING: descriptors | resources,
        Part.RESOURCES: resources,
        Part.DESCRIPTORS: descriptors,
    }


def parts_of(platform: Platform) -> tuple[Part, ...]:
    """The parts that are scheduled apart somewhere, and everything."""
    scheduled = {c.part for pair in platform.pairs() for c in routine(platform.ods(pair).schedules)}
    return tuple(part for part in Part if part is Part.EVERYTHING or part in scheduled)


def build_extract_job(selections: Selections, part: Part = Part.EVERYTHING) -> UnresolvedAssetJobDefinition:
    """Pull and load one tenant and year: every endpoint, or those of a part."""
    return dg.define_asset_job(
        JOB_OF[part],
        selection=dg.AssetSelection.assets(*selections[part]).without_checks(),
        executor_def=dg.in_process_executor,
        description=_DESCRIPTIONS[part],
        tags={"edfi/job": OP_NAME},
    )
