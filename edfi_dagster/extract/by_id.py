"""Records that are read by their ids, because no window shows them: after cascades, corrections and re-creations."""

from __future__ import annotations

from collections.abc import Container, Sequence

import msgspec

from edfi_dagster.extract.evidence import Inquiry
from edfi_dagster.extract.work import Job
from edfi_dagster.lake.pull import NewKey, Pull, PullRun
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.changes import EVERYTHING
from edfi_dagster.ods.errors import OdsDown, OdsUnreachable, UnusableBody
from edfi_dagster.warehouse.current import latest_keys, settled_ids

# Above so many records, reading the endpoint whole may cost less.
_MANY_READ_BY_ID = 500
# Ids in one question to the warehouse.
_ASKED_AT_ONCE = 500


def read_by_id(
    run: PullRun, records: Pull, ids: Sequence[str], *, strange: Container[str] = ()
) -> Inquiry | None:
    """Add to a pull the records of these ids and the ids that are gone; None where that needs the whole endpoint.

    It does where that costs less, and where filters hide a record that lives: only a complete walk tells then, unless it
    is ``strange``, that is, has no row here. Raises EdFiError where the ODS gives no usable answer.
    """
    if len(ids) > _MANY_READ_BY_ID and _is_cheaper_whole(records, len(ids)):
        return None
    inquiry = Inquiry(records.collection, ids, run.threads)
    try:
        records.add(inquiry.records())
    except (OdsUnreachable, UnusableBody) as error:
        if isinstance(error, OdsDown):
            raise
        raise OdsUnreachable(
            f"{error.reason}, asked for a record by id; if it stays, run the endpoint with full_refresh, which needs none",
            pair=error.pair,
            endpoint=error.endpoint,
        ) from None
    if any(record_id not in strange for record_id in inquiry.filtered_out):
        return None
    records.gone += tuple(inquiry.gone)
    return inquiry


def _is_cheaper_whole(records: Pull, single_reads: int) -> bool:
    """Whether all pages of an endpoint are far fewer requests than so many of its records one by one."""
    pages = records.collection.count(EVERYTHING) / records.collection.page_size
    return single_reads > 4 * pages


def with_old_key(job: Job, endpoint: Endpoint, new_keys: Sequence[NewKey]) -> dict[str, bool]:
    """The ids whose latest raw row has another natural key than the new one, or that have none though they may live.

    A raw row may be missing because another record took its old key over before the new one was read. Returns id →
    whether it has a raw row.
    """
    found: dict[str, bool] = {}
    with job.warehouse.connected() as connection:
        for start in range(0, len(new_keys), _ASKED_AT_ONCE):
            batch = {key.id: key for key in new_keys[start : start + _ASKED_AT_ONCE]}
            known = latest_keys(connection, job.pair, endpoint, list(batch))
            versions = {i: key.change_version for i, key in batch.items()}
            settled = settled_ids(connection, job.pair, endpoint, versions)
            for record_id, key in batch.items():
                new = [_text(key.values.get(name)) for name in endpoint.key]
                if known.get(record_id) != new and (record_id in known or record_id not in settled):
                    found[record_id] = record_id in known
    return found


def _text(value: msgspec.Raw | None) -> str | None:
    decoded = msgspec.json.decode(value) if value is not None else None
    return decoded if isinstance(decoded, str) or decoded is None else bytes(value or b"").decode()
