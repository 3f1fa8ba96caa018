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
from edfi_dagster.warehouse.snowflake import SnowflakeConnection
from edfi_dagster_tests.warehouse.conftest import AnyWarehouse

PAIR = TenantYear("t", 2025)
(SECTIONS, TERMS) = find_endpoints(["sections", "termDescriptors"], standard_endpoints("5.2"))
A, B = "a" * 32, "b" * 32


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


def test_latest_row_of_a_key_is_current_whatever_its_id(connection: Connection) -> None:
    insert(connection, "sections", 1, section(A))
    insert(connection, "sections", 2, section(B))
    insert(connection, "sections", 1, section("c" * 32, "s1"))  # keys are compared exactly
    assert ids(connection) == [B, "c" * 32]


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


def test_later_tombstone_of_the_old_id_wins_as_it_does_in_dbt(connection: Connection) -> None:
    insert(connection, "sections", 1, section(A))
    insert(connection, "sections", 2, section(B))
    insert(connection, "_deletes", 3, {"id": A})
    assert ids(connection) == []


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
    assert [json.loads(v)["id"] for _, v in current_rows(connection, PAIR, TERMS)] == [B]
    assert descriptor_counts(connection, PAIR) == {"term_descriptors": 1}


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
            "INSERT INTO edfi3._meta_change_versions VALUES (?, ?, ?, '2026-01-01', '2026-01-01 06:00', ?, ?, ?, ?)",
            [*PAIR, name, version, is_active, is_deletes, is_key_changes],
        )
    connection.run(
        "INSERT INTO edfi3._meta_change_versions VALUES ('u', 2025, 'sections', '2026-01-01', '2026-01-01', 70, "
        "TRUE, FALSE, FALSE)"
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
