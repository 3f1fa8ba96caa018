"""What the ODS itself publishes of its endpoints, asked once a run and only when something needs it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping

from edfi_dagster.ods.catalogue import DESCRIPTOR, RESOURCE, Kind
from edfi_dagster.ods.errors import OdsUnreachable, RequestRefused, UnusableBody
from edfi_dagster.ods.openapi import DescribedEndpoint, described_endpoints
from edfi_dagster.ods.session import Answer, OdsSession


class PublishedEndpoints:
    """The endpoints in the ODS's OpenAPI documents; none of a kind whose document cannot be had."""

    def __init__(self, session: OdsSession) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._endpoints: dict[Kind, Mapping[str, DescribedEndpoint]] = {}

    def offers(self, path: str) -> bool:
        """Whether ``ed-fi/students`` is listed; True where there is no list to look at."""
        endpoints = self._listed(_kind(path))
        return not endpoints or path.lower() in endpoints

    def key(self, path: str) -> Mapping[str, str]:
        """Flat name → JSON path of the endpoint's natural key; empty where it is not published."""
        endpoint = self._listed(_kind(path)).get(path.lower())
        return dict(zip(endpoint.key_names, endpoint.key, strict=True)) if endpoint else {}

    def _listed(self, kind: Kind) -> Mapping[str, DescribedEndpoint]:
        with self._lock:
            if kind not in self._endpoints:
                self._endpoints[kind] = self._read(kind)
            return self._endpoints[kind]

    def _read(self, kind: Kind) -> Mapping[str, DescribedEndpoint]:
        url = f"{self._session.url('openApiMetadata')}/data/v3/{kind}s/swagger.json"
        try:
            found = self._session.get(url, {}, _described, endpoint=f"{kind}s document")
        except (RequestRefused, OdsUnreachable, UnusableBody):
            # The document is a help, not a need: without it a refusal stays a failure, and a key unknown.
            return {}
        return {f"{endpoint.namespace}/{endpoint.name}".lower(): endpoint for endpoint in found}


def _kind(path: str) -> Kind:
    return DESCRIPTOR if path.lower().endswith("descriptors") else RESOURCE


def _described(answer: Answer) -> list[DescribedEndpoint]:
    try:
        return list(described_endpoints(json.loads(answer.body)))
    except (ValueError, AttributeError, TypeError, KeyError):
        raise UnusableBody("the body is no OpenAPI document") from None
