"""SIGKILL anywhere in a run, then run again: the state is that of a run nobody disturbed (invariant 11)."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import ODS, Bench, failures, set_credentials, write_config
from edfi_dagster_tests.extract import child
from edfi_dagster_tests.extract.child import Orders

ENDPOINTS = ("students", "sessions", "locations")
DESCRIPTORS = ("termDescriptors", "sexDescriptors")


@dataclass(frozen=True)
class Night:
    """A platform as last night's run left it, and the state tonight's undisturbed run would leave."""

    folder: Path
    server: SandboxServer
    delta: tuple[Any, ...]
    refresh: tuple[Any, ...]

    def bench(self, folder: Path) -> Bench:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Bench(folder / "platform.yaml", self.server)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    with SandboxServer([ODS], rows={"students": 8}) as server:
        set_credentials(server)
        folder = tmp_path_factory.mktemp("yesterday")
        bench = Bench(write_config(folder, server, ENDPOINTS, DESCRIPTORS), server)
        gone, replaced = bench.add_student(1), bench.add_student(2)
        bench.materialize()
        bench.store.delete("students", gone)
        bench.recreate("students", replaced)
        bench.change("students", bench.store.ids("students")[0], firstName="Änna")
        bench.change("sessions", bench.store.ids("sessions")[0], sessionName="Autumn")
        bench.change("termDescriptors", bench.store.ids("termDescriptors")[0], description="Changed")
        undisturbed = {}
        for full in (False, True):
            other = tmp_path_factory.mktemp("undisturbed")
            shutil.copytree(folder, other, dirs_exist_ok=True)
            run = Bench(other / "platform.yaml", server)
            run.materialize(full_refresh=full)
            run.verify()
            undisturbed[full] = run.state()
        yield Night(folder, server, undisturbed[False], undisturbed[True])


PLACES = [
    pytest.param(Orders(**orders), id=name)  # type: ignore[arg-type]
    for name, orders in {
        "after its stamp was taken": {"kill": "edfi_dagster.warehouse.lease:Lease.next_stamp", "after": True},
        "before its first part is written": {"kill": "edfi_dagster.lake.store:LocalLake.writing", "nth": 2},
        "before a part is in place": {"kill": "os:fsync", "nth": 3},
        "before its first manifest": {"kill": "edfi_dagster.lake.pull:write_manifest"},
        "after its second manifest": {
            "kill": "edfi_dagster.lake.pull:write_manifest",
            "nth": 2,
            "after": True,
        },
        "before its first staging": {"kill": "edfi_dagster.warehouse.duckdb:DuckDBConnection.stage"},
        "before the ODS's word on a suspect is noted": {"kill": "edfi_dagster.lake.pull:Pull.amend"},
        "after the ODS's word on a suspect is noted": {
            "kill": "edfi_dagster.lake.pull:Pull.amend",
            "after": True,
        },
        "in a transaction, after tombstones": {
            "kill": "edfi_dagster.warehouse.load:_insert_changes",
            "after": True,
        },
        "in a transaction, after removals": {
            "kill": "edfi_dagster.warehouse.supersede:remove_superseded",
            "after": True,
        },
        "in a transaction, after its watermarks": {
            "kill": "edfi_dagster.warehouse.ledger:record",
            "after": True,
        },
        "after its first load": {"kill": "edfi_dagster.warehouse.load:load_delta", "after": True},
        "after its second load": {"kill": "edfi_dagster.warehouse.load:load_delta", "nth": 2, "after": True},
        "after the descriptors": {"kill": "edfi_dagster.warehouse.load:load_descriptors", "after": True},
        "before the watermarks without news": {"kill": "edfi_dagster.warehouse.load:settle"},
        "before run.json": {"kill": "edfi_dagster.extract.run:_PairRun._write_summary"},
        "refresh: between pull and load": {
            "kill": "edfi_dagster.warehouse.load:load_refresh",
            "full_refresh": True,
        },
        "refresh: between a table's replacement and the closing transaction": {
            "kill": "edfi_dagster.warehouse.load:load_refresh",
            "after": True,
            "full_refresh": True,
        },
        "refresh: before the closing transaction": {
            "kill": "edfi_dagster.warehouse.load:close_refreshes",
            "full_refresh": True,
        },
        "refresh: after the closing transaction": {
            "kill": "edfi_dagster.warehouse.load:close_refreshes",
            "after": True,
            "full_refresh": True,
        },
    }.items()
]


@pytest.mark.parametrize("orders", PLACES)
def test_11_kill_and_run_again(night: Night, tmp_path: Path, orders: Orders) -> None:
    bench = night.bench(tmp_path)
    status, said = child.run(bench.config, orders)
    assert status == -signal.SIGKILL, said
    results = bench.materialize(full_refresh=orders.full_refresh)
    assert not failures(results)
    bench.verify()
    assert bench.state() == (night.refresh if orders.full_refresh else night.delta)
    bench.rebuild()
    bench.verify()


def test_11_killed_refresh_is_finished_by_a_plain_run(night: Night, tmp_path: Path) -> None:
    bench = night.bench(tmp_path)
    orders = Orders(kill="edfi_dagster.warehouse.load:load_refresh", nth=2, after=True, full_refresh=True)
    assert child.run(bench.config, orders)[0] == -signal.SIGKILL
    results = bench.materialize()
    assert sum(result.full for name, result in results.items() if name in ENDPOINTS) == 2
    bench.verify()
    rows, _, watermarks = bench.state()
    assert (rows, watermarks) == (night.refresh[0], night.refresh[2])


@pytest.mark.parametrize("nth", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_11_killed_rebuild_goes_on(night: Night, tmp_path: Path, nth: int) -> None:
    bench = night.bench(tmp_path)
    bench.materialize()
    rows, deleted, _ = bench.state()
    orders = Orders(kill="edfi_dagster.warehouse.ledger:record", nth=nth, after=True, rebuild="rebuilt")
    assert child.run(bench.config, orders)[0] == -signal.SIGKILL
    assert not failures(bench.rebuild("rebuilt"))
    bench.verify()
    assert bench.state()[:2] == (rows, deleted)
    assert bench.materialize()
    bench.verify()


def test_4_two_processes_of_one_pair_take_turns(night: Night, tmp_path: Path) -> None:
    bench = night.bench(tmp_path)
    before = len(bench.stamps())
    runs = [child.Child(bench.config, Orders()) for _ in range(3)]
    for run in runs:
        status, said = run.end()
        assert (status, said[:3]) == (0, "{} "), said
    assert len(bench.stamps()) == before + 3
    bench.verify()
    assert bench.state() == night.delta
