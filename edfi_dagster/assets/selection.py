"""What selected asset keys ask of each endpoint of a tenant and year."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys
from edfi_dagster.extract import Work
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind

_KINDS: tuple[RecordKind, ...] = (RECORDS, DELETES, KEY_CHANGES)


class Selection:
    """Those of other data standards ask nothing.

    Selected endpoints are pulled, and loaded when their raw table is selected too (descriptors, whose table is shared,
    always). A raw table selected alone loads what the lake holds for it.
    """

    def __init__(
        self, keys: AssetKeys, endpoints: Iterable[Endpoint], selected: Collection[dg.AssetKey]
    ) -> None:
        self.kinds: dict[str, set[RecordKind]] = {}
        self.tables: set[str] = set()
        self.works: list[Work] = []
        self.stored: list[Endpoint] = []
        for endpoint in endpoints:
            kinds = {kind for kind in _KINDS if keys.endpoint(endpoint, kind) in selected}
            table = keys.table(endpoint) in selected
            self.kinds[endpoint.path] = kinds
            if table:
                self.tables.add(endpoint.path)
            if kinds:
                self.works.append(Work(endpoint, frozenset(kinds), load=table or endpoint.is_descriptor))
            elif table:
                self.stored.append(endpoint)

    @property
    def paths(self) -> list[str]:
        """The endpoints of which something is asked."""
        return [*(work.endpoint.path for work in self.works), *(endpoint.path for endpoint in self.stored)]
