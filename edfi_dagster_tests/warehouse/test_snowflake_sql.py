"""What Snowflake is asked: COPY and PUT, names that mean harm, setting up.

The stand-in takes COPY with metadata columns apart by its documented form; that it does on a real account what the
documentation says, like locks, grants and query tags, cannot be shown here.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.lake.paths import pair_folder
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.warehouse import snowflake_sql
from edfi_dagster.warehouse.contract import RawTable, WarehouseError
from edfi_dagster.warehouse.snowflake import SnowflakeWarehouse, _bound_rows, _lake_path
from edfi_dagster_tests.warehouse.pulls import (
    TABLES,
    pulled,
)
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn

FOLDER = "t/2025/20260101/20260101T060000/resources"


@pytest.fixture
def warehouse(snowflake_warehouse: SnowflakeWarehouse) -> SnowflakeWarehouse:
    return snowflake_warehouse


def test_copy_is_the_statement_that_snowflake_documents() -> None:
    text = snowflake_sql.copy_sql(
        "staged_records_lines_files",
        snowflake_sql.stage_place("RAW.UTIL.AIRFLOW_STAGE", f"{FOLDER}/"),
        ["students.jsonl.zst", "students.1.jsonl.zst"],
        "RAW.EDFI3.EDFI_DAGSTER_JSON",
    )
    assert text == (
        "COPY INTO staged_records_lines_files (v, filename, file_row_number)\n"
        "FROM (SELECT $1, metadata$filename, metadata$file_row_number FROM @RAW.UTIL.AIRFLOW_STAGE/"
        "t/2025/20260101/20260101T060000/resources/)\n"
        "FILES = ('students.jsonl.zst', 'students.1.jsonl.zst')\n"
        "FILE_FORMAT = (FORMAT_NAME = 'RAW.EDFI3.EDFI_DAGSTER_JSON')\n"
        "ON_ERROR = ABORT_STATEMENT FORCE = TRUE"
    )


def test_local_files_go_to_the_internal_stage_one_by_one_and_leave_it(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, lake: LocalLake, database: str
) -> None:
    files = [
        pulled(lake, f"{FOLDER}/students{part}.jsonl.gz", ['{"id": 1}', '{"id": 2}']) for part in ("", ".1")
    ]
    with warehouse.connected() as connection:
        assert connection.stage("staged", files) == 4
        found = connection.rows("SELECT filename, file_row_number FROM staged ORDER BY read_order")
        assert found == [(file.path, row) for file in files for row in (1, 2)]
        assert connection.rows('LIST @"EDFI3"."EDFI_DAGSTER_FILES"') == []
    asked = snowflake.statements(database)
    puts = [text for text in asked if text.startswith("PUT 'file:///")]
    folder = puts[0].split("@")[1].split("/", 1)[1].partition("/")[0]
    stage = f'"{database}"."EDFI3"."EDFI_DAGSTER_FILES"/{folder}'
    assert puts == [
        f"PUT 'file://{lake.uri(file.path)}' @{stage}/{FOLDER}/ AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = GZIP "
        "OVERWRITE = TRUE"
        for file in files
    ]
    (copy,) = [text for text in asked if text.startswith("COPY")]
    assert f"FROM @{stage}/{FOLDER}/)\nFILES = ('students.jsonl.gz', 'students.1.jsonl.gz')\n" in copy
    assert [text for text in asked if text.startswith("REMOVE")] == [f"REMOVE @{stage}/"]


def test_schema_made_for_a_remote_lake_says_what_local_files_lack(
    snowflake: SnowflakeStandIn, new_database: str, tmp_path: Path
) -> None:
    lake = LocalLake(tmp_path / "lake")
    file = pulled(lake, f"{FOLDER}/students.jsonl.gz", ['{"id": 1}'])
    snowflake.warehouse(new_database, RemoteLake(tmp_path / "lake")).setup([])
    warehouse = snowflake.warehouse(new_database, lake)
    warehouse.prepare([])
    with (
        warehouse.connected() as connection,
        pytest.raises(WarehouseError, match="run edfi-dagster setup-warehouse"),
    ):
        connection.stage("staged", [file])
    warehouse.setup([])
    with warehouse.connected() as connection:
        assert connection.stage("staged", [file]) == 1
    warehouse.close()


class RemoteLake(LocalLake):
    """A lake that no statement can upload, as in a bucket."""

    def uri(self, path: str) -> str:
        return f"s3://bucket/edfi/{path}"


def test_remote_lake_is_read_from_its_stage_in_batches(
    snowflake: SnowflakeStandIn, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert snowflake_sql.FILES_OF_A_COPY == 1000  # Snowflake takes no more
    monkeypatch.setattr(snowflake_sql, "FILES_OF_A_COPY", 3)
    lake = RemoteLake(tmp_path / "edfi")
    names = ["students.jsonl.zst", *(f"students.{part}.jsonl.zst" for part in (10, 9, 1, 2))]
    files = [pulled(lake, f"{FOLDER}/{name}", ['{"id": 1}']) for name in names]
    snowflake.external_stage(
        "RAW.UTIL.FILES", str(tmp_path)
    )  # the bucket's root, where nothing of that name is
    warehouse = snowflake.warehouse(database, lake, stage="raw.util.files")
    warehouse.prepare([])
    snowflake.forget()
    with warehouse.connected() as connection:
        with pytest.raises(WarehouseError, match="was not found"):
            connection.stage("staged", files)
        snowflake.external_stage("RAW.UTIL.FILES", str(tmp_path / "edfi"))
        assert connection.stage("staged", files) == 5
        assert connection.rows("SELECT filename FROM staged ORDER BY read_order") == [
            (f.path,) for f in files
        ]
    copies = [text for text in snowflake.statements(database) if text.startswith("COPY")][1:]
    assert [text.count(".jsonl.zst'") for text in copies] == [3, 2]
    assert not [text for text in snowflake.statements(database) if text.startswith(("PUT", "REMOVE"))]
    warehouse.close()


@pytest.mark.parametrize("remote", [False, True], ids=["uploaded", "staged"])
def test_folder_of_any_tenant_code_is_read_without_quotes(
    snowflake: SnowflakeStandIn, database: str, tmp_path: Path, remote: bool
) -> None:
    lake = (RemoteLake if remote else LocalLake)(tmp_path / "edfi")
    folder = pair_folder(TenantYear("St. Mary's, Cañon", 2025))
    files = [pulled(lake, f"{folder}/resources/{name}.jsonl.zst", ['{"id": 1}']) for name in ("a", "b")]
    snowflake.external_stage("RAW.UTIL.TENANTS", str(tmp_path / "edfi"))
    warehouse = snowflake.warehouse(database, lake, stage="raw.util.tenants")
    warehouse.prepare([])
    with warehouse.connected() as connection:
        assert connection.stage("staged", files) == 2
        found = connection.rows("SELECT filename FROM staged ORDER BY read_order")
    assert found == [(file.path,) for file in files]
    warehouse.close()


def test_rows_of_a_file_that_was_not_asked_for_are_refused() -> None:
    assert (
        _lake_path("edfi/t/2025/students.jsonl.zst", ["t/2025/students.jsonl.zst"])
        == "t/2025/students.jsonl.zst"
    )
    with pytest.raises(
        WarehouseError, match=r"rows came from other/students\.jsonl\.zst, which was not asked for"
    ):
        _lake_path("other/students.jsonl.zst", ["t/2025/students.jsonl.zst", "ents.jsonl.zst"])


# -- names ---------------------------------------------------------------------------------------------------


HOSTILE = [
    "x'); DROP TABLE students; --",
    'x"; DROP TABLE students; --',
    "a b",
    "../up",
    "\\",
    "ü",
    "x?y",
    "",
]
QUOTED = ("a b", "ü")
"""Those that are a stage's name all the same, in quotes."""


