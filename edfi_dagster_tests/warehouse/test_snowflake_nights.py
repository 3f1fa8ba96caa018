"""How much a night asks of Snowflake, and which locks it takes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from edfi_dagster.config.warehouse import SnowflakeWarehouse as SnowflakeConfig
from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.lease import holding
from edfi_dagster.warehouse.load import settle
from edfi_dagster.warehouse.snowflake import SnowflakeWarehouse
from edfi_dagster_tests.warehouse.pulls import (
    PAIR,
    SESSIONS,
    SEXES,
    STUDENTS,
    TERMS,
    A,
    B,
    C,
    Pulls,
    delta,
    descriptors,
    refresh,
    session,
    student,
    term,
    tombstone,
)
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn


@pytest.fixture
def warehouse(snowflake_warehouse: SnowflakeWarehouse) -> SnowflakeWarehouse:
    return snowflake_warehouse


def night(warehouse: SnowflakeWarehouse, lake: LocalLake, changed: int, quiet: int) -> None:
    """The loads of a run with ``changed`` of three tables changed, and ``quiet`` endpoints without news."""
    pulls, day, low, newest = Pulls(lake), 2, 10, 20
    loads = [
        (
            pulls.reading(STUDENTS, day, [student(A, "1", firstName="New")], low=low, newest=newest),
            pulls.reading(STUDENTS, day, [tombstone(B, 15)], low=low, newest=newest, kind="deletes"),
        ),
        (pulls.reading(SESSIONS, day, [session(C, "Summer")], low=low, newest=newest),),
        (pulls.reading(TERMS, day, [term(A, "Fall", n=2)], low=low, newest=newest, full=True),),
    ]
    for readings in loads[:changed]:
        if readings[0].entry.endpoint is TERMS:
            descriptors(warehouse, *readings)
        else:
            delta(warehouse, *readings)
    stamp = datetime(2026, 1, day, 6, tzinfo=UTC)
    endpoints = [replace(SEXES, snake=f"quiet_{n}") for n in range(quiet)]
    with holding(warehouse, PAIR, waiting=print) as held, warehouse.connected() as connection:
        entries = [ledger.Entry(PAIR, endpoint, "records", stamp, None, newest) for endpoint in endpoints]
        settle(connection, held, entries)


@pytest.fixture
def yesterday(warehouse: SnowflakeWarehouse, lake: LocalLake) -> SnowflakeWarehouse:
    pulls = Pulls(lake)
    refresh(
        warehouse,
        pulls.reading(
            SESSIONS, 1, [session(A, "Fall"), session(B, "Spring")], low=None, newest=10, full=True
        ),
        pulls.reading(STUDENTS, 1, [student(A, "1"), student(B, "2")], low=None, newest=10, full=True),
    )
    descriptors(warehouse, pulls.reading(TERMS, 1, [term(A, "Fall")], low=None, newest=10, full=True))
    return warehouse


def test_statements_of_a_night_follow_changed_tables_and_not_endpoints(
    snowflake: SnowflakeStandIn, yesterday: SnowflakeWarehouse, lake: LocalLake, database: str
) -> None:
    snowflake.forget()
    night(yesterday, lake, changed=0, quiet=150)
    quiet = len(snowflake.statements(database))
    assert quiet <= 9
    snowflake.forget()
    night(yesterday, lake, changed=3, quiet=150)
    asked = snowflake.statements(database)
    # The connector asks for each upload's address a second time, but only of the stand-in's kind of stage.
    asked = [text for text in asked if not (text.startswith("PUT") and "file:///" not in text)]
    leases = 4 * 3  # each load of this test takes a lease of its own
    assert len(asked) - quiet - leases <= 3 * 24
    assert snowflake.noted()["logins"] == []
    words = {text.split(maxsplit=1)[0] for text in asked}
    assert "MERGE" not in words


def test_delta_only_inserts_into_the_tables_that_all_tenants_share(
    snowflake: SnowflakeStandIn, yesterday: SnowflakeWarehouse, lake: LocalLake, database: str
) -> None:
    snowflake.forget()
    night(yesterday, lake, changed=2, quiet=5)
    shared = ("_DELETES", "_KEY_CHANGES", "_META_CHANGE_VERSIONS", "_META_TOTAL_COUNTS", "_DESCRIPTORS")
    locking = [
        text
        for text in snowflake.statements(database)
        if text.startswith(("UPDATE", "DELETE"))
        and any(f'"EDFI3"."{table}"' in text.split("WHERE")[0] for table in shared)
    ]
    assert locking == []
    # And a table of its own is deleted from only where there is something to delete.
    assert not [text for text in snowflake.statements(database) if text.startswith('DELETE FROM "')]


def test_first_pull_of_an_empty_table_locks_nothing(
    snowflake: SnowflakeStandIn, warehouse: SnowflakeWarehouse, lake: LocalLake, database: str
) -> None:
    reading = Pulls(lake).reading(SESSIONS, 1, [session(A, "Fall")], low=None, newest=10, full=True)
    refresh(warehouse, reading)
    locking = [text for text in snowflake.statements(database) if text.startswith(("UPDATE", "DELETE"))]
    assert all('"_META_LEASES"' in text for text in locking)


def test_config_of_a_platform_opens_this_warehouse(
    snowflake: SnowflakeStandIn, lake: LocalLake, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STAND_IN_PASSWORD", raising=False)
    config = SnowflakeConfig(**snowflake.block(database))
    warehouse = SnowflakeWarehouse(config, TableNames(), lake, tag={"tenant": "t", "year": 2025})
    warehouse.prepare([])
    login = snowflake.noted()["logins"][-1]
    assert json.loads(login["SESSION_PARAMETERS"]["QUERY_TAG"])["tenant"] == "t"
    warehouse.close()
