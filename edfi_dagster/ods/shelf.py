"""Where the processes of a machine, or of several, share a token: a file of their own user, locked while it is looked at."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

TOKENS_VARIABLE = "EDFI_DAGSTER_TOKENS"
"""Environment variable: a folder that several hosts share, so that they share a key's token as well (flock must work there)."""
# Longer than a token request lasts with its retries, unless the ODS told it to wait for minutes.
LONGEST_LOCK_SECONDS = 300.0
_LONGEST_NAP_SECONDS = 0.25


class Locked(Exception):
    """Somebody else has held the lock for too long."""


class Shelf(Protocol):
    """Holds one JSON value, None where there is none that can be read."""

    def locked(self) -> AbstractContextManager[None]:
        """Hold the lock while the block runs. Raises Locked."""

    def read(self) -> Any: ...

    def write(self, content: Any) -> None: ...


def find_shelf(name: str) -> Shelf:
    """A file in a folder that only this user can read, else this process's memory."""
    try:
        return FileShelf(_private_folder() / name)
    except OSError:
        return _IN_MEMORY.setdefault(name, MemoryShelf())


class FileShelf:
    """``path`` without a suffix. Raises OSError where nothing can be written beside it."""

    def __init__(
        self,
        path: Path,
        *,
        patience: float = LONGEST_LOCK_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path.with_suffix(".json")
        self._lock_path = path.with_suffix(".lock")
        self._patience = patience
        self._sleep = sleep
        os.close(self._open_lock())

    @contextmanager
    def locked(self) -> Iterator[None]:
        descriptor = self._open_lock()
        try:
            self._wait_for(descriptor)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> Any:
        try:
            return json.loads(self._path.read_text())
        except (OSError, ValueError, RecursionError):
            return None

    def write(self, content: Any) -> None:
        """Where the disk is full, this process has the value and the others ask for their own."""
        part = self._path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            descriptor = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                json.dump(content, stream)
            part.replace(self._path)

    def _open_lock(self) -> int:
        return os.open(self._lock_path, os.O_CREAT | os.O_RDWR, 0o600)

    def _wait_for(self, descriptor: int) -> None:
        end, nap = time.monotonic() + self._patience, 0.005
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Locked(
                        f"another process has kept {self._lock_path} locked for {self._patience:.0f} seconds; "
                        "end the process that hangs, or wait for it"
                    ) from None
            nap = min(nap * 2, _LONGEST_NAP_SECONDS)
            self._sleep(nap)


class MemoryShelf:
    """For the sessions of this process alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._content: Any = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self._lock:
            yield

    def read(self) -> Any:
        return self._content

    def write(self, content: Any) -> None:
        self._content = content


_IN_MEMORY: dict[str, MemoryShelf] = {}


def _private_folder() -> Path:
    """A folder of ours alone: another user who made it first could read or plant tokens. Raises OSError."""
    folder = Path(os.environ.get(TOKENS_VARIABLE) or tempfile.gettempdir()) / f"edfi-dagster-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        raise PermissionError(f"{folder} is not a folder of ours")
    if state.st_mode & 0o077:
        folder.chmod(0o700)
    return folder
