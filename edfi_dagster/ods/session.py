"""HTTP to one ODS: discovery, token, retries, and the bound on requests in flight.

What each fault leads to:

    answer                                     action                              outcome if it stays
    ------------------------------------------ ----------------------------------- -------------------
    connection refused, reset, cut, time-out   retry, exponential with jitter      OdsUnreachable
    408, 429, 500, 502, 503, 504               retry, after Retry-After if given   OdsUnreachable
    200 that is cut, no JSON, or foreign JSON  retry                               UnusableBody
    401                                        one new token, same request again   WrongCredentials
    token request answered 400, 401, 403       none                                WrongCredentials
    403                                        none                                NotPermitted
    404                                        none                                NotOffered
    3xx                                        never followed with the token       RequestRefused
    any other                                  none                                RequestRefused
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter

from edfi_dagster.config import OdsSettings, TenantYear
from edfi_dagster.ods.errors import (
    EdFiError,
    NotOffered,
    NotPermitted,
    OdsNotReady,
    OdsUnreachable,
    RequestRefused,
    UnusableBody,
    WrongCredentials,
)
from edfi_dagster.ods.token import RENEW_BEFORE_SECONDS, Token, TokenLease

T = TypeVar("T")

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
CONNECT_SECONDS = 15
READ_SECONDS = 120
LONGEST_WAIT_SECONDS = 120.0
DEFAULT_RETRIES = 5


@dataclass(frozen=True)
class Answer:
    """A 2xx answer, read to its end."""

    body: bytes
    headers: Mapping[str, str]


@dataclass
class Tally:
    """Requests sent and retries among them, for one pull; safe to share between threads."""

    requests: int = 0
    retries: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, *, retry: bool) -> None:
        with self._lock:
            self.requests += 1
            self.retries += retry


@dataclass(frozen=True)
class Discovery:
    """What the root document says. ``data_model_version`` is Ed-Fi's own, e.g. ``5.2.0``."""

    version: tuple[int, int]
    ods_version: str
    data_model_version: str
    urls: Mapping[str, str]


