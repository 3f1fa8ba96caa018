"""One sandbox for every process that wants it: started by the first, gone after the last.

Users hold a shared lock on a file; the sandbox, a child of nobody in particular, ends itself once it finds the lock
free. So a killed user needs no cleaning up after, and two runs never start two sandboxes over one database.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

START_SECONDS = 60.0
_LINGER_SECONDS = 2.0


@contextmanager
def shared_sandbox(data_dir: Path, ods: Sequence[str]) -> Iterator[str]:
    """The URL of the sandbox over ``data_dir``, kept running for the block.

    Raises RuntimeError when it does not answer within a minute; its log lies beside its data.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with _locked(data_dir / "users.lock", fcntl.LOCK_SH):
        with _locked(data_dir / "start.lock", fcntl.LOCK_EX):
            url = _answering(data_dir) or _start(data_dir, ods)
        yield url


def serve_while_used(data_dir: Path, ods: Sequence[str]) -> None:
    """The child's whole life: serve, tell the port, and end when nobody holds the users' lock."""
    from edfi_dagster.sandbox.server import SandboxServer

    with SandboxServer(list(ods), data_dir=data_dir) as server:
        part = data_dir / "url.new"
        part.write_text(server.url)
        part.replace(data_dir / "url")
        while not _retired(data_dir):
            time.sleep(_LINGER_SECONDS)


def _retired(data_dir: Path) -> bool:
    """Whether nobody uses the sandbox any more; then its address is gone before a new user can find it."""
    with _locked(data_dir / "start.lock", fcntl.LOCK_EX):
        if _is_used(data_dir / "users.lock"):
            return False
        (data_dir / "url").unlink(missing_ok=True)
        return True


def _start(data_dir: Path, ods: Sequence[str]) -> str:
    (data_dir / "url").unlink(missing_ok=True)
    with (data_dir / "sandbox.log").open("ab") as log:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "edfi_dagster.sandbox.shared", str(data_dir), *ods],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        if url := _answering(data_dir):
            return url
        time.sleep(0.1)
    child.terminate()
    raise RuntimeError(f"the sandbox ODS did not start; see {data_dir / 'sandbox.log'}")


def _answering(data_dir: Path) -> str | None:
    try:
        url = (data_dir / "url").read_text()
        return url if requests.get(f"{url}/", timeout=5).ok else None
    except (FileNotFoundError, requests.RequestException):
        return None


def _is_used(path: Path) -> bool:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    serve_while_used(Path(sys.argv[1]), sys.argv[2:])
