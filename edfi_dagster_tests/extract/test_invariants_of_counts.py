"""Rule 14: rows that leave the view without a tombstone are found, and so are rows that enter it with an old version."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edfi_dagster.sandbox import RequestInfo
from edfi_dagster.warehouse import load
from edfi_dagster_tests.bench import Bench, changed, student

MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.both_storages

VERSIONS = [pytest.param(v, marks=pytest.mark.ods(v)) for v in ("5.3", "6.1", "7.3")]
YEARS = "schoolYearTypes"


def add_year(bench: Bench, year: int) -> str:
    body = {"schoolYear": year, "schoolYearDescription": f"{year}", "currentSchoolYear": False}
    return bench.store.post(YEARS, body)


def visible(bench: Bench, endpoint: str, **fields: Any) -> dict[str, dict[str, Any]]:
    """What the key may see of an endpoint, narrowed by the values of some fields."""
    hidden = bench.store.hidden_ids(bench.store.endpoint(endpoint))
    rows = bench.ods_rows(endpoint)
    return {
        key: row
        for key, row in rows.items()
        if key not in hidden and all(row.get(name) == value for name, value in fields.items())
    }


def room(bench: Bench) -> dict[str, Any]:
    return changed(bench.store.rows("locations")[0], classroomIdentificationCode="mine")


def yesterday(bench: Bench) -> None:
    """Let a day pass since counts were compared."""
    bench.query("UPDATE edfi3._meta_count_checks SET pull_timestamp = pull_timestamp - INTERVAL '1 day'")


def warnings(bench: Bench) -> list[str]:
    return [told for told in bench.told if "no delta settles" in told or "not counted" in told]


@pytest.mark.parametrize("version", VERSIONS)
def test_14_deleted_school_years_leave_although_nothing_publishes_that(
    make_bench: MakeBench, version: str
) -> None:
    bench = make_bench(YEARS, "students")
    ids = [add_year(bench, year) for year in (2061, 2062)]
    bench.materialize()
    bench.store.delete(YEARS, ids[0])
    add_year(bench, 2063)  # balances the deletion in a count of everything
    results = bench.materialize()
    assert results[YEARS].full
    assert not results["students"].full
    bench.verify()
    assert not any(result.full for result in bench.materialize().values())


@pytest.mark.parametrize("refused", ["denied", "not fetched"])
def test_14_without_readable_deletes_every_run_counts(make_bench: MakeBench, refused: str) -> None:
    options = {"students": {"fetch_deletes": False}} if refused == "not fetched" else {"students": {}}
    bench = make_bench("students", "locations", resources={**options, "locations": {}})
    gone, other = bench.add_student(1), bench.add_student(2)
    if refused == "denied":
        bench.store.deny("students", read=False)
    assert not bench.materialize()["students"].failures
    for record_id in (gone, other):
        bench.store.delete("students", record_id)
        assert bench.materialize()["students"].full
        bench.verify()


@pytest.mark.parametrize("unread", ["key", "get_key_changes: false", "/keyChanges denied"])
def test_14_a_hidden_tombstone_that_no_key_tells_of_is_found_by_the_count(
    make_bench: MakeBench, unread: str
) -> None:
    """The ODS hides the tombstone of a record whose key lives again, and we do not know which key that record had."""
    options = {"get_key_changes": False} if unread.startswith("get") else {}
    bench = make_bench("locations", change_version_overlap=0, **options)
    endpoint = bench.endpoint("locations")
    if unread == "key":
        bench.server.faults.add("/metadata/", status=404)
        endpoint = replace(endpoint, key={})
    if unread.startswith("/"):
        refusal = {
            "type": "urn:ed-fi:api:security:authorization",
            "title": "Authorization Denied",
            "status": 403,
        }
        bench.server.faults.add("/locations/keyChanges$", status=403, body=json.dumps(refusal).encode())
    old = bench.store.post("locations", room(bench))
    for _ in range(2):
        bench.materialize([endpoint])
    if unread != "key":
        bench.change("locations", old, classroomIdentificationCode="renamed")
    bench.recreate("locations", old)
    assert bench.store.deletes("locations") == []
    assert bench.materialize([endpoint])["locations"].full
    bench.verify()
    assert not bench.materialize([endpoint])["locations"].full


def test_14_a_filter_on_a_field_that_changes_is_counted_in_every_run(make_bench: MakeBench) -> None:
    options = {"students": {"query_parameters": {"firstName": "Ada"}}}
    bench = make_bench("students", resources=options)
    ids = [bench.add_student(n) for n in range(3)]
    bench.materialize()
    bench.change("students", ids[0], firstName="Grace")  # leaves the filter, without a tombstone
    bench.add_student(4)
    bench.materialize()
    assert bench.current("students") == visible(bench, "students", firstName="Ada")


@pytest.mark.parametrize("version", VERSIONS)
def test_14_a_key_that_loses_an_organization_or_gains_one_is_reported_once_a_day(
    make_bench: MakeBench, version: str
) -> None:
    bench = make_bench("students", "locations", change_version_overlap=0)
    hidden, lost = bench.store.ids("students")[:2]
    bench.store.hide("students", hidden)
    bench.materialize()
    yesterday(bench)

    bench.store.hide("students", lost)
    result = bench.materialize()["students"]
    rows = bench.store.count("students") - 1
    assert result.comparison is not None
    assert (result.full, result.comparison.counted, result.comparison.rows) == (False, rows - 1, rows)
    assert warnings(bench) == [
        f"grand_bend/2025 ed-fi/students: {rows - 1} in the ODS, {rows} in the warehouse; no delta settles that: run "
        "edfi-dagster resync --tenant grand_bend --year 2025 --endpoints ed-fi/students, or write verify_counts: repair"
    ]
    bench.materialize()
    assert len(warnings(bench)) == 1  # once a day

    yesterday(bench)
    bench.store.show("students", lost, hidden)  # with versions that no delta reads
    result = bench.materialize()["students"]
    assert result.comparison is not None
    assert result.comparison.difference == -1
    assert len(warnings(bench)) == 2


def test_14_repair_refreshes_what_differs_in_the_same_run_and_nothing_else(make_bench: MakeBench) -> None:
    bench = make_bench("students", "locations", verify_counts="repair", change_version_overlap=0)
    hidden, lost = bench.store.ids("students")[:2]
    bench.store.hide("students", hidden)
    bench.materialize()
    bench.store.hide("students", lost)
    bench.store.show("students", hidden)
    bench.store.delete("locations", bench.store.post("locations", room(bench)))
    assert not any(result.full for result in bench.materialize().values())  # both are of the same number

    bench.store.show("students", lost)
    yesterday(bench)
    results = bench.materialize()
    assert (results["students"].full, results["locations"].full) == (True, False)
    assert results["students"].comparison is not None
    assert results["students"].comparison.difference == 0
    bench.verify()
    assert warnings(bench) == []
    state = bench.state()
    bench.rebuild()
    assert bench.state() == state


@pytest.mark.parametrize("mode", ["report", "off"])
def test_14_counts_cost_one_request_for_each_endpoint_once_a_day(make_bench: MakeBench, mode: str) -> None:
    bench = make_bench("students", "locations", YEARS, descriptors=("termDescriptors",), verify_counts=mode)
    bench.materialize()
    yesterday(bench)

    def requests() -> int:
        before = len(bench.server.requests)
        bench.materialize()
        return sum("/ed-fi/" in request.path for request in list(bench.server.requests)[before:])

    first, second = requests(), requests()
    assert first - second == (3 if mode == "report" else 0)  # school years are counted in both


def test_14_a_run_of_a_few_endpoints_does_not_use_up_the_day_of_the_others(make_bench: MakeBench) -> None:
    bench = make_bench("students", "locations", change_version_overlap=0)
    bench.materialize()
    yesterday(bench)
    bench.store.hide("students", bench.store.ids("students")[0])
    assert bench.materialize(["locations"])["locations"].comparison is not None
    result = bench.materialize()
    assert result["locations"].comparison is None
    assert result["students"].comparison is not None
    assert len(warnings(bench)) == 1


def test_14_a_run_killed_before_it_has_compared_does_not_use_up_the_day(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students", change_version_overlap=0, verify_counts="repair")
    bench.materialize()
    yesterday(bench)
    bench.store.hide("students", bench.store.ids("students")[0])

    def killed(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(load, "load_refresh", killed)
        bench.materialize()
    assert bench.materialize()["students"].full
    assert bench.current("students") == visible(bench, "students")


def test_14_a_busy_writer_causes_no_refresh_and_hides_no_deletion(make_bench: MakeBench) -> None:
    bench = make_bench("students", change_version_overlap=0)
    bench.store.deny("students", read=False)
    ids = [bench.add_student(n) for n in range(30)]
    bench.materialize()
    written = iter(range(1000))

    def write(request: RequestInfo) -> None:
        number = next(written, None) if request.path.endswith("/students") else None
        if number is not None:
            bench.add_student(100 + number)
            if number < 25:
                bench.change("students", ids[number], firstName=f"Ada {number}")

    bench.server.before_request.append(write)
    assert not bench.materialize()["students"].full
    assert next(written) < 20
    bench.store.delete("students", ids[29])
    written = iter(range(300, 315))  # from now on only new students come
    assert bench.materialize()["students"].full
    bench.server.before_request.clear()
    assert not bench.materialize()["students"].full
    bench.verify()


def test_14_a_student_who_transfers_is_found_where_deletes_cannot_be_read(make_bench: MakeBench) -> None:
    bench = make_bench("students", verify_counts="off", change_version_overlap=0)
    bench.store.deny("students", read=False)
    comes, leaves = bench.store.ids("students")[:2]
    bench.store.hide("students", comes)
    bench.materialize()
    for move in (bench.store.show, bench.store.hide):
        move("students", comes if move == bench.store.show else leaves)
        bench.store.next_version()
        assert bench.materialize()["students"].full
        assert bench.current("students") == visible(bench, "students")


def test_14_descriptors_that_the_key_may_no_longer_see_leave(make_bench: MakeBench) -> None:
    bench = make_bench(descriptors=("termDescriptors",), verify_counts="off", change_version_overlap=0)
    bench.materialize()
    bench.store.hide("termDescriptors", bench.store.ids("termDescriptors")[0])
    bench.materialize()
    assert bench.current("termDescriptors") == visible(bench, "termDescriptors")


def test_14_a_record_committed_late_is_no_reason_to_refresh(make_bench: MakeBench) -> None:
    bench = make_bench("students", change_version_overlap=50)
    bench.store.deny("students", read=False)
    bench.materialize()
    late = bench.store.begin()
    late.post("students", student(1))
    bench.add_student(2)
    bench.at_request("/students", late.commit, nth=3)  # after the delta, before it is counted
    assert not bench.materialize()["students"].full
    assert not bench.materialize()["students"].full
    bench.verify()


def test_14_an_ods_that_does_not_count_is_said_once_and_fails_nothing(make_bench: MakeBench) -> None:
    bench = make_bench(
        YEARS,
        "students",
        "locations",
        max_concurrent_requests=1,
        change_version_overlap=0,
        endpoint_defaults={"num_retries": 0},
    )
    bench.materialize()
    yesterday(bench)

    def refuse(request: RequestInfo) -> None:
        counts = request.query.get("limit") == "0" and request.query.get("minChangeVersion") == "0"
        bench.server.faults.clear()
        if counts:
            bench.server.faults.add(request.path, status=400)

    bench.server.before_request.append(refuse)
    bench.materialize()
    (told,) = warnings(bench)
    assert told.startswith("grand_bend/2025: 3 endpoints were not counted (")
    assert "HTTP 400" in told
    assert told.endswith("; what the ODS deletes of ed-fi/schoolYearTypes stays until a full refresh")
    bench.materialize()
    assert warnings(bench)[1].startswith(
        "grand_bend/2025: 1 endpoints were not counted (ed-fi/schoolYearTypes)"
    )
    yesterday(bench)
    bench.server.before_request.clear()
    bench.server.faults.clear()
    assert bench.materialize()["students"].comparison is not None


def test_14_an_ods_that_stops_answering_is_not_waited_for_and_asked_again(make_bench: MakeBench) -> None:
    names = ("students", "locations", "sessions", "courses", "grades", "staffs", "sections")
    options = {"max_concurrent_requests": 2, "endpoint_defaults": {"num_retries": 0}}
    bench = make_bench(*names, change_version_overlap=0, **options)
    bench.pause = lambda _: None
    bench.materialize()
    yesterday(bench)

    def fall(request: RequestInfo) -> None:
        if request.query.get("limit") == "0" and request.query.get("minChangeVersion") == "0":
            bench.server.faults.add("/data/", action="reset")

    bench.server.before_request.append(fall)
    assert not any(result.comparison for result in bench.materialize().values())
    (told,) = warnings(bench)
    assert told.startswith("grand_bend/2025: 7 endpoints were not counted")
    bench.server.before_request.clear()
    bench.server.faults.clear()
    assert all(result.comparison for result in bench.materialize().values())


def test_14_deletes_denied_later_stay_a_failure(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.deny("students", read=False)
    bench.store.delete("students", gone)
    for _ in range(2):
        result = bench.materialize(may_fail=True)["students"]
        assert not result.full
        assert "may not read this; it was loaded before" in result.failures["deletes"]
    bench.store.allow("students")
    bench.materialize()
    bench.verify()
