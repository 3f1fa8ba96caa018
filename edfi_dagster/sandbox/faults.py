"""Faults put into answers on purpose: errors, broken connections, broken bodies, slowness."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from edfi_dagster.sandbox.gateways import PAGES

Action = Literal["status", "reset", "truncate", "stall", "invalid_json", "html", "slow"]
ACTIONS: tuple[str, ...] = get_args(Action)


@dataclass
class Fault:
    """One rule. ``path`` is searched in the request path (any casing).

    It skips ``after`` matching requests, then strikes ``times`` of them (``None``: all), each with
    probability ``rate`` if given. ``slow`` answers normally after ``seconds``; ``stall`` sends half the
    body and then nothing for ``seconds``; ``truncate`` closes after half of it; ``reset`` sends nothing.
    ``page`` names an answer of ``gateways.PAGES``; a 403 or 404 without page and body is the ODS's own.
    """

    path: str = ""
    method: str | None = None
    status: int = 503
    times: int | None = None
    after: int = 0
    rate: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    action: Action = "status"
    seconds: float = 0.0
    page: str | None = None
    hits: int = 0
    seen: int = 0

    def strikes(self, method: str, path: str, chance: random.Random) -> bool:
        if self.method is not None and self.method.upper() != method:
            return False
        if not re.search(self.path, path, re.IGNORECASE):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.hits >= self.times):
            return False
        if self.rate is not None and chance.random() >= self.rate:
            return False
        self.hits += 1
        return True


class Faults:
    """The rules of a server; the first one that strikes decides."""

    def __init__(self, seed: int = 1) -> None:
        self._rules: list[Fault] = []
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def add(
        self,
        path: str = "",
        *,
        method: str | None = None,
        status: int = 503,
        times: int | None = None,
        after: int = 0,
        rate: float | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        action: Action = "status",
        seconds: float = 0.0,
        page: str | None = None,
    ) -> Fault:
        """Add a rule; see ``Fault``. Raises ``ValueError`` for an unknown action or page, or a bad pattern."""
        if page is not None and page not in PAGES:
            raise ValueError(f"unknown page {page!r}; one of {', '.join(PAGES)}")
        if action not in ACTIONS:
            raise ValueError(f"unknown action {action!r}; one of {', '.join(ACTIONS)}")
        try:
            re.compile(path)
        except re.error as error:
            raise ValueError(f"{path!r} is no regular expression: {error}") from None
        rule = Fault(
            path, method, status, times, after, rate, dict(headers or {}), body, action, seconds, page
        )
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    @property
    def hits(self) -> int:
        """How many requests have been struck by the present rules."""
        return sum(rule.hits for rule in self._rules)

    def strike(self, method: str, path: str) -> Fault | None:
        with self._lock:
            return next((rule for rule in self._rules if rule.strikes(method, path, self._chance)), None)
