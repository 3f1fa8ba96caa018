"""A tiny HTTP server for answers that the sandbox never gives."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

DISCOVERY: Mapping[str, Any] = {
    "version": "7.3",
    "informationalVersion": "7.3.2",
    "dataModels": [{"name": "Ed-Fi", "version": "5.2.0"}],
    "urls": {},
}


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """``body`` is sent as it is; anything else than bytes is sent as JSON.

    ``raw`` replaces the whole answer: bytes, or pieces of it with seconds of silence between them. After it the
    connection is closed, with ``reset`` as if the server had crashed.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | Iterable[bytes | float] | None = None
    reset: bool = False


Answering = Callable[[Asked], Reply | None]


def standard_reply(asked: Asked, base: str = "") -> Reply | None:
    """Root document, token and newest change version of an ODS at ``base``."""
    if asked.path == f"{base}/":
        return Reply(DISCOVERY)
    if asked.path == f"{base}/oauth/token":
        return Reply({"access_token": "f00dfeed", "expires_in": 1800})
    if asked.path == f"{base}/changeQueries/v1/availableChangeVersions":
        return Reply({"oldestChangeVersion": 0, "newestChangeVersion": 42})
    return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client gave up in the middle of an answer."""


class StandIn:
    """Answers what ``answering`` says; what it leaves open like an ODS without any data."""

    def __init__(self, answering: Answering, base: str = "", *, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self._answering = answering
        self._base = base
        self._scheme = "https" if tls else "http"
        self._server = _Server(("127.0.0.1", 0), self._handler())
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}{self._base}"

    def matching(self, fragment: str) -> list[Asked]:
        return [asked for asked in self.asked if fragment in asked.path]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _reply(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        return (
            self._answering(asked)
            or standard_reply(asked, self._base)
            or Reply({"type": "urn:ed-fi:api:not-found"}, status=404)
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = dict(parse_qsl(parts.query, keep_blank_values=True))
                asked = Asked(self.command, parts.path, query, headers, self.rfile.read(length))
                self._send(stand_in._reply(asked))

            do_POST = do_GET

            def _send(self, reply: Reply) -> None:
                if reply.raw is not None:
                    self._send_raw(reply)
                    return
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response_only(reply.status)
                for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def _send_raw(self, reply: Reply) -> None:
                self.close_connection = True
                for piece in [reply.raw] if isinstance(reply.raw, bytes) else reply.raw or ():
                    if isinstance(piece, bytes):
                        self.wfile.write(piece)
                        self.wfile.flush()
                    else:
                        time.sleep(piece)
                if reply.reset:
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.connection.close()
                else:
                    self.connection.shutdown(socket.SHUT_WR)

            def log_message(self, format: str, *args: Any) -> None:
                """Tests look at ``asked`` instead."""

        return Handler
