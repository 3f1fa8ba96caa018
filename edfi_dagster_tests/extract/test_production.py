"""A lake on S3 and a warehouse in Snowflake, as far as stand-ins go: nights, kills, and the same rows as in DuckDB."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.extract import load_stored
from edfi_dagster.warehouse.contract import RAW_COLUMNS, Warehouse
from edfi_dagster.warehouse.duckdb import DuckDBWarehouse
from edfi_dagster.warehouse.opening import tables_of
from edfi_dagster_tests.bench import PAIR, Bench, failures
from edfi_dagster_tests.extract import child
from edfi_dagster_tests.extract.child import Orders
from edfi_dagster_tests.lake.s3_server import Bucket
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn

MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.storage("production")

ENDPOINTS = ("students", "sessions", "locations", "studentSchoolAttendanceEvents")
DESCRIPTORS = ("termDescriptors",)


def rows_of(warehouse: Warehouse, bench: Bench) -> dict[str, list[tuple[Any, ...]]]:
    """Table → its rows, all ten columns, sorted."""
    tables = [*{e.snake for e in bench.endpoints if not e.is_descriptor}, "_descriptors", "_deletes"]
    plain = ", ".join(column for column in RAW_COLUMNS if column != "v")
    with warehouse.connected() as connection:
        return {
            table: sorted(
                connection.rows(
                    f"SELECT {plain}, {connection.text('id')}, {connection.text('_etag')} "
                    f"FROM {connection.table(table)}"
                ),
                key=str,
            )
            for table in tables
        }


def test_nights_leave_the_same_rows_in_snowflake_as_in_duckdb(
    make_bench: MakeBench, bucket: Bucket, tmp_path: Path
) -> None:
    bench = make_bench(*ENDPOINTS, descriptors=DESCRIPTORS, change_version_overlap=5)
    duckdb = DuckDBWarehouse(tmp_path / "w.duckdb", "edfi3", bench.platform.tables, bench.lake)
    duckdb.prepare(tables_of(bench.endpoints))

    def night(**options: Any) -> None:
        bench.materialize(**options)
        bench.verify()
        loaded = load_stored(
            bench.platform, bench.lake, duckdb, PAIR, bench.endpoints, tell=bench.told.append
        )
        assert not failures({result.endpoint.name: result for result in loaded})
        assert rows_of(bench.warehouse, bench) == rows_of(duckdb, bench)

    gone, replaced = bench.add_student(1), bench.add_student(2)
    night()
    bench.store.delete("students", gone)
    bench.recreate("students", replaced)
    bench.change("students", bench.store.ids("students")[0], firstName="Änna")
    bench.change("sessions", bench.store.ids("sessions")[0], sessionName="Autumn")
    bench.change("termDescriptors", bench.store.ids("termDescriptors")[0], description="Changed")
    night()
    assert gone in bench.deletes("students")
    for record_id in bench.store.ids("studentSchoolAttendanceEvents"):
        bench.store.delete("studentSchoolAttendanceEvents", record_id)
    night(full_refresh=True)
    assert bench.raw("student_school_attendance_events") == []
    assert bench.deletes("students") == {}
    night()
    assert bucket.incomplete() == []


PLACES = {
    "while parts go up": {"kill": "edfi_dagster.lake.s3_upload:Upload.finish", "nth": 2},
    "before its first manifest": {"kill": "edfi_dagster.lake.pull:write_manifest"},
    "before its first staging": {"kill": "edfi_dagster.warehouse.snowflake:SnowflakeConnection.stage"},
    "after its first staging": {
        "kill": "edfi_dagster.warehouse.snowflake:SnowflakeConnection.stage",
        "after": True,
    },
    "in a transaction, after tombstones": {
        "kill": "edfi_dagster.warehouse.load:_insert_changes",
        "after": True,
    },
    "in a transaction, after removals": {
        "kill": "edfi_dagster.warehouse.supersede:remove_superseded",
        "after": True,
    },
    "in a transaction, after its watermarks": {"kill": "edfi_dagster.warehouse.ledger:record", "after": True},
    "after its first load": {"kill": "edfi_dagster.warehouse.load:load_delta", "after": True},
    "refresh: between two tables": {
        "kill": "edfi_dagster.warehouse.load:load_refresh",
        "after": True,
        "full_refresh": True,
    },
    "refresh: before the closing transaction": {
        "kill": "edfi_dagster.warehouse.load:close_refreshes",
        "full_refresh": True,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("orders", [pytest.param(Orders(**o), id=name) for name, o in PLACES.items()])  # type: ignore[arg-type]
def test_11_kill_and_run_again(
    make_bench: MakeBench, snowflake: SnowflakeStandIn, database: str, orders: Orders
) -> None:
    bench = make_bench(*ENDPOINTS[:3], descriptors=DESCRIPTORS)
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", gone)
    bench.change("students", bench.store.ids("students")[0], firstName="Änna")
    bench.change("sessions", bench.store.ids("sessions")[0], sessionName="Autumn")
    status, said = child.run(bench.config, orders)
    assert status == -signal.SIGKILL, said
    bench.warehouse.close()
    snowflake.end_sessions(database)  # as Snowflake does with a client it no longer hears of
    assert not failures(bench.materialize(full_refresh=orders.full_refresh))
    bench.verify()
    assert set(bench.deletes()) == (set() if orders.full_refresh else {gone})
    assert set(bench.watermarks().values()) == {bench.store.newest}


def test_11_upload_that_was_killed_is_no_file(make_bench: MakeBench, bucket: Bucket) -> None:
    bench = make_bench("students")
    status, said = child.run(bench.config, Orders(kill="edfi_dagster.lake.pull:write_manifest"))
    assert status == -signal.SIGKILL, said
    bench.materialize()
    bench.verify()
    assert len([key for key in bucket.objects() if key.endswith(".manifest.json")]) == 1


@pytest.mark.slow
def test_statements_of_a_night_follow_changed_tables_and_not_endpoints(
    make_bench: MakeBench, snowflake: SnowflakeStandIn, database: str
) -> None:
    """The figures of the evidence page: a night of a whole run, lease and watermarks included."""
    bench = make_bench(*ENDPOINTS, "schools", "courses", "classPeriods", "staffs", change_version_overlap=0)
    bench.materialize()
    bench.materialize()

    def statements(endpoints: tuple[str, ...] | None) -> int:
        snowflake.forget()
        bench.materialize(endpoints)
        return len(snowflake.statements(database))

    quiet = statements(None)
    assert statements(("students", "sessions")) == quiet
    bench.query("UPDATE edfi3._meta_count_checks SET pull_timestamp = pull_timestamp - INTERVAL '1 day'")
    compared = statements(None)
    bench.add_student(1)
    bench.change("locations", bench.store.ids("locations")[0], maximumNumberOfSeats=7)
    changed = statements(None)
    assert snowflake.noted()["logins"] == []
    assert quiet <= 19
    assert compared - quiet <= 4 + 2
    assert (changed - quiet) / 2 <= 14
