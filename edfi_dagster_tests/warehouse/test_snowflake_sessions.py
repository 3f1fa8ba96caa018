"""Sessions with Snowflake: reused, lost in every place, bounded in time; and the lease that outlasts a transaction."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.warehouse import clock, lease, ledger
from edfi_dagster.warehouse.contract import NotCommitted, WarehouseError
from edfi_dagster.warehouse.lease import holding
from edfi_dagster.warehouse.snowflake import SnowflakeWarehouse
from edfi_dagster.warehouse.snowflake_session import ConnectionLost
from edfi_dagster_tests.warehouse.pulls import (
    PAIR,
    SESSIONS,
    A,
    B,
    Pulls,
    delta,
    ids,
    refresh,
    session,
)
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn


@pytest.fixture
def warehouse(snowflake_warehouse: SnowflakeWarehouse) -> SnowflakeWarehouse:
    return snowflake_warehouse


def insert_tombstone(warehouse: SnowflakeWarehouse, name: str) -> None:
    with warehouse.connected() as connection, connection.transaction():
        connection.run("INSERT INTO edfi3._deletes (name) VALUES (?)", [name])


def tombstones(warehouse: SnowflakeWarehouse) -> list[str]:
    with warehouse.connected() as connection:
        return [name for (name,) in connection.rows("SELECT name FROM edfi3._deletes ORDER BY 1")]


def test_sessions_are_reused_few_are_kept_and_all_are_ended(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse
) -> None:
    before = snowflake.noted()["sessions"]
    for _ in range(5):
        assert tombstones(warehouse) == []
    assert snowflake.noted()["logins"] == []
    together = threading.Barrier(6)

    def use() -> None:
        with warehouse.connected() as connection:
            connection.rows("SELECT 1")
            together.wait()

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    noted = snowflake.noted()
    assert (len(noted["logins"]), noted["sessions"] - before) == (5, 3)
    warehouse.close()
    assert snowflake.noted()["sessions"] == before - 1
    assert tombstones(warehouse) == []


def test_session_that_died_idle_is_replaced_unseen(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, database: str
) -> None:
    snowflake.end_sessions(database)
    assert tombstones(warehouse) == []
    insert_tombstone(warehouse, "a")
    snowflake.fail("BEGIN", 390114, message="Authentication token has expired.")
    insert_tombstone(warehouse, "b")
    assert tombstones(warehouse) == ["a", "b"]


def test_connection_lost_in_a_transaction_commits_nothing_of_it(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, database: str
) -> None:
    with warehouse.connected() as connection:
        with (
            pytest.raises(
                ConnectionLost, match=r"lost \(error 290401\); nothing of its transaction is committed"
            ),
            connection.transaction(),
        ):
            connection.run("INSERT INTO edfi3._deletes (name) VALUES ('a')")
            snowflake.end_sessions(database)
            connection.run("INSERT INTO edfi3._deletes (name) VALUES ('b')")
        with connection.transaction():  # outside of that transaction there is another session
            connection.run("INSERT INTO edfi3._deletes (name) VALUES ('c')")
    assert tombstones(warehouse) == ["c"]


def test_statement_after_the_loss_does_not_run_alone_in_another_session(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, database: str
) -> None:
    """Whoever swallows the first error must not go on in a new session, outside of the lost transaction."""
    with pytest.raises(ConnectionLost), warehouse.connected() as connection, connection.transaction():
        snowflake.end_sessions(database)
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                connection.run("INSERT INTO edfi3._deletes (name) VALUES ('b')")
    assert tombstones(warehouse) == []


def test_connection_cut_in_a_statement_is_the_statements_error(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse
) -> None:
    with warehouse.connected() as connection:
        connection.run("CREATE OR REPLACE TEMPORARY TABLE mine (n INTEGER)")
        snowflake.fail("SELECT n", 0)
        with pytest.raises(ConnectionLost, match="run again"):
            connection.rows("SELECT n FROM mine")
        # The next statement has a session again, but not what the lost one held.
        assert connection.rows("SELECT 1") == [(1,)]
        with pytest.raises(WarehouseError, match=r"(?i)mine does not exist"):
            connection.rows("SELECT n FROM mine")


def test_first_statement_without_an_answer_is_not_run_again(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse
) -> None:
    """It may have been done: a row of the run log would be there twice."""
    assert tombstones(warehouse) == []
    snowflake.fail("INSERT", 0, after=True)
    with warehouse.connected() as connection, pytest.raises(ConnectionLost, match="run again"):
        connection.run("INSERT INTO edfi3._deletes (name) VALUES ('a')")
    assert tombstones(warehouse) == ["a"]


def test_commit_without_an_answer_may_have_been_done(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse
) -> None:
    for after, name in ((True, "done"), (False, "not done")):
        snowflake.fail("COMMIT", 0, after=after)
        with pytest.raises(ConnectionLost, match="may have been done or not; run again, the ledger knows"):
            insert_tombstone(warehouse, name)
    assert tombstones(warehouse) == ["done"]


def test_pull_whose_commit_got_no_answer_is_loaded_once(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, lake: LocalLake
) -> None:
    pulls = Pulls(lake)
    refresh(warehouse, pulls.reading(SESSIONS, 1, [session(A, "Fall")], low=None, newest=10, full=True))
    reading = pulls.reading(SESSIONS, 2, [session(B, "Spring")], low=10, newest=20)
    snowflake.fail("COMMIT", 0, after=True)
    with pytest.raises(ConnectionLost):
        delta(warehouse, reading)
    assert not delta(warehouse, reading).changed
    with warehouse.connected() as connection:
        assert connection.rows("SELECT count(*) FROM edfi3.sessions") == [(2,)]
        assert ledger.watermarks(connection, PAIR)["sessions", "records"] == 20


DIES_IN_ITS_TRANSACTION = """
import os, signal, sys
from pathlib import Path
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.warehouse import ledger
from edfi_dagster_tests.warehouse import pulls as loads
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn

