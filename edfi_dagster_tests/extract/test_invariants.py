"""The invariants of reading: delta, first pull, completeness; and of restores, kills and time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edfi_dagster.extract import Result
from edfi_dagster.lake.manifest import stamps
from edfi_dagster.lake.paths import run_folder
from edfi_dagster.ods.pages import RECORDS
from edfi_dagster.sandbox import RequestInfo
from edfi_dagster_tests.bench import PAIR, Bench, student

MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.both_storages


def test_1_delta_finds_a_row_committed_late_although_nothing_is_newer(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    late = bench.store.begin()
    late.post("students", student(1))
    bench.add_student(2)
    bench.materialize()
    late.commit()
    assert bench.watermarks()["students", "records"] == bench.store.newest
    (result,) = bench.materialize().values()
    assert (result.rows_inserted, result.table_changed) == (1, True)
    bench.verify()


def test_1_delta_drops_rows_equal_to_the_current_ones(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    before = sorted(bench.raw("students"), key=lambda row: row[0])
    bench.change("students", bench.store.ids("students")[3], firstName="Änna")
    results = bench.materialize()
    assert results["students"].rows_inserted == 1
    assert not results["sessions"].table_changed
    assert {kind.result for kind in results["sessions"].kinds.values()} == {Result.UNCHANGED}
    assert len(bench.raw("students")) == len(before) + 1
    (again,) = bench.materialize(["students"]).values()
    assert not again.table_changed
    bench.verify()


def test_1_delta_keeps_the_last_read_of_an_id_under_one_stamp(make_bench: MakeBench) -> None:
    bench = make_bench("students", endpoint_defaults={"page_size": 3})
    early = bench.store.begin()
    early.post("students", student(0))
    bench.materialize()
    ids = [bench.add_student(n) for n in range(1, 9)]
    first, last = ids[0], ids[-1]

    def while_it_walks() -> None:
        early.commit()  # enters the window behind the cursor: the count proves the walk incomplete
        bench.store.delete("students", last)

    bench.at_request("/students", while_it_walks, nth=3, answered=True)
    bench.at_request(
        "/students", lambda: bench.change("students", first, firstName="Late"), nth=2, answered=True
    )
    bench.materialize()
    read = [record_id for record_id, stamp, _ in bench.raw("students") if stamp == bench.stamps()[-1]]
    assert len(read) == len(set(read))
    bench.materialize()
    bench.verify()


def test_2_first_pull_keeps_rows_updated_deleted_and_recreated_while_it_walks(make_bench: MakeBench) -> None:
    bench = make_bench("students", endpoint_defaults={"page_size": 4})
    ids = [bench.add_student(n) for n in range(12)]
    first_page = bench.store.ids("students")[:4]

    def meanwhile() -> None:
        bench.change("students", first_page[0], firstName="Read already")
        bench.change("students", ids[8], firstName="Not read yet")
        bench.recreate("students", ids[9], firstName="Recreated before it was read")
        bench.recreate("students", ids[0], firstName="Recreated")
        bench.add_student(99)

    bench.at_request("/students", meanwhile, nth=2, answered=True)
    newest = bench.store.newest
    (result,) = bench.materialize().values()
    bench.verify()
    manifest = result.kinds[RECORDS].manifest
    assert manifest is not None
    assert (manifest.full, manifest.min_change_version, manifest.max_change_version) == (True, 0, newest)
    assert len({stamp for _, stamp, _ in bench.raw("students")}) == 1
    assert bench.watermarks()["students", "records"] == newest
    assert not bench.materialize()["students"].failures
    bench.verify()


def test_2_first_pull_prefers_the_row_that_replaced_another_one_read_before_it(make_bench: MakeBench) -> None:
    bench = make_bench("students", endpoint_defaults={"page_size": 5})
    ids = [bench.add_student(n) for n in range(10)]
    victim = ids[0]
    # The first page is of the walk, so the old id is read; the new one comes in the same walk's last pages or after it.
    bench.at_request("/students", lambda: bench.recreate("students", victim), nth=5, answered=True)
    bench.materialize()
    bench.verify()
    assert victim not in {record_id for record_id, _, _ in bench.raw("students")}


def test_2_full_pull_of_nothing_leaves_a_manifest(make_bench: MakeBench) -> None:
    bench = make_bench("students", "studentHealths")
    assert bench.store.count("studentHealths") == 0
    bench.materialize()
    manifest = bench.manifest("studentHealths")
    assert (manifest.full, manifest.rows, manifest.files) == (True, 0, ())
    assert bench.watermarks()["student_healths", "records"] == bench.store.newest


def test_3_pull_that_gets_fewer_rows_than_counted_is_repeated_three_times_then_fails(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    bench.materialize()
    low = bench.watermarks()
    bench.add_student(1)
    count = bench.store.reader.count
    with monkeypatch.context() as patched:
        patched.setattr(bench.store.reader, "count", lambda *args: count(*args) + 2)
        before = len(bench.server.requests)
        result = bench.materialize(may_fail=True)["students"]
        walks = [
            request
            for request in list(bench.server.requests)[before:]
            if request.path.endswith("/students")
            and request.query.get("limit") == "20"
            and "maxChangeVersion" in request.query
        ]
    total = bench.store.count("students")
    assert len(walks) == 4
    assert result.failures == {
        RECORDS: f"grand_bend/2025 ed-fi/students: {total} distinct records read, the ODS counts {total + 2} between "
        f"change versions 0 and {bench.store.newest}, after 3 re-pulls"
    }
    assert result.kinds[RECORDS].error == "IncompletePull"
    assert bench.watermarks() == low
    assert not bench.lake.children(
        f"grand_bend/2025/{stamps(bench.lake, PAIR)[-1]:%Y%m%d/%Y%m%dT%H%M%S}/resources"
    )
    bench.materialize()
    bench.verify()


def test_3_pull_repeats_what_lacks_when_the_next_answer_is_whole(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    count, times = bench.store.reader.count, iter(range(100))
    monkeypatch.setattr(
        bench.store.reader, "count", lambda *args: count(*args) + (1 if next(times) in (1, 2) else 0)
    )
    bench.materialize()
    bench.verify()


def test_3_rows_that_left_do_not_make_up_for_a_walk_that_ended_too_early(make_bench: MakeBench) -> None:
    """Where all rows of a page go before they are read, the ODS gives no token for the next one (api.md section 4.4)."""
    bench = make_bench("students", endpoint_defaults={"page_size": 5}, max_concurrent_requests=1)
    for number in range(20):
        bench.add_student(number)
    ids = bench.store.ids("students")
    pages = iter(range(99))

    def between_reads(request: RequestInfo) -> None:
        if request.path.endswith("/students") and "pageToken" in request.query and next(pages) == 5:
            for gone in ids[25:30]:
                bench.store.delete("students", gone)
            for left in ids[:12]:
                bench.change("students", left, firstName="Later")

    bench.server.between_reads.append(between_reads)
    bench.materialize()
    bench.verify()


@pytest.mark.parametrize("action", ["truncate", "invalid_json", "html", "status"])
def test_3_broken_answer_is_never_taken_for_an_empty_page(make_bench: MakeBench, action: Any) -> None:
    bench = make_bench("students", endpoint_defaults={"page_size": 5, "num_retries": 0})
    bench.materialize()
    low, rows = bench.watermarks(), bench.current("students")
    bench.change("students", bench.store.ids("students")[0], firstName="New")
    bench.server.faults.add("/students$", action=action, status=200 if action == "html" else 500, after=1)
    assert bench.materialize(may_fail=True)["students"].failures.keys() == {RECORDS}
    assert (bench.watermarks(), bench.current("students")) == (low, rows)
    bench.server.faults.clear()
    bench.materialize()
    bench.verify()


def test_10_restore_seen_by_an_older_newest_refreshes_the_pair(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", descriptors=("termDescriptors",))
    bench.materialize()
    bench.add_student(1)
    bench.rename_session("Autumn")
    bench.materialize()
    bench.store.restore("first")
    results = bench.materialize()
    assert all(result.full for result in results.values())
    assert any("restored" in sentence for sentence in bench.told)
    assert bench.watermarks() == dict.fromkeys(bench.watermarks(), bench.store.newest)
    bench.verify()


def test_10_restore_forgets_the_watermarks_of_endpoints_that_were_not_asked_for(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    bench.add_student(1)
    bench.materialize()
    bench.store.restore("first")
    bench.materialize(["sessions"])
    assert {name for name, _ in bench.watermarks()} == {"sessions"}
    results = bench.materialize()
    assert (results["students"].full, results["sessions"].full) == (True, False)
    bench.verify()


def test_10_restore_seen_by_a_record_that_lives_in_spite_of_its_tombstone(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.save("before the mistake")
    bench.store.delete("students", gone)
    bench.materialize()
    bench.store.restore("before the mistake")
    for number in range(2, 6):
        bench.add_student(number)
    results = bench.materialize()
    assert all(result.full for result in results.values())
    assert bench.deletes() == {}
    assert gone in bench.current("students")
    bench.verify()


def test_10_replica_that_lags_behind_once_is_no_restore(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    bench.add_student(1)
    bench.server.faults.add(
        "availableChangeVersions",
        status=200,
        body=b'{"oldestChangeVersion": 0, "newestChangeVersion": 5}',
        times=1,
    )
    result = bench.materialize()["students"]
    assert (result.full, result.rows_inserted) == (False, 1)
    bench.verify()


def test_11_lost_lake_files_of_a_killed_run_do_no_harm(make_bench: MakeBench) -> None:
    """What a killed run left in the lake without loading it neither is loaded later nor stands in the way."""
    bench = make_bench("students")
    bench.materialize()
    bench.add_student(1)
    bench.materialize(load=False)
    killed = stamps(bench.lake, PAIR)[-1]
    bench.change("students", bench.store.ids("students")[0], firstName="Later")
    bench.materialize()
    bench.verify()
    state = bench.state()
    results = bench.load_stored(["students"])
    assert results["students"].kinds[RECORDS].cause == "the lake holds nothing that is not loaded"
    assert bench.state() == state
    bench.lose(run_folder(PAIR, killed))
    bench.materialize()
    bench.verify()


def test_stamps_rise_although_the_clock_steps_back(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    ahead = datetime.now(UTC).replace(microsecond=0, tzinfo=None) + timedelta(days=400)
    bench.materialize()
    bench.query("UPDATE edfi3._meta_leases SET last_stamp = ?", [ahead])
    bench.change("students", bench.store.ids("students")[0], firstName="Second")
    bench.materialize()
    bench.query("DELETE FROM edfi3._meta_leases")  # the ledger and the lake know it as well
    bench.change("students", bench.store.ids("students")[0], firstName="Third")
    bench.materialize()
    assert bench.stamps()[1:] == [ahead + timedelta(seconds=1), ahead + timedelta(seconds=2)]
    bench.query("DELETE FROM edfi3._meta_leases")
    bench.lose(PAIR.tenant)
    bench.add_student(5)
    bench.materialize()
    assert bench.stamps()[-1] == ahead + timedelta(seconds=3)
    bench.verify()
