"""Little proxies: HTTP (CONNECT, and whole addresses) and SOCKS5, as firewalls of districts have them.

Both know one name that no DNS does, ``ods.invalid``, as this machine: who reaches it went through the proxy.
"""

from __future__ import annotations

import base64
import select
import socket
import ssl
import struct
import threading
from types import TracebackType
from typing import Self
from urllib.parse import quote

NAME = "ods.invalid"


class _Proxy:
    """Listens on 127.0.0.1 in threads. ``user`` is ``name:password`` where it asks for one; ``reached`` lists where it
    connected to, as ``host:port``; ``broken`` answers every connection with that instead."""

    scheme = ""

    def __init__(self, user: str | None = None, *, broken: bytes | None = None) -> None:
        self.reached: list[str] = []
        self._user = user
        self._broken = broken
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: set[socket.socket] = set()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def url(self) -> str:
        user = f"{quote(self._user, safe=':')}@" if self._user else ""
        return f"{self.scheme}://{user}{self.place}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in tuple(self._open):
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                if self._broken is not None:
                    client.recv(65536)
                    client.sendall(self._broken)
                else:
                    self._handle(client)
        except (OSError, ValueError):
            pass  # either side has gone
        finally:
            self._open.discard(client)

    def _handle(self, client: socket.socket) -> None:
        raise NotImplementedError

    def _connect(self, host: str, port: int) -> socket.socket:
        self.reached.append(f"{host}:{port}")
        return socket.create_connection(("127.0.0.1" if host == NAME else host, port), timeout=5)


class HttpProxy(_Proxy):
    scheme = "http"

    def _handle(self, client: socket.socket) -> None:
        head = _until(client, b"\r\n\r\n")
        line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, version = line.split(" ")
        headers = {n.lower(): v.strip() for n, _, v in (text.partition(":") for text in lines)}
        if self._user:
            wanted = f"Basic {base64.b64encode(self._user.encode()).decode()}"
            if headers.get("proxy-authorization") != wanted:
                client.sendall(_answer("407 Proxy Authentication Required", "Proxy-Authenticate: Basic\r\n"))
                return
        place = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = place.rpartition(":")
        try:
            server = self._connect(host, int(port))
        except OSError:
            client.sendall(_answer("502 Bad Gateway"))
            return
        with server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = target[target.index(place) + len(place) :] or "/"
                kept = [text for text in lines if not text.lower().startswith(("proxy-", "connection:"))]
                server.sendall(
                    "\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""]).encode(
                        "latin-1"
                    )
                )
            _pipe(client, server)


class SocksProxy(_Proxy):
    """SOCKS 5; ``scheme`` may be set to ``socks5``, where the client looks up names."""

    scheme = "socks5h"

    def _handle(self, client: socket.socket) -> None:
        _, count = _exactly(client, 2)
        methods = _exactly(client, count)
        method = 2 if self._user else 0
        client.sendall(bytes([5, method if method in methods else 0xFF]))
        if method not in methods or (method == 2 and not self._signs_in(client)):
            return
        _, _, _, kind = _exactly(client, 4)
        if kind == 1:
            host = socket.inet_ntoa(_exactly(client, 4))
        else:
            host = _exactly(client, _exactly(client, 1)[0]).decode()
        (port,) = struct.unpack(">H", _exactly(client, 2))
        try:
            server = self._connect(host, port)
        except OSError:
            client.sendall(bytes([5, 5, 0, 1, 0, 0, 0, 0, 0, 0]))
            return
        with server:
            client.sendall(bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]))
            _pipe(client, server)

    def _signs_in(self, client: socket.socket) -> bool:
        _exactly(client, 1)
        name = _exactly(client, _exactly(client, 1)[0]).decode()
        password = _exactly(client, _exactly(client, 1)[0]).decode()
        is_good = f"{name}:{password}" == self._user
        client.sendall(bytes([1, 0 if is_good else 1]))
        return is_good


class TlsFront(_Proxy):
    """A server of TLS before one on this machine that has none."""

    scheme = "https"

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        super().__init__()
        self._context = context
        self._port = port

    def _handle(self, client: socket.socket) -> None:
        with (
            self._context.wrap_socket(client, server_side=True) as secured,
            self._connect("127.0.0.1", self._port) as server,
        ):
            threading.Thread(target=_copy, args=(server, secured), daemon=True).start()
            _copy(secured, server)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_RDWR)
    except (OSError, ValueError):
        pass  # either side has gone


def _answer(status: str, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = connection.recv(size - len(found))
        if not piece:
            raise ConnectionError("gone")
        found += piece
    return found


def _until(connection: socket.socket, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end):
        found += _exactly(connection, 1)
    return found


def _pipe(one: socket.socket, other: socket.socket) -> None:
    while True:
        for ready in select.select([one, other], [], [], 30)[0]:
            piece = ready.recv(65536)
            if not piece:
                return
            (other if ready is one else one).sendall(piece)