lake = LocalLake(Path(sys.argv[3]))
warehouse = SnowflakeStandIn(int(sys.argv[1])).warehouse(sys.argv[2], lake)
reading = loads.Pulls(lake).reading(loads.SESSIONS, 2, [loads.session(loads.B, "Spring")], low=10, newest=20)
ledger.record = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
loads.delta(warehouse, reading)
"""


@pytest.mark.slow
def test_run_that_is_killed_in_a_transaction_is_done_again(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, lake: LocalLake, database: str, tmp_path: Path
) -> None:
    pulls = Pulls(lake)
    refresh(warehouse, pulls.reading(SESSIONS, 1, [session(A, "Fall")], low=None, newest=10, full=True))
    arguments = [str(snowflake.port), database, str(tmp_path / "lake")]
    killed = subprocess.run([sys.executable, "-c", DIES_IN_ITS_TRANSACTION, *arguments])
    assert killed.returncode == -signal.SIGKILL
    assert any('INSERT INTO "' in text and '"SESSIONS"' in text for text in snowflake.statements(database))
    snowflake.end_sessions(database)
    loaded = delta(
        warehouse, pulls.reading(SESSIONS, 3, [session(B, "Spring")], low=10, newest=20)
    )  # its lease is that of a dead process
    assert loaded.inserted == {"records": 1}
    assert ids(warehouse, "sessions") == [(1, A), (3, B)]


@pytest.mark.parametrize("code", [604, 630])
def test_statement_that_takes_too_long_says_what_to_change(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, code: int
) -> None:
    snowflake.fail("INSERT", code)
    with pytest.raises(WarehouseError) as caught:
        insert_tombstone(warehouse, "a")
    assert str(caught.value) == (
        f"Snowflake: a statement took longer than 20 s (error {code}, query 01b2-stand-in); use a larger warehouse or "
        "raise session_parameters.STATEMENT_TIMEOUT_IN_SECONDS"
    )
    assert tombstones(warehouse) == []


WAITERS = (
    "Your statement was aborted because the number of waiters for this lock exceeds the 20 statements limit."
)


def test_statement_turned_away_by_a_lock_comes_again_in_its_transaction(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, database: str
) -> None:
    """As when a hundred runs start in one minute, or replace their rows of one table."""
    for _ in range(2):
        snowflake.fail("INSERT .*'b'", 625, message=WAITERS)
    with warehouse.connected() as connection, connection.transaction():
        connection.run("INSERT INTO edfi3._deletes (name) VALUES ('a')")
        assert connection.run("INSERT INTO edfi3._deletes (name) VALUES ('b')") == 1
    words = [text.split()[0] for text in snowflake.statements(database)]
    assert words == ["BEGIN", "INSERT", "INSERT", "INSERT", "INSERT", "COMMIT"]
    assert tombstones(warehouse) == ["a", "b"]


def test_statement_turned_away_for_too_long_is_told_and_rolled_back(
    snowflake: SnowflakeStandIn, database: str, lake: LocalLake
) -> None:
    warehouse = snowflake.warehouse(database, lake, session_parameters={"STATEMENT_TIMEOUT_IN_SECONDS": 1})
    warehouse.prepare([])
    for _ in range(9):
        snowflake.fail("INSERT", 625, message=WAITERS)
    with pytest.raises(WarehouseError, match=f"error 625, query 01b2-stand-in: {WAITERS}"):
        insert_tombstone(warehouse, "a")
    asked = [
        text for text in snowflake.statements(database) if text.startswith("INSERT") and "._deletes" in text
    ]
    assert 1 < len(asked) < 9
    snowflake.forget()
    assert tombstones(warehouse) == []
    warehouse.close()


@pytest.mark.parametrize("code", [100038, 100069, 1])
def test_error_that_speaks_of_a_row_does_not_quote_it(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, code: int
) -> None:
    snowflake.fail("INSERT", code, message="Numeric value 'Nobody' is not recognized", sqlstate="22018")
    with pytest.raises(WarehouseError) as caught:
        insert_tombstone(warehouse, "a")
    assert str(caught.value) == f"Snowflake: error {code}, query 01b2-stand-in"


def test_transaction_open_for_too_long_is_not_committed(
    snowflake: SnowflakeStandIn, database: str, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = snowflake.warehouse(database, lake, session_parameters={"STATEMENT_TIMEOUT_IN_SECONDS": 30})
    warehouse.prepare([])
    seconds = clock.seconds
    with (
        pytest.raises(WarehouseError, match="a transaction took longer than 30 s and is not committed"),
        warehouse.connected() as connection,
        connection.transaction(),
    ):
        connection.run("INSERT INTO edfi3._deletes (name) VALUES ('a')")
        monkeypatch.setattr(clock, "seconds", lambda: seconds() + 31)
    monkeypatch.undo()
    assert tombstones(warehouse) == []
    warehouse.close()


def test_interrupted_statement_gives_its_session_up(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with warehouse.connected() as connection:
        with pytest.raises(KeyboardInterrupt), connection.transaction():
            connection.run("INSERT INTO edfi3._deletes (name) VALUES ('a')")
            monkeypatch.setattr("snowflake.connector.cursor.SnowflakeCursor.execute", interrupt)
            connection.run("INSERT INTO edfi3._deletes (name) VALUES ('b')")
        monkeypatch.undo()
        assert connection.rows("SELECT count(*) FROM edfi3._deletes") == [(0,)]


# -- the lease -----------------------------------------------------------------------------------------------


def test_lease_outlasts_a_transaction_and_a_commit_that_arrives_late(
    snowflake: SnowflakeStandIn, lake: LocalLake
) -> None:
    config = snowflake.config("RAW", session_parameters={})
    terms = SnowflakeWarehouse(config, TableNames(), lake).lease_terms
    assert terms.longest_transaction == 600 + 60 + 60
    assert terms.lasts >= terms.longest_transaction + 3 * terms.renewed_every
    slow = snowflake.config("RAW", session_parameters={"statement_timeout_in_seconds": 3600})
    assert SnowflakeWarehouse(slow, TableNames(), lake).lease_terms.longest_transaction == 3720


def test_transaction_starts_only_while_the_lease_outlasts_it(
    warehouse: SnowflakeWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = warehouse.lease_terms
    seconds = clock.seconds
    with holding(warehouse, PAIR, waiting=print) as held, warehouse.connected() as connection:
        to_spare = terms.lasts - terms.longest_transaction
        for silent, is_allowed in ((0.0, True), (to_spare - 20, True), (to_spare + 1, False)):
            monkeypatch.setattr(clock, "seconds", lambda silent=silent: seconds() + silent)
            if is_allowed:
                with connection.transaction():
                    held.check(connection)
                continue
            with (
                pytest.raises(
                    NotCommitted, match=r"t/2025: the lease could not be renewed for \d+ s, so another run"
                ),
                connection.transaction(),
            ):
                held.check(connection)
        monkeypatch.setattr(clock, "seconds", seconds)


def test_first_row_of_a_pair_inserted_twice_is_one_lease(
    warehouse: SnowflakeWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_longest_wait", lambda terms: 0.0)
    with warehouse.connected() as connection:
        for _ in range(2):
            connection.run("INSERT INTO edfi3._meta_leases (tenant_code, api_year) VALUES (?, ?)", list(PAIR))
        with holding(warehouse, PAIR, waiting=print) as held:
            held.check(connection)
            stamp = held.next_stamp(after=None)
            with (
                pytest.raises(WarehouseError, match="still works on it"),
                holding(warehouse, PAIR, waiting=print),
            ):
                pass
            held.check(connection)
        with holding(warehouse, PAIR, waiting=print) as held:
            assert held.next_stamp(after=None) > stamp
