"""Change versions by hand: look at a watermark, set it, or forget it.

    warehouse = open_warehouse(platform, lake, print)
    with holding(warehouse, pair, waiting=print) as lease:
        set_watermark(warehouse, lease, endpoint, "records", 120_000)

Runs do this by themselves, with the rows. A person does it after a repair: a lower version has the next delta read from
there again, none at all has the next run refresh the endpoint (records) or read all of them (deletes, key changes).
"""

from __future__ import annotations

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import RecordKind
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.contract import Warehouse
from edfi_dagster.warehouse.lease import Lease


def watermark(warehouse: Warehouse, pair: TenantYear, endpoint: Endpoint, kind: RecordKind) -> int | None:
    """The change version up to which everything is committed; None where the next run begins anew."""
    with warehouse.connected() as connection:
        return ledger.watermarks(connection, pair, endpoint.snake).get((endpoint.snake, kind))


def set_watermark(
    warehouse: Warehouse, lease: Lease, endpoint: Endpoint, kind: RecordKind, version: int
) -> None:
    """Let the next delta begin behind ``version``. Raises ValueError for a negative one, NotCommitted, WarehouseError.

    A version above what is committed would skip what lies between: set that only where something else loaded it.
    """
    if version < 0:
        raise ValueError(f"change version {version} is below 0; reset the watermark instead")
    stamp = lease.next_stamp(after=None)
    with warehouse.connected() as connection, connection.transaction():
        lease.check(connection)
        noted = ledger.noted_sources(connection, lease.pair).active.get(endpoint.snake, [])
        source = next(filter(None, noted), None)
        ledger.deactivate(connection, lease.pair, [endpoint.snake], kind=kind)
        ledger.record(connection, [ledger.Entry(lease.pair, endpoint, kind, stamp, None, version, source)])


def reset_watermark(
    warehouse: Warehouse, lease: Lease, endpoint: Endpoint, kind: RecordKind | None = None
) -> None:
    """Forget one kind's watermark, or all of the endpoint's. Raises NotCommitted, WarehouseError."""
    with warehouse.connected() as connection, connection.transaction():
        lease.check(connection)
        ledger.deactivate(connection, lease.pair, [endpoint.snake], kind=kind)
