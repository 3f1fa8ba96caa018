"""How an ODS is asked for a token: with one request, or with two of Ed-Fi 2 (api.md section 2)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.answers import Answer, Oversized, Transient, check_status, json_object
from edfi_dagster.ods.errors import OdsNotReady, RequestRefused, UnusableBody, WrongCredentials
from edfi_dagster.ods.shelf import TOKENS_VARIABLE
from edfi_dagster.ods.token import Token, read_token

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
# Sends a body of a content type to an address; the answer, whatever its status.
Post = Callable[[str, str, bytes], Answer]


class TokenRequest:
    """What it takes to ask for a token of one key at the token address ``url``."""

    def __init__(self, post: Post, url: str, key: str, secret: str, pair: TenantYear) -> None:
        self._post = post
        self._url = url
        self._key = key
        self._secret = secret
        self._pair = pair

    def send(self) -> Token:
        """Client credentials. Raises Transient, UnusableBody, WrongCredentials or OdsNotReady."""
        asked = time.time()
        form = {
            "grant_type": "client_credentials",
            "client_id": self._key,
            "client_secret": self._secret,
        }
        return read_token(self._ask(self._url, FORM, urlencode(form).encode()), asked)

    def send_twice(self) -> Token:
        """Ed-Fi 2: a code first, and the token for it. Raises what ``send`` raises."""
        asked = time.time()
        form = urlencode({"Client_id": self._key, "Response_type": "code"}).encode()
        authorize = f"{self._url.rpartition('/')[0]}/authorize"
        code = self._ask(authorize, FORM, form).get("code")
        if not isinstance(code, str) or not code:
            raise UnusableBody("the authorization answer has no code")
        wanted = {
            "Client_id": self._key,
            "Client_secret": self._secret,
            "Code": code,
            "Grant_type": "authorization_code",
        }
        return read_token(self._ask(self._url, JSON, json.dumps(wanted).encode()), asked)

    def _ask(self, url: str, kind: str, body: bytes) -> Mapping[str, Any]:
        answer = self._post(url, kind, body)
        if answer.status in {400, 401, 403}:
            raise WrongCredentials(
                f"the ODS refused the key and secret (HTTP {answer.status} from its token address); "
                "check client_id and client_secret of this tenant and year",
                pair=self._pair,
            )
        try:
            check_status(answer, self._pair, None, url, url)
        except (RequestRefused, Oversized):
            raise OdsNotReady(
                f"HTTP {answer.status} from the token address {url}; check base_url, which must hold tenant and "
                "school year where this ODS has them in its path",
                pair=self._pair,
            ) from None
        except Transient as error:
            if answer.status == 429:
                error.reason += (
                    " (the key has as many unexpired tokens as the ODS allows; "
                    f"hosts share one in a folder that ${TOKENS_VARIABLE} names)"
                )
            raise
        return json_object(answer)

    def __repr__(self) -> str:
        return f"TokenRequest({self._url})"
