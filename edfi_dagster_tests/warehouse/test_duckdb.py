"""The DuckDB file: shared between processes, staged from the lake."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest
import zstandard

from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.manifest import PulledFile
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.warehouse.contract import RawTable, WarehouseError
from edfi_dagster.warehouse.duckdb import DuckDBWarehouse

KEEPS_LOCK = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1] + ".lock", os.O_CREAT | os.O_RDWR)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("locked", flush=True)
input()
"""


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(tmp_path / "lake")


@pytest.fixture
def warehouse(tmp_path: Path, lake: LocalLake) -> DuckDBWarehouse:
    return DuckDBWarehouse(tmp_path / "w.duckdb", "edfi3", TableNames(), lake)


def pulled(lake: LocalLake, path: str, rows: Sequence[str]) -> PulledFile:
    content = zstandard.ZstdCompressor().compress("".join(row + "\n" for row in rows).encode())
    with lake.writing(path) as stream:
        stream.write(content)
    return PulledFile(
        path=path, rows=len(rows), bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )


def test_second_process_waits_and_is_told_who_is_in_the_way(tmp_path: Path, lake: LocalLake) -> None:
    told: list[str] = []
    path = tmp_path / "w.duckdb"
    warehouse = DuckDBWarehouse(path, "edfi3", TableNames(), lake, waiting=told.append, longest_wait=0.4)
    with subprocess.Popen(
        [sys.executable, "-c", KEEPS_LOCK, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        started = time.monotonic()
        with pytest.raises(WarehouseError) as caught, warehouse.connected():
            pass
        assert 0.4 <= time.monotonic() - started < 5
        assert str(caught.value) == (
            f"another process has kept warehouse {path} for 0 s; end it, or use Snowflake where many runs must "
            "write at once"
        )
        process.stdin.close()
    warehouse.prepare([])
    assert told == []


def test_program_that_has_the_file_open_is_waited_for(tmp_path: Path, lake: LocalLake) -> None:
    path = tmp_path / "w.duckdb"
    duckdb.connect(str(path)).close()
    holds = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); time.sleep(1.5)"
    with subprocess.Popen([sys.executable, "-c", holds, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(WarehouseError, match="close the program that has it open"):
            DuckDBWarehouse(path, "edfi3", TableNames(), lake, longest_wait=0.3).prepare([])
        assert "_deletes" in DuckDBWarehouse(path, "edfi3", TableNames(), lake).prepare([])


def test_waiting_is_told_once_after_a_while(
    tmp_path: Path, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edfi_dagster.warehouse.duckdb._TELL_AFTER_SECONDS", 0.1)
    told: list[str] = []
    path = tmp_path / "w.duckdb"
    holder = DuckDBWarehouse(path, "edfi3", TableNames(), lake)
    waiting = DuckDBWarehouse(path, "edfi3", TableNames(), lake, waiting=told.append)
    with holder.connected():
        thread = threading.Thread(target=waiting.prepare, args=([],))
        thread.start()
        thread.join(0.6)
        assert thread.is_alive()
    thread.join()
    assert told == [f"waiting for another process to finish with warehouse {path}"]


def test_who_asks_again_and_again_does_not_starve_who_waits(tmp_path: Path, lake: LocalLake) -> None:
    path = tmp_path / "w.duckdb"
    greedy = DuckDBWarehouse(path, "edfi3", TableNames(), lake)
    patient = DuckDBWarehouse(path, "edfi3", TableNames(), lake)
    greedy.prepare([])
    done = threading.Event()
    turns: list[str] = []

    def ask() -> None:
        for _ in range(5):
            with patient.connected():
                turns.append("patient")
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    while not done.is_set():
        with greedy.connected():
            turns.append("greedy")
            time.sleep(0.02)
    thread.join()
    assert turns.count("greedy") <= 12


def test_file_is_let_go_between_uses(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    warehouse.prepare([])
    with warehouse.connected(), warehouse.connected():
        pass
    with duckdb.connect(str(tmp_path / "w.duckdb")) as other:
        assert other.execute("SELECT count(*) FROM edfi3._deletes").fetchall() == [(0,)]


def test_file_that_another_program_has_open_says_so(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(WarehouseError, match=rf"warehouse {path} cannot be opened: .*; close the program"):
        warehouse.prepare([])
    path.unlink()
    warehouse.prepare([])  # the lock was let go in spite of the failure


def test_transaction_is_undone_by_any_error(warehouse: DuckDBWarehouse) -> None:
    warehouse.prepare([])
    with warehouse.connected() as connection:
        with pytest.raises(KeyboardInterrupt), connection.transaction():
            connection.run("INSERT INTO edfi3._deletes (name) VALUES ('a')")
            raise KeyboardInterrupt
        with pytest.raises(WarehouseError, match="CatalogException"), connection.transaction():
            connection.run("INSERT INTO edfi3._deletes (name) VALUES ('a')")
            connection.run("INSERT INTO edfi3.nowhere VALUES (1)")
        with connection.transaction():
            assert connection.run("INSERT INTO edfi3._deletes (name) VALUES ('b'), ('c')") == 2
        assert connection.rows("SELECT name FROM edfi3._deletes ORDER BY 1") == [("b",), ("c",)]


def test_staging_keeps_the_order_of_files_and_lines(lake: LocalLake, warehouse: DuckDBWarehouse) -> None:
    files = [
        pulled(lake, f"t/2025/20260101/20260101T000000/resources/students{part}.jsonl.zst", rows)
        for part, rows in [
            (".7", [f'{{"n": {n}}}' for n in range(5000)]),
            ("", ['{"n": 5000}', '{"n": 1.10, "s": "a\\nb"}']),
            (".10", [f'{{"n": {n}}}' for n in range(7000, 9000)]),
        ]
    ]
    with warehouse.connected() as connection:
        connection.stage("staged", files)
        rows = connection.rows("SELECT v::VARCHAR, filename, file_row_number FROM staged ORDER BY read_order")
    expected = [
        *[(f'{{"n": {n}}}', files[0].path, n + 1) for n in range(5000)],
        ('{"n": 5000}', files[1].path, 1),
        ('{"n": 1.10, "s": "a\\nb"}', files[1].path, 2),
        *[(f'{{"n": {n}}}', files[2].path, n - 6999) for n in range(7000, 9000)],
    ]
    assert rows == expected


def test_staging_nothing_and_staging_again_start_afresh(lake: LocalLake, warehouse: DuckDBWarehouse) -> None:
    file = pulled(lake, "t/x.jsonl.zst", ['{"a": 1}'])
    with warehouse.connected() as connection:
        for files, count in (([file], 1), ([], 0), ([file], 1)):
            connection.stage("staged", files)
            assert connection.rows("SELECT count(*) FROM staged") == [(count,)]


def test_prepare_makes_what_is_missing_and_leaves_the_rest(warehouse: DuckDBWarehouse) -> None:
    tables = [RawTable("students", ("studentUniqueId",)), RawTable("candidates", ("candidateIdentifier",))]
    made = warehouse.prepare(tables[:1])
    assert made == ["students", "_descriptors", "_deletes", "_key_changes"]
    with warehouse.connected() as connection:
        connection.run("INSERT INTO edfi3.students (name) VALUES ('students')")
    assert warehouse.prepare(tables) == ["candidates"]
    assert warehouse.prepare(tables) == []
    with warehouse.connected() as connection:
        assert connection.rows("SELECT name FROM edfi3.students") == [("students",)]
        columns = connection.rows(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'students' "
            "ORDER BY ordinal_position"
        )
    assert columns == [
        ("tenant_code", "VARCHAR"),
        ("api_year", "INTEGER"),
        ("pull_date", "DATE"),
        ("pull_timestamp", "TIMESTAMP"),
        ("file_row_number", "BIGINT"),
        ("filename", "VARCHAR"),
        ("name", "VARCHAR"),
        ("ods_version", "VARCHAR"),
        ("data_model_version", "VARCHAR"),
        ("v", "JSON"),
    ]


def test_prepare_adds_the_key_change_column_that_older_airflow_tables_lack(
    warehouse: DuckDBWarehouse,
) -> None:
    with warehouse.connected() as connection:
        connection.run("CREATE SCHEMA edfi3")
        connection.run(
            "CREATE TABLE edfi3._meta_change_versions (tenant_code VARCHAR, api_year INTEGER, name VARCHAR, "
            "pull_date DATE, pull_timestamp TIMESTAMP, max_version BIGINT, is_active BOOLEAN, is_deletes BOOLEAN)"
        )
        connection.run(
            "INSERT INTO edfi3._meta_change_versions VALUES "
            "('t', 2025, 'students', '2026-01-01', '2026-01-01', 7, TRUE, FALSE)"
        )
    warehouse.prepare([])
    with warehouse.connected() as connection:
        assert connection.rows("SELECT max_version, is_key_changes FROM edfi3._meta_change_versions") == [
            (7, None)
        ]


def test_error_about_a_row_does_not_quote_it(lake: LocalLake, warehouse: DuckDBWarehouse) -> None:
    file = pulled(lake, "t/x.jsonl.zst", ['{"lastSurname": "Nobody", '])
    with warehouse.connected() as connection, pytest.raises(WarehouseError) as caught:
        connection.stage("staged", [file])
    assert str(caught.value).startswith("DuckDB: ")
    assert "Nobody" not in str(caught.value)


def test_lock_files_lie_beside_the_warehouse(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    warehouse.prepare([])
    assert {"w.duckdb", "w.duckdb.lock", "w.duckdb.turn"} == {path.name for path in tmp_path.iterdir()}