@pytest.mark.parametrize("text", HOSTILE)
def test_places_in_a_stage_hold_no_character_that_could_end_them(text: str) -> None:
    for path in (f"{text}/", f"t/{text}.jsonl.zst") if text else ("",):
        with pytest.raises(WarehouseError, match="cannot be a path in a stage"):
            snowflake_sql.stage_place("S", path)
        with pytest.raises(WarehouseError, match="cannot be a path in a stage"):
            snowflake_sql.copy_sql("lines", "@S/", [path], "F")
    if text in QUOTED:
        assert snowflake_sql.stage_name(f"raw.{text}") == f'RAW."{text}"'
        return
    with pytest.raises(WarehouseError, match="no stage's name"):
        snowflake_sql.stage_name(f"raw.{text}")


def test_local_folders_that_put_would_read_as_a_pattern_are_refused() -> None:
    for wild in ("/a*/f.zst", "/a?/f.zst", "/[a]/f.zst", "/a\n/f.zst"):
        with pytest.raises(WarehouseError, match="rename the folder"):
            snowflake_sql.put_sql(wild, "@S/")
    assert snowflake_sql.put_sql("/it's a\\b/f.zst", "@S/").startswith(
        "PUT 'file:///it\\'s a\\\\b/f.zst' @S/ "
    )


