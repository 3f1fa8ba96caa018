"""What stands in front of an ODS and answers in its place: pages of firewalls, proxies and gateways, by name.

The JSON documents are those that the products write by default: AWS API Gateway, Kong, Azure API Management, Apigee,
Spring Cloud Gateway, Istio, ASP.NET.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_JSON = "application/json; charset=utf-8"
_HTML = "text/html; charset=UTF-8"


@dataclass(frozen=True)
class Page:
    """One answer that no ODS gives."""

    status: int
    body: bytes
    media: str = _JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def _html(title: str, text: str) -> bytes:
    page = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p></body></html>"
    return page.encode()


PAGES: Mapping[str, Page] = {
    "firewall": Page(
        403, _html("Access denied", "Sorry, you have been blocked."), _HTML, {"Server": "cloudflare"}
    ),
    "rate_limit": Page(
        429, _html("Too Many Requests", "You are being rate limited."), _HTML, {"Server": "cloudflare"}
    ),
    "gateway": Page(404, _html("404 Not Found", "nginx"), _HTML, {"Server": "nginx"}),
    "unauthorized": Page(401, _html("401 Authorization Required", "nginx"), _HTML, {"Server": "nginx"}),
    "aws": Page(403, b'{"message":"Forbidden"}', headers={"x-amzn-ErrorType": "ForbiddenException"}),
    "aws_route": Page(403, b'{"message":"Missing Authentication Token"}'),
    "kong": Page(404, b'{"message":"no Route matched with those values"}', headers={"Server": "kong/3.6.1"}),
    "apim": Page(404, b'{ "statusCode": 404, "message": "Resource not found" }'),
    "apim_key": Page(
        401, b'{ "statusCode": 401, "message": "Access denied due to missing subscription key." }'
    ),
    "apigee": Page(
        404,
        b'{"fault":{"faultstring":"Unable to identify proxy for host: default and url: /",'
        b'"detail":{"errorcode":"messaging.adaptors.http.flow.ApplicationNotFound"}}}',
    ),
    "spring": Page(404, b'{"timestamp":"2025-09-01T06:00:00Z","path":"/","status":404,"error":"Not Found"}'),
    "mesh": Page(403, b"RBAC: access denied", "text/plain", {"Server": "istio-envoy"}),
    "aspnet": Page(
        404,
        b'{"type":"https://tools.ietf.org/html/rfc9110#section-15.5.5","title":"Not Found","status":404,'
        b'"traceId":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}',
        "application/problem+json; charset=utf-8",
    ),
    "empty": Page(404, b""),
    "empty_403": Page(403, b""),
    "portal": Page(200, _html("Sign in", "Accept the terms of use to go on."), _HTML),
    "login": Page(302, b"", _HTML, {"Location": "https://login.example.org/oauth2/authorize?state=1"}),
}
