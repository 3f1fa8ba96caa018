"""What the ODSs publish of their endpoints and fields, beside the catalogue that the assets were made from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum

from edfi_dagster.config import ConfigError, EndpointSelection, Platform, TenantYear, normalise_endpoint
from edfi_dagster.health.documents import Described, described
from edfi_dagster.health.pairs import chosen_endpoints
from edfi_dagster.health.probe import probed
from edfi_dagster.health.stores import existing_tables, is_made
from edfi_dagster.lake.store import open_lake
from edfi_dagster.ods.catalogue import DESCRIPTOR, RESOURCE, Endpoint, standard_endpoints
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.openapi import DescribedEndpoint
from edfi_dagster.sandbox.embedded import base_urls
from edfi_dagster.warehouse.ledger import standings
from edfi_dagster.warehouse.opening import open_warehouse

# Documents of ten megabytes, which are parsed one at a time anyhow.
_READ_AT_ONCE = 4


class Change(StrEnum):
    """What is not as the catalogue says.

    NEW_ENDPOINT: neither of the data standard nor named in the configuration. GONE_ENDPOINT: was loaded before and is not
    offered any more. Fields are the top-level ones of a record; ``_ext`` stands for those of extensions.
    """

    NEW_ENDPOINT = "endpoint appeared"
    GONE_ENDPOINT = "endpoint vanished"
    NEW_FIELDS = "fields appeared"
    GONE_FIELDS = "fields vanished"


@dataclass(frozen=True)
class SchemaChange:
    """One endpoint of one pair; ``fields`` where the change is about fields."""

    pair: TenantYear
    endpoint: str
    change: Change
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class SchemaReport:
    """``unread`` says, for each pair whose ODS could not be asked, why."""

    changes: Sequence[SchemaChange] = ()
    unread: Mapping[TenantYear, str] = field(default_factory=dict)


def schema_report(platform: Platform, pairs: Sequence[TenantYear]) -> SchemaReport:
    """Read the OpenAPI documents of every pair's ODS. Raises WarehouseError, LakeError, ConfigError."""
    loaded = _ever_loaded(platform)
    endpoints = chosen_endpoints(platform, pairs, ())

    def read(pair: TenantYear, base_url: str) -> Sequence[SchemaChange] | str:
        try:
            described = _described(platform, pair, base_url)
        except (EdFiError, ConfigError) as error:
            return str(error)
        return list(compare(platform, pair, endpoints[pair], described, loaded.get(pair, frozenset())))

    with base_urls(platform, pairs) as urls, ThreadPoolExecutor(_READ_AT_ONCE, "schema") as reading:
        found = dict(zip(pairs, reading.map(lambda pair: read(pair, urls[pair]), pairs), strict=True))
    return SchemaReport(
        [change for changes in found.values() if not isinstance(changes, str) for change in changes],
        {pair: reason for pair, reason in found.items() if isinstance(reason, str)},
    )


def compare(
    platform: Platform,
    pair: TenantYear,
    endpoints: Iterable[Endpoint],
    described: Described,
    loaded: Collection[str],
) -> Iterator[SchemaChange]:
    """What changed of one pair, endpoints first. ``loaded`` are the names that were ever loaded of it.

    An endpoint that is not offered and never was loaded is no change: its ODS does not have that part of the standard.
    """
    wanted = {normalise_endpoint(e.namespace, e.name): e for e in endpoints}
    expected = wanted.keys() | _named(platform, pair)
    for normal, offered in described.items():
        if normal not in expected:
            yield SchemaChange(pair, f"{offered.namespace}/{offered.name}", Change.NEW_ENDPOINT)
    for normal, endpoint in wanted.items():
        if normal not in described and endpoint.snake in loaded:
            yield SchemaChange(pair, endpoint.path, Change.GONE_ENDPOINT)
    for normal, endpoint in wanted.items():
        if normal in described and endpoint.fields:
            yield from _fields(pair, endpoint, described[normal].fields.keys())


def _fields(pair: TenantYear, endpoint: Endpoint, offered: Collection[str]) -> Iterator[SchemaChange]:
    appeared = tuple(sorted(set(offered) - endpoint.fields.keys()))
    vanished = tuple(sorted(endpoint.fields.keys() - set(offered)))
    if appeared:
        yield SchemaChange(pair, endpoint.path, Change.NEW_FIELDS, appeared)
    if vanished:
        yield SchemaChange(pair, endpoint.path, Change.GONE_FIELDS, vanished)


def _named(platform: Platform, pair: TenantYear) -> set[str]:
    """What the data standard has and what the configuration names, switched on or off: nobody need be told of it."""
    standard = standard_endpoints(platform.ods(pair).extract.data_standard)
    selections: list[EndpointSelection] = [
        platform.extract.selection("resources"),
        platform.extract.selection("descriptors"),
    ]
    named = {normal for selection in selections for normal in selection.overrides}
    return named | {normalise_endpoint(e.namespace, e.name) for e in standard}


def _ever_loaded(platform: Platform) -> Mapping[TenantYear, Collection[str]]:
    """pair → names of the endpoints that the warehouse's ledger knows."""
    if not is_made(platform):
        return {}
    lake = open_lake(platform.lake, platform.extract.tmp_dir)
    with (
        closing(open_warehouse(platform, lake, lambda _: None, tag={"run": "schema"})) as warehouse,
        warehouse.connected() as connection,
    ):
        if platform.tables.change_versions.lower() not in existing_tables(connection, platform):
            return {}
        return {pair: known.keys() for pair, known in standings(connection).items()}


def _described(platform: Platform, pair: TenantYear, base_url: str) -> Described:
    """Raises EdFiError; OdsNotReady where the ODS publishes no documents."""
    with probed(platform, pair, base_url) as ods:
        found: dict[str, DescribedEndpoint] = {}
        for kind in (RESOURCE, DESCRIPTOR):
            found |= described(ods, kind)
        return found
