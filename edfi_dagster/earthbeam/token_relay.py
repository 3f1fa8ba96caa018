"""A token address for Lightbeam on this machine, which hands out the token that our own requests are sent with.

An ODS allows a key so many unexpired tokens, and Lightbeam takes two or three in each run: a folder of files would use them
up, and then nothing else could sign in with that key. So it also never learns the key's secret.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from edfi_dagster.earthbeam.target import newest_of
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.session import OdsSession


class TokenRelay:
    """Runs for the length of a block. ``credentials`` are good for this address alone, and for this block."""

    def __init__(self, session: OdsSession) -> None:
        self.credentials = (secrets.token_hex(16), secrets.token_hex(16))
        self.failure: EdFiError | None = None
        self._session = session
        self._has_given = False
        self._giving = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="token relay", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/oauth/token"

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
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                known = relay.is_known(self.headers.get("Authorization"))
                token = relay.token() if known else None
                body = json.dumps({"access_token": token} if token else {"error": "invalid_client"}).encode()
                self.send_response(200 if token else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is logged."""

        return Handler
