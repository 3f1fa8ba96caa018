"""What an ODS counts beside what is here: what the next delta settles is told from what no delta will."""

from __future__ import annotations

import json

import pytest

from edfi_dagster.checks.counts import counted_and_compared
from edfi_dagster.extract.comparison import Comparison, Verdict
from edfi_dagster_tests.bench import PAIR, Bench, MakeBench
from edfi_dagster_tests.checks.asking import lose


def compared(bench: Bench) -> dict[str, Comparison]:
    tell = bench.told.append
    found = counted_and_compared(bench.platform, PAIR, bench.endpoints, tell=tell, warn=tell)
    return {comparison.endpoint.name: comparison for comparison in found}


def test_after_a_run_everything_is_equal(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "tpdm/candidates", descriptors=("sexDescriptors",))
    bench.materialize()
    found = compared(bench)
    assert set(found) == {"students", "sessions", "candidates", "sexDescriptors"}
    for name, comparison in found.items():
        assert comparison.verdict is Verdict.EQUAL, comparison
        assert comparison.counted == comparison.rows == bench.store.count(comparison.endpoint.path), name
        assert comparison.pulled is not None
        assert comparison.changed is None
    assert bench.query("SELECT count(*) FROM edfi3._meta_total_counts") == [(4,)]


def test_rows_of_other_tenants_deleted_and_superseded_ones_do_not_count(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    removed = bench.add_student(1)
    bench.materialize()
    bench.change("students", bench.store.ids("students")[0], lastSurname="Changed")
    bench.rename_session("Renamed")
    bench.store.delete("students", removed)
    bench.materialize()
    with bench.warehouse.connected() as connection:
        connection.run(
            "INSERT INTO edfi3.students SELECT 'lakeview', * EXCLUDE tenant_code FROM edfi3.students"
        )
    assert {c.verdict for c in compared(bench).values()} == {Verdict.EQUAL}


def test_what_was_written_since_the_pull_is_moving(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "grades")
    removed = bench.add_student(3)
    bench.materialize()
    bench.add_student(1)
    bench.add_student(2)
    found = compared(bench)["students"]
    assert (found.difference, found.changed, found.verdict) == (-2, 2, Verdict.MOVING)
    bench.materialize()
    bench.store.delete("students", removed)
    found = compared(bench)["students"]
    assert (found.difference, found.changed, found.verdict) == (1, 1, Verdict.MOVING)
    assert compared(bench)["sessions"].verdict is Verdict.EQUAL


def test_what_the_ods_did_not_do_has_drifted(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", descriptors=("sexDescriptors",), change_version_overlap=0)
    bench.materialize()
    lose(bench, "students", 3)
    lose(bench, "_descriptors")
    bench.change("students", bench.store.ids("students")[0], lastSurname="Changed")
    found = compared(bench)
    assert (found["students"].difference, found["students"].changed) == (-3, 1)
    assert found["students"].verdict is Verdict.DRIFTED
    assert (found["sexDescriptors"].difference, found["sexDescriptors"].changed) == (-1, 0)
    assert found["sexDescriptors"].verdict is Verdict.DRIFTED
    assert found["sessions"].verdict is Verdict.EQUAL
    bench.materialize()  # a delta brings the student that changed, and no more; descriptors differ, and come whole
    found = compared(bench)
    assert found["students"].verdict is Verdict.DRIFTED
    assert found["sexDescriptors"].verdict is Verdict.EQUAL


def test_a_row_too_many_has_drifted_and_so_has_an_endpoint_that_was_never_loaded(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize(["students"])
    record = {**bench.store.rows("students")[0], "id": "f" * 32, "studentUniqueId": "nobody"}
    with bench.warehouse.connected() as connection:
        connection.run(
            "INSERT INTO edfi3.students SELECT * EXCLUDE v, ?::JSON FROM edfi3.students LIMIT 1",
            [json.dumps(record)],
        )
    found = compared(bench)
    assert (found["students"].difference, found["students"].changed) == (1, 0)
    assert found["students"].verdict is Verdict.DRIFTED
    assert found["sessions"].pulled is None
    assert found["sessions"].verdict is Verdict.DRIFTED


def test_what_may_not_be_read_and_what_cannot_be_asked_is_left_out(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "schools")
    bench.materialize()
    bench.store.deny("schools")
    lose(bench, "students")
    bench.server.faults.add("ed-fi/students$", status=404, after=1)
    found = compared(bench)
    assert list(found) == ["sessions"]
    assert any("ed-fi/students" in told and "not compared" in told for told in bench.told)


@pytest.mark.ods("5.3")
def test_without_change_versions_a_difference_is_of_after_the_pull(make_bench: MakeBench) -> None:
    bench = make_bench("students", use_change_version=False)
    bench.materialize()
    assert compared(bench)["students"].verdict is Verdict.EQUAL
    bench.add_student(1)
    found = compared(bench)["students"]
    assert (found.difference, found.verdict, found.changed) == (-1, Verdict.MOVING, None)
