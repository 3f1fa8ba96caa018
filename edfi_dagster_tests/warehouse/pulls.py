"""Pulls as they lie in the lake, without an ODS: files, manifests and ledger entries, and their loads."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import zstandard

from edfi_dagster.config import TenantYear
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest, PulledFile
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.ods.catalogue import Endpoint, find_endpoints, standard_endpoints
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.warehouse import ledger, load
from edfi_dagster.warehouse.contract import RawTable, Warehouse
from edfi_dagster.warehouse.current import current_rows
from edfi_dagster.warehouse.lease import holding
from edfi_dagster.warehouse.ledger import Entry, Reading
from edfi_dagster.warehouse.supersede import Judged

PAIR = TenantYear("t", 2025)
SESSIONS, STUDENTS, TERMS, SEXES = find_endpoints(
    ["sessions", "students", "termDescriptors", "sexDescriptors"], standard_endpoints("5.2")
)
TABLES = [RawTable(e.snake, tuple(e.key.values())) for e in (SESSIONS, STUDENTS)]
A, B, C = "a" * 32, "b" * 32, "c" * 32


def session(record_id: str, name: str, **fields: Any) -> dict[str, Any]:
    keys = {"schoolReference": {"schoolId": 255901}, "schoolYearTypeReference": {"schoolYear": 2025}}
    return {"id": record_id, "sessionName": name, **keys, **fields}


def term(record_id: str, code: str, **fields: Any) -> dict[str, Any]:
    return {"id": record_id, "namespace": "uri://x", "codeValue": code, **fields}


def student(record_id: str, number: str, **fields: Any) -> dict[str, Any]:
    return {"id": record_id, "studentUniqueId": number, **fields}


def tombstone(record_id: str, version: int) -> dict[str, Any]:
    return {"id": record_id, "changeVersion": version, "keyValues": {}}


def pulled(lake: LakeStore, path: str, rows: Sequence[str]) -> PulledFile:
    """A file of the lake with these lines."""
    content = "".join(row + "\n" for row in rows).encode()
    packed = zstandard.ZstdCompressor().compress(content) if path.endswith(".zst") else gzip.compress(content)
    with lake.writing(path) as stream:
        stream.write(packed)
    return PulledFile(path=path, rows=len(rows), bytes=len(packed), sha256=hashlib.sha256(packed).hexdigest())


@dataclass
class Pulls:
    """Pulls of one pair, each with files in the lake. ``day`` is the stamp's."""

    lake: LakeStore
    pair: TenantYear = PAIR
    compression: str = "zstd"

    def reading(
        self,
        endpoint: Endpoint,
        day: int,
        rows: Sequence[dict[str, Any]],
        *,
        low: int | None,
        newest: int,
        kind: RecordKind = RECORDS,
        full: bool = False,
        parts: int = 1,
        gone: tuple[str, ...] = (),
    ) -> Reading:
        stamp = datetime(2026, 1, day, 6, tzinfo=UTC)
        folder = paths.pull_folder(self.pair, stamp, endpoint, kind)
        files = [
            pulled(
                self.lake,
                paths.part_path(folder, endpoint.snake, part, self.compression),
                [json.dumps(row, indent=None, separators=(", ", ": ")) for row in rows[part::parts]],
            )
            for part in range(parts if rows else 0)
        ]
        manifest = Manifest(
            tenant=self.pair.tenant,
            year=self.pair.year,
            namespace=endpoint.namespace,
            endpoint=endpoint.name,
            name=endpoint.snake,
            kind=kind,
            table=endpoint.snake,
            full=full,
            files=tuple(files),
            rows=len({row["id"] for row in rows} if kind == RECORDS else rows),
            expected_rows=len(rows),
            min_change_version=0,
            max_change_version=newest,
            low=low,
            newest=newest,
            ods_version="7.3.1",
            data_model_version="5.2.0",
            pull_timestamp=stamp,
            started_at=stamp,
            seconds=1.0,
            requests=1,
            retries=0,
            gone=gone,
        )
        return Reading(Entry(self.pair, endpoint, kind, stamp, low, newest), manifest)


def refresh(warehouse: Warehouse, *readings: Reading) -> list[load.Loaded]:
    pair = readings[0].entry.pair
    with holding(warehouse, pair, waiting=print) as lease, warehouse.connected() as connection:
        loaded = [load.load_refresh(connection, lease, reading) for reading in readings]
        kinds: tuple[RecordKind, ...] = (RECORDS, DELETES, KEY_CHANGES)
        entries = [
            Entry(pair, r.entry.endpoint, kind, r.entry.stamp, None, r.entry.newest)
            for r in readings
            for kind in kinds
        ]
        load.close_refreshes(connection, lease, entries)
    return loaded


def delta(
    warehouse: Warehouse, *readings: Reading, judged: Mapping[str, Judged] | None = None
) -> load.Loaded:
    entry = readings[0].entry
    with holding(warehouse, entry.pair, waiting=print) as lease, warehouse.connected() as connection:
        return load.load_delta(connection, lease, entry.endpoint, readings, judged=judged)


def descriptors(warehouse: Warehouse, *readings: Reading) -> dict[str, load.Loaded]:
    pair = readings[0].entry.pair
    with holding(warehouse, pair, waiting=print) as lease, warehouse.connected() as connection:
        return load.load_descriptors(connection, lease, readings)


def raw(warehouse: Warehouse, table: str) -> list[tuple[Any, ...]]:
    """Every column of a raw table, records as objects."""
    with warehouse.connected() as connection:
        rows = connection.rows(
            "SELECT tenant_code, api_year, pull_date, pull_timestamp, file_row_number, filename, name, ods_version, "
            f"data_model_version, {connection.json()} FROM {connection.table(table)} ORDER BY 4, 7, 6, 5"
        )
    return [(*row[:-1], json.loads(row[-1])) for row in rows]


def ids(warehouse: Warehouse, table: str) -> list[tuple[int, str]]:
    """(day, id) of every raw row."""
    return sorted((row[3].day, row[-1]["id"]) for row in raw(warehouse, table))


def watermarks(warehouse: Warehouse, pair: TenantYear = PAIR) -> dict[tuple[str, RecordKind], int]:
    with warehouse.connected() as connection:
        return dict(ledger.watermarks(connection, pair))


def current(warehouse: Warehouse, endpoint: Endpoint) -> list[str]:
    with warehouse.connected() as connection:
        return sorted(json.loads(v)["id"] for _, v in current_rows(connection, PAIR, endpoint))
