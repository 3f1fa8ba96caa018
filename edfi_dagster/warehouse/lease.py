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
from edfi_dagster.warehouse import clock
from edfi_dagster.warehouse.contract import (
    LEASES,
    Connection,
    LeaseTerms,
    NotCommitted,
    Waiting,
    Warehouse,
    WarehouseError,
)

LONGEST_WAIT_SECONDS = 86_400.0
"""As long as ``run_monitoring`` of dagster.yaml lets any run go on: a first pull takes hours, and who renews its lease works."""

# Who held the lease for an instant and has let it go.
_NOBODY = "unknown:0"
_PAIR = "tenant_code = ? AND api_year = ?"
# Two threads of one process share a database, and neither would see the row the other is about to insert.
_taking = threading.Lock()


class Lease:
    """The right to write one pair's rows, held by this run. ``taken`` is when asking for it was sent (``clock``)."""

    def __init__(self, warehouse: Warehouse, pair: TenantYear, holder: str, taken: float) -> None:
        self.pair = pair
        self._warehouse = warehouse
        self._holder = holder
        self._renewed = taken
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._renewal = threading.Thread(target=self._renew, name=f"lease {pair}", daemon=True)

    def check(self, connection: Connection) -> None:
        """Raises NotCommitted, at the start of the transaction that asks, when another run has taken the pair over.

        Where commit cannot check that again, also when another run might take it over before the transaction ends.
        """
        if _holders(connection, self.pair) != [self._holder]:
            raise self._taken_over()
        terms, silent = self._warehouse.lease_terms, clock.seconds() - self._renewed
        if terms.longest_transaction and terms.lasts - silent < terms.longest_transaction:
            raise NotCommitted(
                f"{self.pair}: the lease could not be renewed for {silent:.0f} s, so another run might take this tenant "
                "and year over before this one commits; run again when the warehouse can be reached"
            )

    def next_stamp(self, *, after: datetime | None) -> datetime:
        """A new stamp: now, in whole seconds, but later than every earlier one of the pair and than ``after``.

        Raises NotCommitted. No transaction: one that is cut off would lock the table of all tenants for minutes.
        """
        with self._writing, self._warehouse.connected() as connection:
            self.check(connection)
            ((last,),) = connection.rows(
                f"SELECT max(last_stamp) FROM {connection.table(LEASES)} WHERE {_PAIR}",
                list(self.pair),
            )
            ((loaded,),) = connection.rows(
                f"SELECT max(pull_timestamp) FROM {connection.table(connection.names.change_versions)} WHERE {_PAIR}",
                list(self.pair),
            )
            earlier = [_aware(stamp) + timedelta(seconds=1) for stamp in (last, loaded, after) if stamp]
            stamp = max([datetime.now(UTC).replace(microsecond=0), *earlier])
            updated = connection.run(
                f"UPDATE {connection.table(LEASES)} SET last_stamp = ? WHERE {_PAIR} AND holder = ?",
                [stamp.replace(tzinfo=None), *self.pair, self._holder],
            )
        if not updated:
            raise self._taken_over()
        return stamp

    def _taken_over(self) -> NotCommitted:
        return NotCommitted(f"{self.pair}: another run has taken this tenant and year over; run again")

    def _renew(self) -> None:
        """One short statement each time: all tenants share the table, and on Snowflake an UPDATE locks it."""
        while not self._stop.wait(self._warehouse.lease_terms.renewed_every):
            sent = clock.seconds()
            try:
                with self._writing, self._warehouse.connected() as connection:
                    renewed = connection.run(
                        f"UPDATE {connection.table(LEASES)} SET renewed_at = {connection.now()} "
                        f"WHERE {_PAIR} AND holder = ?",
                        [*self.pair, self._holder],
                    )
            except WarehouseError:
                continue  # tried again; if it stays so, the next commit fails and says why
            if not renewed:
                return  # taken over, as the next check will say
            self._renewed = sent

    def _release(self) -> None:
        self._stop.set()
        self._renewal.join()
        # A lease that cannot be given back expires; the error that ended the run says more than this one.
        with suppress(WarehouseError), self._warehouse.connected() as connection:
            _give_back(connection, self.pair, self._holder)


