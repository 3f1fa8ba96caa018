"""The warehouse of a platform, and the raw tables its endpoints land in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edfi_dagster.config import Platform
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.warehouse.contract import LONGEST_WAIT_SECONDS, RawTable, Waiting, Warehouse


def open_warehouse(
    platform: Platform,
    lake: LakeStore,
    tell: Waiting,
    *,
    tag: Mapping[str, object] | None = None,
    longest_wait: float = LONGEST_WAIT_SECONDS,
) -> Warehouse:
    """The platform's warehouse; nothing is contacted and no secret read before its first use.

    ``tag`` (tenant, year, run) is on every statement where the warehouse keeps a history of them; ``longest_wait`` are the
    seconds to wait for a file that another process has open. Close it after use.
    """
    config = platform.warehouse
    if config.kind == "duckdb":
        from edfi_dagster.warehouse.duckdb import DuckDBWarehouse

        return DuckDBWarehouse(
            config.path, config.schema_name, platform.tables, lake, waiting=tell, longest_wait=longest_wait
        )
    from edfi_dagster.warehouse.snowflake import SnowflakeWarehouse  # the connector takes long to load

    return SnowflakeWarehouse(config, platform.tables, lake, tag=tag)


def tables_of(endpoints: Iterable[Endpoint]) -> list[RawTable]:
    """The raw tables of resources; endpoints of one name share theirs. Those of all warehouses are not among them.

    Where data standards differ in the natural key, the table has the parts of all: its view then takes no two rows for one
    that are two in any standard.
    """
    keys: dict[str, dict[str, None]] = {}
    for endpoint in endpoints:
        if not endpoint.is_descriptor:
            keys.setdefault(endpoint.snake, {}).update(dict.fromkeys(endpoint.key.values()))
    return [RawTable(name, tuple(key)) for name, key in keys.items()]
