"""The column that tells the students is the one that matches best in this very file, whatever matched before."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import quote

import pytest
import zstandard

from edfi_dagster.earthbeam import BundleResult
from edfi_dagster.earthbeam.student_ids import Rate, store_rates
from edfi_dagster_tests.bench import PAIR
from edfi_dagster_tests.earthbeam import crosswalk_stand_in
from edfi_dagster_tests.earthbeam.conftest import BUNDLES, BundleBench, MakeBundleBench

# Student → state id and district id. Numbers in a file that count its rows are the district ids of others.
STUDENTS = {"s1": ("S1", "901"), "s2": ("S2", "902"), "s3": ("S3", "903"), "s4": ("S4", "904"), "x": ("SX", "1"), "y": ("SY", "2"), "z": ("SZ", "3")}  # fmt: skip
NUMBER, STATE = ("number", "District"), ("state_id", "State")
MakeBench = Callable[..., BundleBench]


@pytest.fixture
def make_bench(bundles: MakeBundleBench, tmp_path: Path) -> MakeBench:
    """A bench whose file has a column that only counts, and one of state ids."""
    tool = tmp_path / "earthmover"
    tool.write_text(
        f"#!/bin/sh\necho run >> {quote(str(tmp_path / 'runs'))}\n"
        f'exec {quote(sys.executable)} {quote(str(crosswalk_stand_in.__file__))} "$@"\n'
    )
    tool.chmod(0o755)

    def make(
        columns: Sequence[str] = ("number", "state_id"), stored: Mapping[tuple[str, str], float] | None = None
    ) -> BundleBench:
        bench = bundles(
            tools={"earthmover": {"path": str(tool)}},
            path=str(BUNDLES / "assessments" / "Brook"),
            parameters={"TEST_TYPE": "Short"},
            student_ids={
                "roster": "roster.jsonl",
                "columns": list(columns),
                "id_types": ["State", "District"],
                "required_match_rate": 0.5,
            },
            inputs={},
            destination="none",
        )
        write_roster(bench)
        if stored:
            rates = [Rate(*pair, round(8 * rate), 8, rate) for pair, rate in stored.items()]
            with bench.warehouse.connected() as connection:
                store_rates(connection, PAIR, "riverbend", rates)
        return bench

    return make


def write_roster(bench: BundleBench, twice: Sequence[str] = ()) -> None:
    """The associations of all students; of some there are two, as of those who changed schools."""
    lines = [
        json.dumps(
            {
                "educationOrganizationReference": {"educationOrganizationId": 1, "link": {"rel": "School"}},
                "studentReference": {"studentUniqueId": student},
                "studentIdentificationCodes": [
                    {"studentIdentificationSystemDescriptor": f"uri://x#{kind}", "identificationCode": code}
                    for kind, code in zip(("State", "District"), codes, strict=True)
                ],
            }
        )
        for student, codes in STUDENTS.items()
        for _ in range(2 if student in twice else 1)
    ]
    (bench.folder / "roster.jsonl").write_text("\n".join(lines) + "\n")


def write_file(bench: BundleBench, *rows: tuple[object, object], header: str = "number,state_id") -> Path:
    """Rows of number and state id; the score is that of the student the row is really of."""
    path = bench.folder / "in.csv"
    lines = [f"{number},{state},{state}-score" for number, state in rows]
    path.write_text("\n".join([f"{header},score", *lines]) + "\n")
    return path


def scores(bench: BundleBench, found: BundleResult) -> dict[str, str]:
    """Student → score, as they would be sent."""
    (path,) = [p for p in found.archived if p.endswith("studentAssessments.jsonl.zst")]
    text = zstandard.ZstdDecompressor().decompressobj().decompress(bench.lake.read(path)).decode()
    records = [json.loads(line) for line in text.splitlines()]
    assert len({r["student"] for r in records}) == len(records)
    return {record["student"]: record["score"] for record in records}


def runs(bench: BundleBench) -> int:
    return len((bench.folder / "runs").read_text().splitlines())


def stored(bench: BundleBench) -> dict[tuple[str, str], float]:
    rows = bench.query(
        "SELECT source_column_name, edfi_column_name, match_rate FROM edfi3._meta_student_id_match_rates"
    )
    return {(column, kind): rate for column, kind, rate in rows}


ALL = [(n, f"S{n}") for n in (1, 2, 3, 4)]
RIGHT = {f"s{n}": f"S{n}-score" for n in (1, 2, 3, 4)}


def test_an_accidental_three_of_four_does_not_beat_four_of_four(make_bench: MakeBench) -> None:
    bench = make_bench(stored={NUMBER: 0.75})
    found = bench.run(file=write_file(bench, *ALL))
    assert found.failure is None and found.match is not None
    assert scores(bench, found) == RIGHT
    assert (found.match.share, found.match.stored) == (1.0, False)
    assert stored(bench) == {STATE: 1.0, NUMBER: 0.75}
    # What is stored now is the right one, and spares the comparison.
    again = bench.run(file=write_file(bench, *reversed(ALL)))
    assert again.match is not None and again.match.stored
    assert (scores(bench, again), runs(bench)) == (RIGHT, 3)


def test_a_stored_column_by_which_all_rows_match_spares_the_comparison(make_bench: MakeBench) -> None:
    bench = make_bench(stored={STATE: 0.9})
    found = bench.run(file=write_file(bench, *ALL))
    assert (scores(bench, found), runs(bench)) == (RIGHT, 1)
    assert found.match is not None and found.match.stored


@pytest.mark.parametrize("earlier", [{STATE: 0.6}, {("gone", "State"): 1.0}, {("state_id", "Gone"): 1.0}, {}])
def test_a_stored_column_that_is_worse_or_no_longer_named_is_left(
    make_bench: MakeBench, earlier: dict[tuple[str, str], float]
) -> None:
    """Three of four rows match by state id, and that is best: the numbers are of nobody here."""
    bench = make_bench(stored=earlier)
    found = bench.run(file=write_file(bench, *[(n + 500, s) for n, s in ALL[:3]], (800, "S?")))
    assert scores(bench, found) == {student: RIGHT[student] for student in ("s1", "s2", "s3")}
    assert found.match is not None and (found.match.share, found.match.stored) == (0.75, False)
    assert stored(bench) == {STATE: 0.75}


def test_a_stored_column_that_is_not_in_the_file_is_left(make_bench: MakeBench) -> None:
    bench = make_bench(stored={NUMBER: 1.0})
    found = bench.run(file=write_file(bench, *ALL, header="count,state_id"))
    assert found.failure is None and scores(bench, found) == RIGHT


@pytest.mark.parametrize(
    ("columns", "earlier", "best"),
    [
        (("number", "state_id"), {}, NUMBER),
        (("state_id", "number"), {}, STATE),
        (("number", "state_id"), {STATE: 0.8}, STATE),
        (("state_id", "number"), {NUMBER: 0.8}, NUMBER),
        # Of stored ones too, the first of the configuration is best.
        (("state_id", "number"), {NUMBER: 0.8, STATE: 0.8}, STATE),
    ],
)
def test_of_two_that_match_equally_the_stored_one_is_best_then_the_first_of_the_configuration(
    make_bench: MakeBench, columns: tuple[str, str], earlier: dict[tuple[str, str], float], best: object
) -> None:
    bench = make_bench(columns, earlier)
    found = bench.run(file=write_file(bench, (1, "S1"), (2, "S2"), (3, "S3"), (800, "S?")))
    right = {student: RIGHT[student] for student in ("s1", "s2", "s3")}
    assert (scores(bench, found) == right) is (best == STATE)
    assert found.match is not None and found.match.rates[0][:2] == best
    other = STATE if best == NUMBER else NUMBER
    assert any(f"just as many rows match by {' as '.join(other)}" in told for told in bench.told)


def test_a_student_who_is_in_the_roster_twice_makes_no_column_better(make_bench: MakeBench) -> None:
    """By join the numbers match six times in four rows; by row they match three."""
    for earlier in ({}, {NUMBER: 0.75}):
        bench = make_bench(stored=earlier)
        write_roster(bench, twice=["x", "y", "z"])
        found = bench.run(file=write_file(bench, *ALL), force=True)
        assert found.failure is None and found.match is not None
        assert scores(bench, found) == RIGHT
        assert found.match.share == 1.0
        assert stored(bench) == {STATE: 1.0, NUMBER: 0.75}


@pytest.mark.parametrize(
    ("rows", "right"),
    [
        ([(1, "S1")], {"s1": "S1-score"}),
        ([(5, "S1"), (6, "S2")], {"s1": "S1-score", "s2": "S2-score"}),
        ([(1, "S1"), (9, "S4")], {"s1": "S1-score", "s4": "S4-score"}),
    ],
)
def test_in_a_small_file_the_numbers_that_happen_to_match_do_not_count(
    make_bench: MakeBench, rows: list[tuple[int, str]], right: dict[str, str]
) -> None:
    bench = make_bench(("state_id", "number"), {STATE: 0.95, NUMBER: 0.3})
    found = bench.run(file=write_file(bench, *rows))
    assert scores(bench, found) == right


def test_a_file_without_rows_asks_for_no_comparison(make_bench: MakeBench) -> None:
    bench = make_bench(stored={STATE: 0.9})
    found = bench.run(file=write_file(bench))
    assert (found.failure, runs(bench)) == (None, 1)


def test_too_few_matches_by_the_best_column_fail_the_run(make_bench: MakeBench) -> None:
    bench = make_bench(stored={STATE: 0.9})
    found = bench.run(file=write_file(bench, (801, "S1"), (802, "?"), (803, "?"), (804, "?")))
    assert found.failed_step == "student ids"
    assert found.failure is not None and found.failure.startswith("only 0.0% of 4 rows found their student")
    assert stored(bench) == {STATE: 0.25}
