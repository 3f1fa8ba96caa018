"""A dbt project downstream of the raw tables: its sources are our assets, and it runs exactly when rows landed."""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject, dbt_assets

from edfi_dagster.assets.keys import partition_key
from edfi_dagster.automation.jobs import EXTRACT_JOB
from edfi_dagster.definitions import build
from edfi_dagster_tests.bench import PAIR, Bench

# Those of dbt and of Dagster's own tester of conditions.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::dagster.BetaWarning")

STUDENTS = dg.AssetKey("stg_students")
ENROLLMENTS = dg.AssetKey("enrollment_counts")


class WhenRowsLanded(DagsterDbtTranslator):
    """Models run once their sources have new rows and no run is still loading them."""

    def get_automation_condition(
        self, dbt_resource_props: Mapping[str, Any]
    ) -> dg.AutomationCondition | None:
        return dg.AutomationCondition.any_deps_updated() & ~dg.AutomationCondition.any_deps_in_progress()


@pytest.fixture
def project(tmp_path: Path) -> DbtProject:
    folder = tmp_path / "dbt"
    shutil.copytree(Path(__file__).parent / "project", folder)
    return DbtProject(project_dir=folder)


def definitions(bench: Bench, project: DbtProject) -> dg.Definitions:
    dbt = DbtCliResource(project_dir=project, dbt_executable=str(Path(sys.executable).with_name("dbt")))
    dbt.cli(["parse"], target_path=project.project_dir / "target").wait()

    @dbt_assets(manifest=project.manifest_path, dagster_dbt_translator=WhenRowsLanded())
    def models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Any:
        yield from dbt.cli(["run"], context=context).stream()

    return dg.Definitions.merge(
        build(bench.platform), dg.Definitions(assets=[models], resources={"dbt": dbt})
    )


@pytest.mark.slow
def test_models_run_exactly_when_rows_landed(
    make_bench: Callable[..., Bench], project: DbtProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students", "studentSchoolAssociations")
    bench.lets_go = True
    monkeypatch.setenv("WAREHOUSE_PATH", str(bench.folder / "warehouse.duckdb"))
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    defs = definitions(bench, project)
    graph = defs.resolve_asset_graph()
    assert graph.get(STUDENTS).parent_keys == {
        dg.AssetKey(["raw_edfi_3", "students"]),
        dg.AssetKey(["raw_edfi_3", "_deletes"]),
    }

    with dg.DagsterInstance.ephemeral() as instance:
        evaluated = dg.evaluate_automation_conditions(defs, instance)

        def night() -> set[dg.AssetKey]:
            """A run of the pair, then the models that automation asks for, run by dbt; which these were."""
            nonlocal evaluated
            job = defs.resolve_job_def(EXTRACT_JOB)
            assert job.execute_in_process(instance=instance, partition_key=partition_key(PAIR)).success
            evaluated = dg.evaluate_automation_conditions(defs, instance, cursor=evaluated.cursor)
            wanted = [key for key in (STUDENTS, ENROLLMENTS) if evaluated.get_num_requested(key)]
            if wanted:
                downstream = defs.resolve_implicit_global_asset_job_def()
                assert downstream.execute_in_process(instance=instance, asset_selection=wanted).success
                evaluated = dg.evaluate_automation_conditions(defs, instance, cursor=evaluated.cursor)
                assert evaluated.total_requested == 0
            return set(wanted)

        assert night() == {STUDENTS, ENROLLMENTS}
        assert night() == set()
        gone, kept = bench.add_student(1), bench.store.ids("students")[0]
        bench.change("students", kept, lastSurname="Ämne")
        assert night() == {STUDENTS}
        bench.store.delete("students", gone)
        assert night() == {STUDENTS}

    staged = bench.query("SELECT student_unique_id, last_surname FROM models.stg_students")
    assert sorted(staged) == sorted(
        (record["studentUniqueId"], record["lastSurname"]) for record in bench.store.rows("students")
    )
    assert bench.query("SELECT * FROM models.enrollment_counts") == [
        (
            *PAIR,
            len(
                {
                    a["studentReference"]["studentUniqueId"]
                    for a in bench.store.rows("studentSchoolAssociations")
                }
            ),
        )
    ]
