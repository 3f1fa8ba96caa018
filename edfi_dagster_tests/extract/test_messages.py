"""What a person reads when something is wrong, and that nothing is lost by it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edfi_dagster.extract import EndpointResult, Result
from edfi_dagster.lake import pull
from edfi_dagster.lake.manifest import Manifest
from edfi_dagster.lake.store import LakeError, LakeStore
from edfi_dagster.ods.errors import OdsUnreachable, WrongCredentials
from edfi_dagster.ods.pages import DELETES, RECORDS
from edfi_dagster.warehouse import lease
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.lease import holding
from edfi_dagster_tests.bench import PAIR, SCHEDULING, SECRET_VARIABLE, Bench, failures
from edfi_dagster_tests.extract import child
from edfi_dagster_tests.extract.child import Orders

MakeBench = Callable[..., Bench]
WAITS = "waits for its records"


@contextmanager
def nothing_lost(bench: Bench) -> Iterator[None]:
    """Whatever happens in the block, the rows, tombstones and watermarks stay; and afterwards all is well again."""
    bench.materialize()
    bench.change("students", bench.store.ids("students")[0], firstName="Änna")
    state = bench.state()
    yield
    assert bench.state() == state
    bench.server.faults.clear()
    bench.store.allow("students")


def cause(results: dict[str, EndpointResult], name: str = "students") -> tuple[str, str]:
    found = results[name].kinds[RECORDS]
    return str(found.result), found.cause


def test_wrong_secret(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench("students", "sessions")
    with nothing_lost(bench), monkeypatch.context() as patched:
        patched.setenv(SECRET_VARIABLE, "not-the-secret")
        with pytest.raises(WrongCredentials) as caught:
            bench.materialize()
    assert str(caught.value) == (
        "grand_bend/2025: the ODS refused the key and secret (HTTP 401 from its token address); "
        "check client_id and client_secret of this tenant and year"
    )
    bench.materialize()
    bench.verify()


def test_403_on_an_endpoint_never_loaded_is_a_fact_not_a_failure(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.store.deny("students")
    results = bench.materialize()
    assert cause(results) == (Result.NOT_PERMITTED, "HTTP 403, the key may not read this")
    assert {
        kind for kind, of_kind in results["students"].kinds.items() if of_kind.result == Result.FAILED
    } == set()
    assert {name for name, _ in bench.watermarks()} == {"sessions"}
    bench.verify(["sessions"])
    bench.store.allow("students")
    assert bench.materialize()["students"].full
    bench.verify()


def test_403_on_an_endpoint_loaded_before_is_a_failure(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    with nothing_lost(bench):
        low = bench.watermarks()["students", "records"]
        bench.store.deny("students")
        before = len(bench.server.requests.matching("/students"))
        results = bench.materialize(["students"], may_fail=True)
        assert len(bench.server.requests.matching("/students")) == before + 1
        assert bench.watermarks()["students", "records"] == low
    assert failures(results)["students"] == {
        RECORDS: "grand_bend/2025 ed-fi/students: HTTP 403, the key may not read this; it was loaded before, so its "
        "rows are kept as they are; have its host open it to this key again, or write enabled: false for the endpoint",
    }
    assert results["students"].kinds[DELETES].cause == WAITS
    bench.materialize()
    bench.verify()


def test_403_on_changes_alone_leaves_the_records_to_go_on(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.store.deny("students", read=False)
    results = bench.materialize()
    assert cause(results)[0] == Result.LOADED
    assert results["students"].kinds[DELETES].result == Result.NOT_PERMITTED
    assert bench.watermarks().keys() == {("students", "records")}
    bench.add_student(1)
    assert bench.materialize()["students"].rows_inserted == 1
    bench.verify()


def test_404_never_loaded_loaded_before_and_no_longer_published(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "locations")
    bench.store.withdraw("locations")
    results = bench.materialize()
    assert cause(results, "locations") == (Result.NOT_OFFERED, "HTTP 404, the ODS has no such endpoint")
    state = bench.state()
    bench.server.faults.add("/students$", status=404)
    bench.store.withdraw("sessions")
    results = bench.materialize(may_fail=True)
    assert failures(results) == {
        "students": {
            RECORDS: "grand_bend/2025 ed-fi/students: HTTP 404, the ODS has no such endpoint; it was loaded before, "
            "so its rows are kept as they are; have its host open it to this key again, or write enabled: false for "
            "the endpoint"
        }
    }
    assert results["students"].kinds[DELETES].cause == WAITS
    assert cause(results, "sessions") == (Result.NOT_OFFERED, "HTTP 404, the ODS has no such endpoint")
    assert bench.state() == state
    bench.server.faults.clear()
    bench.store.allow("sessions")
    bench.materialize()
    bench.verify(["students", "sessions"])


def test_ods_that_stops_answering_in_the_middle(make_bench: MakeBench) -> None:
    names = SCHEDULING
    bench = make_bench(*names, max_concurrent_requests=1, endpoint_defaults={"num_retries": 1})
    bench.pause = lambda seconds: None
    with nothing_lost(bench):
        bench.server.faults.add("/data/v3/", action="reset")
        results = bench.materialize(may_fail=True)
    host = bench.server.url.removeprefix("http://")
    found = {cause(results, name)[1] for name in names}
    assert results.keys() == set(names)
    assert all(text.startswith(f"{PAIR} ed-fi/") for text in found)
    assert {text.partition(": ")[2] for text in found} == {
        f"no connection from {host}, 2 attempts",
        "not tried, because the ODS stopped answering",
    }
    bench.materialize()
    bench.verify()


def test_ods_that_is_down(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    waits: list[float] = []
    bench.pause = waits.append
    with nothing_lost(bench):
        bench.server.faults.add("", action="reset")
        with pytest.raises(OdsUnreachable) as caught:
            bench.materialize()
    host = bench.server.url.removeprefix("http://")
    assert str(caught.value) == f"grand_bend/2025: no connection from {host}, 6 attempts"
    assert len(waits) == 5
    bench.materialize()
    bench.verify()


def test_full_disk_below_the_lake(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench("students")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with nothing_lost(bench):
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(LakeError) as caught:
                bench.materialize()
        with monkeypatch.context() as patched:
            calls = iter(range(100))
            fsync = os.fsync
            patched.setattr(os, "fsync", lambda fd: full(fd) if next(calls) == 1 else fsync(fd))
            results = bench.materialize(may_fail=True)
    root = bench.folder / "lake"
    advice = "check that the folder is writable and has room"
    assert str(caught.value) == f"lake {root}: No space left on device at .check; {advice}"
    where = f"{bench_run(bench)}/resources/students.jsonl.zst"
    assert cause(results) == (Result.FAILED, f"lake {root}: No space left on device at {where}; {advice}")
    assert not any(name.name.startswith(".") for name in root.rglob("*"))
    bench.materialize()
    bench.verify()


def bench_run(bench: Bench) -> str:
    """The folder of the newest run, relative to the lake."""
    lake = bench.folder / "lake"
    return str(max(lake.glob("*/*/*/*")).relative_to(lake))


def test_full_disk_below_the_warehouse(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    with nothing_lost(bench):
        size = (bench.folder / "warehouse.duckdb").stat().st_size
        for number in range(40):
            bench.add_student(number, note="long " * (size // 100))
        _, said = child.run(bench.config, Orders(full_refresh=True, largest_file=size + 50_000))
    path = bench.folder / "warehouse.duckdb.wal"
    assert f'Failed to commit: Could not write file "{path}": File too large' in said
    assert "Ämne" not in said
    bench.materialize()
    bench.verify()


def test_run_of_the_pair_that_does_not_end(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench("students")
    bench.lets_go = True
    monkeypatch.setattr(lease, "_longest_wait", lambda terms: 0.6)
    other = Bench(bench.config, bench.server).warehouse
    with (
        nothing_lost(bench),
        holding(other, PAIR, waiting=print),
        pytest.raises(WarehouseError) as caught,
    ):
        bench.materialize()
    place = f"another run (process {os.getpid()} on {os.uname().nodename})"
    assert bench.told[-1] == f"grand_bend/2025: waiting for {place} to end"
    assert str(caught.value) == f"grand_bend/2025: {place} still works on it; end it, then run again"
    bench.materialize()
    bench.verify()


def test_no_message_holds_a_value_of_a_student(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    bench.materialize()
    bench.add_student(1, lastSurname="Nobody-should-read-this")
    bench.materialize(load=False)
    (path,) = (bench.folder / "lake" / bench_run(bench) / "resources").glob("students.jsonl.zst")
    path.write_bytes(path.read_bytes()[:-9])
    results: dict[str, Any] = bench.load_stored(["students"])
    message = results["students"].failures[RECORDS]
    assert "is not the file that its manifest lists" in message
    assert "Nobody" not in message
    bench.materialize()
    bench.verify()


def test_manifest_that_cannot_be_written_fails_its_endpoint_alone(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students", "sessions")
    real = pull.write_manifest

    def write(store: LakeStore, path: str, manifest: Manifest) -> None:
        if manifest.endpoint == "sessions":
            raise LakeError("lake: No space left on device")
        real(store, path, manifest)

    with monkeypatch.context() as patch:
        patch.setattr(pull, "write_manifest", write)
        results = bench.materialize(may_fail=True)
    assert "No space left" in results["sessions"].failures[RECORDS]
    bench.verify(["students"])
    assert bench.raw("sessions") == []
    bench.materialize()
    bench.verify()
