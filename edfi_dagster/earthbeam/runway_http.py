"""One request to Runway, its token issuer or its file store, tried again while that may help.

Each request has a connection of its own: they are few, and on a connection that was kept nobody can tell a request that
was never read from one whose answer was lost. No redirect is followed and no .netrc read: the token goes nowhere else.
"""

from __future__ import annotations

import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
import requests
import urllib3

from edfi_dagster.earthbeam.runway_errors import RunwayError, RunwayRefused, RunwayUnreachable
from edfi_dagster.earthbeam.scrubbing import scrubbed
from edfi_dagster.ods.answers import NO_JSON, seconds_before_retry
from edfi_dagster.ods.network import certificates, chain, proxies_for, proxy_failure, refused_by_proxy

ATTEMPTS = 6
CONNECT_SECONDS, READ_SECONDS = 15.0, 120.0
# Of these it is certain that nothing was done; after any other 5xx it is not.
_NOT_DONE = frozenset({408, 425, 429, 503})
_FINAL_5XX = frozenset({501, 505})
_LARGEST_ANSWER_BYTES = 64 * 2**20
# Of a refusal only what it says counts, and of that the beginning.
_LARGEST_REFUSAL_BYTES = 1 << 20
_MOST_SAID = 2000
_PIECE_BYTES = 1 << 16
_NO_ADDRESS = (
    "an address that Runway gave is none; look at the job in Runway, and send the file again with force: true"
)
_ADDRESS = re.compile(r"\w+://\S+|\?\S+|[\w-]+=\S+")


class Stream(Protocol):
    """A body that is read as it is sent, with a length known before; each attempt opens its own."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...

    def read(self, size: int = -1) -> bytes: ...


@dataclass(frozen=True)
class Reply:
    """An answer that is no passing failure."""

    status: int
    body: bytes = field(repr=False)

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON. Raises RunwayError."""
        try:
            return msgspec.json.decode(self.body)
        except NO_JSON:
            raise RunwayError(f"HTTP {self.status} with a body that is cut or is not JSON") from None

    def refusal(self, remedy: str = "", *, hidden: Collection[str] = ()) -> RunwayRefused:
        """The error this answer is: its status, what it says without addresses, values and ``hidden``, and what to do."""
        said = _message(self.body, hidden)
        parts = [
            f"HTTP {self.status}",
            *([f"({said})"] if said else []),
            *([f"- {remedy}"] if remedy else []),
        ]
        return RunwayRefused(" ".join(parts), status=self.status)


