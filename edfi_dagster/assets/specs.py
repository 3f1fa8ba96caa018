"""Endpoint → asset specs: keys, groups, descriptions, kinds, owners, columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys
from edfi_dagster.config import Platform
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind

LAKE_IO_MANAGER = "lake_io_manager"
WAREHOUSE_IO_MANAGER = "warehouse_io_manager"

Columns = Sequence[tuple[str, str, str]]
"""Name, type as DuckDB calls it, and what it holds."""

_RAW_TABLE: Columns = (
    ("tenant_code", "VARCHAR", "tenant, as in the configuration"),
    ("api_year", "INTEGER", "school year, named by its spring"),
    ("pull_date", "DATE", "day of the run that pulled the row (UTC)"),
    ("pull_timestamp", "TIMESTAMP", "start of that run (UTC); the newest wins"),
    ("file_row_number", "BIGINT", "line in the file, from 1"),
    ("filename", "VARCHAR", "file below the lake's root"),
    ("name", "VARCHAR", "endpoint in snake_case; endpoint__bundle where a bundle loaded it"),
    ("ods_version", "VARCHAR", "version of the ODS/API"),
    ("data_model_version", "VARCHAR", "version of the Ed-Fi data model"),
    ("v", "JSON", "the record exactly as the API sent it"),
)
_TOTAL_COUNTS: Columns = (
    *_RAW_TABLE[:2],
    ("name", "VARCHAR", "endpoint in snake_case"),
    *_RAW_TABLE[2:4],
    ("total_count", "BIGINT", "records that the ODS counted at the end of that run"),
)
_SNOWFLAKE_TYPES = {"JSON": "VARIANT", "BIGINT": "NUMBER", "INTEGER": "NUMBER", "TIMESTAMP": "TIMESTAMP_NTZ"}
# What the API gives of every descriptor, of every deleted record, and of every changed key.
_DESCRIPTOR_FIELDS = {
    "codeValue": "string!",
    "description": "string",
    "effectiveBeginDate": "date",
    "effectiveEndDate": "date",
    "namespace": "string!",
    "shortDescription": "string!",
}
_CHANGE_FIELDS: Mapping[RecordKind, Mapping[str, str]] = {
    DELETES: {"id": "string!", "changeVersion": "integer!", "keyValues": "object!"},
    KEY_CHANGES: {
        "id": "string!",
        "changeVersion": "integer!",
        "oldKeyValues": "object!",
        "newKeyValues": "object!",
    },
}


class Specs:
    """The asset specs of one platform."""

    def __init__(self, platform: Platform, keys: AssetKeys, partitions: dg.PartitionsDefinition) -> None:
        self._platform = platform
        self._keys = keys
        self._partitions = partitions
        self._warehouse = platform.warehouse.kind
        self._lake = {"edfi", "json"} | ({"s3"} if platform.lake.kind == "s3" else set())
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
        descriptors = [self._keys.endpoint(e) for e in self._keys.endpoints if e.is_descriptor]
        changing = [endpoint for endpoint in self._keys.endpoints if endpoint.has_changes]
        yield self._shared(
            tables.descriptors,
            "The values of every descriptor endpoint; `name` tells which one a row belongs to.",
            descriptors,
        )
        yield self._shared(
            tables.deletes,
            "Records that were deleted in the ODS, by id and natural key; `name` is the resource. Each is written once.",
            [self._keys.endpoint(e, DELETES) for e in changing],
        )
        yield self._shared(
            tables.key_changes,
            "Records whose natural key changed in the ODS, with the old key and the new; `name` is the resource.",
            [self._keys.endpoint(e, KEY_CHANGES) for e in changing],
        )
        yield self._shared(
            tables.total_counts,
            "How many records the ODS counts per endpoint at the end of a run; filled where `pull_total_counts` is on.",
            [],
            _TOTAL_COUNTS,
        )

    def _shared(
        self, name: str, description: str, deps: list[dg.AssetKey], columns: Columns = _RAW_TABLE
    ) -> dg.AssetSpec:
        return dg.AssetSpec(
            self._keys.shared(name),
            deps=deps,
            description=description,
            partitions_def=self._partitions,
            group_name="shared_tables",
            kinds={self._warehouse, "table"},
            owners=self._owners,
            tags={"edfi/kind": "shared_table"},
            metadata=self._table_metadata(name, columns),
        )

    def _endpoint(self, endpoint: Endpoint) -> dg.AssetSpec:
        fields = _DESCRIPTOR_FIELDS if endpoint.is_descriptor else endpoint.fields
        metadata: dict[str, Any] = {
            "edfi/endpoint": endpoint.path,
            "edfi/natural_key": ", ".join(endpoint.key) or "not known",
        }
        if fields:
            metadata["dagster/column_schema"] = _record(fields, endpoint.key.values())
        told = f"The records of `{endpoint.path}` that were created or updated in the ODS since the last run"
        if endpoint.is_descriptor:
            told = f"The values of `{endpoint.path}`, all of them whenever one changed in the ODS since the last run"
        return self._lake_spec(
            endpoint,
            RECORDS,
            f"{told}, as JSON lines in the lake. The first run and a full refresh bring all of them; a run in which "
            "nothing changed leaves this as it is.",
            metadata,
        )

    def _changes(self, endpoint: Endpoint, kind: RecordKind) -> dg.AssetSpec:
        told = {
            DELETES: f"The records of `{endpoint.path}` that were deleted in the ODS since the last run, by id and "
            "natural key.",
            KEY_CHANGES: f"The records of `{endpoint.path}` whose natural key changed in the ODS since the last run, with "
            "the old key and the new.",
        }[kind] + " A first run and a full refresh need none of them and leave this as it is."
        metadata = {"edfi/endpoint": endpoint.path, "dagster/column_schema": _record(_CHANGE_FIELDS[kind])}
        return self._lake_spec(endpoint, kind, told, metadata)

    def _lake_spec(
        self, endpoint: Endpoint, kind: RecordKind, description: str, metadata: Mapping[str, Any]
    ) -> dg.AssetSpec:
        return dg.AssetSpec(
            self._keys.endpoint(endpoint, kind),
            description=description,
            group_name=endpoint.domain,
            kinds=self._lake,
            owners=self._owners,
            tags={"edfi/kind": "descriptor" if endpoint.is_descriptor else kind},
            metadata=metadata,
            skippable=True,
        ).with_io_manager_key(LAKE_IO_MANAGER)

    def _table(self, key: dg.AssetKey, endpoints: list[Endpoint]) -> dg.AssetSpec:
        name = key.path[-1]
        paths = " and ".join(f"`{endpoint.path}`" for endpoint in endpoints)
        natural_key = ", ".join(endpoints[0].key) or "id"
        deps = [
            self._keys.endpoint(endpoint, kind)
            for endpoint in endpoints
            for kind in ((RECORDS, DELETES, KEY_CHANGES) if endpoint.has_changes else (RECORDS,))
        ]
        return dg.AssetSpec(
            key,
            deps=deps,
            description=f"Every version of every record of {paths} that was pulled, a row each, as the API sent it (`v`). The view "
            f"`{name}_current` has the live ones alone: the newest row of each id, without those deleted. Natural key: "
            f"{natural_key}.",
            group_name=endpoints[0].domain,
            kinds={self._warehouse, "table"},
            owners=self._owners,
            tags={"edfi/kind": "table"},
            metadata={
                **self._table_metadata(name, _RAW_TABLE),
                "edfi/endpoint": ", ".join(endpoint.path for endpoint in endpoints),
                "edfi/natural_key": natural_key,
            },
            skippable=True,
        ).with_io_manager_key(WAREHOUSE_IO_MANAGER)

    def _table_metadata(self, table: str, columns: Columns) -> dict[str, Any]:
        """Where the table is, and what it consists of, in the words of its warehouse."""
        config = self._platform.warehouse
        names = [config.schema_name, table]
        types: Mapping[str, str] = {}
        if config.kind == "snowflake":
            names, types = [config.database, *names], _SNOWFLAKE_TYPES
        schema = dg.TableSchema(
            columns=[
                dg.TableColumn(name, types.get(kind, kind), description=told) for name, kind, told in columns
            ]
        )
        return {"dagster/table_name": ".".join(names), "dagster/column_schema": schema}


def _record(fields: Mapping[str, str], key: Iterable[str] = ()) -> dg.TableSchema:
    """A record's top-level properties; ``key`` are the JSON paths of its natural key."""
    in_key = {path.partition(".")[0] for path in key}
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name,
                kind.removesuffix("!").removeprefix("ref:"),
                description="of the natural key" if name in in_key else None,
                constraints=dg.TableColumnConstraints(nullable=not kind.endswith("!")),
            )
            for name, kind in fields.items()
        ]
    )
