"""HTTP to one ODS: discovery, token, retries, snapshots, and the bound on requests in flight.

What each fault leads to:

    answer                                      action                                outcome if it stays
    ------------------------------------------- ------------------------------------- ----------------------
    connection refused, not made in time        retry, exponential with jitter        OdsDown
    reset before the answer                     retry                                 OdsDown
    reset or end within the answer, Content-    retry                                 OdsUnreachable
      Length or chunks not filled, gzip cut
    Content-Length too small, no length at all  retry: what is left is not JSON       UnusableBody
    stall, an answer without an end             given up after the read time-out, or  OdsUnreachable; TooHeavy
                                                ten times that for the whole; retry
    more than 512 MiB after decompression, or   none                                  RequestRefused; TooHeavy
      4 MiB of a token or the root document
    certificate not to be verified              none                                  OdsNotReady
    a proxy that cannot be reached              retry                                 OdsDown, which names it
    a proxy that does not reach the ODS         retry                                 OdsUnreachable
    a proxy that wants a password (407)         none                                  OdsNotReady
    any other TLS failure                       retry                                 OdsUnreachable
    200 that is cut, no JSON (an HTML page),    retry; a wrong Content-Type alone is  UnusableBody
      or foreign JSON                           harmless
    401                                         one new token, same request again,    WrongCredentials;
                                                and once more                         OdsUnreachable if the key
                                                                                      is good elsewhere
    403, 404 in the ODS's own form, or JSON or  the unknown: asked again without and  NotPermitted, NotOffered
      no body that is about the key (origin)      with the token
    403, 404 of another: an HTML page, a text   retry, after Retry-After if given     OdsUnreachable
    401 that the ODS did not write              one new token, then retry             OdsUnreachable
    408, 409, 425, 500, 502, any other 5xx      retry, after Retry-After if given     OdsUnreachable
    413                                         none                                  RequestRefused; TooHeavy
    429, 503                                    retry, after Retry-After if given,    OdsUnreachable
                                                with half as many requests in flight
    504                                         as 503                                OdsUnreachable; TooHeavy
    410, or 404 "Snapshot not found", while a   none                                  SnapshotGone
      snapshot is read
    3xx that only adds or takes a last slash    followed, once, on our own host       as the answer there
    3xx to the same path elsewhere              never followed with the token         RequestRefused
    3xx to another path, such as a login page   retry                                 OdsUnreachable
    400, 410, any other 4xx, 501, 505           none                                  RequestRefused
    token request answered 400, 401, 403, 405,  key and secret in another form        WrongCredentials if 400,
      406, 415, 422, 501                                                                401, 403; OdsNotReady
    one that the ODS did not write              retry                                 OdsUnreachable
    token request answered 429 (its 15 tokens)  retry                                 OdsUnreachable
    discovery or token address refused          none                                  OdsNotReady

    TooHeavy, at once or with the second time-out or 504 in a row, is for callers that can ask for less. Retry-After
    counts up to two minutes; as a date it is measured by the answer's own Date, for clocks differ. Retries hold no
    place among the requests in flight.

    In the pagers:  a page token that comes again is UnusableBody; a count that moves while it is read makes the
    walk start over, or ends in IncompletePull. In the extract: newest below the saved version is a restored ODS.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TypeVar, Unpack

from edfi_dagster.config import OdsSettings, TenantYear
from edfi_dagster.ods import snapshots
from edfi_dagster.ods.abilities import Abilities
from edfi_dagster.ods.answers import (
    IN_FRONT,
    SUFFERING,
    Answer,
    Transient,
    Unauthorised,
    check_status,
    json_object,
    parsed,
)
from edfi_dagster.ods.budget import Budget
from edfi_dagster.ods.changes import read_newest
from edfi_dagster.ods.discovery import Area, Discovery, addresses, read_discovery, undocumented
from edfi_dagster.ods.errors import (
    OdsNotReady,
    RequestRefused,
    SnapshotGone,
    UnusableBody,
    WrongCredentials,
)
from edfi_dagster.ods.oauth import JSON, TokenRequest
from edfi_dagster.ods.published import PublishedEndpoints
from edfi_dagster.ods.retries import Retries
from edfi_dagster.ods.tally import Tally
from edfi_dagster.ods.token import Token, TokenLease
from edfi_dagster.ods.transport import LARGEST_STATEMENT_BYTES, Bounds, Transport

__all__ = ["Answer", "OdsSession", "Tally"]

T = TypeVar("T")

CONNECT_SECONDS = 15.0
READ_SECONDS = 120.0
_MOST_REFUSALS = 2
_HEADERS = {"Accept": JSON, "Accept-Encoding": "gzip", "User-Agent": "edfi-dagster"}


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
        self.pause = sleep
        self.tally = Tally()
        self.budget = Budget(settings.extract.max_concurrent_requests)
        self._base = (base_url or settings.base_url).rstrip("/")
        self._retries = Retries(self._base, pair, sleep)
        self._transport = Transport(
            self._base,
            verify=settings.verify_ssl,
            connections=settings.extract.max_concurrent_requests,
            timeouts=timeouts,
        )
        # One discovery and one lease, however many threads come first.
        self._starting = threading.RLock()
        self._discovery: Discovery | None = None
        self._addresses: Mapping[Area, str] = {}
        self._lease: TokenLease | None = None
        self._snapshot: Mapping[str, str] = {}
        self.published = PublishedEndpoints(self)

    def close(self) -> None:
        self._transport.close()

    # -- addresses ---------------------------------------------------------------------------------------

    @property
    def discovery(self) -> Discovery:
        """The root document. Raises OdsNotReady where the base URL is no Ed-Fi API that can be pulled."""
        with self._starting:
            if self._discovery is None:
                self._discovery = self._discover()
                self._addresses = addresses(self._base, self._discovery, self.pair.year)
            return self._discovery

    @property
    def abilities(self) -> Abilities:
        """What an ODS of this version can do."""
        return Abilities.of(self.discovery.version)

    def _discover(self) -> Discovery:
        place = f"{self._base}/"
        try:
            return undocumented(self.settings) or read_discovery(
                self._retries.persist(
                    lambda retry: parsed(
                        self._get(place, retry=retry, largest=LARGEST_STATEMENT_BYTES), json_object
                    )
                ),
                self.settings,
            )
        except (RequestRefused, UnusableBody) as error:
            problem = f"does not answer like an Ed-Fi API ({error.reason}); check base_url"
        except ValueError as error:
            problem = str(error)
        raise OdsNotReady(f"{place} {problem}", pair=self.pair)

    def url(self, area: Area) -> str:
        """The URL of ``dataManagementApi``, ``changeQueries``, ``oauth`` or ``openApiMetadata``, no slash at its end.

        ``openApiMetadata`` is the folder of the documents, see ``discovery.addresses``.
        """
        with self._starting:
            return self._addresses[area] if self.discovery else ""

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
        lighter: bool = False,
        accept: str = JSON,
        **bounds: Unpack[Bounds],
    ) -> T:
        """GET with the token; ``parse`` turns the answer into what is wanted, or raises UnusableBody.

        ``lighter`` tells that the caller can ask for less, and would rather be told TooHeavy than wait; ``accept`` is the
        content type asked for.
        Raises what the table above says, with tenant, year and ``endpoint`` in the message.
        """

        def attempt(retry: bool) -> T:
            def send(token: Token, again: bool) -> T:
                get = partial(self._get, url, params, token=token, endpoint=endpoint)
                return parsed(get(retry=retry or again, tally=tally, accept=accept, **bounds), parse)

            return self._with_token(send)

        return self._retries.persist(attempt, retries=retries, endpoint=endpoint, lighter=lighter)

    def newest_change_version(self) -> int:
        """The current value of the ODS's change-version sequence; counts uncommitted work too.

        Raises OdsNotReady where the ODS does not publish it.
        """
        try:
            url = f"{self.url('changeQueries')}/availableChangeVersions"
            return self.get(url, {}, read_newest, largest=LARGEST_STATEMENT_BYTES)
        except RequestRefused as error:
            raise OdsNotReady(
                f"the ODS does not tell its newest change version (HTTP {error.status} from "
                f"{self.url('changeQueries')}); have its host switch change queries on and open them to this key, or write "
                "use_change_version: false, by which each run pulls everything",
                pair=self.pair,
            ) from None

    def bearer(self) -> str:
        """The token that requests are sent with now, for a program that speaks with this ODS in our name.

        Raises what asking for a token raises: WrongCredentials, OdsUnreachable, OdsNotReady.
        """
        return self._token_lease().get().value

    def forward(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """The answer, whatever its status, to one request of a program that speaks in our name.

        Raises Transient, Oversized, Untrusted, ProxyFailure.
        """
        return self._send(method, url, headers, "", body=body)

    def start_snapshot(self) -> None:
        """Read the ODS's latest snapshot from now on: data and change queries, to the end of the session.

        Raises OdsNotReady where there is none.
        """
        version = self.discovery.version
        self._snapshot = {}
        if not snapshots.are_known(version):
            raise self._no_snapshot(f"ODS/API {self.discovery.ods_version} is not known to have snapshots")
        if snapshots.are_listed(version):
            self._snapshot = snapshots.header_of_newest(self._listed_snapshots())
            return
        self._snapshot = snapshots.USE_SNAPSHOT
        try:
            self.newest_change_version()
        except SnapshotGone:
            raise self._no_snapshot("the ODS has no snapshot") from None

    def _listed_snapshots(self) -> dict[str, datetime]:
        url = snapshots.list_address(
            self.discovery.version, self.url("dataManagementApi"), self.url("changeQueries")
        )
        try:
            found = snapshots.all_listed(
                lambda params: self.get(url, params, snapshots.read_snapshots, endpoint="snapshots")
            )
        except RequestRefused as error:
            raise self._no_snapshot(f"the ODS does not list snapshots (HTTP {error.status})") from None
        if not found:
            raise self._no_snapshot("the ODS has no snapshot")
        return found

    def _no_snapshot(self, reason: str) -> OdsNotReady:
        self._snapshot = {}
        return OdsNotReady(
            f"{reason}; have its host take one before each pull, or write use_snapshot: false", pair=self.pair
        )

    def _with_token(self, send: Callable[[Token, bool], T]) -> T:
        """Send with the token, and with a new one where the ODS answers 401."""
        lease = self._token_lease()
        token, is_renewed, refusals = lease.get(), False, 0
        while True:
            try:
                return send(token, is_renewed)
            except Unauthorised as error:
                if error.foreign and is_renewed:
                    raise Transient(error.reason, remedy=IN_FRONT) from None
                # A new token is sent twice: a replica may learn of it a moment later than it was given.
                if is_renewed and token.ours:
                    refusals += 1
            if refusals == _MOST_REFUSALS:
                raise self._refused(lease.has_accepted_since(token))
            if not refusals:
                token, is_renewed = lease.get(refused=token), True

    def _refused(self, others_are_accepted: bool) -> Exception:
        if others_are_accepted:
            return Transient("HTTP 401, though the key is good elsewhere")
        return WrongCredentials(
            "the ODS answers 401 to a fresh token; check the key's status and claim set", pair=self.pair
        )

    def _get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        *,
        token: Token | None = None,
        endpoint: str | None = None,
        retry: bool = False,
        tally: Tally | None = None,
        accept: str = JSON,
        **bounds: Unpack[Bounds],
    ) -> Answer:
        for counted in filter(None, (self.tally, tally)):
            counted.add(retry=retry)
        headers = {**_HEADERS, "Accept": accept}
        if token is not None:
            headers |= {"Authorization": f"Bearer {token.value}", **self._snapshot_header(url)}

        def ask(named: bool = True) -> Answer:
            sent = headers if named else {name: headers[name] for name in headers.keys() - {"Authorization"}}
            return self._send("GET", url, sent, endpoint or "", params=params, **bounds)

        answer = ask()
        if token is not None and answer.status != 401:
            self._token_lease().accept()
        if self._snapshot and snapshots.is_gone(answer) and self._snapshot_header(url):
            raise SnapshotGone(
                f"HTTP {answer.status}, the snapshot is not there any more", pair=self.pair, endpoint=endpoint
            )
        try:
            listing, again = self._listing(url), ask if token else None
            check_status(answer, self.pair, endpoint, url, self._base, is_listed=listing, ask=again)
        except Unauthorised:
            if token is None:
                raise RequestRefused("HTTP 401", status=401, pair=self.pair, endpoint=endpoint) from None
            raise
        return answer

    def _listing(self, url: str) -> Callable[[], bool | None] | None:
        """What knows whether the ODS lists a data address; None for other addresses, and where there is no such list."""
        data = f"{self._addresses.get('dataManagementApi', '')}/"
        if data == "/" or not url.startswith(data) or not self.abilities.namespaces:
            return None
        return partial(self.published.lists_address, url.removeprefix(data))

    def _snapshot_header(self, url: str) -> Mapping[str, str]:
        """What asks for the snapshot, at the addresses that know it."""
        known = url.startswith((self._addresses["dataManagementApi"], self._addresses["changeQueries"]))
        return self._snapshot if self._snapshot and known else {}

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        endpoint: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        **bounds: Unpack[Bounds],
    ) -> Answer:
        owner = endpoint.removesuffix("/deletes").removesuffix("/keyChanges")
        with self.budget.turn(owner) as turn:
            try:
                answer = self._transport.send(method, url, headers, params=params, body=body, **bounds)
            except Transient as error:
                if error.suffering:
                    turn.suffered()
                raise
            if answer.status in SUFFERING:
                turn.suffered()
            return answer

    # -- token -------------------------------------------------------------------------------------------

    def _token_lease(self) -> TokenLease:
        with self._starting:
            if self._lease is None:
                told = self.discovery.urls.get("oauth", "")
                url = self.settings.oauth_url or self.url("oauth")
                key, secret = self.settings.client_id.read(), self.settings.client_secret.read()
                asking = TokenRequest(self._post, url, key, secret, self.pair, told=told)
                ask = asking.send if self.discovery.version >= (3, 0) else asking.send_twice
                self._lease = TokenLease(
                    f"{url}\n{key}\n{secret}",
                    lambda: self._retries.persist(lambda _: ask(), wanted="no token: "),
                    pair=self.pair,
                )
            return self._lease

    def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        headers = {**_HEADERS, **headers}
        return self._send("POST", url, headers, "", body=body, largest=LARGEST_STATEMENT_BYTES)
