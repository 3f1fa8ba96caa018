"""One request to one ODS: sent, and its answer read to the end or given up.

``requests`` prepares and sends; three things are done by hand. Nothing of a session (cookies, .netrc, redirects,
proxies looked up again for each request) stands between request and connection, and a body is read at once
instead of in pieces of 10 KB: together less than half the processor time. An answer as a whole has a time limit,
because the limit on silence alone lets one byte a minute go on for ever. And an answer has a largest size, so that
a compressed one cannot fill the memory.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypedDict, Unpack
from urllib.parse import urlencode, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from edfi_dagster.ods.answers import (
    NO_CONNECTION,
    Answer,
    Oversized,
    Transient,
    with_slash,
    without_mark,
)
from edfi_dagster.ods.network import (
    ProxyFailure,
    certificates,
    chain,
    is_socks,
    proxies_for,
    proxy_failure,
    refused_by_proxy,
    through,
)

# An answer may take so many times what may pass between two of its parts.
WHOLE_ANSWER_TIMES = 10
# Of the time for an answer, the share of one that a pull can do without.
HURRIED_SHARE = 1 / 8
LARGEST_ANSWER_BYTES = 512 * 2**20
# What an ODS says of itself, or as a token, is a few kilobytes; parsed it takes many times its size.
LARGEST_STATEMENT_BYTES = 4 * 2**20
# Of the body of an error only type and correlation id are read.
_LARGEST_COMPLAINT_BYTES = 2**20
# Measured: larger ones cost more where an answer is compressed.
_PIECE_BYTES = 2**16


class Untrusted(Exception):
    """The server's certificate cannot be verified: trying again would not change it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Bounds(TypedDict, total=False):
    """Of one answer: ``largest``, its most bytes; ``hurried``, that it may take only an eighth of the time."""

    largest: int
    hurried: bool


class Transport:
    """The connections to one host. ``timeouts`` are the seconds for a connection, and for the next bytes of an answer.

    ``largest`` is the most bytes of an answer after decompression.
    """

    def __init__(
        self,
        base_url: str,
        *,
        verify: bool,
        connections: int,
        timeouts: tuple[float, float],
        largest: int = LARGEST_ANSWER_BYTES,
    ) -> None:
        self._timeouts = timeouts
        self._largest = largest
        self._verify = certificates() if verify else False
        # By scheme and host: a token may come from another one, which NO_PROXY treats in its own way.
        self._proxies: dict[str, dict[str, str]] = {}
        self._adapter = _Adapter(pool_maxsize=connections)
        if not verify:
            # The configuration says so; said once more with every request it would only hide other warnings.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def close(self) -> None:
        self._adapter.close()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        **bounds: Unpack[Bounds],
    ) -> Answer:
        """The answer, whatever its status; that of an error without a body which is long.

        A redirect that only adds or takes away the slash at the end of the path is followed, once, on the same host.
        Raises Transient, Oversized, Untrusted, or ProxyFailure where trying again would not change it.
        """
        answer = self._send(method, url, headers, params, body, bounds)
        slashed = with_slash(answer, url)
        return self._send(method, slashed, headers, params, body, bounds) if slashed else answer

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None,
        body: bytes | None,
        bounds: Bounds,
    ) -> Answer:
        request = requests.PreparedRequest()
        request.method = method
        request.headers = CaseInsensitiveDict(headers)
        if body is not None:
            request.body = body
            request.headers["Content-Length"] = str(len(body))
        connect, read = self._timeouts
        timeouts = (connect, read * HURRIED_SHARE if bounds.get("hurried") else read)
        proxies = self._proxies_to(url)
        try:
            request.url = f"{_canonical(url)}?{urlencode(params)}" if params else _canonical(url)
            response = self._adapter.send(
                request, stream=True, timeout=timeouts, verify=self._verify, proxies=proxies
            )
            try:
                content = self._content(response, min(bounds.get("largest", self._largest), self._largest))
                if refused := refused_by_proxy(response.status_code, url, proxies):
                    raise refused
                return Answer(without_mark(content), response.headers, response.status_code)
            finally:
                # What was read to its end has gone back to the pool already; anything else is not used again.
                response.raw.close()
        except requests.RequestException as error:
            raise _at_proxy(error, url, proxies) or _failure(error, whom=through(url, proxies)) from None
        except urllib3.exceptions.HTTPError as error:
            raise _failure(error, cut=True) from None
        except ValueError as error:
            # What http.client makes of lengths that are none.
            raise _failure(error, cut=True) from None
        except OSError as error:
            # How ``requests`` says that there is no such bundle of certificates.
            raise Untrusted(str(error)) from None

    def _proxies_to(self, url: str) -> dict[str, str]:
        place = "://".join(urlsplit(url)[:2])
        if place not in self._proxies:
            self._proxies[place] = proxies_for(url)
        return self._proxies[place]

    def _content(self, response: requests.Response, largest: int) -> bytes:
        if response.status_code < 400:
            return self._read(response, largest)
        try:
            return self._read(response, min(largest, _LARGEST_COMPLAINT_BYTES))
        except Oversized:
            return b""

    def _read(self, response: requests.Response, largest: int) -> bytes:
        raw = response.raw
        is_encoded = "Content-Encoding" in response.headers
        if raw.length_remaining is not None and not is_encoded:
            if raw.length_remaining > largest:
                raise _oversized(response, largest)
            plain: bytes = raw.read(decode_content=False)
            return plain
        pieces, size = [], 0
        while piece := raw.read(_PIECE_BYTES, decode_content=is_encoded):
            size += len(piece)
            if size > largest:
                raise _oversized(response, largest)
            pieces.append(piece)
        return b"".join(pieces)


