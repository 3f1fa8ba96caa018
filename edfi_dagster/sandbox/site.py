"""What one sandbox process serves: its ODSs, tokens, faults, hooks and the record of requests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from edfi_dagster.sandbox.addresses import Address, AddressBook
from edfi_dagster.sandbox.faults import Faults
from edfi_dagster.sandbox.generations import NEWEST, Generation
from edfi_dagster.sandbox.oauth import Tokens
from edfi_dagster.sandbox.store import Store

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


@dataclass(frozen=True)
class Located:
    """What a path leads to. ``base``: the deployment's folder, ``None`` where there is none; ``store``: the ODS that
    the path names; ``rest``: the path from the API's area on, without instance and year."""

    base: tuple[str, ...] | None
    store: Store | None
    rest: list[str]


class Site:
    """The state behind the routes. ``stores`` maps an ODS's name (``tenant/year``, or ``""``) to it."""

    def __init__(
        self,
        stores: Iterable[Store],
        settings: Settings,
        seed: int = 1,
        generation: Generation = NEWEST,
        mode: str | None = None,
    ) -> None:
        self.stores = {store.name: store for store in stores}
        self.settings = settings
        self.generation = generation
        self.book = AddressBook(self.stores, generation, mode)
        self.faults = Faults(seed)
        self.requests = Requests()
        self.before_request: list[Hook] = []
        self.after_response: list[Hook] = []
        self.between_reads: list[Hook] = []
        self._tokens: dict[tuple[str, ...], Tokens] = {}
        self._lock = threading.Lock()

    def locate(self, segments: list[str]) -> Located:
        place = self.book.locate(segments)
        return Located(place.base, None if place.ods is None else self.stores[place.ods], place.rest)

    def address(self, store: Store) -> Address:
        return self.book.addresses[store.name]

    def tokens(self, store: Store) -> Tokens:
        """The tokens that open an ODS."""
        security = self.book.security_of(store.name)
        with self._lock:
            if security not in self._tokens:
                s = self.settings
                self._tokens[security] = Tokens(
                    s.key, s.secret, s.token_seconds, self.generation.tokens_per_key
                )
            return self._tokens[security]

    def routed(self, store: Store, token: str) -> Store:
        """The ODS that a token leads to, where its key is routed to another than the path names."""
        return self.stores[self.tokens(store).routed.get(token, store.name)]

    def expire_tokens(self) -> None:
        for tokens in self._tokens.values():
            tokens.expire_all()
