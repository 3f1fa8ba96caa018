"""The demo bundle: file → Earthmover → Lightbeam → ODS → delta → raw tables, record by record."""

from __future__ import annotations

import csv

from edfi_dagster_tests.earthbeam.conftest import DEMO, MakeBundleBench


def test_every_row_of_the_file_arrives_in_the_ods_and_with_the_next_delta_in_the_raw_tables(
    bundles: MakeBundleBench,
) -> None:
    bench = bundles()
    bench.materialize()
    result = bench.run()
    assert result.failure is None
    assert {o.name: o.rows for o in result.outputs} == {
        "performanceLevelDescriptors": 3,
        "assessmentReportingMethodDescriptors": 2,
        "assessments": 1,
        "objectiveAssessments": 2,
        "studentAssessments": 10,
    }
    assert {o.resource: (o.accepted, o.failed, dict(o.statuses)) for o in result.sent} == {
        "performanceLevelDescriptors": (3, 0, {"201": 3}),
        "assessmentReportingMethodDescriptors": (2, 0, {"201": 2}),
        "assessments": (1, 0, {"201": 1}),
        "objectiveAssessments": (2, 0, {"201": 2}),
        "studentAssessments": (10, 0, {"201": 10}),
    }
    bench.materialize()
    bench.verify()
    current = {
        record["studentAssessmentIdentifier"]: record
        for record in bench.current("studentAssessments").values()
        if record["assessmentReference"]["assessmentIdentifier"] == "RIVERBEND-READING"
    }
    levels = {"Emerging": range(90), "On track": range(90, 130), "Fluent": range(130, 300)}
    with (DEMO / "data" / "fall.csv").open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    assert len(current) == len(rows) == 10
    for row in rows:
        record = current[f"{row['student_id']}-Fall-2025"]
        month, day, year = row["test_date"].split("/")
        assert record["studentReference"]["studentUniqueId"] == row["student_id"]
        assert record["administrationDate"] == f"{year}-{month}-{day}T00:00:00Z"
        assert record["scoreResults"][0]["result"] == row["words_per_minute"]
        level = record["performanceLevels"][0]["performanceLevelDescriptor"].partition("#")[2]
        assert int(row["words_per_minute"]) in levels[level]
        objective = record["studentObjectiveAssessments"][0]
        assert objective["scoreResults"][0]["result"] == row["comprehension"]
        assert objective["objectiveAssessmentReference"]["identificationCode"] == "Comprehension"
    (row,) = bench.run_log()
    assert row["is_done"] and row["run_type"] == "riverbend" and row["failure"] is None
    kept = {path.rpartition("/")[2] for path in result.archived}
    assert kept == {"fall.csv.zst", *(f"{o.file}.zst" for o in result.outputs)}
    assert all(bench.lake.exists(path) for path in result.archived)
