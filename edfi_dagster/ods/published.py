"""What the ODS itself publishes of its endpoints, asked once a run and only when something needs it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from edfi_dagster.ods import profiles
from edfi_dagster.ods.answers import Answer
from edfi_dagster.ods.catalogue import DESCRIPTOR, RESOURCE, Kind
from edfi_dagster.ods.errors import OdsUnreachable, RequestRefused, UnusableBody
from edfi_dagster.ods.openapi import DescribedEndpoint, read_document

if TYPE_CHECKING:
    from edfi_dagster.ods.session import OdsSession

# Some are of 10 MB; parsed they take many times their size.
LARGEST_DOCUMENT_BYTES = 64 * 2**20
# Ed-Fi 2 describes itself in another form; DMS, from 8, names its documents otherwise (api.md section 7).
_FIRST_WITH_DOCUMENTS, _FIRST_DMS = (3, 0), (8, 0)


@dataclass(frozen=True)
class _Document:
    """One OpenAPI document: endpoints by lower-case path, and the largest page in rows."""

    endpoints: Mapping[str, DescribedEndpoint] = field(default_factory=dict)
    page_limit: int | None = None


_NONE = _Document()


class PublishedEndpoints:
    """The endpoints in the ODS's OpenAPI documents; none of a kind whose document cannot be had.

    A path is an endpoint's, ``ed-fi/students``, in any casing.
    """

    def __init__(self, session: OdsSession) -> None:
        # The largest page that the ODS takes, in rows, once it has refused a larger one.
        self.largest_page: int | None = None
        self._session = session
        self._lock = threading.Lock()
        self._documents: dict[Kind, _Document] = {}
        self._profiles: dict[str, Mapping[str, str] | None] = {}

    def offers(self, path: str) -> bool:
        """Whether the endpoint is listed; True where there is no list to look at."""
        endpoints = self._document(_kind(path)).endpoints
        return not endpoints or path.lower() in endpoints

    def lists_address(self, path: str) -> bool | None:
        """Whether a path below the data address, ``ed-fi/students/deletes``, is listed; None where there is no list.

        What stands below a collection is listed with it, apart from ``deletes`` and ``keyChanges``.
        """
        namespace, _, rest = path.partition("/")
        name, _, part = rest.partition("/")
        collection = f"{namespace}/{name}"
        if not self.lists(_kind(collection)):
            return None
        endpoint = self._endpoint(collection)
        if endpoint is None:
            return False
        return {"deletes": endpoint.has_deletes, "keyChanges": endpoint.has_key_changes}.get(part, True)

    def key(self, path: str) -> Mapping[str, str]:
        """Flat name → JSON path of the endpoint's natural key; empty where it is not published."""
        endpoint = self._endpoint(path)
        return dict(zip(endpoint.key_names, endpoint.key, strict=True)) if endpoint else {}

    def better_key(self, path: str, key: Mapping[str, str]) -> Mapping[str, str]:
        """The endpoint's natural key where the ODS publishes another than ``key``; empty where it agrees or is silent."""
        endpoint = self._endpoint(path)
        return self.key(path) if endpoint and contradicts(endpoint, key) else {}

    def filters(self, path: str) -> frozenset[str]:
        """The query parameters of the endpoint's collection, as written; empty where it is not published."""
        endpoint = self._endpoint(path)
        return endpoint.filters if endpoint else frozenset()

    def has_key_changes(self, path: str) -> bool | None:
        """Whether the endpoint publishes changes of its keys; None where the endpoint is not published."""
        endpoint = self._endpoint(path)
        return endpoint.has_key_changes if endpoint else None

    def lists(self, kind: Kind) -> bool:
        """Whether the ODS publishes a list of these at all."""
        return bool(self._document(kind).endpoints)

    def page_limit(self) -> int | None:
        """The rows of the largest page that the ODS gives; None where it does not publish that."""
        return self._document(RESOURCE).page_limit

    def content_type(self, path: str, profile: str) -> str | None:
        """What is accepted of an endpoint's records by a profile; None where the profile does not cover the endpoint.

        By the profile's OpenAPI document, or where there is none by the rule, which takes every endpoint for covered.
        """
        with self._lock:
            if profile not in self._profiles:
                self._profiles[profile] = self._read_profile(profile)
            types = self._profiles[profile]
        if types is None:
            return profiles.content_type(path.rpartition("/")[2], profile)
        return types.get(path.lower())

    def _read_profile(self, profile: str) -> Mapping[str, str] | None:
        if not _FIRST_WITH_DOCUMENTS <= self._session.discovery.version < _FIRST_DMS:
            return None
        url = f"{self._session.url('openApiMetadata')}/profiles/{quote(profile, safe='')}/swagger.json"
        try:
            return self._session.get(
                url,
                {},
                lambda answer: profiles.content_types(answer.body),
                endpoint=f"document of profile {profile}",
                largest=LARGEST_DOCUMENT_BYTES,
            )
        except (RequestRefused, OdsUnreachable, UnusableBody):
            return None

    def _endpoint(self, path: str) -> DescribedEndpoint | None:
        return self._document(_kind(path)).endpoints.get(path.lower())

    def _document(self, kind: Kind) -> _Document:
        with self._lock:
            if kind not in self._documents:
                self._documents[kind] = self._read(kind)
            return self._documents[kind]

    def _read(self, kind: Kind) -> _Document:
        url = document_url(self._session, kind)
        if url is None:
            return _NONE
        try:
            return self._session.get(
                url, {}, _described, endpoint=f"{kind}s document", largest=LARGEST_DOCUMENT_BYTES
            )
        except (RequestRefused, OdsUnreachable, UnusableBody):
            # The document is a help, not a need: without it a refusal stays a failure, and a key unknown.
            return _NONE


def contradicts(endpoint: DescribedEndpoint, key: Mapping[str, str]) -> bool:
    """Whether an ODS marks another natural key than ``key`` (flat name → JSON path).

    A part that its document knows no parameter of is no contradiction: of two organizations in one key, documents up to
    data standard 5.2 may name only one (studentSpecialEducationProgramEligibilityAssociations).
    """
    marked = set(endpoint.key_names)
    unmarked = (key.keys() - marked) & endpoint.filters
    return bool(marked) and bool(marked - key.keys() or unmarked)


def document_url(session: OdsSession, kind: Kind) -> str | None:
    """Where an ODS publishes the OpenAPI document of its resources or descriptors; None for Ed-Fi 2, which has none."""
    version = session.discovery.version
    if version < _FIRST_WITH_DOCUMENTS:
        return None
    file = f"{kind}s/swagger.json" if version < _FIRST_DMS else f"{kind}s-spec.json"
    return f"{session.url('openApiMetadata')}/{file}"


def _kind(path: str) -> Kind:
    return DESCRIPTOR if path.lower().endswith("descriptors") else RESOURCE


def _described(answer: Answer) -> _Document:
    found, page_limit = read_document(answer.body)
    return _Document({f"{e.namespace}/{e.name}".lower(): e for e in found}, page_limit)
