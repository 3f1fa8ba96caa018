"""An ODS that was restored to an earlier state: how a run notices by its change version, and what it forgets then."""

from __future__ import annotations

from edfi_dagster.extract.history import note_restored
from edfi_dagster.extract.sources import Sources
from edfi_dagster.extract.work import Job
from edfi_dagster.lake.manifest import latest_stamp
from edfi_dagster.ods.errors import OdsNotReady
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.lease import Lease


def highest_committed(job: Job) -> int:
    """The pair's highest active watermark; 0 without any."""
    with job.warehouse.connected() as connection:
        return max(ledger.watermarks(connection, job.pair).values(), default=0)


def caught_up(job: Job, newest: int, version: int) -> int:
    """What the ODS says its newest change version is; asked again if behind ``version``, for a replica may lag."""
    return newest if newest >= version else job.session.newest_change_version()


def forget(job: Job, lease: Lease, sources: Sources, newest: int | None, *, anything_read: bool) -> None:
    """Forget the pair's watermarks, because its ODS was restored. Raises OdsNotReady where that is but an older snapshot.

    The lake learns of it first: a rebuild must not bring them back. ``newest`` is what the ODS says, if that told.
    """
    is_snapshot = job.session.settings.extract.use_snapshot
    if anything_read or not is_snapshot:
        stamp = lease.next_stamp(after=latest_stamp(job.lake, job.pair))
        note_restored(job.lake, job.pair, stamp, newest, sources.ods)
        with job.warehouse.connected() as connection, connection.transaction():
            lease.check(connection)
            ledger.deactivate(connection, job.pair)
    if is_snapshot:
        raise OdsNotReady(
            "the ODS's snapshot is older than what was loaded before; have a new snapshot taken and run again, "
            "or write use_snapshot: false",
            pair=job.pair,
        )
    job.warn(f"{job.pair}: the ODS was restored to an earlier state; refreshing everything asked for")
    job.restored()
