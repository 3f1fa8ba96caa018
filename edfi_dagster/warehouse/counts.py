"""Total counts: what an ODS said it holds, per endpoint and run. The table is only added to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from edfi_dagster.config import TenantYear
from edfi_dagster.warehouse.contract import Connection

_ROWS_OF_AN_INSERT = 500


def record_counts(
    connection: Connection, pair: TenantYear, stamp: datetime, counts: Mapping[str, int]
) -> None:
    """Add one row per name; ``stamp`` is that of the run which counted."""
    rows = [
        [pair.tenant, pair.year, name, stamp.date(), stamp.replace(tzinfo=None), count]
        for name, count in counts.items()
    ]
    table = connection.table(connection.names.total_counts)
    for start in range(0, len(rows), _ROWS_OF_AN_INSERT):
        batch = rows[start : start + _ROWS_OF_AN_INSERT]
        connection.run(
            f"INSERT INTO {table} (tenant_code, api_year, name, pull_date, pull_timestamp, total_count) "
            f"VALUES {', '.join(['(?, ?, ?, ?, ?, ?)'] * len(batch))}",
            [value for row in batch for value in row],
        )


def latest_counts(connection: Connection, pair: TenantYear) -> dict[str, tuple[datetime, int]]:
    """name → (stamp in UTC, records) as counted last."""
    found = connection.rows(
        f"SELECT name, max(pull_timestamp), max_by(total_count, pull_timestamp) "
        f"FROM {connection.table(connection.names.total_counts)} "
        "WHERE tenant_code = ? AND api_year = ? GROUP BY 1",
        list(pair),
    )
    return {str(name): (stamp.replace(tzinfo=UTC), int(count)) for name, stamp, count in found}
