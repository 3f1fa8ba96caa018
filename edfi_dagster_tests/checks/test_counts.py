"""``matches_ods_count``: told by an extract where it is news, run by itself for one table, shown per tenant and year."""

from collections.abc import Sequence

import dagster as dg
import pytest

from edfi_dagster.assets.keys import AssetKeys, partition_key, partitions_of
from edfi_dagster.assets.materializations import log
from edfi_dagster.checks.counts import build_counts_check, counted_and_compared, evaluations
from edfi_dagster.extract.comparison import Comparison
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster_tests.assets.runs import failure, run
from edfi_dagster_tests.bench import PAIR, SECRET_VARIABLE, Bench, MakeBench
from edfi_dagster_tests.checks.asking import (
    ERROR,
    WARN,
    latest,
    lose,
    numbers,
    run_counts,
)

STUDENTS, SESSIONS, DESCRIPTORS = "raw_edfi_3/students", "raw_edfi_3/sessions", "raw_edfi_3/_descriptors"


def compared(bench: Bench, endpoints: Sequence[Endpoint] | None = None) -> list[Comparison]:
    tell, chosen = bench.told.append, endpoints or bench.endpoints
    return counted_and_compared(bench.platform, PAIR, chosen, tell=tell, warn=tell)


def night(
    bench: Bench,
    instance: dg.DagsterInstance,
    materialized: Sequence[str] = (),
    endpoints: Sequence[Endpoint] | None = None,
) -> dict[str, dg.AssetCheckEvaluation]:
    """What an extract that materialized some tables logs of the check: table → evaluation."""
    keys = AssetKeys(bench.platform)
    logged: dict[str, dg.AssetCheckEvaluation] = {}

    @dg.op
    def extract(context: dg.OpExecutionContext) -> None:
        for table in materialized:
            key = dg.AssetKey.from_user_string(table)
            log(context, dg.AssetMaterialization(key, partition=partition_key(PAIR)))
        found = compared(bench, endpoints)
        for evaluation in evaluations(instance, context.run_id, keys, PAIR, found):
            log(context, evaluation)
            logged[evaluation.asset_key.to_user_string()] = evaluation

    @dg.job(executor_def=dg.in_process_executor)
    def only() -> None:
        extract()

    result = only.execute_in_process(instance=instance)
    checks = [e for e in instance.all_logs(result.run_id) if "ASSET_CHECK" in str(e.dagster_event_type)]
    assert len(checks) == len(logged)  # one event each, none planned
    return logged


def test_an_extract_tells_what_is_news_and_nothing_else(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "sessions", descriptors=("sexDescriptors", "termDescriptors"))
    bench.materialize()
    first = night(bench, instance, [STUDENTS, SESSIONS, DESCRIPTORS])
    assert set(first) == {STUDENTS, SESSIONS, DESCRIPTORS}
    assert all(evaluation.passed for evaluation in first.values())
    count = bench.store.count("students")
    assert numbers(first[STUDENTS]) == {"ods_count": count, "current_rows": count, "difference": 0}
    assert first[STUDENTS].description == f"{PAIR}: {count:,} here as in the ODS"
    both = bench.store.count("sexDescriptors") + bench.store.count("termDescriptors")
    assert numbers(first[DESCRIPTORS])["current_rows"] == both
    for table in first:
        assert latest(instance, table) == first[table]

    assert night(bench, instance) == {}
    bench.change("students", bench.store.ids("students")[0], lastSurname="Changed")
    bench.materialize()
    assert set(night(bench, instance, [STUDENTS])) == {STUDENTS}
    assert latest(instance, STUDENTS) is not None


def test_a_drift_is_an_error_every_night_until_it_is_repaired(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "sessions", change_version_overlap=0)
    bench.materialize()
    night(bench, instance, [STUDENTS, SESSIONS])
    lose(bench, "students")
    for _ in range(2):
        (told,) = night(bench, instance).values()
        assert (told.asset_key.to_user_string(), told.passed, told.severity) == (STUDENTS, False, ERROR)
        assert told.description is not None
        command = "edfi-dagster resync --tenant grand_bend --year 2025 --endpoints ed-fi/students"
        assert told.description.endswith(command)
        assert numbers(told)["difference"] == -1
    bench.materialize(["students"], full_refresh=True)
    (told,) = night(bench, instance, [STUDENTS]).values()
    assert told.passed
    assert night(bench, instance) == {}


