"""What one sandbox process serves: its ODSs, tokens, faults, hooks and the record of requests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from edfi_dagster.sandbox.faults import Faults
from edfi_dagster.sandbox.oauth import Tokens
from edfi_dagster.sandbox.store import Store

API_VERSION = "7.3"
KEPT_REQUESTS = 200_000


@dataclass(frozen=True)
class RequestInfo:
    """One request: ``path`` without host and query, ``query`` with names as sent, ``ods`` like
    ``grand_bend/2025``; ``status`` is 0 until it is answered."""

    method: str
    path: str
    query: Mapping[str, str]
    ods: str
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 0

    def answered(self, status: int) -> RequestInfo:
        return replace(self, status=status)


Hook = Callable[[RequestInfo], None]


class Requests(deque[RequestInfo]):
    """The requests answered so far, oldest first (the last 200,000 of them)."""

    def __init__(self) -> None:
        super().__init__(maxlen=KEPT_REQUESTS)

    def matching(self, fragment: str, method: str | None = None) -> list[RequestInfo]:
        """Those whose path holds a fragment, in any casing."""
        wanted = fragment.lower()
        return [r for r in tuple(self) if wanted in r.path.lower() and method in (None, r.method)]


@dataclass
class Settings:
    """What a host configures: page limit, token life, key, and latency per request in seconds."""

    max_page: int = 500
    token_seconds: int = 1800
    key: str = "sandbox"
    secret: str = "sandbox-secret"  # noqa: S105 - documented and public, it protects made-up data
    latency: float = 0.0


class Site:
    """The state behind the routes. ``stores`` maps an ODS's path (``""`` without prefix) to it."""

    def __init__(self, stores: Iterable[Store], settings: Settings, seed: int = 1) -> None:
        self.stores = {store.name: store for store in stores}
        self.settings = settings
        self.faults = Faults(seed)
        self.requests = Requests()
        self.before_request: list[Hook] = []
        self.after_response: list[Hook] = []
        self._tokens: dict[str, Tokens] = {}
        self._lock = threading.Lock()
        self._by_segments = {tuple(s for s in name.lower().split("/") if s): name for name in self.stores}
        self._depths = sorted({len(segments) for segments in self._by_segments}, reverse=True)

    def locate(self, segments: list[str]) -> tuple[Store | None, list[str]]:
        """The ODS that a path's prefix names, and the segments after it."""
        for depth in self._depths:
            name = self._by_segments.get(tuple(s.lower() for s in segments[:depth]))
            if name is not None:
                return self.stores[name], segments[depth:]
        return None, segments

    def tokens(self, store: Store) -> Tokens:
        """The tokens of an ODS's tenant: its years share one security store."""
        tenant = store.name.split("/")[0]
        with self._lock:
            if tenant not in self._tokens:
                s = self.settings
                self._tokens[tenant] = Tokens(s.key, s.secret, s.token_seconds)
            return self._tokens[tenant]

    def expire_tokens(self) -> None:
        for tokens in self._tokens.values():
            tokens.expire_all()