class OdsSession:
    """One ODS, one key, one pool of connections; at most ``max_concurrent_requests`` in flight."""

    def __init__(self, settings: OdsSettings, pair: TenantYear, *, base_url: str | None = None) -> None:
        self.pair = pair
        self.settings = settings
        self._base = (base_url or settings.base_url).rstrip("/")
        self._budget = threading.BoundedSemaphore(settings.extract.max_concurrent_requests)
        self._http = requests.Session()
        adapter = HTTPAdapter(pool_maxsize=settings.extract.max_concurrent_requests, pool_block=True)
        self._http.mount("http://", adapter)
        self._http.mount("https://", adapter)
        self._http.trust_env = True
        self._http.verify = settings.verify_ssl
        self.tally = Tally()

    def close(self) -> None:
        self._http.close()

    # -- addresses ---------------------------------------------------------------------------------------

    @cached_property
    def discovery(self) -> Discovery:
        """The root document. Raises OdsNotReady where the base URL is no Ed-Fi API of a known shape."""
        try:
            document = self._call(f"{self._base}/", {}, _json_object, endpoint=None, authorised=False)
        except (RequestRefused, UnusableBody) as error:
            raise OdsNotReady(
                f"{self._base}/ does not answer like an Ed-Fi API ({error.reason}); check base_url",
                pair=self.pair,
            ) from None
        return self._read_discovery(document)

    def _read_discovery(self, document: Mapping[str, Any]) -> Discovery:
        try:
            major, minor = (str(document["version"]) + ".0").split(".")[:2]
            version = (int(major), int(minor))
            models = {str(m["name"]).lower(): str(m["version"]) for m in document["dataModels"]}
            found = Discovery(
                version=version,
                ods_version=str(document.get("informationalVersion") or document["version"]),
                data_model_version=models["ed-fi"],
                urls={str(k): str(v) for k, v in (document.get("urls") or {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise OdsNotReady(
                f"{self._base}/ is no Ed-Fi discovery document (version or dataModels missing); check base_url",
                pair=self.pair,
            ) from None
        if version < (7, 3):
            raise OdsNotReady(
                f"this is ODS/API {found.ods_version}; only 7.3 and later can be pulled", pair=self.pair
            )
        return found

    def url(self, area: str) -> str:
        """The URL of ``dataManagementApi``, ``changeQueries``, ``oauth`` or ``openApiMetadata``, no slash at its end.

        Host and scheme are always those of ``base_url``: the document may name an internal host, and the token
        goes nowhere else. Its paths count only when they stand below ours and hold no placeholder.
        """
        standard = {
            "dataManagementApi": "/data/v3",
            "changeQueries": "/changeQueries/v1",
            "oauth": "/oauth/token",
            "openApiMetadata": "/metadata",
        }[area]
        base = urlsplit(self._base)
        told = urlsplit(self.discovery.urls.get(area, "")).path.rstrip("/")
        if told and "{" not in told and told.lower().startswith(f"{base.path}/".lower()):
            return f"{base.scheme}://{base.netloc}{told}"
        return self._base + standard

    # -- requests ----------------------------------------------------------------------------------------

    def get(
        self,
        url: str,
        params: Mapping[str, str],
        parse: Callable[[Answer], T],
        *,
        endpoint: str | None = None,
        retries: int | None = None,
        tally: Tally | None = None,
    ) -> T:
        """GET with the token; ``parse`` turns the answer into what is wanted, or raises UnusableBody."""
        return self._call(url, params, parse, endpoint=endpoint, retries=retries, tally=tally)

    def newest_change_version(self) -> int:
        """The current value of the ODS's change-version sequence; counts uncommitted work too."""

        def parse(answer: Answer) -> int:
            document = {key.lower(): value for key, value in _json_object(answer).items()}
            newest = document.get("newestchangeversion")
            if not isinstance(newest, int):
                raise UnusableBody("availableChangeVersions has no newestChangeVersion")
            return newest

        return self.get(f"{self.url('changeQueries')}/availableChangeVersions", {}, parse)

    def _call(
        self,
        url: str,
        params: Mapping[str, str],
        parse: Callable[[Answer], T],
        *,
        endpoint: str | None,
        authorised: bool = True,
        retries: int | None = None,
        tally: Tally | None = None,
    ) -> T:
        retries = DEFAULT_RETRIES if retries is None else retries
        refused: Token | None = None
        attempt = 0
        while True:
            token = self._token.get(refused=refused) if authorised else None
            try:
                answer = self._send(url, params, token, endpoint, tally or self.tally, retry=attempt > 0)
                return parse(answer)
            except _Unauthorised:
                if refused is not None:
                    raise WrongCredentials(
                        "the ODS answers 401 to a fresh token; check the key's status and claim set",
                        pair=self.pair,
                    ) from None
                refused = token
                continue
            except (_Transient, UnusableBody) as error:
                if attempt >= retries:
                    raise self._given_up(error, endpoint, attempt + 1) from None
                wait = error.wait if isinstance(error, _Transient) and error.wait is not None else None
            attempt += 1
            time.sleep(_backoff(attempt) if wait is None else min(wait, LONGEST_WAIT_SECONDS))

    def _send(
        self,
        url: str,
        params: Mapping[str, str],
        token: Token | None,
        endpoint: str | None,
        tally: Tally,
        *,
        retry: bool,
    ) -> Answer:
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        if token:
            headers["Authorization"] = f"Bearer {token.value}"
        with self._budget:
            tally.add(retry=retry)
            try:
                response = self._http.get(
                    url,
                    params=params,
                    headers=headers,
                    timeout=(CONNECT_SECONDS, READ_SECONDS),
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                raise _Transient(_cause(error)) from None
        self._check_status(response, endpoint)
        return Answer(response.content, response.headers)

    def _check_status(self, response: requests.Response, endpoint: str | None) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        if status == 401:
            raise _Unauthorised
        if status in TRANSIENT:
            raise _Transient(f"HTTP {status}", _retry_after(response.headers.get("Retry-After")))
        if status == 403:
            raise NotPermitted(
                "HTTP 403, the key may not read this", status=403, pair=self.pair, endpoint=endpoint
            )
        if status == 404:
            raise NotOffered(
                "HTTP 404, the ODS has no such endpoint", status=404, pair=self.pair, endpoint=endpoint
            )
        if 300 <= status < 400:
            raise RequestRefused(
                f"HTTP {status} redirects elsewhere; write the final address as base_url",
                status=status,
                pair=self.pair,
                endpoint=endpoint,
            )
        raise RequestRefused(_problem(response), status=status, pair=self.pair, endpoint=endpoint)

    def _given_up(self, error: Exception, endpoint: str | None, attempts: int) -> EdFiError:
        reason = error.reason if isinstance(error, UnusableBody) else str(error)
        kind = UnusableBody if isinstance(error, UnusableBody) else OdsUnreachable
        host = urlsplit(self._base).netloc
        return kind(f"{reason} from {host}, {attempts} times", pair=self.pair, endpoint=endpoint)

    # -- token -------------------------------------------------------------------------------------------

    @cached_property
    def _token(self) -> TokenLease:
        key = self.settings.client_id.read()
        secret = self.settings.client_secret.read()
        url = self.url("oauth")

        def request() -> Token:
            return self._request_token(url, key, secret)

        return TokenLease(f"{url}\n{key}\n{secret}", request)

    def _request_token(self, url: str, key: str, secret: str) -> Token:
        form = {"grant_type": "client_credentials", "client_id": key, "client_secret": secret}
        retries = DEFAULT_RETRIES
        for attempt in range(retries + 1):
            asked = time.time()
            try:
                response = self._http.post(
                    url, data=form, timeout=(CONNECT_SECONDS, READ_SECONDS), allow_redirects=False
                )
                if response.status_code in {400, 401, 403}:
                    raise WrongCredentials(
                        f"the ODS refused the key and secret (HTTP {response.status_code} from its token address); "
                        "check client_id and client_secret of this tenant and year",
                        pair=self.pair,
                    )
                if response.status_code == 200:
                    return _read_token(response.content, asked)
                cause = f"HTTP {response.status_code}"
            except requests.RequestException as error:
                cause = _cause(error)
            except UnusableBody as error:
                cause = error.reason
            if attempt < retries:
                time.sleep(_backoff(attempt + 1))
        raise OdsUnreachable(
            f"no token: {cause} from {urlsplit(url).netloc}, {retries + 1} times", pair=self.pair
        )


class _Unauthorised(Exception):
    """401: the token is unknown or has expired."""


class _Transient(Exception):
    """May well work if asked again. ``wait`` is what Retry-After said, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def _json_object(answer: Answer) -> Mapping[str, Any]:
    try:
        document = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        raise UnusableBody("the body is not JSON") from None
    if not isinstance(document, dict):
        raise UnusableBody("the body is not a JSON object")
    return document


def _read_token(body: bytes, asked: float) -> Token:
    document = _json_object(Answer(body, {}))
    try:
        seconds = float(document.get("expires_in", 1800))
        return Token(str(document["access_token"]), asked + max(seconds - RENEW_BEFORE_SECONDS, seconds / 2))
    except (KeyError, TypeError, ValueError):
        raise UnusableBody("the token answer has no access_token") from None


def _backoff(attempt: int) -> float:
    """Seconds before the given retry (1, 2, …): exponential, with jitter so that workers spread."""
    return float(min(0.5 * 2.0**attempt, 60.0) * random.uniform(0.5, 1.0))


def _retry_after(value: str | None) -> float | None:
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _cause(error: requests.RequestException) -> str:
    """What happened, without the URL: query parameters may hold a student's identifier."""
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS failure (check the certificate, or verify_ssl)"
    if isinstance(error, requests.Timeout):
        return "time-out"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "answer cut off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__


def _problem(response: requests.Response) -> str:
    """Status and problem type; ``detail`` and ``errors`` may quote a student's values and stay out."""
    kind = ""
    try:
        kind = str(response.json().get("type", ""))
    except (ValueError, AttributeError):
        kind = ""
    return f"HTTP {response.status_code}" + (f" ({kind})" if kind.startswith("urn:ed-fi:") else "")
