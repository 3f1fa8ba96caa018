"""What the ODS itself publishes of its endpoints, asked once a run and only when something needs it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from edfi_dagster.ods.errors import NotOffered, NotPermitted, UnusableBody
from edfi_dagster.ods.openapi import DescribedEndpoint, described_endpoints
from edfi_dagster.ods.session import Answer, OdsSession


class PublishedEndpoints:
    """The endpoints in the ODS's OpenAPI documents; none where it publishes no documents."""

    def __init__(self, session: OdsSession) -> None:
        self._session = session
        self._lock = threading.Lock()

    def offers(self, path: str) -> bool:
        """Whether ``ed-fi/students`` is listed; True where there is no list to look at."""
        endpoints = self._all()
        return not endpoints or path.lower() in endpoints

    def key(self, path: str) -> Mapping[str, str]:
        """Flat name → JSON path of the endpoint's natural key; empty where it is not published."""
        endpoint = self._all().get(path.lower())
        return dict(zip(endpoint.key_names, endpoint.key, strict=True)) if endpoint else {}

    def _all(self) -> Mapping[str, DescribedEndpoint]:
        with self._lock:
            return self._endpoints

    @cached_property
    def _endpoints(self) -> Mapping[str, DescribedEndpoint]:
        found: dict[str, DescribedEndpoint] = {}
        for section in ("resources", "descriptors"):
            url = f"{self._session.url('openApiMetadata')}/data/v3/{section}/swagger.json"
            try:
                document = self._session.get(url, {}, _document, endpoint=f"{section} document")
            except (NotOffered, NotPermitted):
                continue
            found |= {f"{e.namespace}/{e.name}".lower(): e for e in described_endpoints(document)}
        return found


def _document(answer: Answer) -> Mapping[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError:
        raise UnusableBody("the OpenAPI document is not JSON") from None
    if not isinstance(document, dict):
        raise UnusableBody("the OpenAPI document is not a JSON object")
    return document
