"""A bundle through Dagster where the lake is a bucket of S3 and the raw tables lie in Snowflake."""

from __future__ import annotations

import dagster as dg
import pytest

from edfi_dagster_tests.assets.runs import materialized
from edfi_dagster_tests.assets.test_bundles import KEY, STRAIGHT, checks, run
from edfi_dagster_tests.earthbeam.conftest import MakeBundleBench, bundles  # noqa: F401  (a fixture)
from edfi_dagster_tests.earthbeam.test_student_ids import BROOK, ROSTER, stored, write_file


@pytest.mark.slow
@pytest.mark.storage("production")
@pytest.mark.parametrize("destination", ["ods", "warehouse"])
def test_a_bundle_runs_with_its_lake_on_s3_and_its_tables_in_snowflake(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
    destination: str,
) -> None:
    bench = bundles(destination=destination)
    result = run(bench, instance)
    assert result.success
    made = materialized(instance, result)
    if destination == "ods":
        assert made[f"{KEY}/assessments"]["dagster/uri"].startswith("s3://")
        assert made[f"{KEY}/sent/student_assessments"]["edfi/sent"] == 10
        assert len(bench.results_in_ods()) == 10
    else:
        assert made["raw_edfi_3/student_assessments"]["edfi/rows_loaded"] == 10
        assert sum(map(len, bench.words().values())) == 10
    again = run(bench, instance)
    assert again.success and not again.get_asset_materialization_events()
    assert [(row["is_done"], row["unchanged"]) for row in bench.run_log()] == [(True, False), (True, True)]


@pytest.mark.slow
@pytest.mark.storage("production")
def test_students_are_found_among_those_of_snowflake_and_the_others_kept_apart_on_s3(
    bundles: MakeBundleBench,  # noqa: F811
    instance: dg.DagsterInstance,
) -> None:
    bench = bundles(**{**BROOK, **STRAIGHT})
    bench.materialize([ROSTER])
    # Six of eight are students here.
    file = write_file(bench, [90000048 + number for number in range(8)])
    result = run(bench, instance, files={"INPUT_FILE": str(file)})
    assert result.success
    assert checks(result)["student_id_match_rates student_ids_match"].metadata["edfi/unmatched"].value == 2
    made = materialized(instance, result)
    assert made["raw_edfi_3/student_assessments"]["edfi/rows_loaded"] == 6
    restricted = made[f"{KEY}/input_no_student_id_match"]["dagster/uri"]
    assert restricted.startswith("s3://") and "/_restricted/" in restricted
    assert stored(bench) == [("riverbend", "state_id", "State", 6, 8, 0.75)]
    another = write_file(bench, [90000050, 90000051], name="spring.csv")
    assert run(bench, instance, files={"INPUT_FILE": str(another)}).success
    assert [row["match"]["stored"] for row in bench.run_log()] == [False, True]
