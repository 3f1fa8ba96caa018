"""How an ODS is asked for a token: with one request, or with two of Ed-Fi 2 (api.md section 2).

ODS/API takes key and secret as ``Authorization: Basic`` or in the body, never both. The Data Management Service (8) takes
Basic only and refuses a body with 400. Other servers behind an ``oauth_url`` may want the body. Both ways come apart on
some characters: ODS/API splits Basic at every colon, and RFC 6749 wants key and secret URL-encoded before Basic, which
ODS/API and DMS do not undo. So the forms are tried in turn until one is not refused; a refusal costs no token.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from edfi_dagster.config import TenantYear
from edfi_dagster.config.errors import printable
from edfi_dagster.ods.answers import (
    IN_FRONT,
    Answer,
    Oversized,
    Transient,
    check_status,
    json_object,
    parsed,
    problem,
)
from edfi_dagster.ods.errors import OdsNotReady, RequestRefused, UnusableBody, WrongCredentials
from edfi_dagster.ods.origin import described
from edfi_dagster.ods.shelf import TOKENS_VARIABLE
from edfi_dagster.ods.token import Token, read_token

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
# Sends a body with headers to an address; the answer, whatever its status.
Post = Callable[[str, Mapping[str, str], bytes], Answer]
# What may be about the form, also of a gateway that lets no Authorization header through: the next form is tried.
_REFUSALS = (401, 400, 403, 405, 406, 415, 422, 501)
_GRANT = {"grant_type": "client_credentials"}


class TokenRequest:
    """What it takes to ask for a token of one key at the token address ``url``.

    ``told`` is the token address in the ODS's root document. It is never asked: a key goes only where the configuration
    says. Where it is on another host, a failure names it.
    """

    def __init__(
        self, post: Post, url: str, key: str, secret: str, pair: TenantYear, *, told: str = ""
    ) -> None:
        self._post = post
        self._url = url
        self._key = key
        self._secret = secret
        self._pair = pair
        self._forms = _forms(key, secret)
        self._remedy = _other_address(url, told)

    def send(self) -> Token:
        """Client credentials. Raises Transient, UnusableBody, WrongCredentials or OdsNotReady."""
        asked = time.time()
        refused: list[Answer] = []
        for form in self._forms:
            headers, fields = form
            answer = self._post(self._url, {"Content-Type": FORM, **headers}, urlencode(fields).encode())
            if answer.status not in _REFUSALS:
                # What was taken once is asked first from now on.
                self._forms = (form, *(other for other in self._forms if other is not form))
                return read_token(self._read(answer), asked)
            refused.append(answer)
        return read_token(self._read(min(refused, key=_rank)), asked)

    def send_twice(self) -> Token:
        """Ed-Fi 2: a code first, and the token for it. Raises what ``send`` raises."""
        asked = time.time()
        form = urlencode({"Client_id": self._key, "Response_type": "code"}).encode()
        authorize = f"{self._url.rpartition('/')[0]}/authorize"
        code = self._read(self._post(authorize, {"Content-Type": FORM}, form)).get("code")
        if not isinstance(code, str) or not code:
            raise UnusableBody("the authorization answer has no code")
        wanted = {
            "Client_id": self._key,
            "Client_secret": self._secret,
            "Code": code,
            "Grant_type": "authorization_code",
        }
        answer = self._post(self._url, {"Content-Type": JSON}, json.dumps(wanted).encode())
        return read_token(self._read(answer), asked)

    def _read(self, answer: Answer) -> Mapping[str, Any]:
        if _is_foreign(answer):
            raise Transient(described(answer), remedy=IN_FRONT)
        if answer.status in {400, 401, 403}:
            raise WrongCredentials(
                f"the ODS refused the key and secret (HTTP {answer.status} from its token address); "
                f"check client_id and client_secret of this tenant and year{self._remedy}",
                pair=self._pair,
            )
        try:
            check_status(answer, self._pair, None, self._url, self._url)
        except (RequestRefused, Oversized):
            raise OdsNotReady(
                f"HTTP {answer.status} from the token address {self._url}; check base_url, which must hold tenant and "
                f"school year where this ODS has them in its path{self._remedy}",
                pair=self._pair,
            ) from None
        except Transient as error:
            if answer.status == 429 and not error.remedy:
                error.reason += " (the key has as many unexpired tokens as the ODS allows)"
                error.remedy = f"let hosts share one token in a folder that ${TOKENS_VARIABLE} names"
            raise
        return parsed(answer, json_object)

    def __repr__(self) -> str:
        return f"TokenRequest({self._url})"


def _rank(refusal: Answer) -> tuple[bool, int]:
    """Which refusal to report: the ODS's before a gateway's, then what is likeliest about key and secret."""
    return _is_foreign(refusal), _REFUSALS.index(refusal.status)


Form = tuple[Mapping[str, str], Mapping[str, str]]


def _forms(key: str, secret: str) -> Sequence[Form]:
    """Headers and fields of each way to send key and secret, the usual one first."""
    in_body: Form = ({}, {**_GRANT, "client_id": key, "client_secret": secret})
    encoded = (quote_plus(key), quote_plus(secret))
    forms = [(_basic(key, secret), _GRANT), in_body]
    return (*forms, (_basic(*encoded), _GRANT)) if encoded != (key, secret) else tuple(forms)


def _basic(key: str, secret: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{key}:{secret}'.encode()).decode()}"}


def _is_foreign(answer: Answer) -> bool:
    """Whether something in front of the token address refused: a page that is no JSON, or a 403 that names no error."""
    if answer.status not in {400, 401, 403}:
        return False
    if not answer.body.strip():
        return answer.status == 403
    document = problem(answer)
    if not document:
        return True
    names_error = {"error", "errorcode"} & {str(name).lower() for name in document}
    return answer.status == 403 and not (
        names_error or str(document.get("type", "")).startswith("urn:ed-fi:api:")
    )


def _other_address(url: str, told: str) -> str:
    try:
        here, there = urlsplit(url), urlsplit(told)
        is_other = there.scheme in {"http", "https"} and there.hostname and there.hostname != here.hostname
    except ValueError:
        return ""
    if not is_other or any(sign in told for sign in "{}"):
        return ""
    place = f"{there.scheme}://{there.netloc.rpartition('@')[2]}{there.path}"
    return f"; or, if its tokens come from there, write oauth_url: {printable(place)}"
