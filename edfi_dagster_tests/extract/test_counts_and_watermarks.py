"""Total counts, watermarks set by hand, and going on from the tables that edu_edfi_airflow wrote."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

import pytest

from edfi_dagster.extract import Job, count_rows
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.counts import latest_counts
from edfi_dagster.warehouse.lease import holding
from edfi_dagster.warehouse.run_log import log_run
from edfi_dagster.warehouse.watermarks import reset_watermark, set_watermark, watermark
from edfi_dagster_tests.bench import PAIR, Bench

MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.both_storages


def test_total_counts_are_kept_under_the_stamp_of_the_run(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", descriptors=("termDescriptors",), pull_total_counts=True)
    bench.store.deny("sessions")
    bench.materialize()
    warned: list[str] = []
    with closing(OdsSession(bench.platform.ods(PAIR), PAIR)) as session:
        job = Job(bench.platform, PAIR, session, bench.lake, bench.warehouse, print, warned.append)
        counted = count_rows(job, bench.endpoints)
    assert counted == {
        "students": bench.store.count("students"),
        "term_descriptors": bench.store.count("termDescriptors"),
    }
    assert warned == []
    with bench.warehouse.connected() as connection:
        found = latest_counts(connection, PAIR)
    (stamp,) = bench.stamps()
    assert found == {name: (stamp.replace(tzinfo=UTC), count) for name, count in counted.items()}


def test_watermarks_are_read_set_and_forgotten_one_by_one(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", change_version_overlap=0)
    bench.materialize()
    students, before = bench.endpoint("students"), bench.watermarks()
    assert watermark(bench.warehouse, PAIR, students, "records") == before["students", "records"]
    assert watermark(bench.warehouse, PAIR, students, "deletes") == before["students", "deletes"]
    bench.query("DELETE FROM edfi3.students WHERE file_row_number > 3")  # what a delta can bring back
    with holding(bench.warehouse, PAIR, waiting=print) as lease:
        set_watermark(bench.warehouse, lease, students, "records", 0)
        with pytest.raises(ValueError, match="change version -1 is below 0"):
            set_watermark(bench.warehouse, lease, students, "records", -1)
        reset_watermark(bench.warehouse, lease, students, "deletes")
    assert bench.watermarks() == {
        **{key: version for key, version in before.items() if key != ("students", "deletes")},
        ("students", "records"): 0,
    }
    assert watermark(bench.warehouse, PAIR, students, "deletes") is None
    results = bench.materialize()
    assert not results["students"].full
    assert results["students"].rows_inserted == bench.store.count("students") - 3
    bench.verify()
    with holding(bench.warehouse, PAIR, waiting=print) as lease:
        reset_watermark(bench.warehouse, lease, students)
    assert {name for name, _ in bench.watermarks()} == {"sessions"}
    assert bench.materialize()["students"].full
    bench.verify()


def test_run_goes_on_from_the_change_versions_that_airflow_left(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", change_version_overlap=0)
    gone = bench.add_student(1)
    bench.materialize()
    # What Airflow knows: a row per run, of which the highest active one counts, and no key changes.
    bench.query("DELETE FROM edfi3._meta_change_versions WHERE is_key_changes")
    bench.query("UPDATE edfi3._meta_change_versions SET is_key_changes = NULL")
    bench.query(
        "INSERT INTO edfi3._meta_change_versions (tenant_code, api_year, name, pull_date, pull_timestamp, "
        "max_version, is_active, is_deletes) SELECT tenant_code, api_year, name, pull_date, "
        "pull_timestamp - INTERVAL '1 day', max_version - 1, TRUE, is_deletes FROM edfi3._meta_change_versions"
    )
    bench.store.delete("students", gone)
    bench.rename_session("Autumn")
    results = bench.materialize()
    assert not any(result.full for result in results.values())
    assert results["sessions"].rows_removed == 1
    bench.verify()
    assert ("sessions", "key_changes") in bench.watermarks()


def test_table_of_change_versions_without_key_changes_is_told_of_or_mended(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    bench.query("ALTER TABLE edfi3._meta_change_versions DROP COLUMN is_key_changes")
    if bench.platform.warehouse.kind == "snowflake":
        with pytest.raises(WarehouseError, match="run edfi-dagster setup-warehouse"):
            bench.warehouse.prepare([])
    bench.warehouse.setup([])
    bench.add_student(1)
    assert not bench.materialize()["students"].full
    bench.verify()


def test_run_log_takes_a_document(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    stamp = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with bench.warehouse.connected() as connection:
        log_run(connection, PAIR, "psat", stamp, {"sent": 3, "said": "it's \\ fine"}, grain="SAT")
        text = connection.text("said", "result")
        found = connection.rows(
            f"SELECT tenant_code, api_year, grain_update, run_type, run_timestamp, {text} "
            f"FROM {connection.table('_meta_run_log')}"
        )
    assert found == [(*PAIR, "SAT", "psat", stamp.replace(tzinfo=None), "it's \\ fine")]