class _Failed(Exception):
    """An attempt that may go better next time. ``unsure``: it may have been done all the same."""

    def __init__(self, reason: str, *, unsure: bool, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unsure = unsure
        self.wait = wait


@dataclass(frozen=True)
class Asking:
    """What is asked, and of whom. ``secret_address`` where the address itself is the permission."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Mapping[str, str] | None = None
    body: Callable[[], bytes | Stream] | None = None
    secret_address: bool = False


class Http:
    """Sends requests. ``sleep`` waits between two attempts; ``timeouts`` are the seconds for a connection and an answer."""

    def __init__(
        self,
        *,
        sleep: Callable[[float], None] = time.sleep,
        timeouts: tuple[float, float] = (CONNECT_SECONDS, READ_SECONDS),
    ) -> None:
        self._sleep = sleep
        self._timeouts = timeouts

    def ask(self, asking: Asking, *, repeat_unsure: bool = True, attempts: int = ATTEMPTS) -> Reply:
        """The answer, whatever its status, if it is no passing failure (429, most of 5xx, no connection, a reset).

        With ``repeat_unsure=False`` only what was certainly not done is tried again. Raises RunwayUnreachable, and
        RunwayError for an address that is none.
        """
        host = _host(asking.url)
        tried = 0
        while True:
            tried += 1
            try:
                return self._sent(asking)
            except _Failed as failed:
                if tried >= attempts or (failed.unsure and not repeat_unsure):
                    times = f"{tried} attempt{'s' if tried > 1 else ''}"
                    raise RunwayUnreachable(
                        f"{failed.reason} from {host}, {times}", unsure=failed.unsure
                    ) from None
                wait = seconds_before_retry(tried, failed.wait)
            self._sleep(wait)

    def _sent(self, asking: Asking) -> Reply:
        body = asking.body() if asking.body else None
        try:
            with (
                requests.Session() as session,
                _silence(asking.secret_address),
                self._answered(session, asking, body) as response,
            ):
                reply = Reply(response.status_code, _content(response, self._timeouts[1]))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _failure(error, asking.url) from None
        except OSError:
            # How ``requests`` says that there is no such bundle of certificates.
            raise RunwayUnreachable("the certificates that REQUESTS_CA_BUNDLE names cannot be read") from None
        if refused := refused_by_proxy(reply.status, asking.url, proxies_for(asking.url)):
            raise RunwayUnreachable(refused.sentence)
        if reply.status in _NOT_DONE or (reply.status >= 500 and reply.status not in _FINAL_5XX):
            told = response.headers.get("Retry-After", "").strip()
            wait = float(told) if told.isdecimal() else 0.0
            raise _Failed(f"HTTP {reply.status}", unsure=reply.status not in _NOT_DONE, wait=wait)
        return reply

    def _answered(
        self, session: requests.Session, asking: Asking, body: bytes | Stream | None
    ) -> requests.Response:
        session.trust_env = False
        headers = {"User-Agent": "edfi-dagster", **asking.headers}
        prepared = session.prepare_request(
            requests.Request(asking.method, asking.url, headers, data=body, params=asking.params)
        )
        # Not by the session, which reads the whole body of a redirection and looks at where it leads.
        return session.get_adapter(asking.url).send(
            prepared,
            stream=True,
            timeout=self._timeouts,
            verify=certificates(),
            proxies=proxies_for(asking.url),
        )


def _content(response: requests.Response, seconds: float) -> bytes:
    """Raises RunwayUnreachable for an answer that no Runway gives, _Failed for one that is not there after ``seconds``."""
    until = time.monotonic() + seconds
    is_good = 200 <= response.status_code < 300
    most = _LARGEST_ANSWER_BYTES if is_good else _LARGEST_REFUSAL_BYTES
    content = bytearray()
    # Piece by piece as they come: a time-out of the connection begins anew with each byte.
    while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
        content += piece
        if len(content) > most:
            if is_good:
                raise RunwayUnreachable(f"the answer is larger than {most >> 20} MiB", unsure=True)
            break
        if time.monotonic() > until:
            raise _Failed("time-out", unsure=True)
    return bytes(content)


def _failure(error: Exception, url: str) -> _Failed | RunwayError:
    """What happened, without the address."""
    parts = list(chain(error))

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(part, kinds) for part in parts)

    if any_is(ssl.SSLCertVerificationError):
        return RunwayUnreachable(
            f"{_host(url)} is not trusted: its certificate cannot be verified; have this machine trust its issuer "
            "(REQUESTS_CA_BUNDLE)"
        )
    if at_proxy := proxy_failure(error, url, proxies_for(url)):
        if at_proxy.is_final:
            return RunwayUnreachable(at_proxy.sentence)
        return _Failed(f"{at_proxy.whom}: {at_proxy.reason} ({at_proxy.remedy})", unsure=False)
    if any_is(
        requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema
    ):
        return RunwayError(_NO_ADDRESS)
    if any_is(
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        requests.exceptions.SSLError,
    ):
        return _Failed("no connection", unsure=False)
    if any_is(requests.Timeout, urllib3.exceptions.TimeoutError):
        return _Failed("time-out", unsure=True)
    return _Failed("connection lost", unsure=True)


def _host(url: str) -> str:
    """Raises RunwayError for what is no address of the web."""
    try:
        parts = urlsplit(url)
        found = parts.scheme in {"http", "https"} and parts.hostname is not None and parts.port != 0
    except ValueError:
        found = False
    if not found:
        raise RunwayError(_NO_ADDRESS)
    return parts.netloc.rpartition("@")[2]


def _message(body: bytes, hidden: Collection[str]) -> str:
    """What Runway says in ``message``, a text or several; empty for any other body, such as a file store's XML."""
    try:
        said = msgspec.json.decode(body)["message"]
        text = "; ".join(map(str, said)) if isinstance(said, list) else str(said)
    except (*NO_JSON, KeyError, TypeError):
        return ""
    # First of all: whatever cuts or changes a secret leaves the rest of it.
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, "<secret>")
    return scrubbed(_ADDRESS.sub("<address>", text[:_MOST_SAID]))


# -- addresses that are secrets -------------------------------------------------------------------------------

_sending = threading.local()


class _WithoutAddress(logging.Filter):
    """urllib3 writes the whole address of each request into its debug log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_sending, "is_secret", False)


logging.getLogger("urllib3.connectionpool").addFilter(_WithoutAddress())


@contextmanager
def _silence(wanted: bool) -> Iterator[None]:
    _sending.is_secret = wanted
    try:
        yield
    finally:
        _sending.is_secret = False
