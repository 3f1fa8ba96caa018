"""What a run did → the metadata that people read on each materialization."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys, partition_key
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.extract import EndpointResult, KindResult, Result
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind

Metadata = dict[str, dg.MetadataValue]


class Materializations:
    """The materializations of one run of one pair, and the totals for the shared tables."""

    def __init__(self, platform: Platform, keys: AssetKeys, pair: TenantYear, lake: LakeStore) -> None:
        self._tables = platform.tables
        self._keys = keys
        self._partition = partition_key(pair)
        self._lake = lake
        self._shared: dict[str, dict[str, int]] = {}

    def of_endpoint(
        self, result: EndpointResult, kinds: set[RecordKind], *, table: bool
    ) -> Iterator[dg.AssetMaterialization]:
        """One per selected kind that changed, and one for the raw table."""
        endpoint = result.endpoint
        for kind in (RECORDS, DELETES, KEY_CHANGES):
            of_kind = result.kinds.get(kind)
            if of_kind and of_kind.result in {Result.LOADED, Result.STORED}:
                self._note_shared(endpoint, kind, of_kind)
                if kind in kinds and of_kind.manifest:
                    yield self._materialization(
                        self._keys.endpoint(endpoint, kind), self._pulled(of_kind.manifest, of_kind)
                    )
        if table and result.table_changed and not endpoint.is_descriptor:
            yield self._materialization(self._keys.table(endpoint), self._table(result))

    def of_shared_tables(self) -> Iterator[dg.AssetMaterialization]:
        """One per shared table that got rows, for this run's partition."""
        for table, rows in self._shared.items():
            metadata: Metadata = {
                "edfi/rows_loaded": dg.MetadataValue.int(sum(rows.values())),
                "edfi/endpoints": dg.MetadataValue.int(len(rows)),
                "edfi/rows_by_endpoint": dg.MetadataValue.json(dict(sorted(rows.items()))),
            }
            yield self._materialization(self._keys.shared(table), metadata)

    def of_total_counts(self, counts: Mapping[str, int]) -> dg.AssetMaterialization:
        """The table of total counts, with what the ODS counted by name."""
        metadata: Metadata = {
            "edfi/rows_loaded": dg.MetadataValue.int(len(counts)),
            "edfi/total_count": dg.MetadataValue.int(sum(counts.values())),
            "edfi/total_count_by_endpoint": dg.MetadataValue.json(dict(sorted(counts.items()))),
        }
        return self._materialization(self._keys.shared(self._tables.total_counts), metadata)

    def _note_shared(self, endpoint: Endpoint, kind: RecordKind, of_kind: KindResult) -> None:
        table = {
            RECORDS: self._tables.descriptors if endpoint.is_descriptor else None,
            DELETES: self._tables.deletes,
            KEY_CHANGES: self._tables.key_changes,
        }[kind]
        if table and of_kind.result == Result.LOADED:
            self._shared.setdefault(table, {})[endpoint.snake] = of_kind.rows_loaded

    def _materialization(self, key: dg.AssetKey, metadata: Metadata) -> dg.AssetMaterialization:
        return dg.AssetMaterialization(asset_key=key, partition=self._partition, metadata=metadata)

    def _pulled(self, manifest: Manifest, of_kind: KindResult) -> Metadata:
        high = manifest.newest if manifest.max_change_version is None else manifest.max_change_version
        versions = (
            {}
            if high is None
            else {
                "edfi/min_change_version": dg.MetadataValue.int(manifest.min_change_version),
                "edfi/max_change_version": dg.MetadataValue.int(high),
            }
        )
        whole = {"dagster/partition_row_count": dg.MetadataValue.int(manifest.rows)} if manifest.full else {}
        return {
            **whole,
            "edfi/rows": dg.MetadataValue.int(manifest.rows),
            "edfi/expected_rows": dg.MetadataValue.int(manifest.expected_rows),
            "edfi/rows_loaded": dg.MetadataValue.int(of_kind.rows_loaded),
            **versions,
            "edfi/full_refresh": dg.MetadataValue.bool(manifest.full),
            "edfi/pull_timestamp": dg.MetadataValue.timestamp(manifest.pull_timestamp),
            "edfi/ods_version": dg.MetadataValue.text(manifest.ods_version),
            "edfi/data_model_version": dg.MetadataValue.text(manifest.data_model_version),
            "edfi/seconds": dg.MetadataValue.float(manifest.seconds),
            "edfi/requests": dg.MetadataValue.int(manifest.requests),
            "edfi/retries": dg.MetadataValue.int(manifest.retries),
            "edfi/bytes": dg.MetadataValue.int(manifest.bytes),
            "dagster/uri": dg.MetadataValue.path(self._manifest_uri(manifest)),
        }

    def _table(self, result: EndpointResult) -> Metadata:
        records = result.kinds.get(RECORDS)
        manifest = records.manifest if records else None
        pulled = self._pulled(manifest, records) if manifest and records else {}
        return {
            **pulled,
            "edfi/rows_loaded": dg.MetadataValue.int(result.rows_inserted),
            "edfi/rows_removed": dg.MetadataValue.int(result.rows_removed),
            "edfi/full_refresh": dg.MetadataValue.bool(result.full),
        }

    def _manifest_uri(self, manifest: Manifest) -> str:
        folder = {DELETES: "resource_deletes", KEY_CHANGES: "resource_key_changes"}.get(manifest.kind)
        run = paths.run_folder(manifest.pair, manifest.pull_timestamp)
        if folder is None:
            folder = "descriptors" if manifest.table == self._tables.descriptors else "resources"
        return self._lake.uri(paths.manifest_path(f"{run}/{folder}", manifest.name))
