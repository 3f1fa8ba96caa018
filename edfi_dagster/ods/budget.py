"""How many requests an ODS gets at once, over all endpoints, and whose turn is next.

A free place goes to the waiting owner with the fewest requests in flight, and among equals to who has waited
longest: an endpoint of a million rows cannot keep three hundred small ones waiting. The number allowed is halved
when the ODS shows that it suffers, and comes back one by one while it answers well.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

# An answer shows a suffering ODS if it took this many times what answers take, and at least so many seconds.
SLOW_TIMES = 8.0
SLOW_SECONDS = 5.0
# What answers take is their moving average; it means nothing before the first few have come.
_WEIGHT = 1 / 16
_FEWEST_ANSWERS = 16


class Turn:
    """One request's place. ``suffered`` notes that the ODS could not bear it."""

    def __init__(self, halvings: int) -> None:
        self.has_suffered = False
        self._halvings = halvings

    def suffered(self) -> None:
        """To be told of 429, 503, 504 and time-outs."""
        self.has_suffered = True

    def began_after(self, halvings: int) -> bool:
        """Whether it was sent under the number that is allowed now."""
        return self._halvings == halvings


class _Waiting:
    """A thread that waits for its place; ``number`` is its place in the queue."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.called = threading.Event()


class Budget:
    """At most ``limit`` requests in flight. Threads share it; ``clock`` gives seconds."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._allowed = limit
        self._in_flight: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._numbers = count()
        self._halvings = 0
        self._good = 0
        self._answers = 0
        self._typical = 0.0

    @property
    def allowed(self) -> int:
        """How many may be in flight now: from 1 to ``limit``."""
        return self._allowed

    @contextmanager
    def turn(self, owner: str) -> Iterator[Turn]:
        """Wait for a place, hold it while the block runs.

        A block that ends without an exception and without ``suffered`` counts as a good answer.
        """
        self._enter(owner)
        turn, began, is_good = Turn(self._halvings), self._clock(), False
        try:
            yield turn
            is_good = not turn.has_suffered
        finally:
            self._leave(owner, turn, self._clock() - began if is_good else None)

    def _enter(self, owner: str) -> None:
        with self._lock:
            if not self._waiting and self._in_flight.total() < self._allowed:
                self._in_flight[owner] += 1
                return
            place = _Waiting(next(self._numbers))
            self._waiting.setdefault(owner, deque()).append(place)
        try:
            place.called.wait()
        except BaseException:
            # Interrupted: a place that was given meanwhile must not stay taken.
            with self._lock:
                if place.called.is_set():
                    self._free(owner)
                else:
                    self._forget(owner, place)
                self._call()
            raise

    def _leave(self, owner: str, turn: Turn, seconds: float | None) -> None:
        """``seconds`` is what a good answer took, None for any other."""
        with self._lock:
            self._free(owner)
            if turn.has_suffered or (seconds is not None and self._is_slow(seconds)):
                self._halve(turn)
            elif seconds is not None:
                self._restore()
            self._call()

    def _is_slow(self, seconds: float) -> bool:
        slow = self._answers >= _FEWEST_ANSWERS and seconds > max(SLOW_SECONDS, SLOW_TIMES * self._typical)
        weight = max(_WEIGHT, 1 / (self._answers + 1))
        self._typical += weight * (seconds - self._typical)
        self._answers += 1
        return slow

    def _halve(self, turn: Turn) -> None:
        # What was sent before the last halving says nothing of the number allowed since.
        if turn.began_after(self._halvings):
            self._allowed = max(1, self._allowed // 2)
            self._halvings += 1
        self._good = 0

    def _restore(self) -> None:
        self._good += 1
        if self._good >= self._allowed < self.limit:
            self._allowed += 1
            self._good = 0

    def _call(self) -> None:
        """Give the free places to those who wait."""
        while self._waiting and self._in_flight.total() < self._allowed:
            owner = min(
                self._waiting, key=lambda name: (self._in_flight[name], self._waiting[name][0].number)
            )
            place = self._waiting[owner][0]
            self._forget(owner, place)
            self._in_flight[owner] += 1
            place.called.set()

    def _forget(self, owner: str, place: _Waiting) -> None:
        self._waiting[owner].remove(place)
        if not self._waiting[owner]:
            del self._waiting[owner]

    def _free(self, owner: str) -> None:
        self._in_flight[owner] -= 1
        if not self._in_flight[owner]:
            del self._in_flight[owner]
