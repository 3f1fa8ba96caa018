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
    """The raw tables of resources; endpoints of one name share theirs. Those of all warehouses are not among them."""
    tables = {e.snake: RawTable(e.snake, tuple(e.key.values())) for e in endpoints if not e.is_descriptor}
    return list(tables.values())