@contextmanager
def holding(warehouse: Warehouse, pair: TenantYear, *, waiting: Waiting) -> Iterator[Lease]:
    """Hold the pair's lease for the block; waits for another run of the pair to end.

    Raises WarehouseError when it has not ended after a day, or where a lease lasts longer, after that.
    """
    holder = _holder()
    started, told = time.monotonic(), False
    while True:
        sent = clock.seconds()
        if (other := _take(warehouse, pair, holder)) is None:
            break
        waited = time.monotonic() - started
        if waited > _longest_wait(warehouse.lease_terms):
            raise WarehouseError(
                f"{pair}: another run ({_place(other)}) still works on it; end it, then run again"
            )
        if not told:
            waiting(f"{pair}: waiting for another run ({_place(other)}) to end")
            told = True
        # Each question opens a DuckDB file that the other run needs.
        time.sleep(max(warehouse.lease_terms.asked_every, min(10.0, waited / 60)))
    lease = Lease(warehouse, pair, holder, sent)
    lease._renewal.start()
    try:
        yield lease
    finally:
        lease._release()


def _take(warehouse: Warehouse, pair: TenantYear, holder: str) -> str | None:
    """Take the lease if it is free, expired, or its holder is dead; else who holds it.

    The UPDATE names the holder it takes over from, so that of two that ask at once one finds nothing to update. Two
    that insert the first row at once leave two rows, which from then on are one lease, and the later gives way.
    """
    with _taking, warehouse.connected() as connection:
        table = connection.table(LEASES)
        found = connection.rows(
            f"SELECT holder, renewed_at, {connection.now()} FROM {table} WHERE {_PAIR}", list(pair)
        )
        for other, renewed, now in found:
            if _is_held(other, renewed, now, warehouse.lease_terms.lasts):
                return str(other)
        if not found:
            connection.run(f"INSERT INTO {table} (tenant_code, api_year) VALUES (?, ?)", list(pair))
        others = sorted({str(other) for other, _, _ in found if other is not None})
        connection.run(
            f"UPDATE {table} SET holder = ?, renewed_at = {connection.now()} WHERE {_PAIR} AND (holder IS NULL"
            + (f" OR holder IN ({', '.join('?' * len(others))}))" if others else ")"),
            [holder, *pair, *others],
        )
        holders = _holders(connection, pair)
        if holders == [holder]:
            return None
        _give_back(connection, pair, holder)
        return next((other for other in holders if other != holder), _NOBODY)


def _holders(connection: Connection, pair: TenantYear) -> list[str]:
    table = connection.table(LEASES)
    found = connection.rows(
        f"SELECT DISTINCT holder FROM {table} WHERE {_PAIR} AND holder IS NOT NULL ORDER BY 1", list(pair)
    )
    return [str(holder) for (holder,) in found]


def _give_back(connection: Connection, pair: TenantYear, holder: str) -> None:
    connection.run(
        f"UPDATE {connection.table(LEASES)} SET holder = NULL WHERE {_PAIR} AND holder = ?", [*pair, holder]
    )


def _is_held(holder: str | None, renewed: datetime | None, now: datetime, lasts: float) -> bool:
    if holder is None or renewed is None or _is_dead(holder):
        return False
    # A renewal in the future was written before the clock stepped back, by a run that has stopped renewing.
    return abs(_aware(now) - _aware(renewed)) <= timedelta(seconds=lasts)


def _longest_wait(terms: LeaseTerms) -> float:
    """Seconds to wait for another run: a lease whose holder died on another machine has expired by then."""
    return max(LONGEST_WAIT_SECONDS, terms.lasts + 2 * terms.renewed_every)


def _holder() -> str:
    process = os.getpid()
    return f"{socket.gethostname()}:{process}:{_started(process)}:{_machine()}:{uuid.uuid4().hex}"


def _place(holder: str) -> str:
    host, process, *_ = holder.split(":")
    return f"process {process} on {host}"


def _is_dead(holder: str) -> bool:
    """Whether the holder was a process of this machine that has ended; one that cannot be told is alive."""
    _, process, started, machine, *_ = holder.split(":")
    if not started or not machine or machine != _machine():
        return False
    return _started(int(process)) != started


def _machine() -> str:
    """What numbers this process's neighbours: a boot of a kernel and, in it, the container; empty where that is not told.

    Not the name of the host: containers may share that, and clones of a machine do.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process of this machine started, in the kernel's ticks; empty if there is none or no telling."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _aware(stamp: datetime) -> datetime:
    return stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
