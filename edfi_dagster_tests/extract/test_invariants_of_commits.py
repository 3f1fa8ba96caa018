"""The invariants of committing: ledger and lease, numbers that are shown, refreshes, descriptors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from edfi_dagster.lake.manifest import stamps
from edfi_dagster.ods.pages import DELETES, RECORDS
from edfi_dagster.warehouse import ledger, load
from edfi_dagster.warehouse.contract import NotCommitted, WarehouseError
from edfi_dagster.warehouse.lease import holding
from edfi_dagster_tests.bench import PAIR, Bench, failures

MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.both_storages


def test_4_watermark_moves_for_every_kind_also_without_rows(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", descriptors=("termDescriptors",))
    bench.materialize()
    bench.add_student(1)
    bench.materialize()
    expected = {("term_descriptors", "records")} | {
        (name, kind) for name in ("students", "sessions") for kind in ("records", "deletes", "key_changes")
    }
    assert bench.watermarks() == dict.fromkeys(expected, bench.store.newest)
    ((rows, stamps_),) = bench.query(
        "SELECT count(*), count(DISTINCT pull_timestamp) FROM edfi3._meta_change_versions"
    )
    assert (rows, stamps_) == (14, 2)


def test_4_ledger_keeps_a_pull_from_being_loaded_twice(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    low = bench.watermarks()["students", "records"]
    bench.add_student(1)
    bench.materialize()
    state, raw = bench.state(), len(bench.raw("students"))
    manifest = bench.manifest("students")
    endpoint = bench.endpoint("students")
    entry = ledger.Entry(PAIR, endpoint, RECORDS, manifest.pull_timestamp, low, manifest.newest)
    with holding(bench.warehouse, PAIR, waiting=print) as lease, bench.warehouse.connected() as connection:
        again = load.load_delta(connection, lease, endpoint, [ledger.Reading(entry, manifest)])
    assert not again.changed
    assert (bench.state(), len(bench.raw("students"))) == (state, raw)


def test_4_rows_and_watermark_commit_together_or_not_at_all(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    bench.materialize()
    state = bench.state()
    bench.add_student(1)

    def refuse(*args: Any) -> None:
        raise WarehouseError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "record", refuse)
        result = bench.materialize(may_fail=True)["students"]
    assert set(result.failures.values()) == {"the disk is full"}
    assert bench.state() == state
    bench.materialize()
    bench.verify()


def test_4_two_runs_of_one_pair_take_turns(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    other = Bench(bench.config, bench.server)
    bench.lets_go = other.lets_go = True
    errors: list[BaseException] = []

    def run(one: Bench) -> None:
        try:
            one.materialize()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in (bench, other, bench)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(bench.stamps()) == 3
    assert len(stamps(bench.lake, PAIR)) == 3
    assert any("waiting for another run" in sentence for sentence in bench.told + other.told)
    assert len(bench.raw("students")) == bench.store.count("students")
    bench.verify()


def test_4_run_whose_lease_was_taken_over_commits_nothing(make_bench: MakeBench) -> None:
    """A refresh races a delta that has stalled: the delta's rows and watermark are no longer wanted."""
    bench = make_bench("students")
    bench.lets_go = True
    bench.materialize()
    bench.add_student(1)
    stalled = bench.server.faults.add("/students/deletes$", action="slow", seconds=2.5, times=1)
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome.update(failures(bench.materialize(may_fail=True)))
        except NotCommitted as error:
            outcome["error"] = error

    delta = threading.Thread(target=run)
    delta.start()
    while not stalled.hits:
        delta.join(0.01)
    bench.query("UPDATE edfi3._meta_leases SET renewed_at = renewed_at - INTERVAL 1 HOUR")
    refreshing = Bench(bench.config, bench.server)
    bench.server.faults.clear()
    refreshing.materialize(full_refresh=True)
    state = refreshing.state()
    delta.join()
    assert "taken this tenant and year over" in str(outcome)
    assert refreshing.state() == state
    refreshing.verify()
    bench.materialize()
    bench.verify()


