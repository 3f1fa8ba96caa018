"""The OpenAPI documents of an ODS, where a question cannot be answered without them."""

from __future__ import annotations

from collections.abc import Mapping

from edfi_dagster.config import normalise_endpoint
from edfi_dagster.health.probe import ProbedOds
from edfi_dagster.ods.answers import Answer
from edfi_dagster.ods.catalogue import Kind
from edfi_dagster.ods.errors import OdsNotReady, RequestRefused
from edfi_dagster.ods.openapi import DescribedEndpoint, read_document
from edfi_dagster.ods.published import LARGEST_DOCUMENT_BYTES, document_url

Described = Mapping[str, DescribedEndpoint]
"""Normalised name → endpoint."""

# Megabytes, which an ODS that has just started first has to write.
_SECONDS = 60.0


def described(ods: ProbedOds, kind: Kind) -> Described:
    """What the ODS publishes of its resources, or of its descriptors.

    Raises EdFiError; OdsNotReady where it publishes no such document.
    """
    url = document_url(ods, kind)
    if url is None:
        raise OdsNotReady(
            "an Ed-Fi 2 ODS publishes no OpenAPI documents; list its endpoints under extract.resources",
            pair=ods.pair,
        )
    ods.patience.begin(_SECONDS)
    try:
        return ods.get(url, {}, _read, endpoint=f"{kind}s document", largest=LARGEST_DOCUMENT_BYTES)
    except RequestRefused as error:
        raise OdsNotReady(
            f"the ODS does not publish {url} (HTTP {error.status}); have its host switch OpenAPI metadata on",
            pair=ods.pair,
        ) from None


def _read(answer: Answer) -> Described:
    found, _ = read_document(answer.body)
    return {normalise_endpoint(e.namespace, e.name): e for e in found}
