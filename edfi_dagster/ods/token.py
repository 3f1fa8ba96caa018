"""One bearer token per key, shared by the threads of a process and the processes of a machine.

ODS/API 7.3 allows 15 unexpired tokens per key and then answers 429, so a token per worker does not work
(api.md: ``BearerTokenPerClientLimit``). The token lies in a file that only its owner may read, under a
file lock; whoever finds it too old takes a new one while the others wait. Where no such file can be made, the
sessions of one process share it.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.answers import Transient
from edfi_dagster.ods.errors import EdFiError, OdsUnreachable, UnusableBody
from edfi_dagster.ods.shelf import Locked, find_shelf

# Renewed this long before its end, so that no request is sent with a token about to expire.
RENEW_BEFORE_SECONDS = 60
# What an ODS is shipped with, for one that does not say (api.md section 2).
DEFAULT_SECONDS = 1800.0
# No ODS gives one for longer; whoever says so is not believed, nor is a file.
LONGEST_SECONDS = 86_400.0
# A clock that is kept right may go back by less.
CLOCK_SECONDS = 5.0
# A key may be asked for so many tokens freely; beyond it, each takes one refusal in a row more.
FREE_TOKENS = 6


@dataclass(frozen=True)
class Token:
    """A bearer token, the clock time (epoch seconds) when it was asked for, and how long it lives.

    ``ours`` tells one that this lease asked for from one that it found, and that may be dead already.
    """

    value: str
    asked: float
    seconds: float = DEFAULT_SECONDS
    ours: bool = True

    @property
    def good_until(self) -> float:
        """Until when it is used: some time before its end."""
        return self.asked + max(self.seconds - RENEW_BEFORE_SECONDS, self.seconds / 2)

    def is_good(self, now: float) -> bool:
        """One asked for in the future was written before the clock was set back: how old it is, nobody knows."""
        return self.asked - CLOCK_SECONDS <= now < self.good_until and self.seconds <= LONGEST_SECONDS

    def __repr__(self) -> str:
        return f"Token(good_until={self.good_until:.0f})"


@dataclass(frozen=True)
class _Record:
    """What is shared: the token, and when each that was asked for expires."""

    token: Token | None = None
    ends: tuple[float, ...] = ()

    def alive(self, now: float) -> tuple[float, ...]:
        return tuple(end for end in self.ends if now < end <= now + LONGEST_SECONDS)


class TokenLease:
    """The shared token of one key at one token URL. ``request`` asks the ODS for a new one.

    ``pair`` is whom an error names.
    """

    def __init__(
        self, identity: str, request: Callable[[], Token], *, pair: TenantYear | None = None
    ) -> None:
        self._name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        self._request = request
        self._pair = pair
        self._lock = threading.Lock()
        self._held: Token | None = None
        self._failure: EdFiError | None = None
        self._failures = 0
        self._accepted_at = 0.0
        self._refusals = 0

    def get(self, *, refused: Token | None = None) -> Token:
        """A token that is good now and is not ``refused``, the one the ODS just answered 401 to.

        However many threads and processes were refused the same token, one new one is asked for; and one failure
        to get it is the failure of all threads that waited for it. Raises what ``request`` raises; OdsUnreachable if
        another process keeps the lock; Transient if there are so many tokens that ``refused`` should be tried again.
        """
        failures = self._failures
        with self._lock:
            if self._held and self._is_usable(self._held, refused):
                return self._held
            if self._failure and self._failures != failures:
                raise self._failure
            try:
                self._held = self._shared(refused)
            except EdFiError as error:
                self._failure, self._failures = error, self._failures + 1
                raise
            return self._held

    def accept(self) -> None:
        """To be told of every answer to one of its tokens that is not 401."""
        self._accepted_at, self._refusals = time.time(), 0

    def has_accepted_since(self, token: Token) -> bool:
        """Whether the ODS took a token of this key since ``token`` was asked for."""
        return self._accepted_at >= token.asked

    @staticmethod
    def _is_usable(token: Token, refused: Token | None) -> bool:
        return token.is_good(time.time()) and (refused is None or token.value != refused.value)

    def _shared(self, refused: Token | None) -> Token:
        shelf = find_shelf(self._name)
        try:
            with shelf.locked():
                record = _read_record(shelf.read())
                if record.token and self._is_usable(record.token, refused):
                    return record.token
                self._ration(record, refused)
                token = self._request()
                self._refusals = 0
                ends = (*record.alive(time.time()), token.asked + token.seconds)
                shelf.write(
                    {"value": token.value, "asked": token.asked, "seconds": token.seconds, "ends": ends}
                )
                return token
        except Locked as error:
            raise OdsUnreachable(f"no token: {error}", pair=self._pair) from None

    def _ration(self, record: _Record, refused: Token | None) -> None:
        """A 401 that does not mean the token (a gateway's, a replica's that lags) must not use up the key's tokens."""
        now = time.time()
        if refused is None or record.token is None or not record.token.is_good(now):
            return
        self._refusals += 1
        if self._refusals <= len(record.alive(now)) - FREE_TOKENS:
            raise Transient("HTTP 401, and the key has many tokens already")


def read_token(document: Mapping[str, Any], asked: float) -> Token:
    """The token in an OAuth answer to what was asked at ``asked`` (epoch seconds). Raises UnusableBody."""
    value = document.get("access_token")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        raise UnusableBody("the token answer has no access_token")
    return Token(value, asked, _lifetime(document.get("expires_in")))


def _lifetime(told: object) -> float:
    try:
        seconds = math.nan if isinstance(told, bool) else float(told)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_SECONDS
    return min(seconds, LONGEST_SECONDS) if seconds > 0 else DEFAULT_SECONDS


def _read_record(content: Any) -> _Record:
    """The record in what a shelf holds; an empty one where that is not a record of ours."""
    try:
        token = replace(
            read_token({"access_token": content["value"]}, float(content["asked"])),
            seconds=float(content["seconds"]),
            ours=False,
        )
        return _Record(token, tuple(float(end) for end in content["ends"]))
    except (ValueError, KeyError, TypeError, OverflowError, UnusableBody):
        return _Record()
