"""The way out of this machine: the proxies and certificates that the ordinary variables name.

Pulls, Runway and Lightbeam all go this way:

    HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY    http://, https://, socks5:// (names looked up here) or socks5h://
                                                    (names looked up by the proxy); in capitals or not
    REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE,             a file or folder of certificates of authorities; the first that is set
      SSL_CERT_FILE

Nothing here repeats a proxy's user and password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies, select_proxy

CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
PROXIES = (
    "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy",
)  # fmt: skip
_SCHEMES = re.compile(r"(https?|socks(4a?|5h?))://|(?!.*://)", re.IGNORECASE)
_SOCKS = ("socks5://", "socks5h://", "socks4://", "socks4a://")
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


class ProxyFailure(Exception):
    """Something went wrong at the proxy or before it. ``whom`` names it, without user and password.

    ``is_final``: trying again would not change it. ``is_down``: it cannot be reached at all.
    """

    def __init__(
        self, reason: str, whom: str, remedy: str, *, is_final: bool = False, is_down: bool = False
    ) -> None:
        super().__init__(f"{whom}: {reason}")
        self.reason = reason
        self.whom = whom
        self.remedy = remedy
        self.is_final = is_final
        self.is_down = is_down

    @property
    def sentence(self) -> str:
        return f"{self.whom}: {self.reason}; {self.remedy}"


def certificates() -> str | bool:
    """The file or folder of certificates that the environment names; True for those that ``requests`` brings."""
    return next((path for name in CERTIFICATES if (path := os.environ.get(name))), True)


def proxies_for(url: str) -> dict[str, str]:
    """The proxies on the way to a URL, as ``requests`` takes them; none for a host that NO_PROXY names."""
    return get_environ_proxies(url)


def is_socks(proxy: str) -> bool:
    return proxy.lower().startswith(_SOCKS)


def through(url: str, proxies: dict[str, str]) -> str:
    """The host of a URL and the proxy on the way to it, by which an answer can be lost as well; empty without a proxy."""
    proxy = select_proxy(url, proxies)
    return f"{urlsplit(url).netloc.rpartition('@')[2]} through {_whom(proxy)}" if proxy else ""


def refused_by_proxy(status: int, url: str, proxies: dict[str, str]) -> ProxyFailure | None:
    """The failure that an answer is which a proxy gave for itself: 407."""
    proxy = select_proxy(url, proxies)
    return _refused(407, proxy, url) if status == 407 and proxy else None


def proxy_failure(error: BaseException, url: str, proxies: dict[str, str]) -> ProxyFailure | None:
    """What a failed request says of the proxy on its way; None where it says nothing of it."""
    proxy = select_proxy(url, proxies)
    if not proxy:
        return None
    parts = list(chain(error))
    if not _SCHEMES.match(proxy) or any(
        isinstance(part, requests.exceptions.InvalidProxyURL | urllib3.exceptions.LocationParseError)
        for part in parts
    ):
        return _unusable("is no address of a proxy", url)
    if any(isinstance(part, requests.exceptions.InvalidSchema) for part in parts):
        return _unusable("cannot be used: PySocks is not installed", url)
    for part in parts:
        if found := _TUNNEL.search(str(part)):
            return _refused(int(found.group(1)), proxy, url)
    if is_socks(proxy):
        return _socks_failure(list(chain(error, deep=True)), proxy, url)
    if any(isinstance(part, urllib3.exceptions.ProxyError) for part in parts):
        return ProxyFailure("no connection", _whom(proxy), _check(url), is_down=True)
    return None


def chain(error: BaseException, *, deep: bool = False) -> Iterator[BaseException]:
    """An error, and those it was made of; ``deep``: also those that were handled when it was raised."""
    yield error
    inner = [*error.args, getattr(error, "reason", None)]
    if deep:
        inner += [error.__cause__, error.__context__]
    for part in inner:
        if isinstance(part, BaseException):
            yield from chain(part, deep=deep)


def _socks_failure(parts: list[BaseException], proxy: str, url: str) -> ProxyFailure | None:
    """By the names of PySocks, which is asked for only where a proxy needs it."""
    names = {type(part).__name__ for part in parts if type(part).__module__ == "socks"}
    if "ProxyConnectionError" in names:
        return ProxyFailure("no connection", _whom(proxy), _check(url), is_down=True)
    if names & {"SOCKS5AuthError", "SOCKS4Error"}:
        return _refused(407, proxy, url)
    if "SOCKS5Error" in names:
        return _unreached("it does not reach", proxy, url)
    if "GeneralProxyError" in names:
        return ProxyFailure("it does not speak SOCKS, or broke off", _whom(proxy), _check(url))
    return None


def _refused(status: int, proxy: str, url: str) -> ProxyFailure:
    if status == 407:
        return ProxyFailure(
            "it wants another user and password (407)",
            _whom(proxy),
            f"write them into {_variable(url)}, as in http://user:password@host:port",
            is_final=True,
        )
    return _unreached(f"HTTP {status}, it does not reach", proxy, url)


def _unreached(reason: str, proxy: str, url: str) -> ProxyFailure:
    host = urlsplit(url).netloc.rpartition("@")[2]
    return ProxyFailure(
        f"{reason} {host}", _whom(proxy), f"have its host allow {host}, or name {host} in NO_PROXY"
    )


def _unusable(reason: str, url: str) -> ProxyFailure:
    remedy = "write http://host:port, https://host:port or socks5h://host:port"
    return ProxyFailure(reason, f"the proxy in {_variable(url)}", remedy, is_final=True)


def _whom(proxy: str) -> str:
    place = urlsplit(proxy if "://" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
    return f"the proxy {place}"


def _check(url: str) -> str:
    return f"check {_variable(url)}, and that the proxy runs"


def _variable(url: str) -> str:
    """The name of the variable that names the proxy."""
    names = (f"{urlsplit(url).scheme}_proxy", "all_proxy")
    spellings = [spelling for name in names for spelling in (name, name.upper())]
    return next((name for name in spellings if os.environ.get(name)), spellings[1])
