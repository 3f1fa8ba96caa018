"""What an answer of an ODS means, or its absence: good, worth another try, or final."""

from __future__ import annotations

import codecs
import random
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.errors import NotOffered, NotPermitted, RequestRefused, UnusableBody
from edfi_dagster.ods.origin import Origin, described, is_about_the_key, is_page, origin
from edfi_dagster.ods.profiles import INCORRECT_USAGE, profiles_in

T = TypeVar("T")

# 409: a write came in between. 425 and 408: sent again, as they ask. Every 5xx but these: it may pass.
_TRANSIENT = frozenset({408, 409, 425, 429})
_FINAL_5XX = frozenset({501, 505})
# What an ODS answers that has more to do than it can.
SUFFERING = frozenset({429, 503, 504})
LONGEST_WAIT_SECONDS = 120.0
# What msgspec says of bytes that are no JSON, no UTF-8, or nested deeper than it follows.
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
NO_CONNECTION = "no connection"
_MOST_PROFILES = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
IN_FRONT = (
    "a firewall, proxy or gateway may have answered in its place: check base_url, and have its host let this machine "
    "through"
)
_LISTED = "although the OpenAPI of the ODS lists the endpoint"
_NO_LIST = "and the ODS publishes no OpenAPI to compare"
# "Limit must be omitted or set to a value between 1 and max value defined in configuration file" before 7.2, and
# "PageSize must be a value between 0 and 500." since; Ed-Fi 2 says "1 to 100".
_PAGE_TOO_LARGE = re.compile(
    r"(?:limit|page ?size) must be (?:omitted or (?:set to )?)?a (?:numeric )?value between [01] (?:and|to) "
    r"(?:(\d{1,7})\b|max)",
    re.IGNORECASE,
)
_PROBLEM_TYPE = re.compile(r"urn:ed-fi:api(?::[a-z-]+)+")
# A GUID, the only form of it that cannot be a person's number.
_CORRELATION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """An answer, read to its end and decompressed."""

    body: bytes
    headers: Mapping[str, str]
    status: int = 200


def without_mark(body: bytes) -> bytes:
    """The body in UTF-8 without a byte order mark, which some proxies and hosts write before JSON."""
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with suppress(UnicodeDecodeError):
            return body.decode("utf-16").encode()
    return body.removeprefix(codecs.BOM_UTF8)


