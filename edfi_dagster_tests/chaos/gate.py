"""A gate before an ODS that answers wrongly, late, in parts or not at all: every fault of the ODS client's table that may pass.

Left out is what nobody could tell from the truth: a page that lacks rows and counts only those it has, in one answer.
"""

from __future__ import annotations

import gzip
import http.client
import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from edfi_dagster.sandbox.gateways import PAGES
from edfi_dagster_tests.lake.s3_server import serving

STALL_SECONDS = 2.0
STATUSES = (408, 409, 425, 429, 500, 502, 503, 504)
# What ends the reading of an endpoint at once must not strike all of them, or nothing is ever read.
_SELDOM = 0.1
_TOKEN = re.compile(r"/oauth/(token|authorize)$", re.IGNORECASE)
_CHANGES = re.compile(r"/(deletes|keyChanges)$", re.IGNORECASE)
_BY_ID = re.compile(r"/[0-9a-f]{32}$")
# Pages of what stands before an ODS: firewalls, gateways and proxies that answer in its place.


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    nth: int = 0
    """How often this address was asked for, this time included."""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name.lower(): values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


@dataclass(frozen=True)
class Given:
    """What goes back. ``sent`` bytes of the body are sent before the connection is broken; None: all, and it is kept."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent: int | None = None
    chunked: bool = False
    wait: float = 0.0

    def saying(self, body: bytes, kind: str = "application/json") -> Given:
        headers = {name: value for name, value in self.headers.items() if name.lower() != "content-type"}
        return replace(self, body=body, headers={**headers, "Content-Type": kind})

    def with_header(self, name: str, value: str | None) -> Given:
        headers = {key: old for key, old in self.headers.items() if key.lower() != name.lower()}
        return replace(self, headers=headers if value is None else {**headers, name: value})

    def header(self, name: str) -> str | None:
        return next((v for key, v in self.headers.items() if key.lower() == name.lower()), None)


Change = Callable[[Asked, Given, random.Random], Given | None]
"""What a fault makes of an answer; None where it cannot strike it."""


def _status(status: int) -> Change:
    return lambda asked, given, chance: Given(status, {"Content-Type": "text/plain"}, b"busy")


def _retry_after(asked: Asked, given: Given, chance: random.Random) -> Given:
    told = chance.choice(["0", "1", formatdate(time.time() + 1, usegmt=True), "soon"])
    return Given(chance.choice([429, 503]), {"Retry-After": told}, b"")


def _unauthorised(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    return None if _TOKEN.search(asked.path) else Given(401, {}, b"")


def _reset(asked: Asked, given: Given, chance: random.Random) -> Given:
    return replace(given, sent=-1)


def _cut(asked: Asked, given: Given, chance: random.Random) -> Given:
    return replace(given, sent=chance.randrange(len(given.body) or 1))


def _cut_chunks(asked: Asked, given: Given, chance: random.Random) -> Given:
    return replace(_cut(asked, given, chance), chunked=True)


def _cut_gzip(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    """A whole answer, as the length says, of a part of the compressed body."""
    packed = gzip.compress(given.body)
    part = packed[: chance.randrange(len(packed) // 2, len(packed) - 1)]
    return replace(given, body=part).with_header("Content-Encoding", "gzip") if given.body else None


def _stall(asked: Asked, given: Given, chance: random.Random) -> Given:
    return replace(_cut(asked, given, chance), wait=STALL_SECONDS)


def _slow(asked: Asked, given: Given, chance: random.Random) -> Given:
    return replace(given, wait=chance.uniform(0.05, 0.4))


def _half_json(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    return given.saying(given.body[: len(given.body) // 2]) if len(given.body) > 2 else None


def _foreign_json(asked: Asked, given: Given, chance: random.Random) -> Given:
    texts = (
        b"null",
        b"{}",
        b'[{"message": "no"}]',
        b'{"message": "no"}',
        b"[1, 2]",
        b'[{"id": 7}]',
        b"[[]]",
        b"7",
    )
    return given.saying(chance.choice(texts))


def _html(asked: Asked, given: Given, chance: random.Random) -> Given:
    return given.saying(b"<html><body>Sign in</body></html>", "text/html")


def _gateway_page(asked: Asked, given: Given, chance: random.Random) -> Given:
    """One with a body: without a word, only the OpenAPI tells whether the ODS said it."""
    page = chance.choice([found for found in PAGES.values() if found.body])
    return Given(page.status, {"Content-Type": page.media, **page.headers}, page.body)


def _id_unreadable_once(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    """The ODS's own 404 or 403 for a record that is there; never twice in a row, so that it proves nothing."""
    if not _BY_ID.search(asked.path) or given.status != 200 or asked.nth % 2 == 0:
        return None
    if chance.random() < 0.5:
        return _problem(404, "urn:ed-fi:api:not-found", "The specified item could not be found.")
    return _problem(
        403, "urn:ed-fi:api:security:authorization:", "Access to the resource could not be authorized."
    )


def _problem(status: int, kind: str, detail: str) -> Given:
    body = {"detail": detail, "type": kind, "title": detail, "status": status, "message": detail}
    return Given(status, {"Content-Type": "application/problem+json"}, json.dumps(body).encode())


def _nothing(asked: Asked, given: Given, chance: random.Random) -> Given:
    return given.saying(b"")


