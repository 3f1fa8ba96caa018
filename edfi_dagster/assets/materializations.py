"""What a run did → the metadata that people read on each materialization."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys, partition_key
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.extract import EndpointResult, KindResult, Result
from edfi_dagster.extract.comparison import Verdict
from edfi_dagster.health.rows import Rows, count_rows
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.warehouse.contract import Warehouse, WarehouseError

Metadata = dict[str, dg.MetadataValue]
Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation
# Raw rows of a tenant and year that are looked into to tell how many are current, after a delta: less than a second.
_MOST_PARSED = 200_000
_SUMMED_UP = 500


class Materializations:
    """The materializations of one run of one pair, and the totals for the shared tables.

    With ``warehouse``, raw tables are told with their current rows also after a delta.
    """

    def __init__(
        self,
        platform: Platform,
        keys: AssetKeys,
        pair: TenantYear,
        lake: LakeStore,
        warehouse: Warehouse | None = None,
    ) -> None:
        self._tables = platform.tables
        self._keys = keys
        self._pair = pair
        self._partition = partition_key(pair)
        self._lake = lake
        self._warehouse = warehouse
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

    def of_differences(self, results: Sequence[EndpointResult]) -> Iterator[dg.AssetObservation]:
        """One per endpoint whose rows the run could not bring to what the ODS counts, on its raw table."""
        for result in results:
            found = result.comparison
            if found is not None and found.verdict is Verdict.DRIFTED:
                metadata: Metadata = {
                    "edfi/endpoint": dg.MetadataValue.text(found.endpoint.path),
                    "edfi/ods_count": dg.MetadataValue.int(found.counted),
                    "edfi/current_rows": dg.MetadataValue.int(found.rows),
                    "edfi/difference": dg.MetadataValue.int(found.difference),
                }
                table = self._keys.table(found.endpoint)
                yield dg.AssetObservation(table, partition=self._partition, metadata=metadata)

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
        return {
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
            **self._row_count(result),
            **pulled,
            "edfi/rows_loaded": dg.MetadataValue.int(result.rows_inserted),
            "edfi/rows_removed": dg.MetadataValue.int(result.rows_removed),
            "edfi/full_refresh": dg.MetadataValue.bool(result.full),
        }

    def _row_count(self, result: EndpointResult) -> Metadata:
        """The current rows of the pair, not the delta's; nothing where telling them would take long.

        Dagster shows ``row_count`` on the asset's page and draws it over time and by partition; ``partition_row_count`` is
        its name for what a partition holds, which here is the same.
        """
        records = result.kinds.get(RECORDS)
        if records and records.manifest and records.manifest.full and result.full:
            rows = result.rows_inserted
        else:
            found = self._current_rows(result.endpoint)
            if found is None or not found.is_exact:
                return {}
            rows = found.count
        return {
            "dagster/row_count": dg.MetadataValue.int(rows),
            "dagster/partition_row_count": dg.MetadataValue.int(rows),
        }

    def _current_rows(self, endpoint: Endpoint) -> Rows | None:
        if self._warehouse is None:
            return None
        name, chosen = endpoint.snake, {self._pair: [endpoint]}
        try:
            counted = count_rows(self._warehouse, chosen, [name], most_parsed=_MOST_PARSED)
        except WarehouseError:
            return None  # what was loaded is committed, and is told without this number
        return counted[self._pair].get(name)

    def _manifest_uri(self, manifest: Manifest) -> str:
        folder = {DELETES: "resource_deletes", KEY_CHANGES: "resource_key_changes"}.get(manifest.kind)
        run = paths.run_folder(manifest.pair, manifest.pull_timestamp)
        if folder is None:
            folder = "descriptors" if manifest.table == self._tables.descriptors else "resources"
        return self._lake.uri(paths.manifest_path(f"{run}/{folder}", manifest.name))


def log(context: dg.AssetExecutionContext | dg.OpExecutionContext, event: Event) -> None:
    """Log an event at once, where one that is yielded as an output would cost more than twice as many."""
    context.log_event(event)  # type: ignore[arg-type]  # it takes evaluations as well, though its type does not say so


def summary_metadata(results: Sequence[EndpointResult]) -> Metadata:
    """A run at a glance: totals, and a table of every endpoint and kind that had news, what failed first."""
    kinds = [(result, kind, of_kind) for result in results for kind, of_kind in result.kinds.items()]
    by_result = Counter(of_kind.result for _, _, of_kind in kinds)
    told = [one for one in kinds if one[2].result not in {Result.UNCHANGED, Result.COVERED}]
    told.sort(key=lambda one: (one[2].result is not Result.FAILED, -one[2].rows_loaded, one[0].endpoint.path))
    manifests = [of_kind.manifest for _, _, of_kind in kinds if of_kind.manifest]
    compared = [result.comparison for result in results if result.comparison]
    differing = [found for found in compared if found.verdict is Verdict.DRIFTED]
    counts: Metadata = {"edfi/compared": dg.MetadataValue.int(len(compared))} if compared else {}
    if differing:
        counts["edfi/differing"] = dg.MetadataValue.json(
            {c.endpoint.path: {"ods_count": c.counted, "current_rows": c.rows} for c in differing}
        )
    return {
        **counts,
        "edfi/endpoints": dg.MetadataValue.int(len({result.endpoint.path for result in results})),
        **{f"edfi/{r.name.lower()}": dg.MetadataValue.int(by_result[r]) for r in Result if by_result[r]},
        "edfi/rows": dg.MetadataValue.int(sum(manifest.rows for manifest in manifests)),
        "edfi/rows_loaded": dg.MetadataValue.int(sum(of_kind.rows_loaded for _, _, of_kind in kinds)),
        "edfi/requests": dg.MetadataValue.int(sum(manifest.requests for manifest in manifests)),
        "edfi/retries": dg.MetadataValue.int(sum(manifest.retries for manifest in manifests)),
        "edfi/bytes": dg.MetadataValue.int(sum(manifest.bytes for manifest in manifests)),
        "edfi/summary": dg.MetadataValue.table(
            [_summary_row(*one) for one in told[:_SUMMED_UP]], schema=_SUMMARY
        ),
    }


_SUMMARY = dg.TableSchema(
    [
        dg.TableColumn("endpoint", "string"),
        dg.TableColumn("kind", "string"),
        dg.TableColumn("rows", "int", description="distinct ids that were pulled"),
        dg.TableColumn("expected", "int", description="what the ODS counted for the same window"),
        dg.TableColumn("loaded", "int", description="rows that the warehouse did not have yet"),
        dg.TableColumn("seconds", "float"),
        dg.TableColumn("result", "string"),
    ]
)


def _summary_row(result: EndpointResult, kind: RecordKind, of_kind: KindResult) -> dg.TableRecord:
    manifest = of_kind.manifest
    return dg.TableRecord(
        {
            "endpoint": result.endpoint.path,
            "kind": kind,
            "rows": manifest.rows if manifest else 0,
            "expected": manifest.expected_rows if manifest else 0,
            "loaded": of_kind.rows_loaded,
            "seconds": round(manifest.seconds, 3) if manifest else 0.0,
            "result": str(of_kind.result),
        }
    )
