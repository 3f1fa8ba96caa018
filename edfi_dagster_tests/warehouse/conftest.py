"""Warehouses of both kinds: DuckDB files, and schemas of the stand-in for Snowflake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.warehouse.duckdb import DuckDBWarehouse
from edfi_dagster.warehouse.snowflake import SnowflakeWarehouse
from edfi_dagster_tests.warehouse.pulls import TABLES
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn

AnyWarehouse = DuckDBWarehouse | SnowflakeWarehouse
Open = Callable[[], AnyWarehouse]


@pytest.fixture
def new_database(snowflake: SnowflakeStandIn) -> Iterator[str]:
    """A database of the stand-in without any table."""
    snowflake.forget()
    yield snowflake.new_database()
    snowflake.check()


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(tmp_path / "lake")


def _opener(request: pytest.FixtureRequest, database: str) -> Open:
    folder: Path = request.getfixturevalue("tmp_path")
    lake: LocalLake = request.getfixturevalue("lake")
    if request.param == "duckdb":
        return lambda: DuckDBWarehouse(folder / "w.duckdb", "edfi3", TableNames(), lake)
    stand_in: SnowflakeStandIn = request.getfixturevalue("snowflake")
    place: str = request.getfixturevalue(database)

    def open_one() -> SnowflakeWarehouse:
        warehouse = stand_in.warehouse(place, lake)
        request.addfinalizer(warehouse.close)
        return warehouse

    return open_one


@pytest.fixture(params=["duckdb", "snowflake"])
def open_warehouse(request: pytest.FixtureRequest) -> Open:
    """Opens one and the same warehouse, without a row, each time with an object of its own."""
    return _opener(request, "database")


@pytest.fixture
def warehouse(open_warehouse: Open) -> Iterator[AnyWarehouse]:
    """One warehouse. Opening a DuckDB file is most of the time of a small load, so it stays open."""
    warehouse = open_warehouse()
    with warehouse.connected() if isinstance(warehouse, DuckDBWarehouse) else nullcontext():
        yield warehouse


@pytest.fixture(params=["duckdb", "snowflake"])
def new_warehouse(request: pytest.FixtureRequest) -> AnyWarehouse:
    """A warehouse in which nothing was ever made."""
    return _opener(request, "new_database")()


@pytest.fixture
def snowflake_warehouse(
    snowflake: SnowflakeStandIn, database: str, lake: LocalLake
) -> Iterator[SnowflakeWarehouse]:
    """A warehouse in the stand-in, its tables made and nothing noted."""
    warehouse = snowflake.warehouse(database, lake)
    warehouse.prepare(TABLES)
    snowflake.forget()
    yield warehouse
    warehouse.close()
