"""What an answer of an ODS means, or its absence: good, worth another try, or final."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import requests
import urllib3

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.errors import NotOffered, NotPermitted, RequestRefused, UnusableBody

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
LONGEST_WAIT_SECONDS = 120.0
NO_CONNECTION = "no connection"
_PAGE_TOO_LARGE = "must be a value between 0 and "


@dataclass(frozen=True)
class Answer:
    """A 2xx answer, read to its end."""

    body: bytes
    headers: Mapping[str, str]


class Unauthorised(Exception):
    """401: the token is unknown or has expired."""


class Transient(Exception):
    """May well work if asked again. ``wait`` is what Retry-After said, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


def check_status(response: requests.Response, pair: TenantYear, endpoint: str | None) -> None:
    """Return for 2xx. Raises Unauthorised, Transient or RequestRefused."""
    status = response.status_code
    if 200 <= status < 300:
        return
    if status == 401:
        raise Unauthorised("HTTP 401")
    if status in TRANSIENT:
        raise Transient(f"HTTP {status}", _retry_after(response.headers.get("Retry-After")))
    refusal: type[RequestRefused] = {403: NotPermitted, 404: NotOffered}.get(status, RequestRefused)
    raise refusal(_refusal(response), status=status, pair=pair, endpoint=endpoint)


def seconds_before_retry(retry: int, told: float = 0.0) -> float:
    """How long to wait before the given retry (1, 2, …): exponential, with jitter so that workers spread.

    Never shorter than what Retry-After ``told``, up to two minutes.
    """
    backoff = min(0.5 * 2.0**retry, 60.0) * random.uniform(0.5, 1.0)
    return max(min(told, LONGEST_WAIT_SECONDS), backoff)


def json_object(answer: Answer) -> Mapping[str, Any]:
    """The body as a JSON object. Raises UnusableBody."""
    try:
        document = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnusableBody("the body is cut or is not JSON") from None
    if not isinstance(document, dict):
        raise UnusableBody("the body is not a JSON object")
    return document


def cause_of(error: requests.RequestException) -> str:
    """What happened, without the URL: query parameters may hold a student's identifier."""
    timed_out = any(isinstance(part, urllib3.exceptions.ReadTimeoutError) for part in error.args)
    if isinstance(error, requests.Timeout) or timed_out:
        return "time-out"
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS failure (check the certificate, or verify_ssl)"
    if isinstance(
        error, (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)
    ):
        return "answer cut off"
    if isinstance(error, requests.ConnectionError):
        return NO_CONNECTION
    return type(error).__name__


def _retry_after(value: str | None) -> float:
    """Seconds, from a number or an HTTP date; 0 where it says nothing."""
    value = (value or "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _refusal(response: requests.Response) -> str:
    """Status, problem type and remedy; ``detail`` and ``errors`` may quote a student's values and stay out."""
    status = response.status_code
    if status == 403:
        return "HTTP 403, the key may not read this"
    if status == 404:
        return "HTTP 404, the ODS has no such endpoint"
    if 300 <= status < 400:
        return f"HTTP {status} redirects elsewhere; write the final address as base_url"
    problem = _problem(response)
    kind = str(problem.get("type", ""))
    said = f"HTTP {status} ({kind})" if kind.startswith("urn:ed-fi:") else f"HTTP {status}"
    if _PAGE_TOO_LARGE in str(problem.get("errors", "")):
        said += ": page_size is more than this ODS allows"
    return said


def _problem(response: requests.Response) -> Mapping[str, Any]:
    try:
        document = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return document if isinstance(document, dict) else {}
