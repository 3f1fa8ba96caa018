"""ODSs that count and serve rows twice, as ODS/API 5.1 and 5.2 do: loaded once each, and told; a lost row still fails."""

from __future__ import annotations

import pytest

from edfi_dagster.sandbox import RequestInfo
from edfi_dagster_tests.bench import MakeBench

VERSIONS = [pytest.param(v, marks=pytest.mark.ods(v)) for v in ("5.3", "6.1", "7.2", "7.3")]


@pytest.mark.parametrize("page_size", [3, 5, 20, 100])
@pytest.mark.parametrize("version", VERSIONS)
def test_rows_that_come_twice_are_loaded_once(make_bench: MakeBench, version: str, page_size: int) -> None:
    bench = make_bench("students", "locations", endpoint_defaults={"page_size": page_size, "num_retries": 1})
    ids = bench.store.ids("students")
    bench.store.oddities.repeated |= {ids[0], ids[1], ids[4], ids[-1]}
    result = bench.materialize()["students"]
    bench.verify()
    assert result.rows_inserted == len(ids)
    manifest = bench.manifest("students")
    assert (manifest.rows, manifest.expected_rows) == (len(ids), len(ids) + 4)
    (warned,) = [sentence for sentence in bench.told if "distinct ids" in sentence]
    assert (
        f"grand_bend/2025 ed-fi/students: the ODS counts and serves {len(ids) + 4} rows of {len(ids)}"
        in warned
    )

    bench.change("students", ids[1], firstName="Changed")
    bench.add_student(1)
    bench.materialize()
    bench.verify()


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_deletes_that_come_twice_are_loaded_once(make_bench: MakeBench, version: str) -> None:
    bench = make_bench("students", endpoint_defaults={"page_size": 3, "num_retries": 1})
    made = [bench.add_student(number) for number in range(8)]
    bench.materialize()
    for record_id in made[:7]:
        bench.store.delete("students", record_id)
    bench.store.oddities.repeated |= {made[0], made[3], made[6], made[7]}
    bench.materialize()
    bench.verify()
    assert {
        record_id: len(stamps) for record_id, stamps in bench.deletes("students").items()
    } == dict.fromkeys(made[:7], 1)


@pytest.mark.ods("5.3")
def test_without_change_versions_they_are_loaded_once_too(make_bench: MakeBench) -> None:
    bench = make_bench("students", use_change_version=False)
    ids = bench.store.ids("students")
    bench.store.oddities.repeated |= {ids[2], ids[3]}
    bench.materialize()
    bench.verify()
    assert bench.manifest("students").expected_rows == len(ids) + 2


@pytest.mark.ods("6.1")
def test_in_the_closing_walk_they_are_loaded_once_too(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    ids = bench.store.ids("students")
    bench.store.oddities.repeated |= {ids[2]}
    bench.at_request("/students", lambda: bench.change("students", ids[2], firstName="Late"))
    bench.materialize()
    bench.verify()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("repeated", [0, 1])
def test_a_row_that_is_counted_and_never_served_is_still_a_failure(
    make_bench: MakeBench, version: str, repeated: int
) -> None:
    """Also where as many rows come twice as are missing."""
    bench = make_bench("students")
    ids = bench.store.ids("students")
    bench.store.oddities.repeated |= set(ids[:repeated])
    lost = f'"id": "{ids[5]}"'
    served = f'"id": "{ids[6]}"'
    if repeated:  # the row of another stands where the lost one should
        bench.store.oddities.spellings[lost] = served
    else:
        text = bench.store.get("students", ids[5])["studentUniqueId"]
        bench.store.oddities.spellings[lost] = f'"lost": "{text}"'
    (cause,) = bench.materialize(may_fail=True)["students"].failures.values()
    assert "grand_bend/2025 ed-fi/students" in cause


@pytest.mark.ods("5.3")
def test_rows_that_come_twice_while_others_move_are_read_again(make_bench: MakeBench) -> None:
    bench = make_bench("students", endpoint_defaults={"page_size": 4, "num_retries": 1})
    ids = bench.store.ids("students")
    bench.store.oddities.repeated |= {ids[3]}
    moved: list[int] = []

    def move(request: RequestInfo) -> None:
        if request.path.endswith("/students") and "offset" in request.query and len(moved) < 2:
            moved.append(bench.store.newest)
            bench.change("students", ids[7 + len(moved)], firstName=f"Moved {len(moved)}")

    bench.server.before_request.append(move)
    bench.materialize()
    bench.verify()
    assert len(moved) == 2
