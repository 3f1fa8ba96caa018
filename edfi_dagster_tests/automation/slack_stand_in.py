"""Slack's API and webhooks as far as sending goes (https://api.slack.com/methods/chat.postMessage)."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs


class SlackStandIn:
    """Keeps what is sent to it in ``messages``, (channel, text) each; ``mood`` is ``ok``, ``refuse`` or ``broken``."""

    TOKEN = "xoxb-stand-in"

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.mood = "ok"
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, kind, answer = stand_in.answer(
                    self.path, self.headers.get("Authorization", ""), self.headers["Content-Type"], body
                )
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def api(self) -> str:
        return f"{self.url}/api/"

    def answer(self, path: str, authorization: str, kind: str, body: str) -> tuple[int, str, str]:
        if self.mood == "broken":
            return 500, "text/plain", "oops"
        is_form = kind.startswith("application/x-www-form-urlencoded")
        sent = {k: v[0] for k, v in parse_qs(body).items()} if is_form else json.loads(body)
        if path.startswith("/services/"):
            if self.mood == "refuse":
                return 403, "text/plain", "invalid_token"
            self.messages.append(("webhook", sent["text"]))
            return 200, "text/plain", "ok"
        assert path == "/api/chat.postMessage"
        if authorization != f"Bearer {self.TOKEN}":
            return 200, "application/json", json.dumps({"ok": False, "error": "invalid_auth"})
        if self.mood == "refuse":
            return 200, "application/json", json.dumps({"ok": False, "error": "channel_not_found"})
        self.messages.append((sent["channel"], sent["text"]))
        return 200, "application/json", json.dumps({"ok": True, "channel": "C1", "ts": "1.0"})

    def stop(self) -> None:
        """Be gone: connections are refused from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.stop()
