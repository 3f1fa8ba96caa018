"""Who wrote an error answer: the ODS, or a firewall, proxy or gateway in front of it.

An ODS says 401, 403 and 404 in its own form, which depends on its version (api.md section 6):

    7.2 and later, and API 8   a problem whose ``type`` begins with ``urn:ed-fi:api:``
    7.0, 7.1                   ``message`` and ``correlationId``
    up to 6.x, and Ed-Fi 2     ``message``; ``modelState`` or ``messageDetail`` beside it
    any                        nothing, or the problem that ASP.NET writes itself, where no route matched

Gateways write ``message`` as well: AWS (``Forbidden``), Kong (``no Route matched with those values``), Azure API
Management (with ``statusCode``). So before 7.2 the fields and the wording must both be an ODS's; the wordings are
those of ``EdFiSecurityException`` and ``NotFoundException`` in the public source of ODS/API 3 to 7.1, and of Ed-Fi 2.

A host may word its refusals in its own way, or leave them empty. Then the address is asked again, without the token
and with it (``is_about_the_key``). Firewalls and gateways refuse by address, path or rate, whether or not there is a token. An ODS
looks at the token first: 401 without it. An HTML page or plain text is never believed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from edfi_dagster.ods.answers import Answer

_TYPE = "urn:ed-fi:api:"
_FIELDS_BEFORE_7_2 = {"message", "correlationid", "modelstate", "messagedetail"}
_WORDINGS = {
    403: re.compile(
        r"could not be authorized|^authorization denied\.|^unable to authorize the request|\bclaim set\b"
        r"|education organization id claims?\b|namespaceprefix claim",
        re.IGNORECASE,
    ),
    404: re.compile(
        r"^the specified (data )?(resource|resource item|data) could not be found"
        r"|with the specified id was not found|^snapshot not (found|available)"
        r"|^resource to (update|delete) was not found|^no http resource was found that matches",
        re.IGNORECASE,
    ),
}
_FRAMEWORK_TYPE = re.compile(r"https://(tools\.ietf\.org/html/|www\.rfc-editor\.org/rfc/)rfc\d+")
_FRAMEWORK_FIELDS = {"type", "title", "status", "traceId"}
_SERVER = re.compile(r"[A-Za-z][A-Za-z0-9./_ ()-]{0,39}")
# Servers that an ODS itself runs on: their names tell nothing of what stands in front of it.
_OWN_SERVERS = ("kestrel", "microsoft-iis", "microsoft-httpapi")


class Origin(Enum):
    """``UNSAID``: no word of anybody. ``DOCUMENT``: JSON in a form or wording that is not known of an ODS.

    Either may be the ODS or not. ``OTHER`` is never the ODS.
    """

    ODS = "the ODS"
    UNSAID = "unsaid"
    DOCUMENT = "document"
    OTHER = "other"


def origin(answer: Answer) -> Origin:
    """Who wrote an answer of status 401, 403 or 404."""
    if not answer.body.strip():
        return Origin.UNSAID
    try:
        document = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Origin.OTHER
    if not isinstance(document, dict):
        return Origin.DOCUMENT
    kind = str(document.get("type", ""))
    if kind.startswith(_TYPE):
        return Origin.ODS
    if _FRAMEWORK_TYPE.match(kind) and document.keys() <= _FRAMEWORK_FIELDS:
        return Origin.UNSAID
    fields = {str(name).lower(): value for name, value in document.items()}
    wording = _WORDINGS.get(answer.status)
    is_ours = (
        fields.keys() <= _FIELDS_BEFORE_7_2 and wording and wording.search(str(fields.get("message", "")))
    )
    return Origin.ODS if is_ours else Origin.DOCUMENT


def is_about_the_key(refusal: Answer, ask: Callable[[bool], Answer]) -> bool:
    """Whether the same request is answered 401 without its token, and refused again with it.

    ``ask`` sends the request that was refused once more, with its token (True) or without. The second refusal rules out a block that
    just ended. Raises what ``ask`` raises.
    """
    if origin(refusal) is Origin.OTHER:
        return False
    nameless = ask(False)
    if nameless.status != 401 or origin(nameless) is Origin.OTHER:
        return False
    again = ask(True)
    return again.status == refusal.status and origin(again) is not Origin.OTHER


def is_page(answer: Answer) -> bool:
    """Whether it is a page for a browser: no JSON begins so."""
    return answer.body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<"


def described(answer: Answer) -> str:
    """What an answer is that the ODS did not write, without a word of it: a page may repeat what was asked for."""
    start = answer.body.lstrip()[:1]
    if not start:
        what = "without a body"
    elif is_page(answer):
        what = "with an HTML page"
    elif start in {b"{", b"["}:
        what = "with a JSON document in a form that is not known of an ODS"
    else:
        what = "with plain text"
    server = answer.headers.get("Server", "").strip()
    is_told = _SERVER.fullmatch(server) and not server.lower().startswith(_OWN_SERVERS)
    return f"HTTP {answer.status} {what}{f' (server: {server})' if is_told else ''}"
