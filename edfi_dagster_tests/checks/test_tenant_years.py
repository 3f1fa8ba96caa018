"""The checks over all tenants and years: who is late by the rule that Slack is told by, and whose schema changed."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from edfi_dagster.assets.keys import AssetKeys, partitions_of
from edfi_dagster.automation.jobs import selections_of
from edfi_dagster.automation.lateness import Lateness
from edfi_dagster.automation.run_history import Trigger, run_request
from edfi_dagster.checks.everything import build_checks
from edfi_dagster.checks.tenant_years import (
    IN_TIME,
    LATENESS_JOB,
    SCHEMA_JOB,
    TENANT_YEARS,
)
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster_tests.automation.daemon import Clock, Daemon
from edfi_dagster_tests.automation.platforms import GRAND_BEND, LAKEVIEW, FakeOds, platform_of
from edfi_dagster_tests.bench import PAIR, Bench, MakeBench
from edfi_dagster_tests.checks.asking import WARN
from edfi_dagster_tests.health.asking import Document, rewritten

NOON = datetime(2025, 11, 5, 12, tzinfo=UTC)
NIGHTLY = {"schedule": "0 2 * * *"}


def definitions(platform: Platform, ods: FakeOds | None = None, now: datetime = NOON) -> dg.Definitions:
    keys = AssetKeys(platform)
    lateness = Lateness(platform, selections_of(keys), ods or FakeOds())
    checks = build_checks(
        platform, keys, partitions_of(platform), lateness.late, clock=lambda: now.timestamp()
    )
    return dg.Definitions(
        assets=checks.assets,
        asset_checks=checks.asset_checks,
        jobs=checks.jobs,
        schedules=checks.schedules,
    )


def evaluated(defs: dg.Definitions, instance: dg.DagsterInstance, job: str) -> dg.AssetCheckEvaluation:
    result = defs.resolve_job_def(job).execute_in_process(instance=instance)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def rows(evaluation: dg.AssetCheckEvaluation, name: str) -> list[dict[str, Any]]:
    found = evaluation.metadata[f"edfi/{name}"]
    assert isinstance(found, dg.TableMetadataValue)
    return [dict(record.data) for record in found.records]


def succeeded(defs: dg.Definitions, instance: dg.DagsterInstance, pair: TenantYear, at: datetime) -> None:
    """Notes a successful run of everything."""
    request = run_request(pair, Trigger.SCHEDULE, tags={"dagster/partition": f"{pair.tenant}|{pair.year}"})
    Daemon(defs, instance, Clock(at)).note(request, dg.DagsterRunStatus.SUCCESS)


# -- lateness -------------------------------------------------------------------------------------------------


def test_late_tenant_years_are_listed_with_their_last_success(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    years: Mapping[TenantYear, Mapping[str, Any]] = {
        GRAND_BEND: NIGHTLY,
        LAKEVIEW: NIGHTLY,
        TenantYear("lakeview", 2026): NIGHTLY,
    }
    defs = definitions(platform_of(tmp_path, years))
    succeeded(defs, instance, GRAND_BEND, NOON - timedelta(hours=9))
    succeeded(defs, instance, LAKEVIEW, NOON - timedelta(days=3))
    evaluation = evaluated(defs, instance, LATENESS_JOB)
    assert (evaluation.asset_key, evaluation.check_name) == (TENANT_YEARS, IN_TIME)
    assert (evaluation.passed, evaluation.severity, evaluation.partition) == (False, WARN, None)
    assert evaluation.description == "late: lakeview/2026, lakeview/2025"
    assert rows(evaluation, "who") == [
        {
            "tenant": "lakeview",
            "year": 2026,
            "what": "everything",
            "last success (UTC)": "never",
            "late by": "34.0 h",
            "schedule": "0 2 * * *",
        },
        {
            "tenant": "lakeview",
            "year": 2025,
            "what": "everything",
            "last success (UTC)": "2025-11-02 12:00",
            "late by": "34.0 h",
            "schedule": "0 2 * * *",
        },
    ]
    for pair in years:
        succeeded(defs, instance, pair, NOON - timedelta(hours=1))
    evaluation = evaluated(defs, instance, LATENESS_JOB)
    assert evaluation.passed
    assert evaluation.description == "none of 3 is late"


def test_without_a_schedule_late_is_what_was_not_pulled_for_a_day(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    defs = definitions(platform_of(tmp_path, {GRAND_BEND: {}}), FakeOds(grand_bend=7))
    succeeded(defs, instance, GRAND_BEND, NOON - timedelta(hours=23))
    assert evaluated(defs, instance, LATENESS_JOB).passed
    defs = definitions(platform_of(tmp_path, {GRAND_BEND: {}}), FakeOds(), NOON + timedelta(hours=3))
    (row,) = rows(evaluated(defs, instance, LATENESS_JOB), "who")
    assert (row["late by"], row["schedule"]) == ("2.0 h", "none")


def test_both_checks_have_a_job_and_a_schedule_that_is_off(tmp_path: Path) -> None:
    defs = definitions(platform_of(tmp_path, {GRAND_BEND: NIGHTLY}))
    dg.Definitions.validate_loadable(defs)
    repository = defs.get_repository_def()
    assert {s.name: s.cron_schedule for s in repository.schedule_defs} == {
        LATENESS_JOB: "15 * * * *",
        SCHEMA_JOB: "0 6 * * *",
    }
    for schedule in repository.schedule_defs:
        assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
        with dg.build_schedule_context(repository_def=repository) as context:
            assert schedule.evaluate_tick(context).run_requests
    checks = repository.asset_graph.asset_check_keys
    assert {check.asset_key for check in checks} == {
        TENANT_YEARS
    }  # no table has one unless counts are pulled
    assert len(checks) == 2


def test_tables_have_their_check_where_a_tenant_has_its_counts_pulled(tmp_path: Path) -> None:
    counting = {"extract": {"pull_total_counts": True}}
    defs = definitions(platform_of(tmp_path, {GRAND_BEND: counting, LAKEVIEW: {}}))
    checks = [check.to_user_string() for check in defs.resolve_asset_graph().asset_check_keys]
    assert sum("raw_edfi_3" in check for check in checks) == 2


# -- schemas --------------------------------------------------------------------------------------------------


def with_neighbour(bench: Bench) -> Platform:
    """Declares another year, whose ODS nobody serves."""

    def change(platform: Document) -> None:
        declared = platform["tenants"][PAIR.tenant]["years"]
        declared[2026] = declared[PAIR.year] | {"base_url": "http://127.0.0.1:9"}

    return rewritten(bench, change)


def test_an_ods_as_its_standard_has_it_passes_and_one_that_is_down_is_named(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "sessions", "tpdm/candidates", descriptors=("sexDescriptors",))
    evaluation = evaluated(definitions(with_neighbour(bench)), instance, SCHEMA_JOB)
    assert evaluation.passed
    assert evaluation.description == "nothing changed; ODSs read: 1 of 2"
    (row,) = rows(evaluation, "not_read")
    assert (row["tenant"], row["year"]) == (PAIR.tenant, 2026)
    assert "127.0.0.1" in row["why"]


def test_an_ods_of_a_later_standard_is_told_with_what_it_has_more_and_less(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("courses", "schools", data_standard="4.0")
    evaluation = evaluated(definitions(bench.platform), instance, SCHEMA_JOB)
    assert (evaluation.passed, evaluation.severity) == (False, WARN)
    found = {(row["endpoint"], row["change"]): row["fields"] for row in rows(evaluation, "what")}
    assert found["ed-fi/courses", "fields appeared"] == "academicSubjects"
    assert found["ed-fi/courses", "fields vanished"] == "academicSubjectDescriptor, learningObjectives"
    assert found["ed-fi/contacts", "endpoint appeared"] == ""
    assert not any(endpoint == "ed-fi/schools" for endpoint, _ in found)
    assert not any(
        change == "endpoint vanished" for _, change in found
    )  # what was never loaded did not vanish


def test_what_was_loaded_and_is_not_offered_any_more_has_vanished(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "sessions", "grades")
    bench.materialize(["students", "sessions"])
    bench.store.withdrawn |= {"ed-fi/sessions", "ed-fi/grades"}
    evaluation = evaluated(definitions(bench.platform), instance, SCHEMA_JOB)
    assert rows(evaluation, "what") == [
        {
            "tenant": PAIR.tenant,
            "year": PAIR.year,
            "endpoint": "ed-fi/sessions",
            "change": "endpoint vanished",
            "fields": "",
        }
    ]
    assert evaluation.description == "changes: 1; ODSs read: 1 of 1"


def test_an_endpoint_that_the_configuration_names_is_no_news(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", data_standard="5.1")

    def appeared(platform: Platform) -> set[str]:
        evaluation = evaluated(definitions(platform), instance, SCHEMA_JOB)
        return {row["endpoint"] for row in rows(evaluation, "what")}

    before = appeared(bench.platform)

    def name_them(document: Document) -> None:
        document["extract"]["resources"] |= {
            "assessmentBatteryParts": {"enabled": False},
            "studentAssessmentRegistrations": {"enabled": False},
        }

    named = {"ed-fi/assessmentBatteryParts", "ed-fi/studentAssessmentRegistrations"}
    assert named <= before
    assert appeared(rewritten(bench, name_them)) == before - named


@pytest.mark.ods("6.1")
def test_the_older_form_of_document_is_read_as_well(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "sessions")
    assert evaluated(definitions(bench.platform), instance, SCHEMA_JOB).passed


def test_an_ods_without_documents_is_named_with_what_to_do(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students")
    bench.server.faults.add("swagger.json", status=404)
    evaluation = evaluated(definitions(bench.platform), instance, SCHEMA_JOB)
    assert evaluation.passed
    (row,) = rows(evaluation, "not_read")
    assert "have its host switch OpenAPI metadata on" in row["why"]