def _oversized(response: requests.Response, largest: int) -> Oversized:
    return Oversized(f"the answer is larger than {largest >> 20} MiB", response.status_code)


@lru_cache(maxsize=4096)
def _canonical(url: str) -> str:
    return requests.Request("GET", url).prepare().url or url


def _failure(error: Exception, *, cut: bool = False, whom: str = "") -> Transient | Untrusted:
    """What happened, without the URL: query parameters may hold a student's identifier.

    ``cut`` tells that the answer had begun; ``whom`` is as in Transient.
    """
    parts = list(chain(error))

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(part, kinds) for part in parts)

    if any_is(ssl.SSLCertVerificationError):
        return Untrusted("its certificate cannot be verified")
    if any_is(requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError):
        return Transient(NO_CONNECTION, suffering=True, whom=whom)
    if any_is(requests.Timeout, urllib3.exceptions.TimeoutError):
        return Transient("time-out", heavy=True, suffering=True, whom=whom)
    if any_is(ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError):
        return Transient("TLS failure (check the certificate, or verify_ssl)", whom=whom)
    if cut:
        return Transient("answer cut off")
    if isinstance(error, requests.ConnectionError):
        return Transient(NO_CONNECTION, whom=whom)
    return Transient(type(error).__name__, whom=whom)


def _at_proxy(
    error: Exception, url: str, proxies: dict[str, str]
) -> Transient | Untrusted | ProxyFailure | None:
    """What went wrong at the proxy, if that is where it went wrong; a certificate is judged like any other."""
    if any(isinstance(part, ssl.SSLCertVerificationError) for part in chain(error)):
        return None
    failure = proxy_failure(error, url, proxies)
    if failure is None or failure.is_final:
        return failure
    return Transient(
        NO_CONNECTION if failure.is_down else failure.reason, whom=failure.whom, remedy=failure.remedy
    )


class _Limited(io.RawIOBase):
    """The bytes of one answer, until its time is over; what ``http.client`` asks a socket for is its file."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        silence = sock.gettimeout()
        self._end = None if silence is None else time.monotonic() + silence * WHOLE_ANSWER_TIMES
        self._source = sock.makefile("rb", buffering=0)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._end is not None and time.monotonic() > self._end:
            raise TimeoutError("the answer has no end")
        return self._source.readinto(buffer)

    def close(self) -> None:
        self._source.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(_Limited(sock), *args, **options)  # type: ignore[arg-type]


class _Http(urllib3.connection.HTTPConnection):
    response_class = _Response
    # Whatever is set on http.client: it would print the token.
    debuglevel = 0


class _Https(urllib3.connection.HTTPSConnection):
    response_class = _Response
    debuglevel = 0


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = (
            _socks_pools() if is_socks(proxy) else {"http": _HttpPool, "https": _HttpsPool}
        )
        return manager


@lru_cache(maxsize=1)
def _socks_pools() -> dict[str, type[urllib3.HTTPConnectionPool]]:
    from urllib3.contrib import socks  # warns where PySocks is missing, so only where a proxy needs it

    class Http(socks.SOCKSConnection):
        response_class = _Response
        debuglevel = 0

    class Https(socks.SOCKSHTTPSConnection):
        response_class = _Response
        debuglevel = 0

    class HttpPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Https

    return {"http": HttpPool, "https": HttpsPool}
