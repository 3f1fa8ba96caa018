"""What an ODS offers, by its own OpenAPI documents, beside what the configuration declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from edfi_dagster.config import EndpointSelection, Platform, TenantYear, normalise_endpoint
from edfi_dagster.health.documents import Described, described
from edfi_dagster.health.probe import ProbedOds, TokenInfo, probed
from edfi_dagster.ods.answers import Answer
from edfi_dagster.ods.catalogue import (
    DESCRIPTOR,
    RESOURCE,
    Kind,
    catalogued_standards,
    endpoints_of,
    standard_endpoints,
    without_catalogue,
)
from edfi_dagster.ods.errors import EdFiError, NotPermitted, RequestRefused, UnusableBody

_READ = "Read"
_ALL_QUESTIONS_SECONDS = 60.0


class Standing(StrEnum):
    """Where an endpoint is found: in the configuration, in the ODS's documents, or in both."""

    DECLARED = "declared"
    NEW = "new"
    MISSING = "missing"


@dataclass(frozen=True)
class Offer:
    """One endpoint. ``is_known`` tells that the data standard's catalogue has it; ``is_permitted`` None: not asked."""

    namespace: str
    name: str
    kind: Kind
    standing: Standing
    is_known: bool
    is_permitted: bool | None = None

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.name}"

    def document(self) -> dict[str, Any]:
        return {
            "endpoint": self.path,
            "kind": self.kind,
            "standing": str(self.standing),
            "in_catalogue": self.is_known,
            "permitted": self.is_permitted,
        }


def discover_offers(
    platform: Platform, pair: TenantYear, base_url: str, *, tell: Callable[[str], None]
) -> list[Offer]:
    """Every endpoint that the ODS offers or the configuration declares, resources first.

    Whether the key may read one comes from its claims (7.3 and later), else from one small request for each that is
    offered, for a minute at most. Raises EdFiError; OdsNotReady where the ODS publishes no documents.
    """
    with probed(platform, pair, base_url) as ods:
        offered = {kind: described(ods, kind) for kind in (RESOURCE, DESCRIPTOR)}
        offers = list(_compare(platform, pair, offered))
        if lacking := without_catalogue(ods.discovery.data_model_version):
            tell(
                f"{pair}: {lacking}; what no catalogue has is taken with in_catalogue: false, as --yaml writes it"
            )
        ods.patience.begin()
        info = ods.token_info()
        if info and info.operations:
            return [_by_claims(offer, info) for offer in offers]
        tell(f"asking {pair} which of {sum(map(len, offered.values()))} endpoints the key may read")
        return _by_asking(ods, offers)


def _compare(platform: Platform, pair: TenantYear, offered: Mapping[Kind, Described]) -> Iterator[Offer]:
    declared = {normalise_endpoint(e.namespace, e.name): e for e in endpoints_of(platform, pair)}
    standard = standard_endpoints(platform.ods(pair).extract.data_standard)
    known = {normalise_endpoint(e.namespace, e.name) for e in standard}
    for kind, endpoints in offered.items():
        for normal, found in endpoints.items():
            standing = Standing.DECLARED if normal in declared else Standing.NEW
            yield Offer(found.namespace, found.name, kind, standing, normal in known)
        for normal, endpoint in declared.items():
            if endpoint.kind == kind and normal not in endpoints:
                yield Offer(endpoint.namespace, endpoint.name, kind, Standing.MISSING, normal in known)


def _by_claims(offer: Offer, info: TokenInfo) -> Offer:
    if offer.standing == Standing.MISSING or not _is_mentioned(offer.kind, info):
        return offer
    return _permitted(offer, _READ in info.operations.get(offer.path.lower(), frozenset()))


def _is_mentioned(kind: Kind, info: TokenInfo) -> bool:
    """Whether the claims speak of this kind at all: what they never mention they do not refuse."""
    return any(path.endswith("descriptors") == (kind == DESCRIPTOR) for path in info.operations)


def _by_asking(ods: ProbedOds, offers: Sequence[Offer]) -> list[Offer]:
    ods.patience.begin(_ALL_QUESTIONS_SECONDS)
    with ThreadPoolExecutor(ods.settings.extract.max_concurrent_requests, "ask") as asking:
        return list(asking.map(partial(_asked, ods), offers))


def _asked(ods: ProbedOds, offer: Offer) -> Offer:
    """Whether its first row can be read; not known where the ODS gives no such answer, or there is no time left."""
    if offer.standing == Standing.MISSING or ods.patience.is_over:
        return offer
    try:
        ods.get(f"{ods.url('dataManagementApi')}/{offer.path}", {"limit": "1"}, _unread, retries=1)
    except NotPermitted:
        return _permitted(offer, False)
    except (RequestRefused, UnusableBody):
        return offer
    except EdFiError:
        ods.patience.end()
        return offer
    return _permitted(offer, True)


def _permitted(offer: Offer, is_permitted: bool) -> Offer:
    return Offer(offer.namespace, offer.name, offer.kind, offer.standing, offer.is_known, is_permitted)


def _unread(answer: Answer) -> None:
    """Only the status counts."""


# -- to be pasted -----------------------------------------------------------------------------------------


def selections(platform: Platform, offers: Sequence[Offer]) -> dict[str, dict[str, dict[str, Any]]]:
    """What to write under ``extract``: what stands there, and the new endpoints that the key may read."""
    return {
        f"{kind}s": {
            **_written(platform.extract.selection("resources" if kind == RESOURCE else "descriptors")),
            **{_short(offer): _options(offer) for offer in new_ones(offers, kind)},
        }
        for kind in (RESOURCE, DESCRIPTOR)
    }


def new_ones(offers: Sequence[Offer], kind: Kind) -> list[Offer]:
    """The new endpoints of a kind that the key may read, or for all that is known may."""
    return [
        o for o in offers if o.kind == kind and o.standing == Standing.NEW and o.is_permitted is not False
    ]


def _written(selection: EndpointSelection) -> dict[str, dict[str, Any]]:
    return {
        name: options.model_dump(mode="json", exclude_unset=True) for name, options in selection.root.items()
    }


def _options(offer: Offer) -> dict[str, Any]:
    """What an endpoint needs to be taken: in a namespace of the standard, that it is not there by mistake."""
    catalogued = {e.namespace for name in catalogued_standards() for e in standard_endpoints(name)}
    return {"in_catalogue": False} if not offer.is_known and offer.namespace in catalogued else {}


def _short(offer: Offer) -> str:
    return offer.name if offer.namespace == "ed-fi" else offer.path
