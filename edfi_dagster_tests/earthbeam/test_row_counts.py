"""Rows that came to nothing are a failure, unless the bundle says otherwise."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from edfi_dagster.earthbeam.rendering import compose
from edfi_dagster.earthbeam.result import WrittenOutput
from edfi_dagster.earthbeam.row_counts import fed_by, fruitless_input, has_rows
from edfi_dagster_tests.earthbeam.conftest import Prepare
from edfi_dagster_tests.earthbeam.prepared import STUDENTS, write_results

YAML = """version: 2
sources:
  input: {file: "${INPUT_FILE}", header_rows: 1}
  map: {file: "${MAP_FILE}", header_rows: 1}
  seed: {file: ./seed.csv, header_rows: 1}
transformations:
  joined:
    source: $sources.input
    operations:
      - {operation: join, sources: [$sources.map], join_type: left, left_key: a, right_key: a}
  results: {source: $transformations.joined, operations: []}
destinations:
  assessments: {source: $sources.seed, extension: jsonl}
  studentAssessments: {source: $transformations.results, extension: jsonl}
  input_no_student_id_match: {source: $transformations.joined, extension: csv}
"""


def written(name: str, rows: int, *, is_record: bool = True) -> WrittenOutput:
    return WrittenOutput(name, f"{name}.jsonl", name if is_record else None, rows)


@pytest.mark.parametrize(
    ("rows", "records", "unmatched", "found"),
    [
        (2, 0, 0, ("INPUT_FILE", ("studentAssessments",))),
        (2, 0, 2, ("INPUT_FILE", ("studentAssessments",))),
        (2, 1, 1, None),
        (0, 0, 0, None),
    ],
)
def test_only_records_that_are_made_of_the_file_count(
    tmp_path: Path, rows: int, records: int, unmatched: int, found: object
) -> None:
    """Seeds always make records, and rows without a student are none."""
    (tmp_path / "earthmover.yaml").write_text(YAML)
    files = {"INPUT_FILE": tmp_path / "in.csv", "MAP_FILE": tmp_path / "map.csv"}
    files["INPUT_FILE"].write_text("a,b\n" + "1,2\n" * rows)
    files["MAP_FILE"].write_text("a,c\n")
    composed = compose(tmp_path, {name: str(path) for name, path in files.items()})
    outputs = [
        written("assessments", 37),
        written("studentAssessments", records),
        written("input_no_student_id_match", unmatched, is_record=False),
    ]
    assert fruitless_input(composed, files, outputs) == found
    assert fed_by(composed, ["seed"]) == {"assessments"}
    assert fed_by(composed, ["map"]) == {"studentAssessments", "input_no_student_id_match"}


@pytest.mark.parametrize(
    ("name", "content", "settings", "expected"),
    [
        ("a.csv", b"a,b\n", {}, False),
        ("a.csv", b"a,b\n,\n\n", {}, False),
        ("a.csv", b"a,b\n1,2\n", {}, True),
        ("a.csv", b"about\na,b\n", {"header_rows": 2}, False),
        ("a.txt", b"\n  \n", {}, False),
        ("a.txt", b"1  Ada\n", {}, True),
        ("a.jsonl", b"\n", {}, False),
        ("a.ndjson", b"{}\n", {}, True),
        ("a.xlsx", b"PK", {}, True),
        ("a.xlsx", b"", {}, False),
    ],
)
def test_a_file_has_rows_or_not(
    tmp_path: Path, name: str, content: bytes, settings: dict[str, object], expected: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    assert has_rows(settings, tmp_path / name) is expected


@pytest.mark.parametrize("rows", [0, 3])
def test_rows_of_a_parquet_file_are_known(tmp_path: Path, rows: int) -> None:
    pq.write_table(pa.table({"a": ["1"] * rows}), tmp_path / "a.parquet")
    assert has_rows({}, tmp_path / "a.parquet") is (rows > 0)


def test_a_run_whose_rows_came_to_nothing_fails_and_is_not_taken_for_done(prepare: Prepare) -> None:
    bench = prepare(destination="none")
    for file in (bench.folder / "prepared").iterdir():
        file.write_text("")
    found = bench.run()
    assert found.failed_step == "records"
    assert found.failure == (
        "INPUT_FILE has rows, but no record of assessments, studentAssessments came of them; correct the file or the "
        "bundle, or set allow_empty_output: true if that is right"
    )
    assert not bench.run().unchanged
    assert [row["is_done"] for row in bench.run_log()] == [False, False]


def test_a_bundle_may_allow_it_and_a_file_without_rows_is_no_failure(prepare: Prepare) -> None:
    bench = prepare(destination="none", allow_empty_output=True)
    for file in (bench.folder / "prepared").iterdir():
        file.write_text("")
    assert (bench.run().failure, bench.run().unchanged) == (None, True)
    strict = prepare(destination="none")
    (strict.folder / "in.csv").write_text("a,b\n")
    assert strict.run(force=True).failure is None


@pytest.mark.both_storages
def test_a_correction_that_is_taken_back_is_loaded_again(prepare: Prepare) -> None:
    bench = prepare(destination="warehouse")
    file = bench.folder / "in.csv"
    for score in (7, 9, 7, 9):
        file.write_text(f"a,b\n1,{score}\n")
        write_results(bench.folder, *STUDENTS, score=score)
        found = bench.run()
        assert (found.failure, found.unchanged) == (None, False)
        assert {words[-1] for words in bench.words().values()} == {str(score)}
    assert bench.run().unchanged
