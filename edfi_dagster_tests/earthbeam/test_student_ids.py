"""Students are recognised by the roster of the raw tables; a file's own share decides, whatever earlier files matched."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import zstandard

from edfi_dagster.earthbeam import BundleResult
from edfi_dagster.earthbeam.bundle import MATCH_RATES
from edfi_dagster.earthbeam.earthmover import count_records
from edfi_dagster.earthbeam.errors import ToolFailed
from edfi_dagster.earthbeam.row_counts import count_rows
from edfi_dagster.earthbeam.student_ids import (
    Rate,
    matched,
    read_rates,
    store_rates,
    stored_rates,
    write_roster,
)
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster_tests.bench import PAIR, changed
from edfi_dagster_tests.earthbeam.conftest import BUNDLES, BundleBench, MakeBundleBench

ROSTER = "studentEducationOrganizationAssociations"
BROOK = {
    "path": str(BUNDLES / "assessments" / "Brook"),
    "parameters": {"API_YEAR": "{year}", "TEST_TYPE": "Short"},
    "student_ids": {"id_types": ["State"], "columns": ["state_id", "local_id"], "required_match_rate": 0.6},
    "inputs": {},
    "destination": "none",
}


def stored(bench: BundleBench) -> list[tuple[object, ...]]:
    return bench.query(
        "SELECT assessment_name, source_column_name, edfi_column_name, num_matches, num_rows, match_rate "
        "FROM edfi3._meta_student_id_match_rates WHERE tenant_code = ? AND api_year = ? ORDER BY 1, 4 DESC",
        PAIR,
    )


def write_file(
    bench: BundleBench, state_ids: list[int], name: str = "in.csv", column: str = "state_id"
) -> Path:
    """Results of students by their state ids; the other column holds ids that nobody has."""
    path = bench.folder / name
    other = "local_id" if column == "state_id" else "state_id"
    rows = [f"x{n},{student},Doe,{n}" for n, student in enumerate(state_ids)]
    path.write_text("\n".join([f"{other},{column},last_name,score", *rows]) + "\n")
    return path


def restricted_rows(bench: BundleBench, result: BundleResult) -> list[dict[str, str]]:
    (path,) = [path for path in result.archived if path.startswith("_restricted/")]
    text = zstandard.ZstdDecompressor().decompressobj().decompress(bench.lake.read(path)).decode()
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.both_storages
def test_the_roster_is_made_of_current_rows_as_the_wrapper_wants_it(
    bundles: MakeBundleBench, tmp_path: Path
) -> None:
    bench = bundles()
    bench.add_student(1)
    of_student = changed(bench.store.rows(ROSTER)[0], studentReference={"studentUniqueId": "bench-1"})
    left = bench.store.post(ROSTER, of_student)
    bench.materialize([ROSTER])
    bench.store.delete(ROSTER, left)
    bench.change(ROSTER, bench.store.ids(ROSTER)[0], studentIdentificationCodes=[])
    bench.materialize([ROSTER])
    with bench.warehouse.connected() as connection:
        assert write_roster(connection, PAIR, "5.2", tmp_path / "roster.jsonl") == 16
    lines = [json.loads(line) for line in (tmp_path / "roster.jsonl").read_text().splitlines()]
    assert {json.dumps(line, sort_keys=True) for line in lines} == {
        json.dumps(
            {
                "educationOrganizationReference": {
                    "educationOrganizationId": row["educationOrganizationReference"][
                        "educationOrganizationId"
                    ],
                    "link": {"rel": "LocalEducationAgency"},
                },
                "studentReference": {"studentUniqueId": row["studentReference"]["studentUniqueId"]},
                "studentIdentificationCodes": row["studentIdentificationCodes"],
            },
            sort_keys=True,
        )
        for row in bench.store.rows(ROSTER)
    }


@pytest.mark.parametrize("endpoints", [("students",), ("students", ROSTER)])
def test_a_roster_that_was_never_loaded_is_told_with_what_to_do(
    bundles: MakeBundleBench, endpoints: tuple[str, ...]
) -> None:
    bench = bundles(endpoints=endpoints, **BROOK)
    assert (
        bench.run(file=write_file(bench, [90000050])).failure
        == f"grand_bend/2025: the warehouse has no {ROSTER}; load them before this bundle"
    )


@pytest.mark.slow
def test_students_are_found_by_another_id_and_the_others_kept_apart(bundles: MakeBundleBench) -> None:
    bench = bundles(**BROOK)
    bench.materialize([ROSTER])
    # Six of eight are students here.
    found = bench.run(file=write_file(bench, [90000048 + n for n in range(8)]))
    assert found.failure is None and found.match is not None
    assert (found.match.share, found.match.rows, found.match.unmatched, found.match.stored) == (
        0.75,
        8,
        2,
        False,
    )
    assert {o.name: o.rows for o in found.outputs}["studentAssessments"] == 6
    assert stored(bench) == [("riverbend", "state_id", "State", 6, 8, 0.75)]
    assert [row["state_id"] for row in restricted_rows(bench, found)] == ["90000048", "90000049"]
    assert not any("no_student_id_match" in p for p in found.archived if not p.startswith("_restricted/"))


@pytest.mark.slow
def test_stored_columns_are_taken_and_new_ones_found_where_these_are_not_enough_for_the_file(
    bundles: MakeBundleBench,
) -> None:
    bench = bundles(**BROOK)
    bench.materialize([ROSTER])
    with bench.warehouse.connected() as connection:
        store_rates(connection, PAIR, "riverbend", [Rate("state_id", "State", 6, 8, 0.75)])
    first = bench.run(file=write_file(bench, [90000050 + n for n in range(4)], "first.csv"))
    assert first.match is not None
    assert (first.match.share, first.match.rows, first.match.stored) == (1.0, 4, True)
    assert "student_id_match_rates" not in {o.name for o in first.outputs}

    # The ids stand in the other column now: the stored one matches nobody, and would have let the file pass.
    moved = write_file(bench, [90000050 + n for n in range(4)], "moved.csv", column="local_id")
    second = bench.run(file=moved)
    assert second.failure is None and second.match is not None
    assert (second.match.share, second.match.stored) == (1.0, False)
    assert second.match.rates == (("local_id", "State", 4, 4, 1.0),)
    assert stored(bench) == [("riverbend", "local_id", "State", 4, 4, 1.0)]


@pytest.mark.slow
def test_too_few_known_students_stop_the_run_before_anything_is_sent_and_are_stored_all_the_same(
    bundles: MakeBundleBench,
) -> None:
    ids = {"id_types": ["State"], "columns": ["state_id"], "required_match_rate": 0.6}
    bench = bundles(**{**BROOK, "destination": "ods", "student_ids": ids})
    bench.materialize([ROSTER])
    found = bench.run(file=write_file(bench, [90000059 + n * 10 for n in range(4)]))
    assert found.failure is not None and found.failure.startswith(
        "only 0.0% of 4 rows found their student, 60.0%"
    )
    assert found.match is not None and found.match.rates == (("state_id", "State", 1, 4, 0.25),)
    assert (found.sent, found.validated) == ((), ())
    assert stored(bench) == [("riverbend", "state_id", "State", 1, 4, 0.25)]
    assert len(restricted_rows(bench, found)) == 4
    assert "9000005" not in json.dumps(bench.run_log()) and "9000005" not in " ".join(bench.told)


def test_a_bundle_without_a_roster_in_the_warehouse_says_what_to_load(bundles: MakeBundleBench) -> None:
    bench = bundles(**BROOK)
    found = bench.run(file=write_file(bench, [90000050]))
    assert found.failure == (
        "grand_bend/2025: the warehouse has no studentEducationOrganizationAssociations; load them before this bundle"
    )
    assert found.failed_step == "roster"


@pytest.mark.both_storages
def test_stored_rates_are_replaced_as_one_and_only_those_of_the_assessment(bundles: MakeBundleBench) -> None:
    bench = bundles()
    rates = [Rate("a", "State", 9, 10, 0.9), Rate("b", "District", 1, 10, 0.1)]
    with bench.warehouse.connected() as connection:
        store_rates(connection, PAIR, "psat__PSAT", rates)
        store_rates(connection, PAIR, "psat__SAT", rates[1:])
        assert stored_rates(connection, PAIR, "psat__PSAT", 0.5) == (rates[0],)
        assert stored_rates(connection, PAIR, "psat__SAT", 0.5) == ()
        store_rates(connection, PAIR, "psat__PSAT", [])
        assert stored_rates(connection, PAIR, "psat__PSAT", 0.0) == ()
        assert stored_rates(connection, PAIR, "psat__SAT", 0.0) == (rates[1],)
        with pytest.raises(WarehouseError):
            store_rates(connection, PAIR, "psat__SAT", [Rate("a", "b", "many", 1, 0.1)])  # type: ignore[arg-type]
        assert stored_rates(connection, PAIR, "psat__SAT", 0.0) == (rates[1],)


@pytest.mark.parametrize(
    ("text", "settings", "rows"),
    [
        ("a,b\n1,2\n\n,\n3,4\n", {"header_rows": 1}, 2),
        ("vendor\nof 2024\na,b\n1,2\n", {"header_rows": 3}, 1),
        ('a,b\n"1\n2",3\n', {}, 1),
        ("a\tb\n1\t2\n", {"type": "tsv"}, 1),
        ("anything", {"type": "excel"}, None),
        ("a,b\n", {"header_rows": [0, 1]}, None),
    ],
)
def test_rows_are_counted_as_earthmover_takes_them(
    tmp_path: Path, text: str, settings: dict[str, object], rows: int | None
) -> None:
    (tmp_path / "file.csv").write_text(text)
    assert count_rows(settings, tmp_path / "file.csv") == rows


def test_a_file_without_rows_has_no_share_and_one_without_any_match_has_none_at_all() -> None:
    assert matched(0, 0.5, (), 0, stored=False).is_enough
    found = matched(2, 0.5, (), None, stored=False)
    assert (found.share, found.rows, found.is_enough) == (0.0, 2, False)


def test_a_wrapper_that_tells_no_unmatched_rows_does_not_open_the_gate() -> None:
    rate = Rate("a", "State", 1, 5, 0.2)
    assert [matched(None, 0.5, rates, 5, stored=False).share for rates in ((rate,), ())] == [0.2, 0.0]
    assert matched(None, 0.1, (rate,), None, stored=False).is_enough
    assert matched(None, 0.5, (), 0, stored=False).is_enough


def test_unmatched_rows_are_counted_also_where_their_values_hold_quotes(tmp_path: Path) -> None:
    """A template that writes ``"{{value}}"`` does not double what is in it; a reader of CSV would take two rows for one."""
    file = tmp_path / "input_no_student_id_match.csv"
    file.write_text('name,height\n"Jo","5\' 2""\n"Al","6\' 1""\n"Bo","5\' 9""\n')
    assert count_records(file) == 3


RATES = "source_column_name,edfi_column_name,num_matches,num_rows,match_rate\n"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"a,b\n1,2\n", RATES.encode() + b"Zaphodia,State,1\n", RATES.encode() + b"a,State,many,4,0.5\n", RATES.encode() + b"\xff",
        RATES.encode() + b"a,State,inf,4,0.5\n", RATES.encode() + b"a,State,1,4,nan\n", RATES.encode() + b"a,State,-1,4,0.5\n",
        RATES.encode() + b"x" * 140_000,
    ],
)  # fmt: skip
def test_match_rates_that_are_none_are_told_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"{MATCH_RATES}.csv").write_bytes(content)
    if not content:
        assert read_rates(tmp_path) == ()
        return
    with pytest.raises(ToolFailed, match=rf"{MATCH_RATES}\.csv, .* holds no match rates; see which version"):
        read_rates(tmp_path)


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"header_rows": 10**15}, 0),
        ({"header_rows": 10**40}, None),
        ({"header_rows": "\u00b2"}, None),
        ({"type": ["csv"]}, None),
        ({"encoding": "a\x00b"}, None),
    ],
)
def test_settings_that_nobody_understands_leave_rows_uncounted_and_hold_nobody_up(
    settings: dict[str, object], rows: int | None, tmp_path: Path
) -> None:
    (tmp_path / "file.csv").write_text("a,b\n1,2\n")
    assert count_rows(settings, tmp_path / "file.csv") == rows
