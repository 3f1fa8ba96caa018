"""One run at a time per (tenant, year): a row in the warehouse that its holder renews.

Every transaction of a run checks the row, so a run whose lease was taken over (it stalled, its machine slept)
commits nothing more. The row also hands out stamps, so that they rise even when the clock steps back.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edfi_dagster.config import TenantYear
from edfi_dagster.warehouse.contract import (
    LEASES,
    Connection,
    NotCommitted,
    Waiting,
    Warehouse,
    WarehouseError,
)

LEASE_SECONDS = 90.0
LONGEST_WAIT_SECONDS = 1800.0
_RENEW_SECONDS = 20.0
_POLL_SECONDS = 0.5
_PAIR = "tenant_code = ? AND api_year = ?"
# Two threads of one process share a database, and neither would see the row the other is about to insert.
_taking = threading.Lock()


class Lease:
    """The right to write one pair's rows, held by this run."""

    def __init__(self, warehouse: Warehouse, pair: TenantYear, holder: str) -> None:
        self.pair = pair
        self._warehouse = warehouse
        self._holder = holder
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._renewal = threading.Thread(target=self._renew, name=f"lease {pair}", daemon=True)

    def check(self, connection: Connection) -> None:
        """Raises NotCommitted, inside the transaction that asks, when another run has taken the pair over."""
        found = connection.rows(
            f"SELECT holder FROM {connection.table(LEASES)} WHERE {_PAIR}",
            list(self.pair),
        )
        if found != [(self._holder,)]:
            raise NotCommitted(f"{self.pair}: another run has taken this tenant and year over; run again")

    def next_stamp(self, *, after: datetime | None) -> datetime:
        """A new stamp: now, in whole seconds, but later than every earlier one of the pair and than ``after``."""
        with self._writing, self._warehouse.connected() as connection, connection.transaction():
            self.check(connection)
            ((last,),) = connection.rows(
                f"SELECT last_stamp FROM {connection.table(LEASES)} WHERE {_PAIR}",
                list(self.pair),
            )
            ((loaded,),) = connection.rows(
                f"SELECT max(pull_timestamp) FROM {connection.table(connection.names.change_versions)} WHERE {_PAIR}",
                list(self.pair),
            )
            earlier = [_aware(stamp) + timedelta(seconds=1) for stamp in (last, loaded, after) if stamp]
            stamp = max([datetime.now(UTC).replace(microsecond=0), *earlier])
            connection.run(
                f"UPDATE {connection.table(LEASES)} SET last_stamp = ? WHERE {_PAIR}",
                [stamp.replace(tzinfo=None), *self.pair],
            )
        return stamp

    def _renew(self) -> None:
        while not self._stop.wait(_RENEW_SECONDS):
            try:
                with self._writing, self._warehouse.connected() as connection, connection.transaction():
                    self.check(connection)
                    connection.run(
                        f"UPDATE {connection.table(LEASES)} SET renewed_at = ? WHERE {_PAIR}",
                        [_now(), *self.pair],
                    )
            except NotCommitted:
                return
            except WarehouseError:
                continue  # tried again; if it stays so, the next commit fails and says why

    def _release(self) -> None:
        self._stop.set()
        self._renewal.join()
        # A lease that cannot be given back expires; the error that ended the run says more than this one.
        with (
            suppress(WarehouseError),
            self._warehouse.connected() as connection,
            connection.transaction(),
        ):
            connection.run(
                f"UPDATE {connection.table(LEASES)} SET holder = NULL WHERE {_PAIR} AND holder = ?",
                [*self.pair, self._holder],
            )


@contextmanager
def holding(warehouse: Warehouse, pair: TenantYear, *, waiting: Waiting) -> Iterator[Lease]:
    """Hold the pair's lease for the block; waits for another run of the pair to end.

    Raises WarehouseError when it has not ended after half an hour.
    """
    lease = Lease(warehouse, pair, _holder())
    started, told = time.monotonic(), False
    while (other := _take(warehouse, pair, lease._holder)) is not None:
        if time.monotonic() - started > LONGEST_WAIT_SECONDS:
            raise WarehouseError(
                f"{pair}: another run ({_place(other)}) still works on it; end it, then run again"
            )
        if not told:
            waiting(f"{pair}: waiting for another run ({_place(other)}) to end")
            told = True
        time.sleep(_POLL_SECONDS)
    lease._renewal.start()
    try:
        yield lease
    finally:
        lease._release()


def _take(warehouse: Warehouse, pair: TenantYear, holder: str) -> str | None:
    """Take the lease if it is free, expired, or its holder is dead; else who holds it."""
    with _taking, warehouse.connected() as connection, connection.transaction():
        table = connection.table(LEASES)
        found = connection.rows(f"SELECT holder, renewed_at FROM {table} WHERE {_PAIR}", list(pair))
        if not found:
            connection.run(
                f"INSERT INTO {table} (tenant_code, api_year, holder, renewed_at) VALUES (?, ?, ?, ?)",
                [*pair, holder, _now()],
            )
            return None
        other, renewed = found[0]
        # A renewal in the future was written before the clock stepped back, by a run that has stopped renewing.
        expired = renewed is None or abs(_now() - renewed) > timedelta(seconds=LEASE_SECONDS)
        if other is not None and not expired and not _is_dead(other):
            return str(other)
        connection.run(
            f"UPDATE {table} SET holder = ?, renewed_at = ? WHERE {_PAIR}",
            [holder, _now(), *pair],
        )
        return None


def _holder() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}:{uuid.uuid4().hex}"


def _place(holder: str) -> str:
    host, process, *_ = holder.split(":")
    return f"process {process} on {host}"


def _is_dead(holder: str) -> bool:
    """Whether the holder was a process of this machine that has ended; one that cannot be told is alive."""
    host, process, started, *_ = holder.split(":")
    if host != socket.gethostname() or not started or not Path("/proc/self/stat").exists():
        return False
    return _started(int(process)) != started


def _started(process: int) -> str:
    """When a process of this machine started, in the kernel's ticks; empty if there is none or no telling."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _aware(stamp: datetime) -> datetime:
    return stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