def test_a_write_after_the_pull_is_a_warning(make_bench: MakeBench, instance: dg.DagsterInstance) -> None:
    bench = make_bench("students")
    bench.materialize()
    bench.add_student(1)
    told = night(bench, instance, [STUDENTS])[STUDENTS]
    assert (told.passed, told.severity) == (False, WARN)
    assert numbers(told)["changed_since"] == 1
    assert told.description is not None
    assert "the next run brings it" in told.description


def test_descriptors_share_a_verdict_and_list_what_differs(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench(descriptors=("sexDescriptors", "termDescriptors", "gradeLevelDescriptors"))
    bench.materialize()
    with bench.warehouse.connected() as connection:
        connection.run("DELETE FROM edfi3._descriptors WHERE name = 'sex_descriptors'")
    told = night(bench, instance, [DESCRIPTORS])[DESCRIPTORS]
    assert (told.passed, told.severity) == (False, ERROR)
    table = told.metadata["edfi/differing"]
    assert isinstance(table, dg.TableMetadataValue)
    (row,) = table.records
    count = bench.store.count("sexDescriptors")
    assert row.data == {
        "endpoint": "ed-fi/sexDescriptors",
        "in the ODS": count,
        "here": 0,
        "difference": -count,
        "verdict": "drifted",
    }


def test_a_run_of_some_descriptors_does_not_speak_for_all(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    names = ("sexDescriptors", "termDescriptors", "gradeLevelDescriptors")
    bench = make_bench(descriptors=names)
    bench.materialize()
    lose(bench, "_descriptors")
    before = night(bench, instance, [DESCRIPTORS])[DESCRIPTORS]
    assert (before.passed, numbers(before)["endpoints"]) == (False, 3)
    right = [c.endpoint for c in compared(bench) if not c.difference][:1]
    assert night(bench, instance, endpoints=right) == {}
    assert latest(instance, DESCRIPTORS) == before


@pytest.mark.slow
def test_one_table_can_be_checked_by_itself(make_bench: MakeBench, instance: dg.DagsterInstance) -> None:
    bench = make_bench("students", "sessions", change_version_overlap=0)
    assert run(bench, instance).success
    bench.server.requests.clear()
    result = run_counts(bench, instance, STUDENTS)
    assert result.success
    asked = [request.path for request in bench.server.requests if "/ed-fi/" in request.path]
    assert len(asked) == 1
    evaluation = latest(instance, STUDENTS)
    assert evaluation is not None
    assert evaluation.passed
    assert evaluation.partition == partition_key(PAIR)
    assert latest(instance, SESSIONS) is None
    lose(bench, "sessions")
    assert run_counts(bench, instance, STUDENTS, SESSIONS).success
    evaluation = latest(instance, SESSIONS)
    assert evaluation is not None
    assert (evaluation.passed, evaluation.severity) == (False, ERROR)


def test_the_check_is_partitioned_as_the_table_is(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", descriptors=("sexDescriptors",))
    partitions = partitions_of(bench.platform)
    checks = build_counts_check(bench.platform, AssetKeys(bench.platform), partitions)
    assert {spec.asset_key.to_user_string() for spec in checks.check_specs} == {
        STUDENTS,
        SESSIONS,
        DESCRIPTORS,
    }
    for spec in checks.check_specs:
        assert spec.partitions_def == partitions
        assert not spec.blocking
        assert spec.description is not None
        assert "resync" in spec.description


def test_a_key_that_is_refused_is_told_with_its_tenant(
    make_bench: MakeBench, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    monkeypatch.setenv(SECRET_VARIABLE, "not-the-secret")
    result = run_counts(bench, instance, STUDENTS)
    assert not result.success
    assert failure(result).startswith(f"{PAIR}: the ODS refused the key and secret")
