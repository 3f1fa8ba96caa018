"""One row in the run log for each run of a bundle, also for one in which everything failed."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from edfi_dagster.earthbeam.result import BundleResult
from edfi_dagster.warehouse.contract import Connection
from edfi_dagster.warehouse.snowflake_sql import SnowflakeDialect


def write_run_log(connection: Connection, result: BundleResult) -> None:
    """Insert the row. Nothing in it is of any student. Raises WarehouseError."""
    stamp = result.started_at.replace(tzinfo=None)
    json = "PARSE_JSON(?)" if isinstance(connection, SnowflakeDialect) else "CAST(? AS JSON)"
    connection.run(
        f"INSERT INTO {connection.table(connection.names.run_log)} "
        f"(tenant_code, api_year, grain_update, run_type, run_date, run_timestamp, result) SELECT ?, ?, ?, ?, ?, ?, {json}",
        [
            *result.pair,
            result.grain,
            result.bundle,
            stamp.date(),
            stamp,
            msgspec.json.encode(summary(result)).decode(),
        ],
    )


def summary(result: BundleResult) -> dict[str, Any]:
    """A result as plain values, for JSON."""
    found = dataclasses.asdict(result)
    found["pair"] = {"tenant": result.pair.tenant, "year": result.pair.year}
    found["is_done"] = result.is_done
    return found
