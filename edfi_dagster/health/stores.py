"""Whether the lake can be written, and the warehouse reached with its tables in place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from edfi_dagster.config import ConfigError, Platform
from edfi_dagster.config.warehouse import DuckDBWarehouse as DuckDBConfig
from edfi_dagster.health.findings import Block, Finding, explained, failed, ok, some, warning
from edfi_dagster.lake.store import LakeError, open_lake
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.warehouse.contract import (
    COUNT_CHECKS,
    LEASES,
    Connection,
    WarehouseError,
    raw_tables,
)
from edfi_dagster.warehouse.opening import open_warehouse, tables_of
from edfi_dagster.warehouse.snowflake_sql import KEY_CHANGES_COLUMN, quoted
from edfi_dagster.warehouse.table_roles import problems

CHECK_SECONDS = 10.0
"""How long a check waits for another process to let a DuckDB file go."""

_LITTLE_ROOM_BYTES = 2**30


def is_made(platform: Platform) -> bool:
    """Whether there is a warehouse to look into: opening a DuckDB file that is not there would make it."""
    return not isinstance(platform.warehouse, DuckDBConfig) or platform.warehouse.path.is_file()


def existing_tables(connection: Connection, platform: Platform) -> set[str]:
    """The names of tables and views in the warehouse's schema, in lower case."""
    place, schema = _catalogue(platform)
    found = connection.rows(
        f"SELECT lower(table_name) FROM {place}.tables WHERE table_schema = ?",  # noqa: S608 - checked identifiers
        [schema],
    )
    return {str(name) for (name,) in found}


def lacks_key_changes_column(connection: Connection, platform: Platform) -> bool:
    """Whether the ledger is one of Airflow's, made without ``is_key_changes``."""
    place, schema = _catalogue(platform)
    found = connection.rows(
        f"SELECT lower(column_name) FROM {place}.columns "  # noqa: S608 - checked identifiers
        "WHERE table_schema = ? AND lower(table_name) = ?",
        [schema, platform.tables.change_versions.lower()],
    )
    return bool(found) and KEY_CHANGES_COLUMN not in {str(name) for (name,) in found}


def misnamed_tables(connection: Connection, platform: Platform) -> list[str]:
    """Sentences about shared tables whose rows lie under another name than the configured one."""
    place, schema = _catalogue(platform)
    made = connection.rows(
        f"SELECT lower(table_name) FROM {place}.tables "  # noqa: S608 - checked identifiers
        "WHERE table_schema = ? AND table_type = 'BASE TABLE'",
        [schema],
    )
    names = {str(name) for (name,) in made}
    return list(problems(connection, platform.tables, names, all_must_exist=True))


def examine_lake(platform: Platform) -> Block:
    """Writes and deletes one small file."""
    where = str(platform.lake.root) if platform.lake.kind == "local" else f"s3://{platform.lake.bucket}"
    otherwise = "check the lake block"
    try:
        lake = open_lake(platform.lake, platform.extract.tmp_dir)
        where = lake.uri("")
        lake.check_writable()
    except (LakeError, ConfigError) as error:
        return Block("lake", where, (explained("writable", str(error), otherwise),))
    return Block("lake", where, (_room(platform) or ok("writable", "a file was written and deleted"),))


def _room(platform: Platform) -> Finding | None:
    if platform.lake.kind != "local":
        return None
    free = shutil.disk_usage(platform.lake.root).free
    if free < _LITTLE_ROOM_BYTES:
        return warning(
            "writable", f"a file was written, but {_gigabytes(free)} are free", "make room before it is full"
        )
    return ok("writable", f"a file was written and deleted; {_gigabytes(free)} are free")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


def examine_warehouse(
    platform: Platform, endpoints: Iterable[Endpoint], tell: Callable[[str], None]
) -> Block:
    """Makes nothing. ``endpoints`` are those whose tables should be there."""
    config = platform.warehouse
    if isinstance(config, DuckDBConfig):
        where = str(config.path)
    else:
        where = f"Snowflake {config.account}, {config.database}.{config.schema_name}"
    try:
        findings = tuple(_warehouse_findings(platform, list(endpoints), tell))
    except (WarehouseError, ConfigError, OSError) as error:
        findings = (
            explained(
                "reachable", str(error), "check the warehouse block and that its folder can be written"
            ),
        )
    return Block("warehouse", where, findings)


def _warehouse_findings(
    platform: Platform, endpoints: Sequence[Endpoint], tell: Callable[[str], None]
) -> Iterator[Finding]:
    if isinstance(platform.warehouse, DuckDBConfig) and not is_made(platform):
        yield _folder_of_file(platform.warehouse.path)
        return
    lake = open_lake(platform.lake, platform.extract.tmp_dir)
    warehouse = open_warehouse(platform, lake, tell, tag={"run": "check"}, longest_wait=CHECK_SECONDS)
    try:
        with warehouse.connected() as connection:
            found = existing_tables(connection, platform)
            yield ok("reachable", "opened" if isinstance(platform.warehouse, DuckDBConfig) else "signed in")
            yield _tables(platform, endpoints, found)
            for problem in misnamed_tables(connection, platform):
                yield explained("table names", problem, "write the name that the table has under tables")
            if lacks_key_changes_column(connection, platform):
                yield failed(
                    "change versions",
                    f"{platform.tables.change_versions} has no column {KEY_CHANGES_COLUMN}, as Airflow made it",
                    "run edfi-dagster setup-warehouse, which adds it",
                )
    finally:
        warehouse.close()


def _folder_of_file(path: Path) -> Finding:
    above = next(folder for folder in path.parents if folder.exists())
    if path.exists() or not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        return failed(
            "reachable",
            f"the file is not there and cannot be made in {above}",
            "correct warehouse.path, or the rights of its folder",
        )
    return ok("reachable", "the file is not there yet; the first run makes it")


def _tables(platform: Platform, endpoints: Sequence[Endpoint], found: set[str]) -> Finding:
    raw = raw_tables(tables_of(endpoints), platform.tables)
    ours = [platform.tables.change_versions, LEASES, COUNT_CHECKS, *(table.name for table in raw)]
    missing = [name for name in ours if name.lower() not in found]
    if not missing:
        return ok("tables", f"all {len(ours)} are there")
    remedy = "the next run makes them; where its role may not, run edfi-dagster setup-warehouse"
    if len(missing) == len(ours):
        return warning("tables", "none is there yet", remedy)
    return warning("tables", f"{len(missing)} of {len(ours)} are missing: {some(missing)}", remedy)


def _catalogue(platform: Platform) -> tuple[str, str]:
    config = platform.warehouse
    if isinstance(config, DuckDBConfig):
        return "information_schema", config.schema_name
    return f"{quoted(config.database)}.information_schema", config.schema_name.upper()
