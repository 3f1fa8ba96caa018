"""``check`` on hosts that are not as most are: the cause, and the key to write, before a run finds it."""

from __future__ import annotations

import pytest

from edfi_dagster.health import probe
from edfi_dagster.health.findings import Finding, State
from edfi_dagster.ods.pages import DELETES, RECORDS
from edfi_dagster_tests.bench import MakeBench
from edfi_dagster_tests.health.asking import asked

TWO = {"A-Names": {"ed-fi/students": ["firstName"]}, "B-Dates": {"ed-fi/students": ["birthDate"]}}


def only(found: dict[str, Finding], question: str) -> Finding:
    """The finding, which is the only one that is not well."""
    assert {name for name, finding in found.items() if finding.state is not State.OK} == {question}, found
    return found[question]


@pytest.mark.parametrize(
    "version", [pytest.param(v, marks=pytest.mark.ods(v)) for v in ("7.3", "7.0", "6.1")]
)
def test_a_profile_that_is_not_named_is_found(make_bench: MakeBench, version: str) -> None:
    bench = make_bench("students", "schools")
    bench.store.oddities.profiles = {name: dict(kept) for name, kept in TWO.items()}
    found = asked(bench.platform)["profiles"]
    assert found.state is State.FAILED
    assert found.found.startswith("ed-fi/students: HTTP 403") and "a-names or b-dates" in found.found
    assert found.remedy == "write profile: a-names for this tenant's year or this endpoint"


def test_a_profile_is_asked_for_also_where_the_ods_does_not_say_which_it_assigned(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("students", "schools")
    bench.store.oddities.profiles = {name: dict(kept) for name, kept in TWO.items()}
    bench.server.faults.add("/oauth/token_info", status=404, body=b'{"type": "urn:ed-fi:api:not-found"}')
    found = asked(bench.platform)["profiles"]
    assert found.state is State.FAILED
    assert found.found.startswith("ed-fi/students: HTTP 403")


def test_a_profile_that_is_named_is_well(make_bench: MakeBench) -> None:
    bench = make_bench("students", "schools", year={"profile": "A-Names"})
    bench.store.oddities.profiles = {name: dict(kept) for name, kept in TWO.items()}
    found = asked(bench.platform)
    assert found["profiles"] == Finding("profiles", State.OK, "records are read by A-Names")
    assert not [finding for finding in found.values() if finding.state is State.FAILED]


@pytest.mark.parametrize("status", [403, 404, 500])
def test_partitions_of_no_use_are_found(make_bench: MakeBench, status: int) -> None:
    bench = make_bench("students")
    bench.server.faults.add("/partitions", status=status)
    found = only(asked(bench.platform), "partitions")
    assert found.found.startswith("ed-fi/students/partitions: ") and f"HTTP {status}" in found.found
    assert "page by page" in found.remedy


def test_slow_partitions_are_found(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "READ_SECONDS", 2.0)
    bench = make_bench("students")
    bench.server.faults.add("/partitions", action="stall", seconds=1.0)
    assert "time-out" in only(asked(bench.platform), "partitions").found


@pytest.mark.ods("5.3")
def test_rows_that_come_twice_are_found(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.store.oddities.repeated |= set(bench.store.ids("students")[:2])
    found = only(asked(bench.platform), "rows")
    assert "18 rows of 16 distinct ids" in found.found and "two walks" in found.remedy


def test_rows_that_are_not_strict_json_are_found(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    odd = bench.store.ids("students")[3]
    name = bench.store.get("students", odd)["studentUniqueId"]
    bench.store.oddities.spellings[f'"{name}"'] = '"\\ud83d"'
    found = only(asked(bench.platform), "rows")
    assert odd in found.found and "U+FFFD" in found.remedy and name not in str(found)


@pytest.mark.parametrize(
    "version", [pytest.param(v, marks=pytest.mark.ods(v)) for v in ("7.3", "7.0", "6.1")]
)
def test_a_byte_order_mark_is_well(make_bench: MakeBench, version: str) -> None:
    bench = make_bench("students")
    bench.store.oddities.mark = b"\xef\xbb\xbf"
    assert {finding.state for finding in asked(bench.platform).values()} == {State.OK}


@pytest.mark.parametrize(
    "version", [pytest.param(v, marks=pytest.mark.ods(v)) for v in ("7.3", "6.1", "5.3")]
)
def test_change_queries_that_are_off_are_found_and_the_key_that_does_without(
    make_bench: MakeBench, version: str
) -> None:
    bench = make_bench("students", "locations")
    bench.store.oddities.change_queries = False
    found = asked(bench.platform)["change queries"]
    assert found.state is State.FAILED
    assert "use_change_version: false" in found.remedy
    with pytest.raises(Exception, match="use_change_version: false"):
        bench.materialize()
    without = make_bench("students", "locations", use_change_version=False)
    assert {f.state for f in asked(without.platform).values()} == {State.OK}
    without.materialize()
    without.verify()
    without.store.delete("students", without.add_student(1))
    without.add_student(2)
    without.materialize()
    without.verify()


@pytest.mark.parametrize("version", [pytest.param(v, marks=pytest.mark.ods(v)) for v in ("7.3", "6.1")])
def test_changes_that_a_snapshot_does_not_give_are_found_and_lose_nothing(
    make_bench: MakeBench, version: str
) -> None:
    bench = make_bench("students", use_snapshot=True)
    gone = bench.add_student(1)
    bench.store.take_snapshot()
    bench.materialize()
    bench.store.oddities.snapshot_changes = False
    bench.store.delete("students", gone)
    bench.add_student(2)
    bench.store.drop_snapshot()
    bench.store.take_snapshot()
    found = asked(bench.platform)["snapshot"]
    assert found.state is State.FAILED
    assert "ed-fi/students/deletes cannot be read from a snapshot: HTTP 500" in found.found
    assert found.remedy == "write use_snapshot: false, or fetch_deletes: false"
    failures = bench.materialize(may_fail=True)["students"].failures
    assert RECORDS not in failures
    assert "if it stays, write use_snapshot: false or fetch_deletes: false" in failures[DELETES]

    plain = make_bench("students", use_snapshot=False)
    plain.materialize()
    plain.verify()
    assert gone not in plain.current("students")
