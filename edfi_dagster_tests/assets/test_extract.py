"""The extract op as Dagster runs it: what is selected is done, what changed is materialized, what failed is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import dagster as dg
import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster_tests.assets.runs import failure, materialized, run
from edfi_dagster_tests.bench import PAIR, SECRET_VARIABLE, Bench

MakeBench = Callable[..., Bench]


@pytest.fixture(params=["bulk", "default"])
def make_bench(request: pytest.FixtureRequest, make_bench: MakeBench) -> MakeBench:
    """Every test runs in both shapes."""
    return partial(make_bench, run_type=request.param)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_a_first_run_materializes_endpoints_tables_and_shared_tables(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "crisisEvents", descriptors=("sexDescriptors",))
    result = run(bench, instance)
    assert result.success
    told = materialized(instance, result)
    assert set(told) == {
        "ed_fi/students",
        "raw_edfi_3/students",
        "ed_fi/sex_descriptors",
        "raw_edfi_3/_descriptors",
    }
    students = told["ed_fi/students"]
    assert students["edfi/rows"] == students["edfi/expected_rows"] == bench.store.count("students")
    assert students["edfi/rows_loaded"] == bench.store.count("students")
    assert students["edfi/min_change_version"] == 0
    assert students["edfi/max_change_version"] == bench.store.newest
    assert students["edfi/full_refresh"] is True
    assert students["edfi/ods_version"].startswith("7.3")
    assert told["raw_edfi_3/_descriptors"]["edfi/rows_loaded"] == bench.store.count("sexDescriptors")


def test_an_unchanged_endpoint_yields_nothing_and_a_changed_one_only_what_changed(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "sessions", descriptors=("sexDescriptors",))
    run(bench, instance)
    assert materialized(instance, run(bench, instance)) == {}

    student = bench.store.rows("students")[0]
    bench.store.put("students", student["id"], {**student, "lastSurname": "Changed"})
    event = bench.store.rows("sessions")[0]
    bench.store.put("sessions", event["id"], {**event, "sessionName": "Renamed"})
    told = materialized(instance, run(bench, instance))
    assert told["ed_fi/students"]["edfi/rows_loaded"] == 1
    assert told["raw_edfi_3/students"]["edfi/rows_loaded"] == 1
    assert told["raw_edfi_3/sessions"] | {"edfi/rows_removed": 1} == told["raw_edfi_3/sessions"]
    assert "ed_fi/sessions/key_changes" in told
    assert told["raw_edfi_3/_key_changes"]["edfi/rows_by_endpoint"] == {"sessions": 1}
    assert not any("descriptors" in key or "deletes" in key for key in told)


def test_endpoints_without_their_table_are_stored_and_a_table_alone_loads_what_is_stored(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students")
    assert set(materialized(instance, run(bench, instance, ["ed_fi/students"]))) == {"ed_fi/students"}
    assert bench.watermarks() == {}
    told = materialized(instance, run(bench, instance, ["raw_edfi_3/students"]))
    assert told["raw_edfi_3/students"]["edfi/rows_loaded"] == bench.store.count("students")
    assert materialized(instance, run(bench, instance)) == {}
    bench.verify(["students"])


def test_full_refresh_is_run_config(make_bench: MakeBench, instance: dg.DagsterInstance) -> None:
    bench = make_bench("students")
    run(bench, instance)
    told = materialized(instance, run(bench, instance, full_refresh=True))
    assert told["raw_edfi_3/students"]["edfi/full_refresh"] is True
    assert told["raw_edfi_3/students"]["edfi/rows_removed"] == bench.store.count("students")
    bench.verify(["students"])


def test_one_endpoints_failure_is_told_and_stops_no_other(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "sessions")
    run(bench, instance)
    bench.store.deny("students")
    session = bench.store.rows("sessions")[0]
    bench.store.put("sessions", session["id"], {**session, "totalInstructionalDays": 1})
    result = run(bench, instance)
    assert not result.success
    assert "raw_edfi_3/sessions" in materialized(instance, result)
    text = failure(result)
    assert f"{PAIR} ed-fi/students" in text
    assert "HTTP 403" in text
    assert "loaded before" in text


def test_an_endpoint_never_permitted_is_skipped_with_a_word(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students", "sessions")
    bench.store.deny("students")
    result = run(bench, instance)
    assert result.success
    assert "raw_edfi_3/sessions" in materialized(instance, result)
    assert not any("students" in key for key in materialized(instance, result))


def test_what_is_skipped_twice_in_a_run_is_named_once(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    """Without deletes, a row that left is found by the count, and the endpoint is read again in the same run."""
    bench = make_bench("students")
    gone = bench.add_student(1)
    bench.store.deny("students", read=False)
    run(bench, instance)
    bench.store.delete("students", gone)
    result = run(bench, instance)
    (said,) = [e.user_message for e in instance.all_logs(result.run_id) if "skipped: " in e.user_message]
    assert said.count("ed-fi/students/deletes") == 1
    bench.verify()


def test_an_undeclared_pair_fails_before_any_request_with_the_declared_ones(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students")
    platform = bench.platform
    years = platform.tenants[PAIR.tenant].years
    lakeview = platform.tenants[PAIR.tenant].model_copy(update={"years": {2026: years[2025]}})
    bench.platform = platform.model_copy(update={"tenants": {**platform.tenants, "lakeview": lakeview}})
    bench.server.requests.clear()
    result = run(bench, instance, pair=TenantYear("lakeview", 2025))
    assert not result.success
    assert "tenants.lakeview.years.2025 is not declared" in failure(result)
    assert "grand_bend/2025, lakeview/2026" in failure(result)
    assert len(bench.server.requests) == 0


def test_a_wrong_secret_names_the_tenant_and_what_to_check(
    make_bench: MakeBench, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    monkeypatch.setenv(SECRET_VARIABLE, "not-the-secret")
    result = run(bench, instance)
    text = failure(result)
    assert text.startswith(f"{PAIR}: the ODS refused the key and secret")
    assert "client_secret" in text
    assert "not-the-secret" not in text


def test_a_failure_below_the_run_names_tenant_and_year(
    make_bench: MakeBench, instance: dg.DagsterInstance
) -> None:
    bench = make_bench("students")
    run(bench, instance)
    (bench.folder / "warehouse.duckdb").write_bytes(b"no database")
    text = failure(run(bench, instance))
    assert text.startswith(f"{PAIR}: warehouse {bench.folder / 'warehouse.duckdb'} cannot be opened")
