"""``/{ods}/_control``: what tests and demos in other processes do to a sandbox over HTTP."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edfi_dagster.sandbox import errors
from edfi_dagster.sandbox.answers import json_response
from edfi_dagster.sandbox.model import Endpoint
from edfi_dagster.sandbox.site import Site
from edfi_dagster.sandbox.store import Store


async def answer(site: Site, store: Store, request: Request, segments: list[str]) -> Response:
    """Answer a control request; it needs no token. Raises ``ApiError``."""
    subject, rest = (segments[0] if segments else "summary"), segments[1:]
    handler = _HANDLERS.get(subject)
    if handler is None:
        raise errors.no_such_route()
    body: Mapping[str, Any] = {}
    if request.method in ("POST", "PUT") and (raw := await request.body()):
        try:
            body = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            raise errors.bad_request("The request body is not valid JSON.") from None
    response: Response = handler(site, store, request, rest, body)
    return response


def _summary(
    site: Site, store: Store, request: Request, rest: list[str], body: Mapping[str, Any]
) -> Response:
    return json_response({"newest": store.newest, "counts": store.counts()})


def _rows(site: Site, store: Store, request: Request, rest: list[str], body: Mapping[str, Any]) -> Response:
    """The truth of one endpoint as JSON lines; ``kind=deletes|keyChanges`` for what those answer."""
    endpoint = _endpoint(store, request.query_params.get("endpoint", ""))
    read = {"deletes": store.deletes, "keyChanges": store.key_changes}.get(
        request.query_params.get("kind", ""), store.rows
    )
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in read(endpoint.path))
    return Response(lines, media_type="application/x-ndjson")


def _transactions(
    site: Site, store: Store, request: Request, rest: list[str], body: Mapping[str, Any]
) -> Response:
    if request.method == "GET":
        return json_response({"open": sorted(store.transactions)})
    if not rest:
        return json_response({"id": store.begin().id}, 201)
    opened = store.transaction(rest[0])
    if rest[1:] == ["commit"]:
        opened.commit()
    elif rest[1:] == ["rollback"]:
        opened.rollback()
    else:
        raise errors.no_such_route()
    return json_response({"id": opened.id, "newest": store.newest})


def _states(site: Site, store: Store, request: Request, rest: list[str], body: Mapping[str, Any]) -> Response:
    """``POST states/{name}/save|restore``; ``POST states/snapshot/take|drop|replace`` for snapshots."""
    match rest:
        case ["snapshot", "take"]:
            return json_response({"newest": store.newest, "snapshotIdentifier": store.take_snapshot()})
        case ["snapshot", "replace"]:
            return json_response({"newest": store.newest, "snapshotIdentifier": store.replace_snapshot()})
        case ["snapshot", "drop"]:
            store.drop_snapshot()
        case [name, "save"]:
            store.save(name)
        case [name, "restore"]:
            try:
                store.restore(name)
            except KeyError:
                raise errors.not_found(f"There is no saved state '{name}'.") from None
        case _:
            raise errors.no_such_route()
    return json_response({"newest": store.newest})


def _faults(site: Site, store: Store, request: Request, rest: list[str], body: Mapping[str, Any]) -> Response:
    """``POST`` a rule (see ``faults.Fault``; ``body`` as text), ``DELETE`` all; of the whole process."""
    if request.method == "DELETE":
        site.faults.clear()
    elif request.method == "POST":
        rule = dict(body)
        if "body" in rule:
            rule["body"] = str(rule["body"]).encode()
        try:
            site.faults.add(**rule)
        except (TypeError, ValueError) as error:
            raise errors.bad_request(str(error)) from None
    return json_response({"hits": site.faults.hits})


def _permissions(
    site: Site, store: Store, request: Request, rest: list[str], body: Mapping[str, Any]
) -> Response:
    """``POST {"endpoint", "action": "deny"|"withdraw"|"allow"|"hide"|"show", "read"?, "read_changes"?, "ids"?}``."""
    if request.method == "POST":
        endpoint = _endpoint(store, str(body.get("endpoint", ""))).path
        match body.get("action"):
            case "deny":
                store.deny(
                    endpoint,
                    read=bool(body.get("read", True)),
                    read_changes=bool(body.get("read_changes", True)),
                )
            case "withdraw":
                store.withdraw(endpoint)
            case "allow":
                store.allow(endpoint)
            case "hide":
                store.hide(endpoint, *map(str, body.get("ids", ())))
            case "show":
                store.show(endpoint, *map(str, body.get("ids", ())))
            case other:
                raise errors.bad_request(
                    f"The action must be deny, withdraw, allow, hide or show, not {other!r}."
                )
    denied = {"reads": sorted(store.denied_reads), "changes": sorted(store.denied_changes)}
    return json_response({"denied": denied, "withdrawn": sorted(store.withdrawn)})


def _requests(
    site: Site, store: Store, request: Request, rest: list[str], body: Mapping[str, Any]
) -> Response:
    if request.method == "DELETE":
        site.requests.clear()
    rows = [dataclasses.asdict(info) for info in tuple(site.requests)]
    for row in rows:
        row.pop("headers")
    return json_response(rows)


def _settings(
    site: Site, store: Store, request: Request, rest: list[str], body: Mapping[str, Any]
) -> Response:
    """``POST {"latency": seconds, "max_page": rows, "token_seconds": n, "cascade_bumps": bool}``."""
    if "cascade_bumps" in body:
        store.cascade_bumps = bool(body["cascade_bumps"])
    for name, kind in (("latency", float), ("max_page", int), ("token_seconds", int)):
        if name in body:
            setattr(site.settings, name, kind(body[name]))
    if body.get("expire_tokens"):
        site.expire_tokens()
    s = site.settings
    return json_response({"latency": s.latency, "max_page": s.max_page, "token_seconds": s.token_seconds})


def _oddities(
    site: Site, store: Store, request: Request, rest: list[str], body: Mapping[str, Any]
) -> Response:
    """``POST`` fields of ``oddities.Oddities`` to set, ``DELETE`` for an ordinary ODS."""
    if request.method == "DELETE":
        store.oddities.clear()
    elif request.method == "POST":
        try:
            store.oddities.set(body)
        except ValueError as error:
            raise errors.bad_request(str(error)) from None
    return json_response({})


def _endpoint(store: Store, path: str) -> Endpoint:
    found = store.model.get(path)
    if found is None:
        raise errors.bad_request(f"There is no endpoint '{path}'.")
    return found


_HANDLERS = {
    "summary": _summary,
    "rows": _rows,
    "transactions": _transactions,
    "states": _states,
    "faults": _faults,
    "oddities": _oddities,
    "permissions": _permissions,
    "requests": _requests,
    "settings": _settings,
}
