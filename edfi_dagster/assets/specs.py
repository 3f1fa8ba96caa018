"""Endpoint → asset specs: keys, groups, descriptions, kinds, owners, columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys
from edfi_dagster.config import Platform
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind

LAKE_IO_MANAGER = "lake_io_manager"
WAREHOUSE_IO_MANAGER = "warehouse_io_manager"

_RAW_TABLE = dg.TableSchema(
    columns=[
        dg.TableColumn("tenant_code", "VARCHAR", description="tenant, as in the configuration"),
        dg.TableColumn("api_year", "INTEGER", description="school year, named by its spring"),
        dg.TableColumn("pull_date", "DATE", description="day of the run that pulled the row (UTC)"),
        dg.TableColumn("pull_timestamp", "TIMESTAMP", description="start of that run (UTC); the newest wins"),
        dg.TableColumn("file_row_number", "BIGINT", description="line in the file, from 1"),
        dg.TableColumn("filename", "VARCHAR", description="file below the lake's root"),
        dg.TableColumn(
            "name", "VARCHAR", description="endpoint in snake_case; endpoint__bundle where a bundle loaded it"
        ),
        dg.TableColumn("ods_version", "VARCHAR", description="version of the ODS/API"),
        dg.TableColumn("data_model_version", "VARCHAR", description="version of the Ed-Fi data model"),
        dg.TableColumn("v", "JSON", description="the record exactly as the API sent it"),
    ]
)


class Specs:
    """The asset specs of one platform."""

    def __init__(self, platform: Platform, keys: AssetKeys, partitions: dg.PartitionsDefinition) -> None:
        self._platform = platform
        self._keys = keys
        self._partitions = partitions
        self._warehouse = platform.warehouse.kind
        self._owners = list(platform.owners)

    def executable(self) -> Iterator[dg.AssetSpec]:
        """Endpoints and resource tables: what the extract op makes."""
        sources: dict[dg.AssetKey, list[Endpoint]] = defaultdict(list)
        for endpoint in self._keys.endpoints:
            yield self._endpoint(endpoint)
            if endpoint.has_changes:
                yield self._changes(endpoint, DELETES)
                yield self._changes(endpoint, KEY_CHANGES)
            if not endpoint.is_descriptor:
                sources[self._keys.table(endpoint)].append(endpoint)
        for key, endpoints in sources.items():
            yield self._table(key, endpoints)

    def reported(self) -> Iterator[dg.AssetSpec]:
        """The shared tables: filled by the op that loads rows into them, which reports it."""
        tables = self._platform.tables
        endpoints = self._keys.endpoints
        changing = [endpoint for endpoint in endpoints if endpoint.has_changes]
        for name, description, deps in (
            (
                tables.descriptors,
                "Every descriptor value of every descriptor endpoint; `name` tells which.",
                [self._keys.endpoint(e) for e in endpoints if e.is_descriptor],
            ),
            (
                tables.deletes,
                "Ids that the ODS deleted; `name` is the resource. A tombstone is written once.",
                [self._keys.endpoint(e, DELETES) for e in changing],
            ),
            (
                tables.key_changes,
                "Natural keys that changed, old and new; `name` is the resource.",
                [self._keys.endpoint(e, KEY_CHANGES) for e in changing],
            ),
            (tables.total_counts, "What the ODS counts per endpoint, to be compared with current rows.", []),
        ):
            yield dg.AssetSpec(
                self._keys.shared(name),
                deps=deps,
                description=description,
                partitions_def=self._partitions,
                group_name="shared_tables",
                kinds={self._warehouse, "table"},
                owners=self._owners,
                metadata={"dagster/table_name": self._table_name(name), "dagster/column_schema": _RAW_TABLE},
            )

    def _endpoint(self, endpoint: Endpoint) -> dg.AssetSpec:
        what = "values" if endpoint.is_descriptor else "records"
        metadata = {
            "edfi/endpoint": endpoint.path,
            "edfi/natural_key": ", ".join(endpoint.key) or "not known",
        }
        if endpoint.fields:
            metadata["dagster/column_schema"] = _columns(endpoint)  # type: ignore[assignment]
        return self._lake_spec(
            endpoint,
            RECORDS,
            f"{endpoint.path}: the {what} that changed in the ODS since the last run, as JSON lines in the lake; "
            "all of them on the first run and on a full refresh.",
            metadata,
        )

    def _changes(self, endpoint: Endpoint, kind: RecordKind) -> dg.AssetSpec:
        told = {
            DELETES: "records deleted in the ODS since the last run, by id and natural key.",
            KEY_CHANGES: "records whose natural key changed in the ODS since the last run, old key and new.",
        }[kind]
        return self._lake_spec(endpoint, kind, f"{endpoint.path}: {told}", {"edfi/endpoint": endpoint.path})

    def _lake_spec(
        self, endpoint: Endpoint, kind: RecordKind, description: str, metadata: dict[str, str]
    ) -> dg.AssetSpec:
        return dg.AssetSpec(
            self._keys.endpoint(endpoint, kind),
            description=description,
            group_name=endpoint.domain,
            kinds={"edfi", "json"},
            owners=self._owners,
            tags={"edfi/kind": "descriptor" if endpoint.is_descriptor else kind},
            metadata=metadata,
            skippable=True,
        ).with_io_manager_key(LAKE_IO_MANAGER)

    def _table(self, key: dg.AssetKey, endpoints: list[Endpoint]) -> dg.AssetSpec:
        name = key.path[-1]
        paths = ", ".join(endpoint.path for endpoint in endpoints)
        deps = [
            self._keys.endpoint(endpoint, kind)
            for endpoint in endpoints
            for kind in ((RECORDS, DELETES, KEY_CHANGES) if endpoint.has_changes else (RECORDS,))
        ]
        return dg.AssetSpec(
            key,
            deps=deps,
            description=f"Raw rows of {paths}, every version that was pulled; `{name}_current` shows the live ones.",
            group_name=endpoints[0].domain,
            kinds={self._warehouse, "table"},
            owners=self._owners,
            tags={"edfi/kind": "table"},
            metadata={"dagster/table_name": self._table_name(name), "dagster/column_schema": _RAW_TABLE},
            skippable=True,
        ).with_io_manager_key(WAREHOUSE_IO_MANAGER)

    def _table_name(self, table: str) -> str:
        return f"{self._platform.warehouse.schema_name}.{table}"


def _columns(endpoint: Endpoint) -> dg.TableSchema:
    """The record's top-level properties, from the catalogue."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name,
                kind.removesuffix("!").removeprefix("ref:"),
                constraints=dg.TableColumnConstraints(nullable=not kind.endswith("!")),
            )
            for name, kind in endpoint.fields.items()
        ]
    )
