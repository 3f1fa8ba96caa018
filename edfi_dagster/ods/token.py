"""One bearer token per key, shared by the threads of a process and the processes of a machine.

ODS/API 7.3 allows 15 unexpired tokens per key and then answers 429, so a token per worker does not work
(api.md: ``BearerTokenPerClientLimit``). The token lies in a file that only its owner may read, under a
file lock; whoever finds it too old takes a new one while the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edfi_dagster.ods.errors import UnusableBody

# Renewed this long before its end, so that no request is sent with a token about to expire.
RENEW_BEFORE_SECONDS = 60
# What an ODS is shipped with, for one that does not say (api.md section 2).
DEFAULT_SECONDS = 1800.0


@dataclass(frozen=True)
class Token:
    """A bearer token and the clock time (epoch seconds) until which it may be used.

    ``ours`` tells one that this lease asked for from one that it found, and that may be dead already.
    """

    value: str
    good_until: float
    ours: bool = True

    def __repr__(self) -> str:
        return f"Token(good_until={self.good_until:.0f})"


class TokenLease:
    """The shared token of one key at one token URL. ``request`` asks the ODS for a new one."""

    def __init__(self, identity: str, request: Callable[[], Token]) -> None:
        digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
        self._path = _private_folder() / f"{digest}.json"
        self._request = request
        self._held: Token | None = None
        self._lock = threading.Lock()

    def get(self, *, refused: Token | None = None) -> Token:
        """A token that is good now and is not ``refused``, the one the ODS just answered 401 to.

        However many threads and processes were refused the same token, one new one is asked for.
        """
        with self._lock:
            if self._held and self._usable(self._held, refused):
                return self._held
            with self._file_lock():
                stored = self._read()
                if stored is None or not self._usable(stored, refused):
                    stored = self._request()
                    self._write(stored)
            self._held = stored
            return stored

    @staticmethod
    def _usable(token: Token, refused: Token | None) -> bool:
        return time.time() < token.good_until and (refused is None or token.value != refused.value)

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> Token | None:
        try:
            content = json.loads(self._path.read_text())
            return Token(str(content["value"]), float(content["good_until"]), ours=False)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _write(self, token: Token) -> None:
        part = self._path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump({"value": token.value, "good_until": token.good_until}, stream)
        part.replace(self._path)


def read_token(document: Mapping[str, Any], asked: float) -> Token:
    """The token in an OAuth answer to what was asked at ``asked`` (epoch seconds). Raises UnusableBody."""
    value = document.get("access_token")
    if not isinstance(value, str) or not value:
        raise UnusableBody("the token answer has no access_token")
    try:
        seconds = float(document.get("expires_in", DEFAULT_SECONDS))
    except (TypeError, ValueError):
        seconds = DEFAULT_SECONDS
    return Token(value, asked + max(seconds - RENEW_BEFORE_SECONDS, seconds / 2))


def _private_folder() -> Path:
    """A folder of ours alone: another user who made it first could read or plant tokens."""
    folder = Path(tempfile.gettempdir()) / f"edfi-dagster-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        return _folder_of_this_process()
    if state.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


@cache
def _folder_of_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="edfi-dagster-"))
