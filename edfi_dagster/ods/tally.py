"""How many requests something took."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass
class Tally:
    """Requests sent and retries among them, for one pull; safe to share between threads."""

    requests: int = 0
    retries: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, *, retry: bool) -> None:
        with self._lock:
            self.requests += 1
            self.retries += retry
