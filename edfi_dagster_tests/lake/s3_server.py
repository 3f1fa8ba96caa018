"""An S3 server in a process of its own on this machine, and a gate before it that can answer, cut and lose."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3

from edfi_dagster.config.lake import S3Lake as S3Settings

KEY_VARIABLE, SECRET_VARIABLE = "LAKE_KEY", "LAKE_SECRET"
KEY, SECRET = "AKIDOFTHETESTS", "a/secret+of/the=tests"
LEAST_PART = 256
"""Bytes that the server wants in every part but the last; S3 itself wants 5 MiB."""


@contextmanager
def running_s3() -> Iterator[str]:
    """The address of a new, empty S3 server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "S3_UPLOAD_PART_MIN_SIZE": str(LEAST_PART)}
    process = subprocess.Popen(
        [sys.executable, "-m", "edfi_dagster_tests.lake.s3_process", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the S3 server did not start"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the S3 server does not answer")


def _access(url: str) -> dict[str, str]:
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    return {"endpoint_url": url, "region_name": "us-east-1", **keys}


@cache
def _client(url: str) -> Any:
    return boto3.session.Session().client("s3", **_access(url))


class Bucket:
    """A bucket, its address, and a look at everything in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f"lake-{uuid.uuid4().hex[:8]}"
        self.client = _client(url)
        self.client.create_bucket(Bucket=self.name)

    def access(self) -> dict[str, str]:
        """What a boto3 client needs to get at it."""
        return _access(self.url)

    def document(self, **more: Any) -> dict[str, Any]:
        """A ``lake:`` block for it."""
        return {
            "kind": "s3",
            "bucket": self.name,
            "endpoint_url": self.url,
            "access_key_id": {"env": KEY_VARIABLE},
            "secret_access_key": {"env": SECRET_VARIABLE},
            **more,
        }

    def settings(self, **more: Any) -> S3Settings:
        return S3Settings.model_validate(self.document(**more))

    def objects(self) -> list[str]:
        """Their keys."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def incomplete(self) -> list[str]:
        """Keys of uploads that were neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=self.name)
        return [item["Key"] for item in found.get("Uploads", ())]


@dataclass(frozen=True)
class Seen:
    """A request as it came; ``size`` in bytes of its body."""

    method: str
    path: str
    headers: Mapping[str, str]
    size: int

    @property
    def kind(self) -> str:
        """``PUT``, ``GET``, ``DELETE``, or what is done with an upload: ``begin``, ``part``, ``complete``, ``abort``."""
        query = urlsplit(self.path).query
        if "partNumber=" in query:
            return "part"
        if "uploadId=" in query:
            return "complete" if self.method == "POST" else "abort"
        return "begin" if self.method == "POST" and "uploads" in query else self.method


@dataclass
class Fault:
    """What happens to the next ``times`` requests of a ``kind``, from the ``nth`` on.

    With a ``status`` the gate answers itself, with error ``code``. ``cut`` resets the connection after so many bytes of
    the request's body; ``lose`` lets the request through and its answer not; ``shorten`` sends half of the answer.
    """

    kind: str
    status: int = 0
    code: str = ""
    cut: int | None = None
    lose: bool = False
    shorten: bool = False
    times: int = 1
    nth: int = 1
    more: str = ""


class Gate(ThreadingHTTPServer):
    """Stands before an S3 server; ``seen`` are the requests in the order of their coming."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = urlsplit(server).netloc
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self._guard = threading.Lock()

    def kinds(self) -> list[str]:
        return [seen.kind for seen in self.seen]

    def of_kind(self, kind: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.kind == kind]

    def fault_of(self, seen: Seen) -> Fault | None:
        with self._guard:
            self.seen.append(seen)
            for fault in self.faults:
                if fault.kind not in (seen.kind, "any") or not fault.times:
                    continue
                fault.nth -= 1
                if fault.nth <= 0:
                    fault.times -= 1
                    return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was cut off or killed is what these tests are about."""


GateT = TypeVar("GateT", bound=ThreadingHTTPServer)


@contextmanager
def running_gate(server: str) -> Iterator[Gate]:
    with serving(Gate(server)) as gate:
        yield gate


@contextmanager
def serving(gate: GateT) -> Iterator[GateT]:
    with gate:
        thread = threading.Thread(target=gate.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield gate
        finally:
            gate.shutdown()
            thread.join()


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gate

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def _pass(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        fault = self.server.fault_of(Seen(self.command, self.path, dict(self.headers), size))
        if fault and fault.cut is not None:
            self.rfile.read(min(fault.cut, size))
            self._reset()
            return
        body = self.rfile.read(size)
        if fault and fault.status:
            self._refuse(fault)
            return
        status, headers, answer = self._ask(body)
        if fault and fault.lose:
            self._reset()
            return
        self._answer(status, headers, answer, cut=bool(fault and fault.shorten))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.behind, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length", str(len(body)))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self._reset()

    def _refuse(self, fault: Fault) -> None:
        text = f"<Error><Code>{fault.code}</Code><Message>as the test has it</Message>{fault.more}</Error>"
        self._answer(fault.status, [("Content-Type", "application/xml")], text.encode())

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
