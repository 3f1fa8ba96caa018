"""What Lightbeam speaks with on this machine: a token address that hands out our own token, and, behind a proxy, the ODS.

An ODS allows a key so many unexpired tokens, and Lightbeam takes two or three in each run: a folder of files would use them
up, and then nothing else could sign in with that key. So it also never learns the key's secret.

Lightbeam sends records without regard to proxies (aiohttp without ``trust_env``), and it knows no SOCKS. Where the ODS is
behind a proxy, Lightbeam gets an address of this relay as that of the ODS, and our session sends on what comes.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from requests.utils import select_proxy

from edfi_dagster.earthbeam.target import newest_of
from edfi_dagster.ods.answers import Answer, Oversized, Transient
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.network import ProxyFailure, proxies_for
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.ods.transport import Untrusted

_TOKEN_PATH = "/oauth/token"  # noqa: S105
# Of one connection, and lengths that change when a body is decompressed.
_NOT_SENT_ON = frozenset(
    {
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "content-encoding",
        "keep-alive",
        "accept-encoding",
    }
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Lightbeam gave up in the middle of an answer."""


class TokenRelay:
    """Runs for the length of a block. ``credentials`` are good for this address alone, and for this block."""

    def __init__(self, session: OdsSession, base_url: str = "") -> None:
        self.credentials = (secrets.token_hex(16), secrets.token_hex(16))
        self.failure: EdFiError | None = None
        self.forwards = bool(base_url and select_proxy(base_url, proxies_for(base_url)))
        self._base = urlsplit(base_url)
        self._session = session
        self._has_given = False
        self._giving = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="token relay", daemon=True)

    @property
    def _root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """The token address."""
        return f"{self._root}{_TOKEN_PATH}"

    def place(self, url: str) -> str:
        """Where Lightbeam finds what stands at a URL of the ODS: here, if the ODS is behind a proxy."""
        own = f"{self._base.scheme}://{self._base.netloc}"
        is_ours = self.forwards and url.startswith(own)
        return f"{self._root}/ods{url.removeprefix(own)}" if is_ours else url

    def token(self) -> str | None:
        """A token the ODS accepts; None, with the ``failure``, where there is none."""
        with self._giving:
            try:
                if self._has_given:
                    # Asked again: the token may have been refused. Our own request finds out, and renews it.
                    newest_of(self._session)
                self._has_given = True
                return self._session.bearer()
            except EdFiError as error:
                self.failure = error
                return None

    def is_known(self, authorization: str | None) -> bool:
        expected = base64.b64encode(":".join(self.credentials).encode()).decode()
        return hmac.compare_digest((authorization or "").encode(), f"Basic {expected}".encode())

    def forwarded(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """The ODS's answer; 503 with the reason where there is none, which Lightbeam tries again."""
        if not self.forwards or not path.startswith("/ods/"):
            return Answer(b"", {}, 501)
        url = f"{self._base.scheme}://{self._base.netloc}{path.removeprefix('/ods')}"
        sent_on = {name: value for name, value in headers.items() if name.lower() not in _NOT_SENT_ON}
        try:
            return self._session.forward(method, url, {**sent_on, "Accept-Encoding": "gzip"}, body)
        except (Transient, Oversized, Untrusted) as error:
            reason = error.reason
        except ProxyFailure as error:
            reason = error.sentence
        return Answer(json.dumps({"message": reason}).encode(), {"Content-Type": "application/json"}, 503)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
                if self.command == "POST" and self.path == _TOKEN_PATH:
                    self._give_token()
                    return
                answer = relay.forwarded(self.command, self.path, dict(self.headers.items()), body)
                headers = {n: v for n, v in answer.headers.items() if n.lower() not in _NOT_SENT_ON}
                self._send(answer.status, headers, answer.body)

            do_POST = do_PUT = do_DELETE = do_GET

            def _give_token(self) -> None:
                known = relay.is_known(self.headers.get("Authorization"))
                token = relay.token() if known else None
                body = json.dumps({"access_token": token} if token else {"error": "invalid_client"}).encode()
                self._send(200 if token else 401, {"Content-Type": "application/json"}, body)

            def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if status != 204 else b"")

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is logged."""

        return Handler
