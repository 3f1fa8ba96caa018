"""Whether an ODS still has what a bundle sent it last: a few of those records, looked for by their ids.

A lower change version tells of a restored ODS only until it has counted beyond where it was. What was sent last is gone
for good: the records have no such ids any more or, where they were there before, are as old as then. One that lives is
enough, for a restore leaves none of them. Only ids and change versions are remembered, no value of a record.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.changes import ChangeWindow
from edfi_dagster.ods.errors import NotOffered, NotPermitted
from edfi_dagster.ods.pages import Collection, Page
from edfi_dagster.ods.session import OdsSession

MOST = 5
_READ_AT_ONCE = 500


class Witness(msgspec.Struct, frozen=True):
    """A record that was sent: its endpoint's path, its id, and the change version above which that changed it."""

    endpoint: str
    id: str
    since: int


def any_lives(session: OdsSession, witnesses: Iterable[Witness], endpoints: Mapping[str, Endpoint]) -> bool:
    """Whether one of them is as it was sent, or newer; True also where none can be read. Raises EdFiError.

    One request as a rule, one for each where they are gone. ``endpoints`` are by path.
    """
    was_read = False
    for witness in witnesses:
        try:
            page = _page(session, endpoints[witness.endpoint], witness.since, 2, {"id": witness.id})
        except (NotOffered, NotPermitted):
            continue
        if witness.id in page.ids:
            return True
        was_read = True
    return not was_read


def find_witnesses(
    session: OdsSession, endpoint: Endpoint, sent: Iterable[tuple[Any, str]], since: int
) -> tuple[Witness, ...]:
    """``MOST`` of the records that the ODS shows as changed above ``since``, as far as they were sent.

    ``sent`` are (rank, record as JSON), of which the highest ranks are preferred. One request; raises EdFiError.
    """
    if not endpoint.key:
        return ()
    page = _page(session, endpoint, since, _READ_AT_ONCE, {})
    ids = {_key(endpoint, row): record_id for row, record_id in zip(page.rows, page.ids, strict=True)}
    ranked = ((rank, _key(endpoint, record)) for rank, record in sent)
    found = heapq.nlargest(MOST, ((rank, ids[key]) for rank, key in ranked if key in ids))
    return tuple(Witness(endpoint.path, record_id, since) for _, record_id in found)


def _page(session: OdsSession, endpoint: Endpoint, since: int, size: int, filters: Mapping[str, str]) -> Page:
    collection = Collection(session, endpoint, page_size=size, filters=filters)
    return collection.page_at(ChangeWindow(since + 1), 0)


def _key(endpoint: Endpoint, record: str | bytes) -> tuple[str, ...]:
    """The natural key of a record; letters' case aside, which an ODS may correct."""
    document = msgspec.json.decode(record)
    return tuple(_text(document, path.split(".")) for path in endpoint.key.values())


def _text(document: Any, path: Sequence[str]) -> str:
    for step in path:
        document = document.get(step) if isinstance(document, dict) else None
    return str(document).casefold()
