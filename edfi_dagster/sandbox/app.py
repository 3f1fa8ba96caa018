"""The ASGI application: finds the ODS, runs hooks, faults and authentication, answers."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edfi_dagster.sandbox import control, errors, metadata, oauth
from edfi_dagster.sandbox.answers import json_response
from edfi_dagster.sandbox.data import DataApi
from edfi_dagster.sandbox.errors import ApiError
from edfi_dagster.sandbox.faults import Fault
from edfi_dagster.sandbox.gateways import PAGES
from edfi_dagster.sandbox.generations import ErrorStyle
from edfi_dagster.sandbox.site import Located, RequestInfo, Site
from edfi_dagster.sandbox.store import Store

# How the ODS itself refuses.
_OWN = {403: errors.access_denied("action", "resource"), 404: errors.not_found()}


class App:
    """Serves a ``Site``. Control routes pass no hooks, faults or latency and are not recorded."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        segments = [segment for segment in request.scope["path"].split("/") if segment]
        if found := self.site.book.control(segments):
            store = self.site.stores[found[0]]
            answer = await self._guarded(control.answer(self.site, store, request, found[1]), request)
            await answer(scope, receive, send)
            return
        place = self.site.locate(segments)
        info = RequestInfo(
            request.method,
            request.scope["path"],
            dict(request.query_params),
            place.store.name if place.store else "",
            dict(request.headers),
        )
        for hook in tuple(self.site.before_request):
            hook(info)
        if self.site.settings.latency:
            await asyncio.sleep(self.site.settings.latency)
        fault = self.site.faults.strike(info.method, info.path)
        if fault is not None and fault.action != "slow":
            await self._break(fault, info, request, receive, send, place)
            return
        if fault is not None:
            await asyncio.sleep(fault.seconds)
        response = await self._guarded(self._answer(request, place, info), request)
        if place.store is not None:
            response = place.store.oddities.marked(response)
        self._record(info, response.status_code)
        await response(scope, receive, send)

    def _record(self, info: RequestInfo, status: int) -> None:
        answered = info.answered(status)
        self.site.requests.append(answered)
        for hook in tuple(self.site.after_response):
            hook(answered)

    async def _guarded(self, answer: Any, request: Request) -> Response:
        """The answer, or the error body of the ``ApiError`` it raises."""
        try:
            response: Response = await answer
        except ApiError as error:
            correlation = request.headers.get("correlation-id") or request.query_params.get("correlationId")
            return error.response(self.site.generation.errors, correlation)
        return response

    async def _answer(self, request: Request, place: Located, info: RequestInfo) -> Response:
        generation, store, rest = self.site.generation, place.store, place.rest
        if not rest:
            return metadata.discovery(request, self.site, place)
        if store is None:
            raise errors.no_such_route()
        area = tuple(segment.lower() for segment in rest[:2])
        if area[0] == "oauth" and len(rest) == 2:
            return await self._oauth(request, store, area[1])
        if area[0] == "metadata" and generation.documents:
            return metadata.answer(request, store, self.site.address(store), rest[1:], self.site.settings)
        if area not in (generation.data_area, ("changequeries", "v1")):
            raise errors.no_such_route()
        return await self._protected(request, store, area, rest[2:], info)

    async def _protected(
        self, request: Request, store: Store, area: tuple[str, ...], rest: list[str], info: RequestInfo
    ) -> Response:
        """Answer what needs a token: data and change queries."""
        refusal = self._refusal(request, store)
        if refusal is not None:
            return refusal
        token = (request.headers.get("authorization") or "").partition(" ")[2].strip()
        served = self.site.routed(store, token)
        url = self.site.address(store).url(metadata.root_url(request), *self.site.generation.data_area)
        api = DataApi(served, self.site.settings.max_page, url, functools.partial(self._between_reads, info))
        if area != self.site.generation.data_area:
            if not self.site.generation.change_queries:
                raise errors.no_such_route()
            if not store.oddities.change_queries:
                told = self.site.generation.errors == "problem"
                raise errors.feature_disabled("Change Queries") if told else errors.no_such_route()
            return api.change_queries(request, rest)
        parameters = {name.lower(): value for name, value in request.query_params.items()}
        return await api.answer(request, rest, parameters)

    def _between_reads(self, info: RequestInfo) -> None:
        for hook in tuple(self.site.between_reads):
            hook(info)

    async def _oauth(self, request: Request, store: Store, action: str) -> Response:
        two_steps = self.site.generation.token_steps == 2
        handler = {
            "token": self._token,
            "authorize": self._authorize if two_steps else None,
            "token_info": None if two_steps else self._token_info,
        }.get(action)
        if handler is None:
            raise errors.no_such_route()
        if request.method != "POST":
            raise errors.method_not_allowed("POST")
        return await handler(request, store)

    async def _token(self, request: Request, store: Store) -> Response:
        organizations = {str(row["localEducationAgencyId"]) for row in store.rows("localEducationAgencies")}
        return await oauth.token_response(
            request, self.site.tokens(store), organizations, self.site.generation
        )

    async def _authorize(self, request: Request, store: Store) -> Response:
        return await oauth.code_response(request, self.site.tokens(store))

    async def _token_info(self, request: Request, store: Store) -> Response:
        fields = await oauth.read_fields(request)
        token = fields.get("token", "")
        if len(token) != 32:
            raise errors.bad_request("The token was missing or is not valid.")
        if request.headers.get("authorization", "").removeprefix("Bearer ").strip() != token:
            raise errors.bad_request("The token of the body is not the token of the Authorization header.")
        if not self.site.tokens(store).is_valid(token):
            return Response(status_code=401)
        return json_response(metadata.token_info(store, self.site.settings.key))

    def _refusal(self, request: Request, store: Store) -> Response | None:
        """The 401 of a request without a valid token: without a body before 7.2, and behind a route prefix."""
        error = _bearer_error(request.headers.get("authorization"))
        token = (request.headers.get("authorization") or "").partition(" ")[2].strip()
        if error is None and self.site.tokens(store).is_valid(token):
            return None
        if self.site.generation.errors != "problem" or self.site.address(store).base:
            return Response(status_code=401)
        raise errors.unauthenticated(error or "Invalid token")

    async def _break(
        self,
        fault: Fault,
        info: RequestInfo,
        request: Request,
        receive: Receive,
        send: Send,
        place: Located,
    ) -> None:
        """Answer as the fault says instead of (or with part of) the real answer."""
        if fault.action == "reset":
            self._record(info, 0)
            _abort(send)
            return
        if fault.action in ("status", "html"):
            instead = _instead(fault, self.site.generation.errors)
            self._record(info, instead.status_code)
            await instead(request.scope, receive, send)
            return
        response = await self._guarded(self._answer(request, place, info), request)
        body = bytes(response.body)
        self._record(info, response.status_code)
        if fault.action == "invalid_json":
            broken = Response(body[: len(body) // 2] or b"{", response.status_code)
            broken.headers["content-type"] = "application/json; charset=utf-8"
            await broken(request.scope, receive, send)
            return
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await asyncio.sleep(fault.seconds if fault.action == "stall" else 0.05)
        _abort(send)


def _instead(fault: Fault, style: ErrorStyle) -> Response:
    if fault.page is not None:
        page = PAGES[fault.page]
        return Response(page.body, page.status, {"content-type": page.media, **page.headers, **fault.headers})
    if fault.action == "status" and fault.status in _OWN and not fault.body:
        own = _OWN[fault.status].response(style)
        own.headers.update(fault.headers)
        return own
    if fault.action == "status":
        return Response(fault.body, fault.status, headers=dict(fault.headers))
    html = fault.body or b"<html><body><h1>Gateway</h1></body></html>"
    return Response(html, fault.status, headers={"content-type": "text/html", **fault.headers})


def _bearer_error(header: str | None) -> str | None:
    if not header:
        return "Authorization header is missing."
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "bearer":
        return "Unknown Authorization header scheme."
    if not value.strip():
        return "Missing Authorization header bearer token value."
    return None if " " not in value.strip() else "Invalid Authorization header."


def _abort(send: Send) -> None:
    """Close the connection under the client, which ASGI itself cannot express."""
    cycle = getattr(send, "__self__", None)
    if cycle is None:
        raise RuntimeError("connections can be broken only under uvicorn")
    cycle.disconnected = True
    cycle.response_complete = True
    cycle.transport.abort()
