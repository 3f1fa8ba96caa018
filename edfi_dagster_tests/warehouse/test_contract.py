"""What both kinds of warehouse do in the same way: transactions, staging, making what is missing."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.contract import RawTable, WarehouseError
from edfi_dagster.warehouse.duckdb import DuckDBWarehouse
from edfi_dagster.warehouse.snowflake import SnowflakeWarehouse
from edfi_dagster_tests.warehouse.conftest import AnyWarehouse
from edfi_dagster_tests.warehouse.pulls import pulled


def test_transaction_is_undone_by_any_error(warehouse: AnyWarehouse) -> None:
    warehouse.prepare([])
    with warehouse.connected() as connection:
        with pytest.raises(KeyboardInterrupt), connection.transaction():
            connection.run("INSERT INTO edfi3._deletes (name) VALUES ('a')")
            raise KeyboardInterrupt
        with pytest.raises(WarehouseError, match=r"(?i)nowhere does not exist"), connection.transaction():
            connection.run("INSERT INTO edfi3._deletes (name) VALUES ('a')")
            connection.run("INSERT INTO edfi3.nowhere VALUES (1)")
        with connection.transaction():
            assert connection.run("INSERT INTO edfi3._deletes (name) VALUES ('b'), ('c')") == 2
        assert connection.rows("SELECT name FROM edfi3._deletes ORDER BY 1") == [("b",), ("c",)]


def test_staging_keeps_the_order_of_files_and_lines(lake: LocalLake, warehouse: AnyWarehouse) -> None:
    files = [
        pulled(lake, f"t/2025/20260101/20260101T000000/resources/students{part}.jsonl.zst", rows)
        for part, rows in [
            (".7", [f'{{"n": {n}}}' for n in range(5000)]),
            ("", ['{"n": 5000}', '{"n": 1.10, "s": "a\\nb"}']),
            (".10", [f'{{"n": {n}}}' for n in range(7000, 9000)]),
        ]
    ]
    warehouse.prepare([])
    with warehouse.connected() as connection:
        assert connection.stage("staged", files) == 7002
        rows = connection.rows(
            f"SELECT {connection.json()}, filename, file_row_number FROM staged ORDER BY read_order"
        )
    expected = [
        *[(f'{{"n": {n}}}', files[0].path, n + 1) for n in range(5000)],
        ('{"n": 5000}', files[1].path, 1),
        ('{"n": 1.10, "s": "a\\nb"}', files[1].path, 2),
        *[(f'{{"n": {n}}}', files[2].path, n - 6999) for n in range(7000, 9000)],
    ]
    assert [row[1:] for row in rows] == [row[1:] for row in expected]
    assert [json.loads(row[0]) for row in rows] == [json.loads(row[0]) for row in expected]
    if isinstance(warehouse, DuckDBWarehouse):  # VARIANT has a layout of its own
        assert rows == expected


def test_staging_nothing_and_staging_again_start_afresh(lake: LocalLake, warehouse: AnyWarehouse) -> None:
    file = pulled(lake, "t/x.jsonl.zst", ['{"a": 1}'])
    warehouse.prepare([])
    with warehouse.connected() as connection:
        for files, count in (([file], 1), ([], 0), ([file], 1)):
            assert connection.stage("staged", files) == count
            assert connection.rows("SELECT count(*) FROM staged") == [(count,)]


def test_prepare_makes_what_is_missing_and_leaves_the_rest(new_warehouse: AnyWarehouse) -> None:
    tables = [RawTable("students", ("studentUniqueId",)), RawTable("candidates", ("candidateIdentifier",))]
    made = new_warehouse.prepare(tables[:1])
    assert made == ["students", "_descriptors", "_deletes", "_key_changes"]
    with new_warehouse.connected() as connection:
        connection.run("INSERT INTO edfi3.students (name) VALUES ('students')")
    assert new_warehouse.prepare(tables) == ["candidates"]
    assert new_warehouse.prepare(tables) == []
    with new_warehouse.connected() as connection:
        assert connection.rows("SELECT name FROM edfi3.students") == [("students",)]
        columns = connection.rows(
            "SELECT lower(column_name), data_type FROM information_schema.columns "
            "WHERE lower(table_schema) = 'edfi3' AND lower(table_name) = 'students' ORDER BY ordinal_position"
        )
    text, number, stamp, json_type = (
        ("VARCHAR", "BIGINT", "TIMESTAMP", "JSON")
        if isinstance(new_warehouse, DuckDBWarehouse)
        else ("TEXT", "NUMBER", "TIMESTAMP_NTZ", "VARIANT")
    )
    assert columns == [
        ("tenant_code", text),
        ("api_year", "INTEGER" if isinstance(new_warehouse, DuckDBWarehouse) else "NUMBER"),
        ("pull_date", "DATE"),
        ("pull_timestamp", stamp),
        ("file_row_number", number),
        ("filename", text),
        ("name", text),
        ("ods_version", text),
        ("data_model_version", text),
        ("v", json_type),
    ]


def test_key_change_column_that_older_airflow_tables_lack_is_added(new_warehouse: AnyWarehouse) -> None:
    """On Snowflake by ``setup`` alone: a run stops until the table's owner has run that."""
    with new_warehouse.connected() as connection:
        connection.run("CREATE SCHEMA IF NOT EXISTS edfi3")
        connection.run(
            "CREATE TABLE edfi3._meta_change_versions (tenant_code VARCHAR, api_year INTEGER, name VARCHAR, "
            "pull_date DATE, pull_timestamp TIMESTAMP, max_version BIGINT, is_active BOOLEAN, is_deletes BOOLEAN)"
        )
        connection.run(
            "INSERT INTO edfi3._meta_change_versions VALUES "
            "('t', 2025, 'students', '2026-01-01', '2026-01-01', 7, TRUE, FALSE)"
        )
    if isinstance(new_warehouse, SnowflakeWarehouse):
        with pytest.raises(
            WarehouseError, match="no column is_key_changes; run edfi-dagster setup-warehouse"
        ):
            new_warehouse.prepare([])
        new_warehouse.setup([])
    new_warehouse.prepare([])
    with new_warehouse.connected() as connection:
        assert connection.rows("SELECT max_version, is_key_changes FROM edfi3._meta_change_versions") == [
            (7, None)
        ]
        assert ledger.watermarks(connection, TenantYear("t", 2025)) == {("students", "records"): 7}


