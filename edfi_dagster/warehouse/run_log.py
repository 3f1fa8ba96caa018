"""The run log: one row of JSON per run of a bundle, also of one that failed. The table is only added to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from edfi_dagster.config import TenantYear
from edfi_dagster.warehouse.contract import Connection


def log_run(
    connection: Connection,
    pair: TenantYear,
    run_type: str,
    stamp: datetime,
    result: Mapping[str, Any],
    *,
    grain: str | None = None,
) -> None:
    """Add a row; ``stamp`` is when the run started (UTC), ``result`` must hold no value of a student's."""
    names = "tenant_code, api_year, grain_update, run_type, run_date, run_timestamp, result"
    connection.run(
        f"INSERT INTO {connection.table(connection.names.run_log)} ({names}) "
        f"SELECT ?, ?, ?, ?, ?, ?, {connection.parsed('?')}",
        [
            pair.tenant,
            pair.year,
            grain,
            run_type,
            stamp.date(),
            stamp.replace(tzinfo=None),
            json.dumps(result, default=str),
        ],
    )
