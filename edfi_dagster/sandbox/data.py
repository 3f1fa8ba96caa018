"""The data management API: routes, items and writes of one ODS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edfi_dagster.sandbox import errors
from edfi_dagster.sandbox.answers import JSON, etag, json_response
from edfi_dagster.sandbox.collection import Collection
from edfi_dagster.sandbox.database import Reader
from edfi_dagster.sandbox.filters import normalised_id
from edfi_dagster.sandbox.generations import Generation
from edfi_dagster.sandbox.model import Endpoint
from edfi_dagster.sandbox.oddities import content_types
from edfi_dagster.sandbox.store import Store

TRANSACTION_HEADER = "x-sandbox-transaction"


@dataclass(frozen=True)
class DataApi:
    """The routes below ``/data/v3`` and ``/changeQueries/v1`` of one ODS.

    ``url`` is where the data stands for the client, for ``Location`` headers. ``between_reads`` is called between
    the choice of a page's rows and the reading of them, which the ODS does in two statements.
    """

    store: Store
    max_page: int
    url: str
    between_reads: Callable[[], None] = lambda: None

    @property
    def generation(self) -> Generation:
        return self.store.generation

    @property
    def offers_changes(self) -> bool:
        return self.generation.change_queries and self.store.oddities.change_queries

    async def answer(self, request: Request, segments: list[str], parameters: Mapping[str, str]) -> Response:
        """Answer ``/{namespace}/{resource}[/…]``; ``parameters`` have lower-case names."""
        path = segments if self.generation.namespaces else ["ed-fi", *segments]
        known = self.store.oddities.known_as("/".join(path[:2]))
        endpoint = self.store.model.get(known) if len(path) >= 2 else None
        if endpoint is None or endpoint.path in self.store.withdrawn or len(path) > 3:
            raise errors.no_such_route()
        if request.method != "GET":
            if self.store.snapshots.asked_for(request.headers):
                raise errors.snapshot_is_read_only()
            return await self._write(request, endpoint, path[2:])
        with self.store.lock:
            return self._read(request, endpoint, path[2:], parameters, self._reader(request))

    def change_queries(self, request: Request, segments: list[str]) -> Response:
        """Answer ``/changeQueries/v1/…``: the available versions, and the list of snapshots where there is one."""
        lower = [segment.lower() for segment in segments]
        listed = self.generation.snapshots == "listed" and lower[:1] == ["snapshots"] and len(lower) <= 2
        if lower != ["availablechangeversions"] and not listed:
            raise errors.no_such_route()
        if request.method != "GET":
            raise errors.method_not_allowed("GET")
        if not listed:
            return self._available_change_versions(request)
        found = [snapshot.listed() for snapshot in self.store.snapshots.all()]
        if len(lower) == 1:
            return json_response(found)
        chosen = [snapshot for snapshot in found if snapshot["id"] == normalised_id(lower[1])]
        if not chosen:
            raise errors.not_found()
        return json_response(chosen[0])

    def _available_change_versions(self, request: Request) -> Response:
        newest = self.store.newest
        if self.store.snapshots.asked_for(request.headers):
            newest = max(1, self._reader(request).counter("sequence"))
        names = ("oldestChangeVersion", "newestChangeVersion")
        if self.generation.pascal_changes:
            names = ("OldestChangeVersion", "NewestChangeVersion")
        return json_response(dict(zip(names, (0, newest), strict=True)))

    def _reader(self, request: Request) -> Reader:
        snapshots = self.store.snapshots
        return (
            snapshots.wanted(request.headers) if snapshots.asked_for(request.headers) else self.store.reader
        )

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
            if not self.store.oddities.snapshot_changes and self.store.snapshots.asked_for(request.headers):
                raise errors.unexpected()
            return self._spelled(self._changes(endpoint, kind, parameters, reader))
        if endpoint.path in self.store.denied_reads:
            raise errors.access_denied("resource", endpoint.path)
        accept, implicit = request.headers.get("accept", ""), self.generation.profiles_implied
        profile = self.store.oddities.profile(endpoint, accept, implicit=implicit)
        if kind and not (kind == "partitions" and self.generation.cursor):
            return self._spelled(self._item(request, endpoint, rest[0], reader), endpoint, profile)
        asked = Collection(self.store, endpoint, reader, parameters, self.max_page)
        if kind:
            return asked.partitions()
        return self._spelled(asked.page(self.between_reads), endpoint, profile)

    def _spelled(
        self, response: Response, endpoint: Endpoint | None = None, profile: str | None = None
    ) -> Response:
        """An answer with what the profile leaves of its records, spelled as this ODS does."""
        oddities, body = self.store.oddities, bytes(response.body)
        headers = dict(response.headers)
        if endpoint and profile and body:
            body = oddities.shaped(endpoint, profile, body)
            headers["content-type"] = content_types(endpoint, [profile])[0]
        elif not oddities.spellings:
            return response
        headers.pop("content-length", None)
        return Response(oddities.spelled(body), response.status_code, headers=headers)

    def _item(self, request: Request, endpoint: Endpoint, given_id: str, reader: Reader) -> Response:
        if given_id.lower() == "partitions":
            raise errors.no_such_route()
        row = reader.by_id(endpoint, normalised_id(given_id))
        if row is None:
            raise errors.not_found()
        self._check_visible(endpoint, row.id)
        tag = etag(row)
        if request.headers.get("if-none-match", "").strip('"') == tag:
            return Response(status_code=304, headers={"ETag": f'"{tag}"'})
        return Response(row.text[2:].replace(b"\n  ", b"\n"), headers={**JSON, "ETag": f'"{tag}"'})

    def _check_visible(self, endpoint: Endpoint, row_id: str) -> None:
        """Raises ``ApiError`` 403 for a record of an organization that is not the key's."""
        if row_id in self.store.hidden_ids(endpoint):
            raise errors.no_relationship()

    def _changes(
        self, endpoint: Endpoint, kind: str, parameters: Mapping[str, str], reader: Reader
    ) -> Response:
        offered = self.offers_changes and (kind == "deletes" or self.generation.key_changes)
        if not (offered and endpoint.tracks_changes):
            raise errors.no_such_route()
        if endpoint.path in self.store.denied_changes:
            raise errors.access_denied("action", endpoint.path)
        asked = Collection(self.store, endpoint, reader, parameters, self.max_page)
        return asked.deletes() if kind == "deletes" else asked.key_changes()

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
        if rest:
            self._check_visible(endpoint, normalised_id(rest[0]))
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
        path = endpoint.path if self.generation.namespaces else endpoint.name
        headers = {"Location": f"{self.url}/{path}/{row.id}", "ETag": f'"{etag(row)}"'}
        return Response(status_code=status, headers=headers)


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
