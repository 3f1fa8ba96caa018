"""Reads of one collection: pages by offset and by cursor, partitions, deletes and key changes."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from edfi_dagster.sandbox import changes, paging
from edfi_dagster.sandbox.answers import JSON, json_response
from edfi_dagster.sandbox.database import LAST_AGGREGATE_ID, Reader, Window, aggregate_id_of, within
from edfi_dagster.sandbox.filters import matching, read_filters
from edfi_dagster.sandbox.generations import Generation
from edfi_dagster.sandbox.model import Endpoint
from edfi_dagster.sandbox.store import Store


@dataclass(frozen=True)
class Collection:
    """One endpoint as a request asks for it. ``parameters`` have lower-case names."""

    store: Store
    endpoint: Endpoint
    reader: Reader
    parameters: Mapping[str, str]
    max_page: int

    @property
    def generation(self) -> Generation:
        return self.store.generation

    def page(self, between_reads: Callable[[], None]) -> Response:
        """A page; rows that go while ``between_reads`` runs are missing from it."""
        asked = paging.page_request(self.parameters, self.max_page, self.generation)
        window = Window(asked.versions, asked.cursor) if asked.cursor else Window(asked.versions)
        found = self._repeated(window, self._narrowed(window))
        if found is not None:
            positions = found[asked.offset : asked.offset + asked.limit]
            if (
                self.generation.cursor
            ):  # a token is an AggregateId, so a row that comes twice does so within a page
                once = list(dict.fromkeys(found))[asked.offset : asked.offset + asked.limit]
                positions = [position for position in found if position in set(once)]
        elif asked.limit:
            positions = self.reader.page(self.endpoint, window, asked.limit, asked.offset)
        else:
            positions = []
        headers = dict(JSON)
        if asked.total_count:
            total = self.reader.count(self.endpoint, window) if found is None else len(found)
            headers["Total-Count"] = str(total)
        between_reads()
        text = self._joined(positions)
        if text is not None and self.generation.cursor:
            highest = asked.cursor[1] if asked.cursor else LAST_AGGREGATE_ID
            following = aggregate_id_of(positions[-1]) + 1
            headers["Next-Page-Token"] = paging.encoded_token(following, highest)
        return Response(b"[]" if text is None else b"[\n%b\n]" % text, headers=headers)

    def _repeated(self, window: Window, found: Sequence[int] | None) -> Sequence[int] | None:
        """The positions with those of rows that this ODS repeats twice; None where that is all of them once."""
        rows = (self.reader.by_id(self.endpoint, row_id) for row_id in self.store.oddities.repeated)
        twice = {row.position for row in rows if row}
        if not twice:
            return found
        if found is None:
            found = within(
                self.reader.positions(self.endpoint, Window(window.versions)), self.endpoint, window
            )
        return [position for position in found for _ in range(2 if position in twice else 1)]

    def _joined(self, positions: Sequence[int]) -> bytes | None:
        if not self.store.oddities.repeated:
            return self.reader.joined(positions)
        once = sorted(set(positions))
        bodies = dict(zip(once, self.reader.bodies(once), strict=True))
        return b",\n".join(bodies[position] for position in positions) or None

    def partitions(self) -> Response:
        number = paging.partition_count(self.parameters)
        window = Window(paging.versions(self.parameters))
        positions = self._narrowed(window)
        if positions is None:
            positions = self.reader.positions(self.endpoint, window)
        small = paging.small_partitions_allowed(self.parameters)
        starts = [
            aggregate_id_of(p) for p in paging.partition_starts(positions, number, self.max_page, small=small)
        ]
        ends = [start - 1 for start in starts[1:]] + [LAST_AGGREGATE_ID]
        return json_response(
            {"pageTokens": [paging.encoded_token(*bounds) for bounds in zip(starts, ends, strict=False)]}
        )

    def deletes(self) -> Response:
        asked = paging.changes_request(self.parameters, self.max_page, self.generation)
        keyed = self.generation.keyed_deletes
        rows = self._visible(changes.tombstones(self.reader, self.endpoint, asked.versions, suppress=keyed))
        rows = [row for row in rows for _ in range(2 if row["id"] in self.store.oddities.repeated else 1)]
        return _page_of(rows if keyed else changes.bare(rows), asked)

    def key_changes(self) -> Response:
        asked = paging.changes_request(self.parameters, self.max_page, self.generation)
        return _page_of(self._visible(changes.key_changes(self.reader, self.endpoint, asked.versions)), asked)

    def _narrowed(self, window: Window) -> Sequence[int] | None:
        """The positions of what filters and the key's permissions leave of a window; None where they leave it whole."""
        filters = read_filters(self.store.model, self.endpoint, self.parameters, self.generation)
        hidden = self.store.hidden_ids(self.endpoint)
        if not filters and not hidden:
            return None
        if filters:
            found = matching(self.reader, self.endpoint, window, filters)
        else:
            whole = self.reader.positions(self.endpoint, Window(window.versions))
            found = whole if window == Window(window.versions) else within(whole, self.endpoint, window)
        rows = (self.reader.by_id(self.endpoint, row_id) for row_id in hidden)
        unseen = {row.position for row in rows if row}
        return array("q", [position for position in found if position not in unseen]) if unseen else found

    def _visible(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        hidden = self.store.hidden_ids(self.endpoint)
        return [row for row in rows if row["id"] not in hidden] if hidden else rows


def _page_of(rows: list[dict[str, Any]], asked: paging.PageRequest) -> Response:
    headers = {"Total-Count": str(len(rows))} if asked.total_count else {}
    return json_response(rows[asked.offset : asked.offset + asked.limit], headers=headers)