def _behind(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    """A replica that lags."""
    if not asked.path.lower().endswith("/availablechangeversions") or given.status != 200:
        return None
    document = json.loads(given.body)
    lag = chance.randrange(1, 20)
    told = {k: max(0, v - lag) if k.lower().startswith("newest") else v for k, v in document.items()}
    return given.saying(json.dumps(told).encode())


def _short_page(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    rows = _rows(asked, given)
    if not rows or (_CHANGES.search(asked.path) and given.header("Total-Count") is None):
        return None
    kept = sorted(chance.sample(range(len(rows)), chance.randrange(len(rows))))
    return given.saying(json.dumps([rows[n] for n in kept]).encode())


def _row_twice(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    rows = _rows(asked, given)
    return given.saying(json.dumps([*rows, chance.choice(rows)]).encode()) if rows else None


def _more_counted(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    total = given.header("Total-Count")
    return given.with_header("Total-Count", str(int(total) + chance.randrange(1, 9))) if total else None


def _fewer_counted(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    total = given.header("Total-Count")
    if (
        not total
        or not _rows(asked, given)
        or _CHANGES.search(asked.path)
        or asked.query.get("limit") in "01"
    ):
        return None
    return given.with_header("Total-Count", str(chance.randrange(int(total) or 1)))


def _not_counted(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    if given.header("Total-Count") is None or chance.random() > _SELDOM:
        return None
    return given.with_header("Total-Count", None)


def _same_token(asked: Asked, given: Given, chance: random.Random) -> Given | None:
    token = asked.query.get("pagetoken")
    if token is None or given.header("Next-Page-Token") is None or chance.random() > _SELDOM:
        return None
    return given.with_header("Next-Page-Token", token)


def _rows(asked: Asked, given: Given) -> list[Any]:
    """The rows of a page that may lie: not of one without upper bound, which only serves to tell what has left a window."""
    if given.status != 200 or "maxchangeversion" not in asked.query:
        return []
    document = json.loads(given.body or b"null")
    return document if isinstance(document, list) else []


FAULTS: dict[str, Change] = {
    **{str(status): _status(status) for status in STATUSES},
    "Retry-After": _retry_after,
    "401": _unauthorised,
    "reset": _reset,
    "cut": _cut,
    "cut chunks": _cut_chunks,
    "cut gzip": _cut_gzip,
    "stall": _stall,
    "slow": _slow,
    "half JSON": _half_json,
    "foreign JSON": _foreign_json,
    "HTML": _html,
    "gateway page": _gateway_page,
    "id unreadable once": _id_unreadable_once,
    "empty body": _nothing,
    "replica behind": _behind,
    "short page": _short_page,
    "row twice": _row_twice,
    "more counted": _more_counted,
    "fewer counted": _fewer_counted,
    "not counted": _not_counted,
    "same page token": _same_token,
}
_LIES = (
    "replica behind",
    "short page",
    "row twice",
    "more counted",
    "fewer counted",
    "not counted",
    "same page token",
)


@dataclass
class Weather:
    """How often which faults strike. What becomes of a request depends on ``seed``, its address, and how often it came."""

    seed: str = ""
    rate: float = 0.0
    kinds: tuple[str, ...] = tuple(FAULTS)
    injected: Counter[str] = field(default_factory=Counter)

    def change(self, asked: Asked, given: Given) -> Given:
        chance = random.Random(f"{self.seed} {asked.method} {asked.target} {asked.nth}")
        if chance.random() >= self.rate:
            return given
        # Half of the faults are lies where one can be told.
        kinds = [*self.kinds]
        chance.shuffle(kinds)
        if chance.random() < 0.5:
            kinds.sort(key=lambda kind: kind not in _LIES)
        for kind in kinds:
            changed = FAULTS[kind](asked, given, chance)
            if changed is not None:
                self.injected[kind] += 1
                return changed
        return given


class Gate(ThreadingHTTPServer):
    """Passes requests on to ``behind`` (host and port), which may be away for a while. ``tokens`` are those it saw."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = ""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.weather = Weather()
        self.tokens: set[str] = set()
        self.requests = 0
        self._times: Counter[str] = Counter()
        self._guard = threading.Lock()

    def nth(self, asked: Asked) -> int:
        with self._guard:
            self.requests += 1
            self._times[asked.target] += 1
            return self._times[asked.target]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed, or an ODS, is what this is about."""


@contextmanager
def running_gate() -> Iterator[Gate]:
    with serving(Gate()) as gate:
        yield gate


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gate

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, self.path, dict(self.headers), body)
        asked = replace(asked, nth=self.server.nth(asked))
        try:
            given = self._ask(asked)
        except (OSError, http.client.HTTPException):
            self._break()
            return
        if _TOKEN.search(asked.path) and given.status == 200:
            self.server.tokens.add(json.loads(given.body)["access_token"])
        self._answer(self.server.weather.change(asked, given))

    do_GET = do_POST = _pass

    def _ask(self, asked: Asked) -> Given:
        connection = http.client.HTTPConnection(self.server.behind, timeout=30)
        try:
            connection.request(asked.method, asked.target, asked.body or None, asked.headers)
            answer = connection.getresponse()
            dropped = {"connection", "transfer-encoding", "content-length"}
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in dropped}
            return Given(answer.status, headers, answer.read())
        finally:
            connection.close()

    def _answer(self, given: Given) -> None:
        if given.sent is not None and given.sent < 0:
            self._break()
            return
        if given.sent is None:
            time.sleep(given.wait)
        self.send_response_only(given.status)
        for name, value in given.headers.items():
            self.send_header(name, value)
        if given.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(given.body)))
        self.end_headers()
        part = given.body if given.sent is None else given.body[: given.sent]
        self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if given.chunked and part else part)
        if given.sent is not None:
            self.wfile.flush()
            time.sleep(given.wait)
            self._break()

    def _break(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
