"""All of it at once: configuration, bundles, every ODS, lake, warehouse, Slack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.health.bundles import examine_bundles
from edfi_dagster.health.findings import Block, Finding, ok, some, warning
from edfi_dagster.health.ods import examine
from edfi_dagster.health.slack import examine_slack
from edfi_dagster.health.stores import examine_lake, examine_warehouse
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of, off_nowhere
from edfi_dagster.sandbox.embedded import base_urls

# Threads that wait for answers: with a hundred ODSs down, none waits for another's time-out.
_ASKED_AT_ONCE = 64


def examine_all(
    platform: Platform, pairs: Sequence[TenantYear], *, ask_slack: bool, tell: Callable[[str], None]
) -> Iterator[Block]:
    """One block for each thing, always in the same order; all are asked side by side.

    ``tell`` hears what is being waited for. Raises RuntimeError where a ``sandbox://`` ODS cannot be started.
    """
    endpoints = _endpoints(platform, pairs)
    yield _configuration(platform, pairs, endpoints)
    if bundles := examine_bundles(platform, pairs):
        yield bundles
    with base_urls(platform, pairs) as urls, ThreadPoolExecutor(_ASKED_AT_ONCE, "check") as threads:
        asked: list[Future[Block]] = [
            threads.submit(examine_lake, platform),
            threads.submit(examine_warehouse, platform, endpoints, tell),
            *(threads.submit(examine, platform, pair, urls[pair]) for pair in pairs),
        ]
        # The ODSs first: they are what the others are for.
        for future in [*asked[2:], *asked[:2]]:
            yield future.result()
    if slack := examine_slack(platform, ask=ask_slack):
        yield slack


def _endpoints(platform: Platform, pairs: Sequence[TenantYear]) -> list[Endpoint]:
    """The distinct endpoints of all pairs; a pair whose choice is mistaken is told of by its own block."""
    found: dict[Endpoint, None] = {}
    for pair in pairs:
        try:
            found |= dict.fromkeys(endpoints_of(platform, pair))
        except ConfigError:
            continue
    return list(found)


def _configuration(platform: Platform, pairs: Sequence[TenantYear], endpoints: Sequence[Endpoint]) -> Block:
    descriptors = sum(endpoint.is_descriptor for endpoint in endpoints)
    declared = (
        f"{_counted(len(platform.tenants), 'tenant')}, {_counted(len(platform.pairs()), 'tenant-year')}"
    )
    asked = "" if len(pairs) == len(platform.pairs()) else f" ({len(pairs)} asked about)"
    found = f"{declared}{asked}, {len(endpoints) - descriptors} resources, {descriptors} descriptors"
    return Block("configuration", platform.source, (ok("readable", found), *_off_without_effect(platform)))


def _off_without_effect(platform: Platform) -> Iterator[Finding]:
    """A name that is switched off switches nothing off if it is only of a standard that no declared year has."""
    if nowhere := off_nowhere(platform):
        yield warning(
            "enabled: false",
            f"{some(nowhere)}: no declared data standard has this endpoint, so nothing is switched off",
            "write the name that it has in your data standard, or take it out",
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