def test_4_transaction_commits_only_on_the_watermark_its_pull_started_from(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    bench.add_student(1)
    bench.materialize(load=False)
    manifest = bench.manifest("students")
    assert manifest.low is not None
    endpoint = bench.endpoint("students")
    stale = ledger.Entry(PAIR, endpoint, RECORDS, manifest.pull_timestamp, manifest.low - 1, manifest.newest)
    with holding(bench.warehouse, PAIR, waiting=print) as lease, bench.warehouse.connected() as connection:
        with pytest.raises(NotCommitted, match="another run has loaded it"):
            load.load_delta(connection, lease, endpoint, [ledger.Reading(stale, manifest)])
        with pytest.raises(NotCommitted, match="another run has loaded it"):
            load.load_refresh(connection, lease, ledger.Reading(stale, manifest))
    assert bench.watermarks()["students", "records"] == manifest.low
    assert bench.materialize()["students"].rows_inserted == 1
    bench.verify()


def test_5_result_carries_the_numbers_that_were_committed(make_bench: MakeBench) -> None:
    bench = make_bench("students", change_version_overlap=3)
    bench.materialize()
    low = bench.watermarks()["students", "records"]
    ids = [bench.add_student(n) for n in range(4)]
    bench.change("students", ids[0], firstName="Twice")
    bench.store.delete("students", ids[3])
    result = bench.materialize()["students"]
    records, deletes = result.kinds[RECORDS].manifest, result.kinds[DELETES].manifest
    assert records is not None
    assert deletes is not None
    assert (records.low, records.newest, records.min_change_version) == (low, bench.store.newest, low - 2)
    assert (records.rows, records.expected_rows, result.rows_inserted) == (3 + 0, 3, 3)
    assert (deletes.rows, result.kinds[DELETES].rows_loaded) == (1, 1)
    assert records.pull_timestamp.replace(tzinfo=None) == bench.stamps()[-1]
    assert records.data_model_version == "5.2.0"
    assert bench.watermarks()["students", "records"] == records.newest
    rows = bench.query(
        "SELECT DISTINCT ods_version, data_model_version, pull_date = pull_timestamp::DATE FROM edfi3.students"
    )
    assert rows == [(records.ods_version, "5.2.0", True)]


def test_6_refresh_replaces_by_nothing_and_the_lake_rebuilds_it(make_bench: MakeBench) -> None:
    bench = make_bench("students", "studentSectionAssociations", "grades")
    bench.materialize()
    for endpoint in ("grades", "studentSectionAssociations"):
        for record_id in bench.store.ids(endpoint):
            bench.store.delete(endpoint, record_id)
    bench.materialize(["studentSectionAssociations"], full_refresh=True)
    assert bench.raw("student_section_associations") == []
    assert bench.deletes("student_section_associations") == {}
    bench.materialize()
    bench.verify()
    state = bench.state()
    assert not failures(bench.rebuild())
    assert bench.state()[0] == state[0]
    bench.materialize()
    bench.verify()
    assert bench.watermarks() == state[2]


def test_6_refresh_of_some_endpoints_leaves_the_others_alone(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", descriptors=("termDescriptors",))
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", gone)
    bench.materialize()
    assert bench.deletes("students").keys() == {gone}
    before = {name: bench.raw(name) for name in ("students", "_descriptors")}
    low = bench.watermarks()
    bench.materialize(["sessions"], full_refresh=True)
    assert {name: bench.raw(name) for name in before} == before
    assert bench.deletes("students").keys() == {gone}
    assert bench.watermarks() == low
    bench.materialize(["students"], full_refresh=True)
    assert bench.deletes("students") == {}
    bench.verify()


def test_6_refresh_that_was_cut_off_before_its_closing_transaction_is_done_again(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students", "sessions")
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", gone)
    bench.materialize()

    def cut(*args: Any) -> None:
        raise WarehouseError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(load, "close_refreshes", cut)
        with pytest.raises(WarehouseError, match="cut off"):
            bench.materialize(["students"], full_refresh=True)
    assert "students" not in {name for name, _ in bench.watermarks()}
    (result,) = bench.materialize(["students"]).values()
    assert result.full
    assert bench.deletes("students") == {}
    assert bench.watermarks()["students", "deletes"] == bench.store.newest
    bench.verify()


def test_6_missing_watermark_of_deletes_alone_starts_their_window_at_zero(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", gone)
    bench.materialize()
    before = bench.deletes()
    bench.query("DELETE FROM edfi3._meta_change_versions WHERE is_deletes")
    result = bench.materialize()["students"]
    assert not result.full
    manifest = result.kinds[DELETES].manifest
    assert manifest is not None
    assert (manifest.min_change_version, manifest.low) == (0, None)
    assert bench.deletes() == before
    assert bench.watermarks()["students", "deletes"] == bench.store.newest
    bench.verify()


def test_9_descriptors_are_replaced_only_where_they_differ(make_bench: MakeBench) -> None:
    bench = make_bench(descriptors=("termDescriptors", "gradeLevelDescriptors", "sexDescriptors"))
    bench.materialize()
    bench.verify()
    first = bench.stamps()[0]
    grades = bench.store.rows("gradeLevelDescriptors")
    bench.change("gradeLevelDescriptors", grades[0]["id"], description="Changed")
    unused = bench.store.post(
        "sexDescriptors", {"namespace": "uri://x", "codeValue": "x", "shortDescription": "x"}
    )
    results = bench.materialize()
    assert {name for name, result in results.items() if result.table_changed} == {
        "gradeLevelDescriptors",
        "sexDescriptors",
    }
    assert results["sexDescriptors"].rows_removed == bench.store.count("sexDescriptors") - 1
    assert {stamp for _, stamp, _ in bench.raw("_descriptors", "term_descriptors")} == {first}
    assert {stamp for _, stamp, _ in bench.raw("_descriptors", "grade_level_descriptors")} == {
        bench.stamps()[1]
    }
    bench.verify()
    bench.store.delete("sexDescriptors", unused)
    assert bench.materialize()["sexDescriptors"].table_changed
    bench.verify()
    assert bench.watermarks() == dict.fromkeys(bench.watermarks(), bench.store.newest)


def test_9_descriptor_whose_count_alone_differs_is_pulled_whole(make_bench: MakeBench) -> None:
    bench = make_bench(descriptors=("termDescriptors",), change_version_overlap=0)
    bench.materialize()
    bench.query("DELETE FROM edfi3._descriptors WHERE v->>'codeValue' = 'Fall Semester'")
    bench.materialize()
    bench.verify()
