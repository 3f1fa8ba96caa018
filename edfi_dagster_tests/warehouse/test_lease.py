"""One run at a time per (tenant, year)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

import edfi_dagster
from edfi_dagster.config import TenantYear
from edfi_dagster.warehouse import lease
from edfi_dagster.warehouse.contract import LeaseTerms, NotCommitted, WarehouseError
from edfi_dagster.warehouse.duckdb import DuckDBWarehouse
from edfi_dagster.warehouse.lease import holding
from edfi_dagster.warehouse.snowflake import SnowflakeWarehouse
from edfi_dagster_tests.warehouse.conftest import AnyWarehouse, Open

PAIR = TenantYear("t", 2025)
ALMOST_SILENT, SILENT = timedelta(seconds=1), timedelta(seconds=2)


@pytest.fixture
def another(open_warehouse: Open, monkeypatch: pytest.MonkeyPatch) -> Open:
    """A warehouse object of its own, with its tables. On Snowflake who waits asks as often as on DuckDB."""
    monkeypatch.setattr("edfi_dagster.warehouse.snowflake._ASKED_EVERY", 0.5)

    def make() -> AnyWarehouse:
        warehouse = open_warehouse()
        warehouse.prepare([])
        return warehouse

    return make


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """A live process that is not us."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def set_holder(warehouse: AnyWarehouse, holder: str, age: timedelta = timedelta()) -> None:
    renewed = datetime.now(UTC).replace(tzinfo=None) - age
    with warehouse.connected() as connection:
        connection.run("DELETE FROM edfi3._meta_leases")
        connection.run("INSERT INTO edfi3._meta_leases VALUES (?, ?, ?, ?, NULL)", [*PAIR, holder, renewed])


def holder_of(process: int) -> str:
    started = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{socket.gethostname()}:{process}:{started}:{lease._machine()}:0123"


def test_lease_of_a_live_process_is_waited_for_and_taken_over_when_it_dies(
    another: Open, neighbour: subprocess.Popen[bytes]
) -> None:
    set_holder(another(), holder_of(neighbour.pid))
    told: list[str] = []
    taken = threading.Event()

    def run() -> None:
        with holding(another(), PAIR, waiting=told.append):
            taken.set()

    waiter = threading.Thread(target=run)
    waiter.start()
    assert not taken.wait(1.2)
    assert told == [
        f"t/2025: waiting for another run (process {neighbour.pid} on {socket.gethostname()}) to end"
    ]
    neighbour.kill()
    neighbour.wait()
    assert taken.wait(5)
    waiter.join()


@pytest.mark.parametrize(
    ("holder", "age", "is_free"),
    [
        (
            f"{socket.gethostname()}:{os.getpid()}:12:{lease._machine()}:0123",
            timedelta(),
            True,
        ),  # the number was given out again
        # Containers of one name, as on a host's own network: what has that number here says nothing.
        (f"{socket.gethostname()}:{os.getpid()}:12:another-boot/4026531836:0123", timedelta(), False),
        ("elsewhere:1:12:another-boot/4026531836:0123", timedelta(), False),
        ("elsewhere:1:12:another-boot/4026531836:0123", ALMOST_SILENT, False),
        ("elsewhere:1:12:another-boot/4026531836:0123", SILENT, True),
        # Written before the clock stepped back.
        ("elsewhere:1:12:another-boot/4026531836:0123", timedelta(seconds=-3600), True),
        ("elsewhere:1:::0123", timedelta(seconds=10), False),
        ("elsewhere:1:12:0123", timedelta(seconds=10), False),  # of an earlier version
    ],
    ids=[
        "dead here",
        "another container of our name",
        "fresh",
        "just alive",
        "silent",
        "from the future",
        "cannot be told",
        "of an earlier version",
    ],
)
def test_lease_is_free_when_its_holder_is_dead_or_silent(
    another: Open, monkeypatch: pytest.MonkeyPatch, holder: str, age: timedelta, is_free: bool
) -> None:
    monkeypatch.setattr(lease, "_longest_wait", lambda terms: 0.0)
    lasts = timedelta(seconds=another().lease_terms.lasts)
    set_holder(another(), holder, {ALMOST_SILENT: lasts * 0.98, SILENT: lasts * 1.01}.get(age, age))
    if is_free:
        with holding(another(), PAIR, waiting=print):
            pass
    else:
        with (
            pytest.raises(WarehouseError, match=r"another run .* still works on it; end it"),
            holding(another(), PAIR, waiting=print),
        ):
            pass