class Unauthorised(Exception):
    """401: the token is unknown or has expired. ``foreign`` says that the ODS did not write the answer."""

    def __init__(self, reason: str, *, foreign: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.foreign = foreign


class Transient(Exception):
    """May well work if asked again. ``wait`` is what Retry-After said, in seconds.

    ``heavy`` tells what may be too much for one answer, ``suffering`` what may be too many requests at once;
    ``remedy`` is what to do if it stays; ``whom`` names what failed where that is not the ODS.
    """

    def __init__(
        self,
        reason: str,
        wait: float = 0.0,
        *,
        heavy: bool = False,
        suffering: bool = False,
        remedy: str = "",
        whom: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
        self.heavy = heavy
        self.suffering = suffering
        self.remedy = remedy
        self.whom = whom


class Oversized(Exception):
    """More than can be given in one answer. ``status`` is that of the answer."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def check_status(
    answer: Answer,
    pair: TenantYear,
    endpoint: str | None,
    url: str,
    base_url: str,
    *,
    is_listed: Callable[[], bool | None] | None = None,
    ask: Callable[[bool], Answer] | None = None,
) -> None:
    """Return for 2xx. Raises Unauthorised, Transient, Oversized or RequestRefused.

    ``url`` is what was asked for, without parameters; ``base_url`` its first part. ``is_listed`` tells whether the
    ODS's OpenAPI lists what was asked for (None: the ODS has no such list); without it a 404 without a word is believed.
    ``ask`` is as in ``origin.is_about_the_key``; None if the request had no token.
    """
    status = answer.status
    if 200 <= status < 300:
        return
    if status == 401:
        foreign = origin(answer) not in {Origin.ODS, Origin.UNSAID}
        raise Unauthorised(described(answer) if foreign else "HTTP 401", foreign=foreign)
    if status in _TRANSIENT or (status >= 500 and status not in _FINAL_5XX):
        raise Transient(
            described(answer) if is_page(answer) else f"HTTP {status}",
            _retry_after(answer.headers),
            heavy=status == 504,
            suffering=status in SUFFERING,
            remedy=IN_FRONT if status == 429 and is_page(answer) else "",
        )
    if status == 413:
        raise Oversized("HTTP 413, too much was asked for at once", status)
    if status == 403 and (wanted := _wanted_profile(answer)):
        raise RequestRefused(wanted, status=status, pair=pair, endpoint=endpoint)
    if status in {403, 404}:
        _check_origin(answer, is_listed, ask)
    said = redirection(answer, url, base_url) if 300 <= status < 400 else _refusal(answer)
    kind: type[RequestRefused] = {403: NotPermitted, 404: NotOffered}.get(status, RequestRefused)
    raise kind(said, status=status, pair=pair, endpoint=endpoint)


def _wanted_profile(answer: Answer) -> str:
    """What to do about a 403 that asks for a profile; empty for any other. It is not the key that may not read."""
    document = problem(answer)
    names = profiles_in(
        f"{document.get('errors', '')} {document.get('message', '')} {document.get('detail', '')}"
    )
    if names:
        return (
            f"HTTP 403, the key reads this by a profile that must be named: {' or '.join(names[:_MOST_PROFILES])}; write "
            f"profile: {names[0]} for this tenant's year or this endpoint"
        )
    if document.get("type") == INCORRECT_USAGE:
        return "HTTP 403, the key may read this by none of its profiles so; check profile, or have its host assign one"
    return ""


def _check_origin(
    answer: Answer,
    is_listed: Callable[[], bool | None] | None,
    ask: Callable[[bool], Answer] | None,
) -> None:
    """Believe a 403 or 404 only of the ODS itself. Raises Transient for that of a firewall, proxy or gateway."""
    author = origin(answer)
    if author is Origin.ODS:
        return
    reason, remedy = described(answer), IN_FRONT
    if author is not Origin.OTHER:
        listed = is_listed() if is_listed and answer.status == 404 else None
        if listed is False or (author is Origin.UNSAID and answer.status == 404 and not is_listed):
            return
        if ask and is_about_the_key(answer, ask):
            return
        if is_listed:
            remedy = f"{IN_FRONT}, or write enabled: false for the endpoint"
            reason += f", {_LISTED if listed else _NO_LIST}" if answer.status == 404 else ""
    raise Transient(reason, _retry_after(answer.headers), suffering=answer.status == 403, remedy=remedy)


def seconds_before_retry(retry: int, told: float = 0.0) -> float:
    """How long to wait before the given retry (1, 2, …): exponential, with jitter so that workers spread.

    Never shorter than what Retry-After ``told``, up to two minutes.
    """
    backoff = min(0.5 * 2.0**retry, 60.0) * random.uniform(0.5, 1.0)
    return max(min(told, LONGEST_WAIT_SECONDS), backoff)


def parsed(answer: Answer, parse: Callable[[Answer], T]) -> T:
    """What ``parse`` makes of a good answer. Raises UnusableBody, which tells a page for a browser as such."""
    try:
        return parse(answer)
    except UnusableBody as error:
        if not is_page(answer):
            raise
        page = UnusableBody(f"{error.reason}: it is an HTML page", pair=error.pair, endpoint=error.endpoint)
        page.remedy = IN_FRONT
        raise page from None


def json_value(answer: Answer) -> Any:
    """The body as JSON. Raises UnusableBody."""
    try:
        return msgspec.json.decode(answer.body)
    except NO_JSON:
        raise UnusableBody("the body is cut or is not JSON") from None


def json_object(answer: Answer) -> Mapping[str, Any]:
    """The body as a JSON object. Raises UnusableBody."""
    document = json_value(answer)
    if not isinstance(document, dict):
        raise UnusableBody("the body is not a JSON object")
    return document


def problem(answer: Answer) -> Mapping[str, Any]:
    """The error document: problem details from 7.2 on, ``message`` before; empty where there is none."""
    try:
        return json_object(answer)
    except UnusableBody:
        return {}


def with_slash(answer: Answer, url: str) -> str | None:
    """Our own address with the slash at its end that a redirect adds or takes away; None for any other answer.

    Scheme and host stay ours, for a server behind a proxy may name others.
    """
    if answer.status not in _REDIRECTS or answer.status == 303:
        return None
    there, here = _target(answer, url), urlsplit(url)
    if there is None or there.hostname != here.hostname or there.path == here.path:
        return None
    is_same = there.path.rstrip("/") == here.path.rstrip("/")
    return here._replace(path=there.path).geturl() if is_same else None


def redirection(answer: Answer, url: str, base_url: str) -> str:
    """Where a 3xx points, as the base_url it would be; never its parameters.

    Raises Transient where that is another place altogether, such as the login page of a proxy.
    """
    said = f"HTTP {answer.status} redirects elsewhere"
    asked = url.removeprefix(base_url).rstrip("/")
    there = _target(answer, url)
    if there is None:
        return f"{said}; write the final address as base_url"
    host, path = there.netloc.rpartition("@")[2], there.path.rstrip("/")
    base = path[: len(path) - len(asked)]
    is_moved = path.lower().endswith(asked.lower()) and (
        asked or there.hostname == urlsplit(url).hostname or base == urlsplit(base_url).path
    )
    if is_moved:
        return f"{said}; write {there.scheme}://{host}{base} as base_url"
    raise Transient(
        f"{said}, to {host}",
        remedy=f"if it is no login page, write the final address as base_url; {IN_FRONT}",
    )


def _target(answer: Answer, url: str) -> SplitResult | None:
    location = answer.headers.get("Location", "").strip()
    try:
        found = urlsplit(urljoin(url, location)) if location else None
    except ValueError:
        return None
    return found if found and found.hostname else None


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from a number or an HTTP date; 0 where it says nothing.

    A date is measured by the clock of the server that wrote it, for ours may differ.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    until = _epoch(value)
    if until is None:
        return 0.0
    now = _epoch(headers.get("Date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _epoch(http_date: str) -> float | None:
    try:
        return parsedate_to_datetime(http_date).timestamp()
    except (ValueError, OverflowError):
        return None


def _refusal(answer: Answer) -> str:
    """Status, problem type and remedy; ``detail``, ``errors`` and ``message`` may quote a student's values."""
    if answer.status == 403:
        return "HTTP 403, the key may not read this"
    if answer.status == 404:
        return "HTTP 404, the ODS has no such endpoint"
    document = problem(answer)
    kind = str(document.get("type", ""))
    if "invalid-profile-usage" in kind or "profile specified by the content type" in str(
        document.get("message", "")
    ):
        return f"HTTP {answer.status}, the profile does not cover this; write profile for the endpoints that it covers"
    correlation = str(document.get("correlationId", ""))
    said = f"HTTP {answer.status} ({kind})" if _PROBLEM_TYPE.fullmatch(kind) else f"HTTP {answer.status}"
    too_large = _PAGE_TOO_LARGE.search(f"{document.get('errors', '')} {document.get('message', '')}")
    if too_large:
        allowed = too_large.group(1)
        return f"{said}: page_size is more than this ODS allows; write {f'{allowed} or less' if allowed else 'less'}"
    return f"{said}, correlation id {correlation}" if _CORRELATION.fullmatch(correlation) else said
