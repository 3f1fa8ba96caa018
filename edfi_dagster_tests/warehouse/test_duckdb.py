"""The DuckDB file: shared between processes, staged from the lake."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.duckdb import DuckDBWarehouse

KEEPS_LOCK = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1] + ".lock", os.O_CREAT | os.O_RDWR)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("locked", flush=True)
input()
"""


@pytest.fixture
def warehouse(tmp_path: Path, lake: LocalLake) -> DuckDBWarehouse:
    return DuckDBWarehouse(tmp_path / "w.duckdb", "edfi3", TableNames(), lake)


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


def test_lock_files_lie_beside_the_warehouse(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    warehouse.prepare([])
    assert {"w.duckdb", "w.duckdb.lock", "w.duckdb.turn"} == {path.name for path in tmp_path.iterdir()}