@pytest.mark.parametrize("name", ['a"; DROP TABLE edfi3._deletes; --', "select", "a b\\", "ü.%s?"])
def test_names_and_json_paths_are_quoted_and_values_bound(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, name: str
) -> None:
    with warehouse.connected() as connection:
        table = connection.table(name)
        connection.run(f"CREATE TABLE {table} (name VARCHAR)")
        connection.run(f"INSERT INTO {table} (name) VALUES (?)", [name])
        assert connection.rows(f"SELECT name FROM {table} WHERE name = ?", [name]) == [(name,)]
        for text in (name, f"it's {name}", f"{name}\\' OR 1=1 --"):
            assert connection.rows(f"SELECT {snowflake_sql.literal(text)}") == [(text,)]
        connection.run(f"DROP TABLE {table}")
        assert connection.rows("SELECT count(*) FROM edfi3._deletes") == [(0,)]


def test_json_paths_are_read_exactly(warehouse: SnowflakeWarehouse) -> None:
    record = {
        "a": {"b c": 1, "B": "x"},
        "order": True,
        'q"uote': "y",
        "it's": None,
        "n": 12345678901234567,
        "list": [1],
    }
    paths = ["a.b c", "a.B", "a.b", "order", 'q"uote', "it's", "n", "missing.deep", "list"]
    with warehouse.connected() as connection:
        connection.run("CREATE OR REPLACE TEMPORARY TABLE one (v VARIANT)")
        connection.run("INSERT INTO one SELECT PARSE_JSON(?)", [json.dumps(record)])
        (row,) = connection.rows(f"SELECT {', '.join(connection.text(path) for path in paths)} FROM one")
        assert row == ("1", "x", None, "true", "y", None, "12345678901234567", None, "[1]")
        texts = connection.texts(paths)
        selected = connection.rows(
            f"SELECT {', '.join(texts.each)} FROM (SELECT {texts.select} FROM one) parsed"
        )
        assert selected == [row]


def test_values_of_a_frame_are_bound_as_text_also_where_a_column_has_none() -> None:
    """Of a column in which every value is None the connector says that its type is ANY."""
    noon = pd.Timestamp("2026-01-02 12:00", tz="America/Chicago")
    frame = pd.DataFrame(
        {"n": [1, 2], "none": [None, None], "at": [noon, pd.NaT], "day": [date(2026, 1, 2), "x"]}
    )
    assert _bound_rows(frame) == [
        [("TEXT", "1"), ("TEXT", None), ("TEXT", "2026-01-02 18:00:00"), ("TEXT", "2026-01-02")],
        [("TEXT", "2"), ("TEXT", None), ("TEXT", None), ("TEXT", "x")],
    ]


