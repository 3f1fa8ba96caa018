"""Tokens: client credentials, thirty minutes; from 7.3 at most fifteen live ones per key; Ed-Fi 2 by way of a code."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edfi_dagster.sandbox.errors import too_many_tokens, unsupported_media_type
from edfi_dagster.sandbox.generations import Generation

NOT_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class TokenRefused(Exception):
    """An OAuth error answer: HTTP status and error code; an empty body without one."""

    def __init__(self, status: int, code: str = "", description: str | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"error": code, **({"error_description": description} if description else {})}

    def response(self) -> Response:
        if not self.body["error"]:
            return Response(status_code=self.status)
        return JSONResponse(self.body, self.status, headers=NOT_STORED)


@dataclass
class Tokens:
    """The access tokens of one security store. ``most`` may live at once; ``clock`` counts seconds.

    ``routes`` are further keys, with the same secret, and the ODS that each is routed to; ``routed`` likewise for tokens.
    """

    key: str
    secret: str
    seconds: int
    most: int | None = None
    clock: Callable[[], float] = time.monotonic
    expiries: dict[str, float] = field(default_factory=dict)
    codes: set[str] = field(default_factory=set)
    routes: dict[str, str] = field(default_factory=dict)
    routed: dict[str, str] = field(default_factory=dict)

    def issue(self, scope: str | None = None, *, key: str = "") -> dict[str, Any]:
        now = self.clock()
        self.expiries = {token: expiry for token, expiry in self.expiries.items() if expiry > now}
        if self.most is not None and len(self.expiries) >= self.most:
            raise too_many_tokens()
        token = uuid4().hex
        self.expiries[token] = now + self.seconds
        if key in self.routes:
            self.routed[token] = self.routes[key]
        answer: dict[str, Any] = {"access_token": token, "expires_in": self.seconds, "token_type": "bearer"}
        return answer | ({"scope": scope} if scope else {})

    def is_valid(self, token: str) -> bool:
        return self.expiries.get(token, 0.0) > self.clock()

    def expire_all(self) -> None:
        """End every token now, as an expiry in the middle of a run does."""
        self.expiries.clear()


async def token_response(
    request: Request, tokens: Tokens, organizations: set[str], generation: Generation
) -> Response:
    """Answer ``POST …/oauth/token``. ``organizations`` are the scopes the key may ask for."""
    fields = await read_fields(request)
    try:
        if generation.token_steps == 2:
            return JSONResponse(_exchanged(tokens, fields, generation), headers=NOT_STORED)
        key, secret = _credentials(request.headers.get("authorization"), fields, generation)
        if fields.get("grant_type") != "client_credentials":
            raise TokenRefused(400, "unsupported_grant_type")
        if key not in {tokens.key, *tokens.routes} or secret != tokens.secret:
            raise TokenRefused(generation.wrong_secret, "invalid_client")
        scope = fields.get("scope") or None
        if scope is not None and scope not in organizations:
            raise TokenRefused(400, "invalid_scope", "The client is not associated with the requested scope.")
    except TokenRefused as refused:
        return refused.response()
    return JSONResponse(tokens.issue(scope, key=key), headers=NOT_STORED)


async def code_response(request: Request, tokens: Tokens) -> Response:
    """Answer ``POST …/oauth/authorize`` of Ed-Fi 2: a code for a known key, good for one token."""
    fields = _lower_names(await read_fields(request))
    if fields.get("response_type") != "code":
        return TokenRefused(400, "unsupported_response_type").response()
    if fields.get("client_id") != tokens.key:
        return TokenRefused(400, "unauthorized_client").response()
    code = uuid4().hex
    tokens.codes.add(code)
    return JSONResponse({"code": code}, headers=NOT_STORED)


def _exchanged(tokens: Tokens, given: dict[str, str], generation: Generation) -> dict[str, Any]:
    fields = _lower_names(given)
    if fields.get("grant_type") != "authorization_code":
        raise TokenRefused(400, "unsupported_grant_type")
    if (fields.get("client_id"), fields.get("client_secret")) != (tokens.key, tokens.secret):
        raise TokenRefused(generation.wrong_secret, "invalid_client")
    if fields.get("code") not in tokens.codes:
        raise TokenRefused(400, "invalid_grant")
    tokens.codes.remove(fields["code"])
    return tokens.issue()


def _lower_names(fields: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in fields.items()}


async def read_fields(request: Request) -> dict[str, str]:
    """The fields of a form or JSON body. Raises ``ApiError`` (415) for another content type."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await request.body()
    if kind == "application/x-www-form-urlencoded":
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if kind == "application/json":
        try:
            fields = json.loads(body or b"{}")
        except ValueError:
            return {}
        return {str(k): str(v) for k, v in fields.items()} if isinstance(fields, dict) else {}
    raise unsupported_media_type()


def _credentials(header: str | None, fields: dict[str, str], generation: Generation) -> tuple[str, str]:
    in_body = "client_id" in fields or "client_secret" in fields
    if header is None:
        if not in_body:
            raise TokenRefused(401, "" if generation.bare_refusals else "invalid_request")
        return fields.get("client_id", ""), fields.get("client_secret", "")
    if in_body:
        raise TokenRefused(400, "invalid_client")
    words = header.split(" ")
    malformed = TokenRefused(401) if generation.bare_refusals else TokenRefused(400, "invalid_request")
    if len(words) != 2:
        raise malformed
    if words[0].lower() != "basic":
        raise TokenRefused(401, "invalid_client")
    try:
        parts = base64.b64decode(words[1], validate=True).decode().split(":")
    except (binascii.Error, UnicodeDecodeError):
        parts = []
    if len(parts) != 2:
        raise malformed
    return parts[0], parts[1]
