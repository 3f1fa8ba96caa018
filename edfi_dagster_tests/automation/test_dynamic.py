"""``run_type: dynamic``: a tick counts first, and asks for a run of what changed and of nothing else."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from edfi_dagster.automation.change_sensor import CHANGE_SENSOR
from edfi_dagster.definitions import build
from edfi_dagster_tests.automation.daemon import Clock, Daemon
from edfi_dagster_tests.bench import Bench

MakeBench = Callable[..., Bench]
SCHEDULE = "grand_bend_2025"


def dynamic(make_bench: MakeBench, instance: dg.DagsterInstance) -> tuple[Bench, Daemon]:
    bench = make_bench(
        "students",
        "sessions",
        "locations",
        descriptors=("termDescriptors", "sexDescriptors"),
        run_type="dynamic",
        change_version_overlap=0,
        year={"schedule": "0 2 * * *"},
    )
    bench.lets_go = True
    return bench, Daemon(build(bench.platform), instance, Clock())


def selected(request: dg.RunRequest) -> set[str]:
    return {key.to_user_string() for key in request.asset_selection or ()}


def family(name: str) -> set[str]:
    return {f"ed_fi/{name}", f"ed_fi/{name}/deletes", f"ed_fi/{name}/key_changes", f"raw_edfi_3/{name}"}


def test_a_schedule_launches_only_what_counts_any_change_of_either_layer(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench, daemon = dynamic(make_bench, instance)
    bench.store.deny("locations")
    (first,) = daemon.schedule(SCHEDULE).requests
    assert selected(first) == {
        *family("students"),
        *family("sessions"),
        "ed_fi/term_descriptors",
        "ed_fi/sex_descriptors",
    }
    assert daemon.execute(first).success
    bench.verify(["students", "sessions", "termDescriptors", "sexDescriptors"])

    quiet = daemon.schedule(SCHEDULE)
    assert (quiet.requests, quiet.skipped) == (
        [],
        "grand_bend/2025: the ODS counts no change since the last run",
    )

    gone = bench.add_student(1)
    assert daemon.execute(daemon.schedule(SCHEDULE).requests[0]).success
    bench.store.delete("students", gone)
    bench.change("termDescriptors", bench.store.ids("termDescriptors")[0], description="Changed")
    (request,) = daemon.schedule(SCHEDULE).requests
    assert selected(request) == {*family("students"), "ed_fi/term_descriptors"}
    assert daemon.execute(request).success
    bench.verify(["students", "sessions", "termDescriptors", "sexDescriptors"])
    assert daemon.schedule(SCHEDULE).requests == []


@pytest.mark.slow
def test_the_change_sensor_launches_only_what_counts_any_change(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench, daemon = dynamic(make_bench, instance)
    (first,) = daemon.sensor(CHANGE_SENSOR).requests
    assert daemon.execute(first).success
    assert daemon.sensor(CHANGE_SENSOR).requests == []
    bench.rename_session("Autumn")
    (request,) = daemon.sensor(CHANGE_SENSOR).requests
    assert selected(request) == family("sessions")
    assert daemon.execute(request).success
    bench.verify(["students", "sessions"])
    bench.store.next_version()  # work that was rolled back: the version moves, and nothing has changed
    quiet = daemon.sensor(CHANGE_SENSOR)
    assert quiet.requests == []
    assert "grand_bend/2025: the ODS counts no change since the last run" in quiet.skipped
    assert "counts no change" not in daemon.sensor(CHANGE_SENSOR).skipped


@pytest.mark.slow
def test_an_ods_that_cannot_be_counted_is_run_whole_so_that_the_run_says_why(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench, daemon = dynamic(make_bench, instance)
    assert daemon.execute(daemon.schedule(SCHEDULE).requests[0]).success
    bench.server.faults.add("/data/", status=500)
    (request,) = daemon.schedule(SCHEDULE).requests
    assert selected(request) >= family("students") | family("locations")


EVERYTHING = {*family("students"), *family("sessions"), *family("locations")} | {
    "ed_fi/term_descriptors",
    "ed_fi/sex_descriptors",
}


def test_15_a_restored_ods_that_was_written_to_is_run_whole_though_no_window_counts_any(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench, daemon = dynamic(make_bench, instance)
    bench.materialize()
    for number in range(6):
        bench.add_student(number)
    bench.materialize()
    bench.store.restore("first")
    bench.add_student(9)  # grown again, not beyond what was read
    (request,) = daemon.schedule(SCHEDULE).requests
    assert selected(request) == EVERYTHING
    assert daemon.execute(request).success
    bench.verify()


def test_15_a_replica_that_lags_for_one_answer_is_no_restore(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench, daemon = dynamic(make_bench, instance)
    bench.materialize()
    bench.add_student(1)
    body = b'{"oldestChangeVersion": 0, "newestChangeVersion": 5}'
    bench.server.faults.add("availableChangeVersions", status=200, body=body, times=1)
    (request,) = daemon.schedule(SCHEDULE).requests
    assert selected(request) == family("students")


@pytest.mark.slow
def test_15_the_change_sensor_asks_for_what_a_narrowed_run_left_after_it_found_a_restore(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    """The ODS has counted beyond what was read, so only a row that lives in spite of its tombstone tells of it."""
    bench, daemon = dynamic(make_bench, instance)
    gone = bench.add_student(1)
    assert daemon.execute(daemon.sensor(CHANGE_SENSOR).requests[0]).success
    bench.store.save("before the mistake")
    bench.rename_session("Mistake")
    bench.store.delete("students", gone)
    assert daemon.execute(daemon.sensor(CHANGE_SENSOR).requests[0]).success
    bench.store.restore("before the mistake")
    bench.store.take_numbers(bench.store.endpoint("locations"), 10_000)
    bench.change("students", gone, firstName="Lives")
    (narrowed,) = daemon.sensor(CHANGE_SENSOR).requests
    assert selected(narrowed) == family("students")
    assert daemon.execute(narrowed).success
    (rest,) = daemon.sensor(CHANGE_SENSOR).requests
    assert selected(rest) >= EVERYTHING - family("students")
    assert daemon.execute(rest).success
    bench.verify()
    assert daemon.sensor(CHANGE_SENSOR).requests == []


@pytest.mark.slow
def test_15_the_change_sensor_asks_again_for_a_version_that_it_has_run_before_a_restore(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench, daemon = dynamic(make_bench, instance)
    bench.store.save("first run")
    assert daemon.execute(daemon.sensor(CHANGE_SENSOR).requests[0]).success
    bench.add_student(1)
    assert daemon.execute(daemon.sensor(CHANGE_SENSOR).requests[0]).success
    bench.store.restore("first run")
    assert daemon.sensor(CHANGE_SENSOR).requests == []  # a replica may lag
    (request,) = daemon.sensor(CHANGE_SENSOR).requests
    assert selected(request) == EVERYTHING
    assert daemon.execute(request).success
    bench.verify()


def test_a_full_refresh_is_never_narrowed(make_bench: MakeBench, instance: dg.DagsterInstance) -> None:
    bench = make_bench("students", run_type="dynamic", year={"schedule_full_refresh": "0 2 * * *"})
    (request,) = (
        Daemon(build(bench.platform), instance, Clock()).schedule(f"{SCHEDULE}_full_refresh").requests
    )
    assert not request.asset_selection
    assert request.run_config == {"resources": {"edfi_run": {"config": {"full_refresh": True}}}}


def test_what_leaves_no_tombstone_is_selected_by_its_count(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench(
        "schoolYearTypes",
        "students",
        "locations",
        run_type="dynamic",
        verify_counts="off",
        change_version_overlap=0,
        year={"schedule": "0 2 * * *"},
    )
    bench.lets_go = True
    bench.store.deny("students", read=False)
    body = {"schoolYear": 2061, "schoolYearDescription": "2061", "currentSchoolYear": False}
    year, gone = bench.store.post("schoolYearTypes", body), bench.add_student(1)
    daemon = Daemon(build(bench.platform), instance, Clock())
    assert daemon.execute(daemon.schedule(SCHEDULE).requests[0]).success
    assert daemon.schedule(SCHEDULE).requests == []
    for endpoint, record_id in (("schoolYearTypes", year), ("students", gone)):
        bench.store.delete(endpoint, record_id)
        bench.store.next_version()
        (request,) = daemon.schedule(SCHEDULE).requests
        snake = bench.endpoint(endpoint).snake
        assert {f"ed_fi/{snake}", f"raw_edfi_3/{snake}"} <= selected(request) <= family(snake)
        assert daemon.execute(request).success
        bench.verify()
