"""Current rows by the rule of the dbt packages, and watermarks in a ledger that Airflow wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.catalogue import find_endpoints, standard_endpoints
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.contract import RAW_COLUMNS, Connection, RawTable
from edfi_dagster.warehouse.current import current_rows, descriptor_counts
from edfi_dagster.warehouse.opening import tables_of
from edfi_dagster.warehouse.snowflake import SnowflakeConnection
from edfi_dagster_tests.warehouse.conftest import AnyWarehouse

PAIR = TenantYear("t", 2025)
(SECTIONS, TERMS) = find_endpoints(["sections", "termDescriptors"], standard_endpoints("5.2"))
A, B = "a" * 32, "b" * 32
LEDGER = "tenant_code, api_year, name, pull_date, pull_timestamp, max_version, is_active, is_deletes, is_key_changes"


@pytest.fixture
def connection(warehouse: AnyWarehouse) -> Iterator[Connection]:
    warehouse.prepare([RawTable(SECTIONS.snake, tuple(SECTIONS.key.values()))])
    with warehouse.connected() as connected:
        yield connected


def section(record_id: str, identifier: str = "S1", **fields: Any) -> dict[str, Any]:
    offering = {"localCourseCode": "c", "schoolId": 1, "schoolYear": 2025, "sessionName": "Fall"}
    return {"id": record_id, "sectionIdentifier": identifier, "courseOfferingReference": offering, **fields}


def insert(
    connection: Connection,
    table: str,
    day: int,
    record: dict[str, Any],
    *,
    name: str = "sections",
    pair: tuple[str, int] = PAIR,
) -> None:
    value = "PARSE_JSON(?)" if isinstance(connection, SnowflakeConnection) else "?"
    connection.run(
        f"INSERT INTO edfi3.{table} (tenant_code, api_year, pull_timestamp, name, v) SELECT ?, ?, ?, ?, {value}",
        [*pair, datetime(2026, 1, day), name, json.dumps(record)],
    )


def ids(connection: Connection) -> list[str]:
    return sorted(json.loads(v)["id"] for _, v in current_rows(connection, PAIR, SECTIONS))


def test_latest_row_of_an_id_is_current_whatever_its_key(connection: Connection) -> None:
    """Two ids are two records, even if our key takes them for one: a load takes away the one that is gone."""
    insert(connection, "sections", 1, section(A))
    insert(connection, "sections", 2, section(A.upper(), "S2"))
    insert(connection, "sections", 2, section(B, "S2"))
    insert(connection, "sections", 1, section("c" * 32, "s2"))
    assert ids(connection) == [A.upper(), B, "c" * 32]


def test_view_made_with_the_key_of_another_data_standard_shows_every_record(warehouse: AnyWarehouse) -> None:
    """In 4.0 a staffSectionAssociation has no beginDate in its key, in 5.2 it has."""
    of_4, of_5 = (
        find_endpoints(["staffSectionAssociations"], standard_endpoints(standard))[0]
        for standard in ("4.0", "5.2")
    )
    table = of_4.snake
    for order in ([of_4, of_5], [of_5, of_4]):
        (both,) = tables_of(order)
        assert set(both.key) == {*of_4.key.values(), *of_5.key.values()}
    warehouse.prepare([RawTable(table, tuple(of_4.key.values()))])
    record = {
        "staffReference": {"staffUniqueId": "1"},
        "sectionReference": {
            "localCourseCode": "c", "schoolId": 1, "schoolYear": 2025, "sectionIdentifier": "S", "sessionName": "F",
        },
    }  # fmt: skip
    with warehouse.connected() as connection:
        for record_id, begin in ((A, "2025-01-07"), (B, "2025-08-18")):
            insert(connection, table, 1, {"id": record_id, "beginDate": begin, **record}, name=table)
        shown = connection.rows(f"SELECT {connection.text('id')} FROM edfi3.{table}_current ORDER BY 1")
        assert shown == [(A,), (B,)]
        for endpoint in (of_4, of_5):
            found = [json.loads(v)["id"] for _, v in current_rows(connection, PAIR, endpoint)]
            assert sorted(found) == [A, B]


def test_rows_without_an_id_are_told_apart_by_natural_key_and_else_stand_for_themselves(
    connection: Connection,
) -> None:
    name = "sections__map"
    plain = [section("", identifier) for identifier in ("S1", "S2", "S1")]
    for day, record in enumerate(plain):
        insert(connection, "sections", day + 1, {**record, "day": day, "id": None}, name=name)
    for day, record in ((1, {"note": "x"}), (2, {"note": "y"}), (3, {"note": "y"})):
        insert(connection, "sections", day, record, name=name)
    found = [json.loads(v) for _, v in current_rows(connection, PAIR, SECTIONS, sideloads=True)]
    assert sorted(record.get("day", record.get("note")) for record in found if "day" in record) == [1, 2]
    assert sorted(record["note"] for record in found if "note" in record) == ["x", "y"]


@pytest.mark.parametrize("spelling", ["id", "Id", "ID"])
def test_tombstone_counts_in_every_spelling_with_dashes_and_in_capitals(
    connection: Connection, spelling: str
) -> None:
    insert(connection, "sections", 1, section("0123456789abcdef0123456789abcdef"))
    insert(connection, "sections", 1, section(B, "S2"))
    insert(connection, "_deletes", 2, {spelling: "01234567-89AB-CDEF-0123-456789ABCDEF"})
    assert ids(connection) == [B]


def test_tombstone_of_another_endpoint_tenant_or_year_counts_for_nothing(
    connection: Connection,
) -> None:
    insert(connection, "sections", 1, section(A))
    insert(connection, "_deletes", 2, {"id": A}, name="sessions")
    insert(connection, "_deletes", 2, {"id": A}, pair=("u", 2025))
    insert(connection, "_deletes", 2, {"id": A}, pair=("t", 2026))
    assert ids(connection) == [A]


def test_recreated_row_of_the_same_stamp_as_the_tombstone_wins(connection: Connection) -> None:
    insert(connection, "sections", 1, section(A))
    insert(connection, "_deletes", 2, {"id": A})
    insert(connection, "sections", 2, section(B))
    assert ids(connection) == [B]


def test_later_tombstone_of_an_id_is_none_of_the_id_that_has_its_key_now(connection: Connection) -> None:
    """For dbt it would be: so a load takes the rows of the id that was replaced away, and this is never seen."""
    insert(connection, "sections", 1, section(A))
    insert(connection, "sections", 2, section(B))
    insert(connection, "_deletes", 3, {"id": A})
    assert ids(connection) == [B]


def test_tombstone_kills_its_id_for_ever(connection: Connection) -> None:
    insert(connection, "_deletes", 1, {"id": A})
    insert(connection, "sections", 5, section(A))
    assert ids(connection) == []


def test_record_without_a_part_of_its_key_is_taken_for_no_other(connection: Connection) -> None:
    for day, record_id in ((1, A), (2, B)):
        insert(connection, "sections", day, {"id": record_id, "sectionIdentifier": "S1"})
    assert ids(connection) == [A, B]


def test_parts_of_a_key_do_not_run_together(connection: Connection) -> None:
    one, other = section(A, "1"), section(B, "1")
    one["courseOfferingReference"] |= {"localCourseCode": "x1", "schoolId": 1}
    other["courseOfferingReference"] |= {"localCourseCode": "x", "schoolId": 11}
    insert(connection, "sections", 1, one)
    insert(connection, "sections", 2, other)
    assert ids(connection) == [A, B]


def test_sideloaded_rows_are_current_only_when_asked_for(connection: Connection) -> None:
    insert(connection, "sections", 1, section(A))
    insert(connection, "sections", 2, section(B), name="sections__map__fall")
    insert(connection, "sections", 2, section("c" * 32), name="sectionsXXmap")
    assert ids(connection) == [A]
    found = list(current_rows(connection, PAIR, SECTIONS, sideloads=True))
    assert sorted(name for name, _ in found) == ["sections", "sections__map__fall"]


def test_deletes_are_never_applied_to_descriptors(connection: Connection) -> None:
    term = {"id": A, "namespace": "uri://x", "codeValue": "Fall"}
    insert(connection, "_descriptors", 1, term, name="term_descriptors")
    insert(connection, "_descriptors", 2, {**term, "id": B}, name="term_descriptors")
    insert(connection, "_deletes", 3, {"id": B}, name="term_descriptors")
    assert sorted(json.loads(v)["id"] for _, v in current_rows(connection, PAIR, TERMS)) == [A, B]
    assert descriptor_counts(connection, PAIR) == {"term_descriptors": 2}


def test_public_view_shows_the_ten_columns_of_all_pairs(connection: Connection) -> None:
    insert(connection, "sections", 1, section(A))
    insert(connection, "sections", 1, section(A), pair=("u", 2026))
    listed = ", ".join(RAW_COLUMNS)
    rows = connection.rows(f"SELECT {listed} FROM edfi3.sections_current ORDER BY 1")
    assert [row[:2] for row in rows] == [("t", 2025), ("u", 2026)]
    everything = connection.rows("SELECT * FROM edfi3.sections_current ORDER BY 1")
    assert everything == rows


def test_watermarks_continue_from_the_ledger_that_airflow_wrote(connection: Connection) -> None:
    """Its rows: NULL in the column it may not have filled, several per endpoint, inactive ones after a refresh."""
    rows = [
        ("sections", 10, True, False, None),
        ("sections", 20, True, False, None),
        ("sections", 99, False, False, None),
        ("sections", 15, True, True, None),
        ("sections", 12, True, False, True),
        ("sessions", None, True, False, False),
        ("students", 5, True, None, None),
    ]
    for name, version, is_active, is_deletes, is_key_changes in rows:
        connection.run(
            f"INSERT INTO edfi3._meta_change_versions ({LEDGER}) "
            "VALUES (?, ?, ?, '2026-01-01', '2026-01-01 06:00', ?, ?, ?, ?)",
            [*PAIR, name, version, is_active, is_deletes, is_key_changes],
        )
    connection.run(
        f"INSERT INTO edfi3._meta_change_versions ({LEDGER}) "
        "VALUES ('u', 2025, 'sections', '2026-01-01', '2026-01-01', 70, TRUE, FALSE, FALSE)"
    )
    expected = {
        ("sections", RECORDS): 20,
        ("sections", DELETES): 15,
        ("sections", KEY_CHANGES): 12,
        ("students", RECORDS): 5,
    }
    assert ledger.watermarks(connection, PAIR) == expected
    assert ledger.watermarks(connection, PAIR, "students") == {("students", RECORDS): 5}
    assert ("sessions", RECORDS) in ledger.ever_loaded(connection, PAIR)
    assert ledger.latest_loaded(connection, PAIR)["sections"] == datetime(2026, 1, 1, 6, tzinfo=UTC)
    ledger.deactivate(connection, PAIR, ["sections"])
    assert ledger.watermarks(connection, PAIR) == {("students", RECORDS): 5}
    ledger.deactivate(connection, PAIR, [])
    assert ledger.watermarks(connection, PAIR) == {("students", RECORDS): 5}
    ledger.deactivate(connection, PAIR)
    assert ledger.watermarks(connection, PAIR) == {}
    assert ledger.watermarks(connection, TenantYear("u", 2025)) == {("sections", RECORDS): 70}
