"""The data management API: collections, items, change queries and partitions of one ODS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edfi_dagster.sandbox import changes, errors, paging
from edfi_dagster.sandbox.database import LAST_AGGREGATE_ID, Reader, Row, Window, aggregate_id_of
from edfi_dagster.sandbox.filters import Filter, matching_positions, normalised_id, read_filters
from edfi_dagster.sandbox.model import Endpoint
from edfi_dagster.sandbox.store import Store

JSON = {"content-type": "application/json; charset=utf-8"}
TRANSACTION_HEADER = "x-sandbox-transaction"


@dataclass(frozen=True)
class DataApi:
    """The routes below ``/data/v3`` and ``/changeQueries/v1`` of one ODS.

    ``url`` is where ``/data/v3`` stands for the client, for ``Location`` headers.
    """

    store: Store
    max_page: int
    url: str

    async def answer(self, request: Request, segments: list[str], parameters: Mapping[str, str]) -> Response:
        """Answer ``/{namespace}/{resource}[/…]``; ``parameters`` have lower-case names."""
        endpoint = self.store.model.get("/".join(segments[:2])) if len(segments) >= 2 else None
        if endpoint is None or endpoint.path in self.store.withdrawn or len(segments) > 3:
            raise errors.no_such_route()
        snapshot = request.headers.get("use-snapshot", "").lower() == "true"
        if request.method != "GET" and snapshot:
            raise errors.snapshot_is_read_only()
        if request.method == "GET":
            with self.store.lock:
                return self._read(request, endpoint, segments[2:], parameters, self._reader(snapshot))
        return await self._write(request, endpoint, segments[2:])

    def available_change_versions(self, request: Request) -> Response:
        if request.method != "GET":
            raise errors.method_not_allowed("GET")
        newest = self.store.newest
        if request.headers.get("use-snapshot", "").lower() == "true":
            newest = max(1, self._reader(True).counter("sequence"))
        return json_response({"oldestChangeVersion": 0, "newestChangeVersion": newest})

    def _reader(self, snapshot: bool) -> Reader:
        if not snapshot:
            return self.store.reader
        if self.store.snapshot is None:
            raise errors.not_found("Snapshot not found.")
        return self.store.snapshot

    # reads ----------------------------------------------------------------------------------------

    def _read(
        self,
        request: Request,
        endpoint: Endpoint,
        rest: list[str],
        parameters: Mapping[str, str],
        reader: Reader,
    ) -> Response:
        kind = rest[0].lower() if rest else ""
        if kind in ("deletes", "keychanges"):
            return self._changes(endpoint, kind, parameters, reader)
        if endpoint.path in self.store.denied_reads:
            raise errors.access_denied("resource", endpoint.path)
        if kind == "partitions":
            return self._partitions(endpoint, parameters, reader)
        if kind:
            return self._item(request, endpoint, rest[0], reader)
        return self._collection(endpoint, parameters, reader)

    def _collection(self, endpoint: Endpoint, parameters: Mapping[str, str], reader: Reader) -> Response:
        page = paging.page_request(parameters, self.max_page)
        filters = read_filters(self.store.model, endpoint, parameters)
        window = Window(page.versions, page.cursor) if page.cursor else Window(page.versions)
        headers = dict(JSON)
        if filters:
            found = matching_positions(reader, endpoint, window, filters)
            wanted = found[page.offset : page.offset + page.limit]
            total, bodies = len(found), reader.bodies(wanted)
            last = aggregate_id_of(wanted[-1]) if wanted else None
        else:
            total = reader.count(endpoint, window) if page.total_count else 0
            bodies, last = (
                reader.page(endpoint, window, page.limit, page.offset) if page.limit else ([], None)
            )
        if page.total_count:
            headers["Total-Count"] = str(total)
        if last is not None:
            highest = page.cursor[1] if page.cursor else LAST_AGGREGATE_ID
            headers["Next-Page-Token"] = paging.encoded_token(last + 1, highest)
        return Response(b"[\n" + b",\n".join(bodies) + b"\n]" if bodies else b"[]", headers=headers)

    def _partitions(self, endpoint: Endpoint, parameters: Mapping[str, str], reader: Reader) -> Response:
        number = paging.partition_count(parameters)
        window = Window(paging.versions(parameters))
        filters: list[Filter] = read_filters(self.store.model, endpoint, parameters)
        found = matching_positions(reader, endpoint, window, filters) if filters else None
        positions = reader.positions(endpoint, window) if found is None else found
        small = paging.small_partitions_allowed(parameters)
        starts = [
            aggregate_id_of(p) for p in paging.partition_starts(positions, number, self.max_page, small=small)
        ]
        ends = [start - 1 for start in starts[1:]] + [LAST_AGGREGATE_ID]
        return json_response(
            {"pageTokens": [paging.encoded_token(*bounds) for bounds in zip(starts, ends, strict=False)]}
        )

    def _item(self, request: Request, endpoint: Endpoint, given_id: str, reader: Reader) -> Response:
        row = reader.by_id(endpoint, normalised_id(given_id))
        if row is None:
            raise errors.not_found()
        tag = etag(row)
        if request.headers.get("if-none-match", "").strip('"') == tag:
            return Response(status_code=304, headers={"ETag": f'"{tag}"'})
        return Response(row.text[2:].replace(b"\n  ", b"\n"), headers={**JSON, "ETag": f'"{tag}"'})

    def _changes(
        self, endpoint: Endpoint, kind: str, parameters: Mapping[str, str], reader: Reader
    ) -> Response:
        if not endpoint.tracks_changes:
            raise errors.no_such_route()
        if endpoint.path in self.store.denied_changes:
            raise errors.access_denied("action", endpoint.path)
        page = paging.changes_request(parameters, self.max_page)
        if kind == "deletes":
            rows = changes.tombstones(reader, endpoint, page.versions, suppress=True)
        else:
            rows = changes.key_changes(reader, endpoint, page.versions)
        headers = {"Total-Count": str(len(rows))} if page.total_count else {}
        return json_response(rows[page.offset : page.offset + page.limit], headers=headers)

    # writes ---------------------------------------------------------------------------------------

    async def _write(self, request: Request, endpoint: Endpoint, rest: list[str]) -> Response:
        allowed = {0: ("GET", "POST"), 1: ("GET", "PUT", "DELETE")}[len(rest)]
        if request.method not in allowed or (
            rest and rest[0].lower() in ("deletes", "keychanges", "partitions")
        ):
            raise errors.method_not_allowed(", ".join(allowed))
        transaction = request.headers.get(TRANSACTION_HEADER)
        if_match = request.headers.get("if-match")
        body = await read_body(request) if request.method != "DELETE" else {}
        with self.store.writing(transaction) as writer:
            if request.method == "POST":
                if "id" in body:
                    raise errors.bad_request("Resource identifiers cannot be assigned by the client.")
                row, created = writer.upsert(endpoint, body, keep_unknown=False)
                status = 201 if created else 200
            elif request.method == "PUT":
                row_id = normalised_id(rest[0])
                if "id" in body and body["id"] and normalised_id(str(body["id"])) != row_id:
                    raise errors.bad_request("The id of the body is not the id of the request's path.")
                row, status = writer.update(endpoint, row_id, body, if_match, keep_unknown=False), 204
            else:
                writer.delete(endpoint, normalised_id(rest[0]), if_match)
                return Response(status_code=204)
        location = f"{self.url}/data/v3/{endpoint.path}/{row.id}"
        return Response(status_code=status, headers={"Location": location, "ETag": f'"{etag(row)}"'})


async def read_body(request: Request) -> dict[str, Any]:
    """The JSON object of a write. Raises ``ApiError`` 415 for another content type, 400 for no object."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if not (
        kind == "application/json" or (kind.startswith("application/vnd.ed-fi.") and kind.endswith("+json"))
    ):
        raise errors.unsupported_media_type()
    try:
        body = msgspec.json.decode(await request.body())
    except msgspec.DecodeError:
        raise errors.bad_request("The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise errors.bad_request("The request body must be a JSON object.")
    return body


def etag(row: Row) -> str:
    return str(msgspec.json.decode(row.text)["_etag"])


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Indented JSON, as the API writes every document."""
    text = msgspec.json.format(msgspec.json.encode(content), indent=2)
    return Response(text, status, headers={**JSON, **(headers or {})})