def test_downstream_frame_replaces_its_partition_and_no_other(warehouse: AnyWarehouse) -> None:
    pairs = [TenantYear("t", 2025), TenantYear("t", 2026)]

    def frame(pair: TenantYear, **columns: list[Any]) -> pd.DataFrame:
        found = pd.DataFrame(columns)
        found.insert(0, "tenant_code", pair.tenant)
        found.insert(1, "api_year", pair.year)
        return found

    day = pd.Timestamp("2026-01-02 03:04:05.5")
    warehouse.prepare([])
    with warehouse.connected() as connection:
        first: dict[str, list[Any]] = {
            "Name": ["O'Neil \\ \n", None],
            "share": [0.5, None],
            "n": [1, 2],
            "yes": [True, False],
        }
        connection.replace_partition("counts", frame(pairs[0], **first, moment=[day, pd.NaT]), pairs[0])
        connection.replace_partition(
            "counts", frame(pairs[1], Name=["b"], share=[1.5], n=[3], yes=[True], moment=[day]), pairs[1]
        )
        connection.replace_partition(
            "counts", frame(pairs[1], Name=["c"], share=[2.5], n=[4], yes=[False], moment=[day]), pairs[1]
        )
        with pytest.raises(WarehouseError):
            connection.replace_partition("counts", frame(pairs[0], other=["x"]), pairs[0])
        rows = connection.rows("SELECT api_year, Name, share, n, yes, moment FROM edfi3.counts ORDER BY n")
    none_at = None if isinstance(warehouse, DuckDBWarehouse) else rows[1][5]  # fakesnow shows NULL as 1970
    assert rows == [
        (2025, "O'Neil \\ \n", 0.5, 1, True, day.to_pydatetime()),
        (2025, None, None, 2, False, none_at),
        (2026, "c", 2.5, 4, False, day.to_pydatetime()),
    ]


def test_error_about_a_row_does_not_quote_it(lake: LocalLake, warehouse: AnyWarehouse) -> None:
    file = pulled(lake, "t/x.jsonl.zst", ['{"lastSurname": "Nobody", '])
    warehouse.prepare([])
    with warehouse.connected() as connection, pytest.raises(WarehouseError) as caught:
        connection.stage("staged", [file])
    assert str(caught.value).startswith(("DuckDB: ", "Snowflake: error 100069"))
    assert "Nobody" not in str(caught.value)