def test_who_waits_does_so_for_as_long_as_dagster_lets_any_run_go_on() -> None:
    """The descriptors' run of a night must not fail because a first pull of resources takes till morning."""
    settings = yaml.safe_load((Path(edfi_dagster.__file__).parents[1] / "dagster.yaml").read_text())
    assert lease._longest_wait(LeaseTerms()) >= settings["run_monitoring"]["max_runtime_seconds"]


def test_who_waits_outlasts_the_lease_of_a_run_that_died_on_another_machine() -> None:
    """Also where statements, and leases with them, may last for hours."""
    for terms in (LeaseTerms(), LeaseTerms(lasts=7_560, renewed_every=60, longest_transaction=7_320)):
        assert lease._longest_wait(terms) > terms.lasts + terms.renewed_every


def test_nothing_commits_after_a_take_over(another: Open) -> None:
    with holding(another(), PAIR, waiting=print) as mine:
        set_holder(another(), "elsewhere:1:12:0123")
        warehouse = another()
        with warehouse.connected() as connection:
            with (
                pytest.raises(NotCommitted, match=r"t/2025: another run has taken this tenant and year over"),
                connection.transaction(),
            ):
                connection.run("INSERT INTO edfi3._deletes (tenant_code) VALUES ('t')")
                mine.check(connection)
            assert connection.rows("SELECT count(*) FROM edfi3._deletes") == [(0,)]
        with pytest.raises(NotCommitted):
            mine.next_stamp(after=None)
    with another().connected() as connection:
        assert connection.rows("SELECT holder FROM edfi3._meta_leases") == [("elsewhere:1:12:0123",)]


def test_lease_is_renewed_while_it_is_held_and_given_back_after(
    another: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (DuckDBWarehouse, SnowflakeWarehouse):
        monkeypatch.setattr(kind, "lease_terms", LeaseTerms(renewed_every=0.05))

    def state() -> tuple[str | None, datetime]:
        with another().connected() as connection:
            ((holder, renewed),) = connection.rows("SELECT holder, renewed_at FROM edfi3._meta_leases")
            return holder, renewed

    with holding(another(), PAIR, waiting=print):
        first = state()
        deadline = time.monotonic() + 5
        while state()[1] == first[1] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert state()[1] > first[1]
        assert state()[0] == first[0] is not None
    assert state()[0] is None


def test_pairs_do_not_wait_for_each_other(another: Open) -> None:
    with (
        holding(another(), PAIR, waiting=pytest.fail),
        holding(another(), TenantYear("t", 2026), waiting=pytest.fail),
        holding(another(), TenantYear("u", 2025), waiting=pytest.fail),
    ):
        pass


def test_threads_that_ask_at_the_same_instant_get_it_one_by_one(another: Open) -> None:
    warehouse = another()
    inside, most = 0, 0
    stamps: list[datetime] = []
    guard = threading.Lock()

    def run() -> None:
        nonlocal inside, most
        with holding(warehouse, PAIR, waiting=lambda sentence: None) as held:
            with guard:
                inside, most = inside + 1, max(most, inside + 1)
            stamps.append(held.next_stamp(after=None))
            with guard:
                inside -= 1

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert len(set(stamps)) == 4
    assert stamps == sorted(stamps)


def test_stamp_is_later_than_everything_known(another: Open) -> None:
    warehouse = another()
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    with holding(warehouse, PAIR, waiting=print) as held:
        first = held.next_stamp(after=None)
        assert abs(datetime.now(UTC) - first) < timedelta(seconds=30)
        assert first.microsecond == 0
        assert held.next_stamp(after=None) >= first + timedelta(seconds=1)
        assert held.next_stamp(after=ahead) == ahead + timedelta(seconds=1)
        assert held.next_stamp(after=first) == ahead + timedelta(seconds=2)
        with warehouse.connected() as connection:
            connection.run(
                "INSERT INTO edfi3._meta_change_versions (tenant_code, api_year, pull_timestamp) VALUES (?, ?, ?)",
                [*PAIR, (ahead + timedelta(days=1)).replace(tzinfo=None)],
            )
        assert held.next_stamp(after=None) == ahead + timedelta(days=1, seconds=1)
