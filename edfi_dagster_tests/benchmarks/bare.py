"""The child that only fetches: given pages over given connections, their bytes counted and thrown away.

Sockets and threads, nothing else, so that what it reaches is what the wire and the server allow.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

_HEAD_END = b"\r\n\r\n"


def fetch_all(host: str, port: int, token: str, pages: SimpleQueue[str], received: list[int]) -> None:
    buffer = memoryview(bytearray(1 << 20))
    head = f"Host: {host}:{port}\r\nAuthorization: Bearer {token}\r\nAccept: application/json\r\n\r\n"
    with socket.create_connection((host, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                page = pages.get_nowait()
            except Empty:
                return
            connection.sendall(f"GET {page} HTTP/1.1\r\n{head}".encode())
            received.append(_receive(connection, buffer))


def _receive(connection: socket.socket, buffer: memoryview) -> int:
    """Read one answer, whose head must come with a Content-Length; the length of its body."""
    got = 0
    while (end := bytes(buffer[:got]).find(_HEAD_END)) < 0:
        more = connection.recv_into(buffer[got:])
        if not more:
            raise ConnectionError("closed before an answer")
        got += more
    head = bytes(buffer[:end]).lower()
    if not head.startswith(b"http/1.1 200"):
        raise ConnectionError(head.split(b"\r\n")[0].decode())
    length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
    left = length - (got - end - len(_HEAD_END))
    while left:
        more = connection.recv_into(buffer, min(left, len(buffer)))
        if not more:
            raise ConnectionError("cut")
        left -= more
    return length


def main() -> None:
    wanted = json.load(sys.stdin)
    address = urlsplit(wanted["url"])
    pages: SimpleQueue[str] = SimpleQueue()
    for page in wanted["pages"]:
        pages.put(page)
    received: list[int] = []
    started, cpu = time.perf_counter(), time.process_time()
    threads = [
        threading.Thread(
            target=fetch_all, args=(address.hostname, address.port, wanted["token"], pages, received)
        )
        for _ in range(wanted["connections"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    if len(received) != len(wanted["pages"]):
        raise SystemExit(f"{len(received)} of {len(wanted['pages'])} pages came")
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": wanted["rows"], "bytes": sum(received)}))


if __name__ == "__main__":
    main()