# -- setting up ----------------------------------------------------------------------------------------------


def test_setup_statements_are_whole_and_can_be_run_twice(
    snowflake: SnowflakeStandIn, new_database: str, lake: LocalLake
) -> None:
    warehouse = snowflake.warehouse(new_database, lake, role="loader", warehouse="wh")
    statements = warehouse.setup_statements(TABLES)
    assert snowflake.statements(new_database) == []
    with warehouse.connected() as connection:
        for _ in range(2):
            for statement in statements:
                if not statement.startswith("--"):
                    connection.run(statement)
    assert warehouse.prepare(TABLES) == []
    kinds = [statement.split(" IF NOT")[0] for statement in statements if statement.startswith("CREATE")]
    assert kinds[:3] == ["CREATE SCHEMA", "CREATE FILE FORMAT", "CREATE STAGE"]
    assert kinds.count("CREATE TABLE") == len(TABLES) + 3 + 7
    schema = f'"{new_database}"."EDFI3"'
    comments = [statement for statement in statements if statement.startswith("--")]
    assert f'-- GRANT USAGE, CREATE TABLE, CREATE VIEW ON SCHEMA {schema} TO ROLE "LOADER"' in comments
    for which in ("ALL", "FUTURE"):
        assert f'-- GRANT SELECT ON {which} VIEWS IN SCHEMA {schema} TO ROLE "LOADER"' in comments
    assert f'-- GRANT READ, WRITE ON STAGE {schema}."EDFI_DAGSTER_FILES" TO ROLE "LOADER"' in comments
    warehouse.close()


def test_setup_of_a_remote_lake_says_where_its_stage_must_point(
    snowflake: SnowflakeStandIn, tmp_path: Path
) -> None:
    lake = RemoteLake(tmp_path)
    statements = snowflake.warehouse("RAW", lake).setup_statements([])
    assert (
        "-- CREATE STAGE IF NOT EXISTS RAW.UTIL.AIRFLOW_STAGE URL = 's3://bucket/edfi/' "
        "STORAGE_INTEGRATION = <integration>"
    ) in statements
    assert not [text for text in statements if text.startswith("CREATE STAGE")]
    assert [text for text in statements if "ON DATABASE" in text] == [
        '-- GRANT USAGE ON DATABASE "RAW" TO ROLE "<ROLE>"'
    ]
    elsewhere = snowflake.warehouse("RAW", lake, stage="files.util.stage").setup_statements([])
    assert '-- GRANT USAGE ON DATABASE FILES TO ROLE "<ROLE>"' in elsewhere


def test_what_a_role_may_not_make_is_left_to_setup(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, database: str
) -> None:
    refused = "Insufficient privileges to operate on schema 'EDFI3'"
    snowflake.fail('CREATE TABLE IF NOT EXISTS .*"NEW_ONES"', 3001, message=refused, sqlstate="42501")
    with pytest.raises(WarehouseError) as caught:
        warehouse.prepare([*TABLES, RawTable("new_ones", ("a",))])
    assert str(caught.value).endswith(
        f"{refused}; run edfi-dagster setup-warehouse with a role that may make new_ones"
    )
    # What is there already is not touched: its owner may be somebody else.
    made = [text for text in snowflake.statements(database) if text.startswith(("CREATE", "ALTER"))]
    assert len(made) == 1


def test_table_that_another_run_makes_in_the_same_moment_is_there(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse
) -> None:
    raced = "SQL compilation error: Object 'NEW_ONES' already exists."
    snowflake.fail('CREATE TABLE IF NOT EXISTS .*"NEW_ONES"', 2002, message=raced, sqlstate="42710")
    tables = [*TABLES, RawTable("new_ones", ("a",))]
    assert warehouse.prepare(tables) == ["new_ones"]
    assert warehouse.prepare(tables) == []
