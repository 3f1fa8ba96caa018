"""The same run on an ODS of every version and mode: first pull, delta, deletes and key changes, refresh, rebuild."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edfi_dagster.extract import by_id
from edfi_dagster_tests.bench import Bench, changed

MakeBench = Callable[..., Bench]


def ods(version: str, mode: str | None = None, *, slow: bool = False, **year: Any) -> Any:
    name = "-".join(filter(None, (version, mode)))
    marks = [pytest.mark.ods(version, mode=mode), *([pytest.mark.slow] if slow else [])]
    return pytest.param(year, marks=marks, id=name)


VERSIONED = [
    ods("5.3", slow=True),
    ods("5.3", "instance_year_specific", instance_code="grand_bend"),
    ods("6.1", slow=True),
    ods("6.1", "year_specific", slow=True),
    ods("6.1", "district_specific", slow=True),
    ods("7.0", slow=True),
    ods("7.1", slow=True),
    ods("7.2", slow=True),
    ods("7.3"),
]


@pytest.mark.parametrize("year", VERSIONED)
def test_records_deletes_and_key_changes_of_every_version(
    make_bench: MakeBench, year: dict[str, Any]
) -> None:
    bench = make_bench(
        "students",
        "locations",
        "sessions",
        "courseOfferings",
        "sections",
        descriptors=("gradeLevelDescriptors",),
        year=year,
        change_version_overlap=5,
    )
    first = bench.materialize()
    assert all(result.full for result in first.values())
    bench.verify()

    gone = bench.add_student(1)
    pattern = bench.store.rows("locations")[0]
    mine = [
        bench.store.post("locations", changed(pattern, classroomIdentificationCode=f"mine {n}"))
        for n in range(3)
    ]
    bench.materialize()
    bench.store.delete("students", gone)
    bench.change("students", bench.store.ids("students")[0], firstName="Later")
    bench.change("locations", mine[2], classroomIdentificationCode="renamed")
    bench.recreate("locations", mine[0])
    bench.store.delete("locations", mine[1])
    if bench.store.generation.key_changes:  # before 6.0 nothing tells that a cascade rewrote a record
        bench.rename_session("Autumn")
    delta = bench.materialize()
    assert not any(result.full for result in delta.values())
    bench.verify()
    assert gone in bench.deletes("students")

    quiet = bench.materialize()
    assert not any(result.table_changed for result in quiet.values())
    bench.rename_session("Winter")
    bench.materialize(full_refresh=True)
    bench.verify()
    bench.rebuild()
    bench.verify()


@pytest.mark.parametrize("year", [ods("2", api_version="2"), ods("6.1"), ods("7.3")])
def test_without_change_versions_every_run_replaces_what_is_there(
    make_bench: MakeBench, year: dict[str, Any]
) -> None:
    options = {} if "api_version" in year else {"use_change_version": False}
    bench = make_bench("students", "locations", descriptors=("gradeLevelDescriptors",), year=year, **options)
    gone = bench.add_student(1)
    bench.materialize()
    bench.verify()
    bench.store.delete("students", gone)
    bench.change("locations", bench.store.ids("locations")[0], classroomIdentificationCode="renamed")
    bench.add_student(2)
    again = bench.materialize()
    assert again["students"].full
    assert not again["gradeLevelDescriptors"].table_changed
    bench.verify()
    assert bench.watermarks() == {}
    assert bench.deletes() == {}
    bench.rebuild()
    bench.verify()
    assert bench.watermarks() == {}


@pytest.mark.parametrize("year", [ods("2", api_version="2"), ods("6.1")])
def test_without_change_versions_records_that_a_wrong_key_takes_for_one_all_stay(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, year: dict[str, Any]
) -> None:
    """The walk is proven, so that nobody needs to be asked for by id; Ed-Fi 2 gives no counts to judge the cost by."""
    monkeypatch.setattr(by_id, "_MANY_READ_BY_ID", 3)
    options = {} if "api_version" in year else {"use_change_version": False}
    bench = make_bench("students", year=year, **options)
    ids = [bench.add_student(n) for n in range(9)]
    endpoint = replace(bench.endpoint("students"), key={"firstName": "firstName"})
    bench.materialize([endpoint])
    bench.verify()
    assert not [r for record_id in ids for r in bench.server.requests.matching(record_id)]


@pytest.mark.ods("6.1")
def test_going_back_to_change_versions_begins_with_a_full_pull(make_bench: MakeBench) -> None:
    make_bench("students").materialize()
    bench = make_bench("students", use_change_version=False)
    bench.store.delete("students", bench.add_student(1))
    bench.materialize()
    bench.add_student(2)
    bench = make_bench("students")
    assert bench.materialize()["students"].full
    bench.verify()
    assert bench.watermarks()["students", "records"] == bench.store.newest


@pytest.mark.parametrize("year", [ods("2", api_version="2"), ods("6.1"), ods("7.3")])
def test_a_record_that_comes_while_everything_is_read_is_read_as_well(
    make_bench: MakeBench, year: dict[str, Any]
) -> None:
    options = {} if "api_version" in year else {"use_change_version": False}
    bench = make_bench("students", year=year, endpoint_defaults={"page_size": 5}, **options)
    bench.at_request("/students", lambda: bench.add_student(1), nth=2, answered=True)
    bench.materialize()
    bench.verify()


@pytest.mark.ods("6.1")
def test_an_ods_that_never_keeps_still_fails_without_change_versions(make_bench: MakeBench) -> None:
    bench = make_bench("students", use_change_version=False, endpoint_defaults={"page_size": 5})
    numbers = iter(range(1000))
    bench.server.after_response.append(
        lambda request: bench.add_student(next(numbers)) if request.path.endswith("/students") else None
    )
    cause = bench.materialize(may_fail=True)["students"].failures["records"]
    assert cause.startswith("grand_bend/2025 ed-fi/students: ")
    assert "pull when the ODS is quiet" in cause
    assert bench.raw("students") == []


@pytest.mark.parametrize("year", [ods("2", api_version="2"), ods("5.3"), ods("6.1"), ods("7.1"), ods("7.3")])
def test_a_page_size_that_the_host_does_not_allow_is_found_out_once(
    make_bench: MakeBench, year: dict[str, Any]
) -> None:
    bench = make_bench("students", "schools", "sections", year=year, endpoint_defaults={"page_size": 400})
    allowed, bench.server.site.settings.max_page = bench.server.site.settings.max_page, 30
    try:
        bench.materialize()
    finally:
        bench.server.site.settings.max_page = allowed
    bench.verify()
    refused = [request for request in bench.server.requests if request.status == 400]
    assert len(refused) <= 3 * (4 if "api_version" in year else 1)
