"""Whether the bundles of the configuration can be run: their tools, their YAML, their folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.config.earthbeam import Bundle
from edfi_dagster.earthbeam import EarthbeamError, read_outline
from edfi_dagster.earthbeam.bundle import secret_parameters
from edfi_dagster.earthbeam.process import find_tool
from edfi_dagster.health.findings import Block, Finding, explained, ok


def examine_bundles(platform: Platform, pairs: Sequence[TenantYear]) -> Block | None:
    """A line for each bundle that applies to ``pairs``; None where there is none. Nothing is run and nobody is asked."""
    chosen = {
        name: settings
        for name, settings in platform.earthbeam.bundles.items()
        if set(platform.bundle_pairs(name)) & set(pairs)
    }
    if not chosen:
        return None
    found = (*_tools(platform, list(chosen.values())), *(_bundle(platform, name) for name in chosen))
    return Block("bundles", f"{len(chosen)} of the configuration", found)


def _tools(platform: Platform, bundles: Sequence[Bundle]) -> Iterator[Finding]:
    earthbeam = platform.earthbeam
    sends = any(bundle.destination == "ods" for bundle in bundles)
    for path in (earthbeam.earthmover.path, *([earthbeam.lightbeam.path] if sends else [])):
        try:
            yield ok("tool", find_tool(path))
        except EarthbeamError as error:
            yield explained("tool", str(error), f"install {path}")


def _bundle(platform: Platform, name: str) -> Finding:
    settings = platform.earthbeam.bundles[name]
    try:
        outline = read_outline(settings, platform.bundle_pairs(name))
        secret_parameters(settings)
    except (EarthbeamError, ConfigError, OSError) as error:
        return explained(name, str(error), "correct the bundle or its path")
    resources = sum(output.resource is not None for output in outline.outputs)
    return ok(name, f"{resources} resources, {settings.destination}")
