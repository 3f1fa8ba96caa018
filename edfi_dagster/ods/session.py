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
    discovery or token address refused         none                                OdsNotReady
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from edfi_dagster.config import OdsSettings, TenantYear
from edfi_dagster.ods.answers import (
    NO_CONNECTION,
    Answer,
    Transient,
    Unauthorised,
    cause_of,
    check_status,
    json_object,
    seconds_before_retry,
)
from edfi_dagster.ods.discovery import Area, Discovery, address, read_discovery
from edfi_dagster.ods.errors import (
    EdFiError,
    OdsDown,
    OdsNotReady,
    OdsUnreachable,
    RequestRefused,
    UnusableBody,
    WrongCredentials,
)
from edfi_dagster.ods.token import Token, TokenLease, read_token

__all__ = ["Answer", "OdsSession", "Tally"]

T = TypeVar("T")

CONNECT_SECONDS = 15.0
READ_SECONDS = 120.0
DEFAULT_RETRIES = 5
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip"}


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


class OdsSession:
    """One ODS, one key, one pool of connections; at most ``max_concurrent_requests`` in flight.

    Threads may share it. ``timeouts`` are the seconds to wait for a connection, and for the next bytes of an
    answer; ``sleep`` waits between retries.
    """

    def __init__(
        self,
        settings: OdsSettings,
        pair: TenantYear,
        *,
        base_url: str | None = None,
        timeouts: tuple[float, float] = (CONNECT_SECONDS, READ_SECONDS),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.pair = pair
        self.settings = settings
        self.tally = Tally()
        self._base = (base_url or settings.base_url).rstrip("/")
        self._timeouts = timeouts
        self._sleep = sleep
        self._budget = threading.BoundedSemaphore(settings.extract.max_concurrent_requests)
        self._http = requests.Session()
        adapter = HTTPAdapter(pool_maxsize=settings.extract.max_concurrent_requests)
        self._http.mount("http://", adapter)
        self._http.mount("https://", adapter)
        # One discovery and one lease, however many threads come first.
        self._starting = threading.RLock()
        self._discovery: Discovery | None = None
        self._lease: TokenLease | None = None

    def close(self) -> None:
        self._http.close()

    # -- addresses ---------------------------------------------------------------------------------------

    @property
    def discovery(self) -> Discovery:
        """The root document. Raises OdsNotReady where the base URL is no Ed-Fi API that can be pulled."""
        with self._starting:
            if self._discovery is None:
                self._discovery = self._discover()
            return self._discovery

    def _discover(self) -> Discovery:
        place = f"{self._base}/"
        try:
            return read_discovery(self._persist(lambda retry: json_object(self._get(place, retry=retry))))
        except (RequestRefused, UnusableBody) as error:
            problem = f"does not answer like an Ed-Fi API ({error.reason})"
        except ValueError as error:
            problem = str(error)
        raise OdsNotReady(f"{place} {problem}; check base_url", pair=self.pair)

    def url(self, area: Area) -> str:
        """The URL of ``dataManagementApi``, ``changeQueries``, ``oauth`` or ``openApiMetadata``, no slash at its end."""
        return address(self._base, self.discovery.urls, area)

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
        """GET with the token; ``parse`` turns the answer into what is wanted, or raises UnusableBody.

        Raises what the table above says, with tenant, year and ``endpoint`` in the message.
        """

        def attempt(retry: bool) -> T:
            return self._with_token(
                lambda token, again: parse(
                    self._get(url, params, token=token, endpoint=endpoint, retry=retry or again, tally=tally)
                )
            )

        return self._persist(attempt, retries=retries, endpoint=endpoint)

    def newest_change_version(self) -> int:
        """The current value of the ODS's change-version sequence; counts uncommitted work too.

        Raises OdsNotReady where the ODS does not publish it.
        """

        def parse(answer: Answer) -> int:
            document = {key.lower(): value for key, value in json_object(answer).items()}
            newest = document.get("newestchangeversion")
            if not isinstance(newest, int) or isinstance(newest, bool):
                raise UnusableBody("availableChangeVersions has no newestChangeVersion")
            return newest

        try:
            return self.get(f"{self.url('changeQueries')}/availableChangeVersions", {}, parse)
        except RequestRefused as error:
            raise OdsNotReady(
                f"the ODS does not tell its newest change version (HTTP {error.status} from "
                f"{self.url('changeQueries')}); its change queries must be switched on and open to this key",
                pair=self.pair,
            ) from None

    def _persist(
        self,
        attempt: Callable[[bool], T],
        *,
        retries: int | None = None,
        endpoint: str | None = None,
        wanted: str = "",
    ) -> T:
        """What ``attempt`` returns, tried again while it fails in a way that may pass; its argument says if it is a retry."""
        retries = DEFAULT_RETRIES if retries is None else retries
        failures = 0
        while True:
            try:
                return attempt(failures > 0)
            except (Transient, UnusableBody) as error:
                failures += 1
                if failures > retries:
                    raise self._given_up(error, endpoint, failures, wanted) from None
                told = error.wait if isinstance(error, Transient) else 0.0
            self._sleep(seconds_before_retry(failures, told))

    def _given_up(
        self, error: Transient | UnusableBody, endpoint: str | None, attempts: int, wanted: str
    ) -> EdFiError:
        # Never UnusableBody for a token: the request that waits for it would try all of this again.
        kind: type[EdFiError] = OdsDown if error.reason == NO_CONNECTION else OdsUnreachable
        if isinstance(error, UnusableBody) and not wanted:
            kind = UnusableBody
        times = f"{attempts} attempts" if attempts > 1 else "1 attempt"
        host = urlsplit(self._base).netloc.rpartition("@")[2]
        return kind(f"{wanted}{error.reason} from {host}, {times}", pair=self.pair, endpoint=endpoint)

    def _with_token(self, send: Callable[[Token, bool], T]) -> T:
        """Send with the token, and with a new one where the ODS answers 401."""
        lease = self._token_lease()
        token, again = lease.get(), False
        while True:
            try:
                return send(token, again)
            except Unauthorised:
                # A second refusal is final, unless that token too was an old one, left by another process.
                if again and token.ours:
                    raise WrongCredentials(
                        "the ODS answers 401 to a fresh token; check the key's status and claim set",
                        pair=self.pair,
                    ) from None
            token, again = lease.get(refused=token), True

    def _get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        *,
        token: Token | None = None,
        endpoint: str | None = None,
        retry: bool = False,
        tally: Tally | None = None,
    ) -> Answer:
        for counted in filter(None, (self.tally, tally)):
            counted.add(retry=retry)
        response = self._send("GET", url, token, params=params)
        try:
            check_status(response, self.pair, endpoint)
        except Unauthorised:
            if token is None:
                raise RequestRefused("HTTP 401", status=401, pair=self.pair, endpoint=endpoint) from None
            raise
        return Answer(response.content, response.headers)

    def _send(
        self,
        method: str,
        url: str,
        token: Token | None,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
    ) -> requests.Response:
        try:
            with self._budget:
                return self._http.request(
                    method,
                    url,
                    params=params,
                    data=data,
                    headers=_HEADERS,
                    auth=_Bearer(token),
                    timeout=self._timeouts,
                    allow_redirects=False,
                    # Not set on the session, where REQUESTS_CA_BUNDLE would win over it.
                    verify=self.settings.verify_ssl,
                )
        except requests.RequestException as error:
            raise Transient(cause_of(error)) from None

    # -- token -------------------------------------------------------------------------------------------

    def _token_lease(self) -> TokenLease:
        with self._starting:
            if self._lease is None:
                url = self.url("oauth")
                key, secret = self.settings.client_id.read(), self.settings.client_secret.read()
                self._lease = TokenLease(
                    f"{url}\n{key}\n{secret}",
                    lambda: self._persist(lambda _: self._ask_token(url, key, secret), wanted="no token: "),
                )
            return self._lease

    def _ask_token(self, url: str, key: str, secret: str) -> Token:
        form = {"grant_type": "client_credentials", "client_id": key, "client_secret": secret}
        asked = time.time()
        response = self._send("POST", url, None, data=form)
        status = response.status_code
        if status in {400, 401, 403}:
            raise WrongCredentials(
                f"the ODS refused the key and secret (HTTP {status} from its token address); "
                "check client_id and client_secret of this tenant and year",
                pair=self.pair,
            )
        try:
            check_status(response, self.pair, None)
        except RequestRefused:
            raise OdsNotReady(
                f"HTTP {status} from the token address {url}; check base_url, which must hold tenant and "
                "school year where this ODS has them in its path",
                pair=self.pair,
            ) from None
        except Transient as error:
            if status == 429:
                error.reason += " (the key has as many unexpired tokens as the ODS allows)"
            raise
        return read_token(json_object(Answer(response.content, response.headers)), asked)


class _Bearer(AuthBase):
    """The token of a request, or none. Given with every request, because ``requests`` would else put in its
    place what a .netrc file holds for the host."""

    def __init__(self, token: Token | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token.value}"
        return request
