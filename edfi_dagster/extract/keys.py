"""Which natural key an endpoint has: by our catalogue, by the ODS's own document, or as the last pull knew it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edfi_dagster.lake.manifest import latest_manifest
from edfi_dagster.lake.pull import PullRun
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.catalogue import RESOURCE, Endpoint
from edfi_dagster.ods.pages import RECORDS
from edfi_dagster.ods.published import PublishedEndpoints


def keyed(endpoint: Endpoint, run: PullRun, published: PublishedEndpoints, standard: str) -> Endpoint:
    """The endpoint with its natural key; as the ODS publishes it where the catalogue of ``standard`` is not its own.

    While the ODS's document cannot be had, the key is that of the last manifest.
    """
    same_standard = f"{run.data_model_version}.".startswith(f"{standard}.")
    if endpoint.is_descriptor or (endpoint.key and same_standard):
        return endpoint
    key = published.key(endpoint.path)
    if not key and not published.lists(RESOURCE):
        key = _last_key(endpoint, run)
    return replace(endpoint, key=key)


def _last_key(endpoint: Endpoint, run: PullRun) -> Mapping[str, str]:
    try:
        last = latest_manifest(run.lake, run.pair, endpoint, RECORDS)
    except LakeError:  # an unknown key is no harm: then a key change refreshes the endpoint
        return {}
    return last.key if last else {}
