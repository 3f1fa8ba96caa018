"""Lake and warehouse without an ODS: rebuilding one from the other, and setting a warehouse up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from edfi_dagster.cli.screen import Screen
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.earthbeam import replay_sideloads
from edfi_dagster.extract import load_stored
from edfi_dagster.lake.manifest import latest_stamp
from edfi_dagster.lake.store import LakeError, open_lake
from edfi_dagster.ods.catalogue import endpoints_of
from edfi_dagster.warehouse.contract import RawTable
from edfi_dagster.warehouse.opening import open_warehouse, tables_of


@dataclass
class Rebuilt:
    """What a replay loaded for one pair, and why endpoints could not be rebuilt."""

    pair: TenantYear
    endpoints: int = 0
    rows: int = 0
    failures: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "tenant": self.pair.tenant,
            "year": self.pair.year,
            "endpoints": self.endpoints,
            "rows_loaded": self.rows,
            "failures": self.failures,
        }


def rebuild(platform: Platform, pair: TenantYear) -> Rebuilt:
    """Replay the lake of one pair into its warehouse. Raises LakeError, WarehouseError."""
    rebuilt = Rebuilt(pair)
    tell = Screen(stderr=True).print
    lake = open_lake(platform.lake, platform.extract.tmp_dir)
    if latest_stamp(lake, pair) is None:
        place = f"the lake at {lake.uri('')}"
        rebuilt.failures.append(
            f"{pair}: {place} holds nothing of this tenant and year; check the lake block"
        )
        return rebuilt
    endpoints = endpoints_of(platform, pair)
    tag = {"tenant": pair.tenant, "year": pair.year, "run": "rebuild"}
    with closing(open_warehouse(platform, lake, tell, tag=tag)) as warehouse:
        warehouse.prepare(tables_of(endpoints))
        for result in load_stored(platform, lake, warehouse, pair, endpoints, tell=tell):
            rebuilt.rows += result.rows_inserted
            rebuilt.endpoints += any(kind.manifest for kind in result.kinds.values())
            rebuilt.failures += result.failures.values()
        try:
            for sideload in replay_sideloads(lake, warehouse, pair, tell=tell):
                rebuilt.rows += sideload.inserted
                rebuilt.endpoints += 1
        except LakeError as error:
            rebuilt.failures.append(str(error))
    return rebuilt


def setup_statements(platform: Platform, pairs: Iterable[TenantYear]) -> list[str]:
    """The SQL that sets the warehouse up for these pairs. Contacts nothing."""
    lake = open_lake(platform.lake, platform.extract.tmp_dir)
    return open_warehouse(platform, lake, print).setup_statements(_tables(platform, pairs))


def setup_warehouse(platform: Platform, pairs: Iterable[TenantYear]) -> Sequence[RawTable]:
    """Make what is missing of schema, tables and views; the raw tables of these pairs' resources. Raises WarehouseError."""
    tables = _tables(platform, pairs)
    lake = open_lake(platform.lake, platform.extract.tmp_dir)
    with closing(
        open_warehouse(platform, lake, Screen(stderr=True).print, tag={"run": "setup"})
    ) as warehouse:
        warehouse.setup(tables)
    return tables


def _tables(platform: Platform, pairs: Iterable[TenantYear]) -> list[RawTable]:
    found: dict[str, RawTable] = {}
    for pair in pairs:
        for table in tables_of(endpoints_of(platform, pair)):
            found.setdefault(table.name, table)
    return list(found.values())
