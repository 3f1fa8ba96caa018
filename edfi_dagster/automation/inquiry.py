"""Asking many ODSs for their newest change version at once, within the time that a sensor's tick has."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field

from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.lake.pull import newest_to_read
from edfi_dagster.ods.errors import EdFiError, OdsUnreachable
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox.embedded import SANDBOX_SCHEME, open_sandbox

Ask = Callable[[TenantYear], int | None]
"""The newest change version of the pair's ODS, None where it has none. Raises EdFiError or ConfigError."""

_THREADS = 32
# A tick that waits for one ODS keeps the others waiting; the run that follows has all the patience there is.
_TIMEOUTS = (5.0, 10.0)
_TRIED_AGAIN_AFTER_SECONDS = 30.0


@dataclass
class Answers:
    """What came of asking. ``silent`` says why there is no answer; ``unasked`` had no turn, and are first next time."""

    newest: dict[TenantYear, int | None] = field(default_factory=dict)
    silent: dict[TenantYear, str] = field(default_factory=dict)
    unasked: list[TenantYear] = field(default_factory=list)


class Inquiry:
    """Asks every pair once per call, side by side, for at most ``seconds`` altogether.

    Who had no turn within the time begins the next call, so an ODS that hangs costs its neighbours one tick; it is not
    asked again before it has let go of the thread that waits for it.
    """

    def __init__(self, ask: Ask, *, seconds: float, threads: int = _THREADS) -> None:
        self._ask = ask
        self._seconds = seconds
        self._threads = threads
        self._first: TenantYear | None = None
        self._hanging: dict[TenantYear, Future[int | None]] = {}

    def answers(self, pairs: Sequence[TenantYear]) -> Answers:
        """The answers of ``pairs``; never raises for what an ODS does."""
        found = Answers()
        self._hanging = {pair: asked for pair, asked in self._hanging.items() if not asked.done()}
        turns = []
        for pair in self._rotated(pairs):
            if pair in self._hanging:
                found.silent[pair] = f"{pair}: still waits for an answer of an earlier tick"
            else:
                turns.append(pair)
        if not turns:
            return found
        pool = ThreadPoolExecutor(min(self._threads, len(turns)), "ask")
        asked = {pair: pool.submit(self._ask, pair) for pair in turns}
        wait(asked.values(), timeout=self._seconds)
        pool.shutdown(wait=False, cancel_futures=True)
        for pair, answer in asked.items():
            self._note(found, pair, answer)
        self._first = found.unasked[0] if found.unasked else self._first
        return found

    def _rotated(self, pairs: Sequence[TenantYear]) -> list[TenantYear]:
        first = pairs.index(self._first) if self._first in pairs else 0
        return [*pairs[first:], *pairs[:first]]

    def _note(self, found: Answers, pair: TenantYear, answer: Future[int | None]) -> None:
        if answer.cancelled():
            found.unasked.append(pair)
        elif not answer.done():
            self._hanging[pair] = answer
            found.silent[pair] = f"{pair}: no answer in {self._seconds:g} s"
        elif (error := answer.exception()) is None:
            found.newest[pair] = answer.result()
        elif isinstance(error, EdFiError | ConfigError):
            found.silent[pair] = str(error) if str(pair) in str(error) else f"{pair}: {error}"
        else:  # its text may hold anything
            found.silent[pair] = f"{pair}: {type(error).__name__}"


class OdsSessions:
    """Asks by sessions that stay open between ticks: one request each, the token and the addresses being known."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lock = threading.Lock()
        self._sessions: dict[TenantYear, OdsSession] = {}
        self._resources = ExitStack()
        self._sandbox: str | None = None

    def newest(self, pair: TenantYear) -> int | None:
        """The newest change version that a run would read; None where it reads without. Is an ``Ask``."""
        session = self._session(pair)
        try:
            return newest_to_read(session)
        except BaseException:
            self._forget(pair)  # the next time may find another address, another key
            raise

    def close(self) -> None:
        """Close every session, and let go of the embedded sandbox."""
        with self._lock:
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()
            self._resources.close()
            self._sandbox = None

    def _session(self, pair: TenantYear) -> OdsSession:
        with self._lock:
            if pair not in self._sessions:
                settings = self._platform.ods(pair)
                self._sessions[pair] = OdsSession(
                    settings,
                    pair,
                    base_url=self._address(settings.base_url),
                    timeouts=_TIMEOUTS,
                    sleep=_Impatience(pair),
                )
            return self._sessions[pair]

    def _address(self, base_url: str) -> str:
        if not base_url.startswith(SANDBOX_SCHEME):
            return base_url
        if self._sandbox is None:
            self._sandbox = self._resources.enter_context(open_sandbox(self._platform))
        return f"{self._sandbox}/{base_url.removeprefix(SANDBOX_SCHEME)}"

    def _forget(self, pair: TenantYear) -> None:
        with self._lock:
            session = self._sessions.pop(pair, None)
        if session is not None:
            session.close()


class _Impatience:
    """In the place of waiting before a retry: a connection that had gone stale may be tried again at once, nothing else."""

    def __init__(self, pair: TenantYear) -> None:
        self._pair = pair
        self._last = -math.inf

    def __call__(self, seconds: float) -> None:
        now = time.monotonic()
        if now - self._last < _TRIED_AGAIN_AFTER_SECONDS:
            raise OdsUnreachable(
                "gives no usable answer now; `edfi-dagster check` says more", pair=self._pair
            )
        self._last = now
