"""Asset keys of endpoints and tables, and the (tenant, year) partition; bundles spell theirs in ``bundle_specs``."""

from __future__ import annotations

from functools import cached_property

import dagster as dg

from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of, snake_case
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind


def partitions_of(platform: Platform) -> dg.MultiPartitionsDefinition:
    """Tenant × year. The grid shows the product; only declared pairs can be run."""
    pairs = platform.pairs()
    return dg.MultiPartitionsDefinition(
        {
            "tenant": dg.StaticPartitionsDefinition(list(dict.fromkeys(pair.tenant for pair in pairs))),
            "year": dg.StaticPartitionsDefinition(sorted({str(pair.year) for pair in pairs})),
        }
    )


def partition_key(pair: TenantYear) -> dg.MultiPartitionKey:
    return dg.MultiPartitionKey({"tenant": pair.tenant, "year": str(pair.year)})


def pair_of(key: str) -> TenantYear:
    """The pair behind a partition key as Dagster writes it (``grand_bend|2025``)."""
    tenant, _, year = key.partition("|")
    return TenantYear(tenant, int(year))


class AssetKeys:
    """The keys of one platform's assets, and what stands behind each."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._prefix = platform.tables.asset_prefix

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every endpoint of any pair; one that several standards have is taken from the first pair."""
        found: dict[str, Endpoint] = {}
        for pair in self._platform.pairs():
            for endpoint in endpoints_of(self._platform, pair):
                found.setdefault(endpoint.path, endpoint)
        return tuple(found.values())

    def endpoint(self, endpoint: Endpoint, kind: RecordKind = RECORDS) -> dg.AssetKey:
        """``ed_fi/students``, ``ed_fi/students/deletes``, ``ed_fi/students/key_changes``."""
        path = [endpoint.namespace.replace("-", "_").lower(), snake_case(endpoint.name)]
        return dg.AssetKey(path if kind == RECORDS else [*path, kind])

    def family(self, endpoint: Endpoint) -> list[dg.AssetKey]:
        """What belongs to an endpoint: its records, deletes and key changes where it has them, and its own raw table."""
        kinds: tuple[RecordKind, ...] = (
            (RECORDS, DELETES, KEY_CHANGES) if endpoint.has_changes else (RECORDS,)
        )
        own = [self.endpoint(endpoint, kind) for kind in kinds]
        return own if endpoint.is_descriptor else [*own, self.table(endpoint)]

    def table(self, endpoint: Endpoint) -> dg.AssetKey:
        """``raw_edfi_3/students``, or the shared descriptors table."""
        return (
            self.shared(self._platform.tables.descriptors)
            if endpoint.is_descriptor
            else self.shared(endpoint.snake)
        )

    def shared(self, table: str) -> dg.AssetKey:
        return dg.AssetKey([self._prefix, table])
