"""How fresh the warehouse is: versions, rows, lateness, last results and drift, against what really happened."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest

from edfi_dagster.extract.work import Result
from edfi_dagster.health import rows
from edfi_dagster.health.freshness import EndpointStatus, PairStatus, Stored, freshness
from edfi_dagster.health.pairs import chosen_endpoints
from edfi_dagster.health.rows import Rows
from edfi_dagster.lake import paths
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.counts import record_counts
from edfi_dagster.warehouse.lease import holding
from edfi_dagster_tests.bench import PAIR, Bench
from edfi_dagster_tests.health.asking import Document, MakeBench, at, rewritten


def seen(bench: Bench, *names: str, **options: Any) -> tuple[Stored, PairStatus]:
    """What the warehouse knows, and the status of the bench's pair."""
    endpoints = chosen_endpoints(bench.platform, [PAIR], names)
    options = {"offline": False, "tell": bench.told.append, **options}
    stored, (pair,) = freshness(bench.platform, endpoints, **options)
    return stored, pair


def of(pair: PairStatus, name: str) -> EndpointStatus:
    (found,) = (status for status in pair.endpoints if status.endpoint.name == name)
    return found


@pytest.mark.both_storages
def test_after_a_run_everything_is_loaded_and_nothing_is_behind(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", descriptors=("sexDescriptors",))
    bench.materialize()
    _, pair = seen(bench)
    assert (len(pair.loaded), len(pair.endpoints), pair.behind, pair.problem) == (3, 3, 0, "")
    assert pair.version == pair.newest == bench.store.newest
    assert not pair.late
    assert not pair.failed
    for status in pair.endpoints:
        name = status.endpoint.name
        assert status.rows == Rows(bench.store.count(name), is_exact=True)
        assert status.outcome is not None
        assert status.outcome.result in {Result.LOADED, Result.UNCHANGED}
        assert status.last_pull == bench.stamps()[-1].replace(tzinfo=UTC) == status.outcome.stamp
    assert pair.rows == Rows(sum(bench.store.count(s.endpoint.name) for s in pair.endpoints), is_exact=True)


@pytest.mark.both_storages
def test_rows_are_current_ones_as_dbt_would_stage_them(make_bench: MakeBench) -> None:
    events = "studentSchoolAttendanceEvents"
    bench = make_bench("students", events)
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", gone)
    bench.recreate(events, bench.store.ids(events)[0])
    bench.change("students", bench.store.ids("students")[0], firstName="Later")
    bench.materialize()
    _, pair = seen(bench)
    assert len(bench.current("students")) < len(bench.raw("students"))
    for name in ("students", events):
        status = of(pair, name)
        assert status.rows == Rows(len(bench.current(name)), is_exact=True)


def test_too_many_rows_are_counted_raw_and_say_so(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    bench.change("students", bench.store.ids("students")[0], firstName="Later")
    bench.materialize()
    students, sessions = len(bench.raw("students")), len(bench.raw("sessions"))
    assert sessions < students == bench.store.count("students") + 1
    monkeypatch.setattr(rows, "MOST_PARSED_OF_ONE", sessions)
    _, pair = seen(bench)
    assert of(pair, "sessions").rows == Rows(sessions, is_exact=True)
    assert of(pair, "students").rows == Rows(students, is_exact=False)
    assert str(pair.rows) == f"≤{students + sessions}"


def test_an_ods_that_went_on_is_ahead_by_its_own_count(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    before = bench.store.newest
    bench.add_student(1)
    bench.materialize(["students"])
    bench.add_student(2)
    _, pair = seen(bench)
    assert (pair.version, pair.behind) == (before, bench.store.newest - before)
    assert 0 < of(pair, "students").behind < of(pair, "sessions").behind  # type: ignore[operator]


def test_offline_asks_no_ods(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    bench.server.requests.clear()
    _, pair = seen(bench, offline=True)
    assert (pair.newest, pair.behind, pair.version) == (None, None, bench.store.newest)
    assert list(bench.server.requests) == []


def test_an_ods_that_is_down_leaves_the_rest_known(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        bench.platform = rewritten(bench, at(f"http://127.0.0.1:{taken.getsockname()[1]}"))
        _, pair = seen(bench)
    assert pair.problem.startswith("no connection from 127.0.0.1")
    assert (pair.behind, pair.version) == (None, bench.store.newest)


def test_a_pair_that_was_never_loaded_is_late_and_its_warehouse_is_not_made(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    (bench.folder / "warehouse.duckdb").unlink()
    stored, pair = seen(bench)
    assert not stored.is_set_up
    assert (len(pair.loaded), len(pair.late), pair.rows, pair.last_pull) == (0, 2, None, None)
    assert not (bench.folder / "warehouse.duckdb").exists()
    assert list(bench.server.requests) == []


def test_a_warehouse_without_tables_is_told_from_one_without_rows(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    assert seen(bench)[0].is_set_up
    (bench.folder / "warehouse.duckdb").unlink()
    duckdb.connect(str(bench.folder / "warehouse.duckdb")).close()
    assert not seen(bench)[0].is_set_up


def test_late_is_what_was_pulled_longer_ago_than_configured(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", late_after_hours=6)
    bench.materialize()
    pulled = bench.stamps()[-1].replace(tzinfo=UTC)
    assert not seen(bench, now=pulled + timedelta(hours=6))[1].late
    assert len(seen(bench, now=pulled + timedelta(hours=6, seconds=1))[1].late) == 2


def test_what_the_ods_does_not_give_is_skipped_and_never_late(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "schools")
    bench.store.deny("students")
    bench.store.withdraw("sessions")
    bench.store.deny("schools", read=False)
    bench.materialize()
    _, pair = seen(bench)
    assert {s.endpoint.name for s in pair.skipped} == {"students", "sessions"}
    assert not pair.late
    assert not pair.failed
    schools = of(pair, "schools").outcome
    assert schools is not None
    assert {kind: result for kind, (result, _) in schools.troubles.items()} == {
        "deletes": Result.NOT_PERMITTED,
        "key_changes": Result.NOT_PERMITTED,
    }


def test_what_was_loaded_before_and_is_refused_now_has_failed(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    bench.store.deny("students")
    bench.materialize(may_fail=True)
    _, pair = seen(bench)
    (failed,) = pair.failed
    assert failed.endpoint.name == "students"
    assert failed.outcome is not None
    assert "HTTP 403" in failed.outcome.failure
    assert failed.rows == Rows(bench.store.count("students"), is_exact=True)


def test_a_run_of_a_few_endpoints_does_not_hide_what_became_of_the_others(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "schools")
    bench.store.deny("sessions")
    bench.materialize()
    bench.materialize(["students"])
    _, pair = seen(bench)
    sessions, students = of(pair, "sessions").outcome, of(pair, "students").outcome
    assert sessions is not None
    assert students is not None
    assert sessions.result == Result.NOT_PERMITTED
    assert sessions.stamp < students.stamp == pair.latest_run


def test_a_run_that_left_no_summary_goes_on_or_was_killed(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    assert seen(bench)[1].has_ended
    stamp = datetime(2099, 1, 1, 2, 0, tzinfo=UTC)
    with bench.lake.writing(f"{paths.run_folder(PAIR, stamp)}/resources/students.jsonl.zst") as stream:
        stream.write(b"")
    _, pair = seen(bench)
    assert (pair.latest_run, pair.has_ended) == (stamp, False)
    assert of(pair, "students").outcome is not None


def test_a_broken_summary_is_the_pairs_problem_and_not_the_end(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    stamp = bench.stamps()[-1].replace(tzinfo=UTC)
    with bench.lake.writing(f"{paths.run_folder(PAIR, stamp)}/run.json") as stream:
        stream.write(b'{"endpoints": 1}')
    _, pair = seen(bench)
    assert "is no run.json of this version" in pair.problem
    assert pair.behind == 0


@pytest.mark.both_storages
def test_drift_is_what_the_ods_counted_less_than_the_warehouse_holds(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    stamp = bench.stamps()[-1].replace(tzinfo=UTC)
    counted = {"students": bench.store.count("students") - 3, "sessions": bench.store.count("sessions")}
    with bench.warehouse.connected() as connection:
        record_counts(connection, PAIR, stamp, counted)
    _, pair = seen(bench)
    assert [(s.endpoint.name, s.drift) for s in pair.drifted] == [("students", 3)]
    assert of(pair, "sessions").drift == 0
    bench.materialize()
    assert of(seen(bench)[1], "students").drift is None  # the count is older than the last pull


def test_status_works_while_a_run_holds_the_lease(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    with holding(bench.warehouse, PAIR, waiting=bench.told.append):
        _, pair = seen(bench, longest_wait=5.0)
    assert len(pair.loaded) == 1


def test_a_warehouse_another_process_keeps_is_waited_for_and_told(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edfi_dagster.warehouse.duckdb._TELL_AFTER_SECONDS", 0.1)
    bench = make_bench("students")
    with bench.warehouse.connected(), pytest.raises(WarehouseError, match="another process has kept"):
        seen(bench, longest_wait=0.3)
    assert any("waiting for another process" in sentence for sentence in bench.told)


def test_a_ledger_of_airflow_without_its_column_says_what_to_run(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.query("ALTER TABLE edfi3._meta_change_versions DROP COLUMN is_key_changes")
    with pytest.raises(WarehouseError, match="setup-warehouse, which adds it"):
        seen(bench)


@pytest.mark.ods("2", mode="year_specific")
def test_without_change_versions_nothing_is_behind_and_rows_are_counted(make_bench: MakeBench) -> None:
    bench = make_bench("students", year={"api_version": "2"})
    bench.materialize()
    _, pair = seen(bench)
    assert (pair.version, pair.behind, pair.newest, pair.problem) == (None, None, None, "")
    assert of(pair, "students").rows == Rows(bench.store.count("students"), is_exact=True)
    assert not pair.late


def test_counts_of_many_pairs_are_kept_apart(make_bench: MakeBench) -> None:
    """A second tenant and a sideload lie in the same tables."""
    bench = make_bench("students", descriptors=("sexDescriptors",))
    bench.materialize()
    for table, name in (
        ("students", "students"),
        ("_descriptors", "sex_descriptors"),
        ("students", "students__sat"),
    ):
        bench.query(
            f"INSERT INTO edfi3.{table} BY NAME SELECT * REPLACE ('lakeview' AS tenant_code, '{name}' AS name) "
            f"FROM edfi3.{table} WHERE tenant_code = 'grand_bend' LIMIT 2"
        )
    other = PAIR._replace(tenant="lakeview")

    def declare_other(document: Document) -> None:
        document["tenants"]["lakeview"] = document["tenants"]["grand_bend"]

    bench.platform = rewritten(bench, declare_other)
    stored, (first, second) = freshness(
        bench.platform,
        chosen_endpoints(bench.platform, [PAIR, other], ["students", "sexDescriptors"]),
        offline=True,
        tell=bench.told.append,
    )
    assert of(first, "students").rows == Rows(bench.store.count("students"), is_exact=True)
    assert stored.rows[other]["students"] == stored.rows[other]["sex_descriptors"] == Rows(2, is_exact=True)
    assert not second.loaded  # rows alone are no proof of a pull


def test_drift_is_also_what_a_run_compared(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", change_version_overlap=0)
    bench.store.hide("students", bench.store.ids("students")[0])
    bench.materialize()
    bench.query("UPDATE edfi3._meta_count_checks SET pull_timestamp = pull_timestamp - INTERVAL '1 day'")
    assert of(seen(bench)[1], "students").drift is None  # older than the last pull
    bench.store.hide("students", bench.store.ids("students")[1])
    bench.materialize()
    _, pair = seen(bench)
    assert [(s.endpoint.name, s.drift) for s in pair.drifted] == [("students", 1)]
    assert of(pair, "sessions").drift == 0
