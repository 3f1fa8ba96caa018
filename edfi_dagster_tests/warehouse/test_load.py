"""Loads of lake files on both kinds of warehouse: the same statements, the same rows."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.proof import DamagedFile
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.ods.errors import OdsRestored
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.warehouse import load, staging
from edfi_dagster.warehouse.contract import NotCommitted, WarehouseError
from edfi_dagster.warehouse.duckdb import DuckDBWarehouse
from edfi_dagster.warehouse.lease import holding
from edfi_dagster.warehouse.supersede import Judged, Suspected, Suspects
from edfi_dagster_tests.warehouse.conftest import AnyWarehouse, Open
from edfi_dagster_tests.warehouse.pulls import (
    PAIR,
    SESSIONS,
    SEXES,
    STUDENTS,
    TABLES,
    TERMS,
    A,
    B,
    C,
    Pulls,
    current,
    delta,
    descriptors,
    ids,
    pulled,
    raw,
    refresh,
    session,
    student,
    term,
    tombstone,
    watermarks,
)
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn

D = "d" * 32


@pytest.fixture
def pulls(lake: LocalLake) -> Pulls:
    return Pulls(lake)


@pytest.fixture
def filled(warehouse: AnyWarehouse, pulls: Pulls) -> AnyWarehouse:
    """After a first pull of two sessions on day 1, up to change version 10."""
    warehouse.prepare(TABLES)
    refresh(
        warehouse,
        pulls.reading(
            SESSIONS, 1, [session(A, "Fall"), session(B, "Spring")], low=None, newest=10, full=True
        ),
    )
    return warehouse


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_first_pull_fills_the_ten_columns(
    warehouse: AnyWarehouse, pulls: Pulls, compression: str, lake: LocalLake
) -> None:
    warehouse.prepare(TABLES)
    pulls.compression = compression
    first = pulls.reading(
        SESSIONS, 1, [session(A, "Fall"), session(B, "Spring ☂")], low=None, newest=10, full=True, parts=2
    )
    (loaded,) = refresh(warehouse, first)
    assert (loaded.inserted, loaded.removed) == ({RECORDS: 2}, 0)
    stamp = datetime(2026, 1, 1, 6)
    suffix = "zst" if compression == "zstd" else "gz"
    folder = "t/2025/20260101/20260101T060000/resources"
    files = [f"{folder}/sessions.1.jsonl.{suffix}", f"{folder}/sessions.jsonl.{suffix}"]
    rows = [session(B, "Spring ☂"), session(A, "Fall")]
    assert raw(warehouse, "sessions") == [
        ("t", 2025, stamp.date(), stamp, 1, file, "sessions", "7.3.1", "5.2.0", row)
        for file, row in zip(files, rows, strict=True)
    ]
    kinds: tuple[RecordKind, ...] = (RECORDS, DELETES, KEY_CHANGES)
    assert watermarks(warehouse) == {("sessions", kind): 10 for kind in kinds}


def test_delta_drops_equal_rows_and_keeps_the_last_read_of_an_id(filled: AnyWarehouse, pulls: Pulls) -> None:
    rows = [
        session(A, "Fall"),
        session(C, "Summer", n=1),
        session(B, "Spring", totalInstructionalDays=90),
        session(C, "Summer", n=2),
    ]
    loaded = delta(filled, pulls.reading(SESSIONS, 2, rows, low=10, newest=20))
    assert (loaded.inserted, loaded.removed) == ({RECORDS: 2}, 0)
    assert ids(filled, "sessions") == [(1, A), (1, B), (2, B), (2, C)]
    assert [row[-1]["n"] for row in raw(filled, "sessions") if row[-1]["id"] == C] == [2]
    assert watermarks(filled)["sessions", RECORDS] == 20
    again = delta(filled, pulls.reading(SESSIONS, 3, rows[::2], low=20, newest=30))
    assert not again.changed
    assert watermarks(filled)["sessions", RECORDS] == 30


def test_of_two_ids_with_one_key_none_is_dropped_before_the_ods_says_which_is_gone(
    filled: AnyWarehouse, pulls: Pulls
) -> None:
    rows = [
        session(C, "Summer", _lastModifiedDate="2026-01-02T06:00:00Z"),
        session(D, "Summer", _lastModifiedDate="2026-01-02T05:00:00.5Z"),
        session("e" * 32, "fall "),
    ]
    reading = pulls.reading(SESSIONS, 2, rows, low=10, newest=20)
    with pytest.raises(Suspected) as question:
        delta(filled, reading, judged={})
    assert question.value.suspects == {"sessions": Suspects(frozenset({C, D}), frozenset({A}))}
    assert ids(filled, "sessions") == [(1, A), (1, B)]
    judged = {"sessions": Judged(alive=frozenset({C, D}), unseen=frozenset({A}))}
    assert delta(filled, reading, judged=judged).undecided == {A}
    assert len(ids(filled, "sessions")) == 5
    assert ("sessions", KEY_CHANGES) not in watermarks(filled)  # the next run looks for them again


def test_ids_that_the_manifest_calls_gone_leave_this_pull_and_the_table(
    filled: AnyWarehouse, pulls: Pulls
) -> None:
    rows = [session(C, "Summer"), session(D, "Summer"), session("e" * 32, "fall")]
    loaded = delta(filled, pulls.reading(SESSIONS, 2, rows, low=10, newest=20, gone=(A, D)))
    assert (loaded.inserted, loaded.removed, loaded.undecided) == ({RECORDS: 2}, 1, frozenset())
    assert ids(filled, "sessions") == [(1, B), (2, C), (2, "e" * 32)]


def test_load_that_would_lose_a_record_is_rolled_back(
    filled: AnyWarehouse, pulls: Pulls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever drops a row: here an insert that leaves one out, for which nothing in the lake is a reason."""
    real = staging.staged
    monkeypatch.setattr(
        staging, "staged", lambda kind: f"(SELECT * FROM {real(kind)} x WHERE natural_key NOT LIKE 'Sum%')"
    )
    before = watermarks(filled)
    rows = [session(C, "Summer"), session(D, "Winter"), session(A, "Fall")]
    of_sessions = "t/2025 ed-fi/sessions: of 3 records read, 1 were inserted, 1 were there already and 0 are"
    with pytest.raises(WarehouseError, match=f"{of_sessions} gone from the ODS, which leaves 1"):
        delta(filled, pulls.reading(SESSIONS, 2, rows, low=10, newest=20))
    with pytest.raises(WarehouseError, match="of 3 records read, 2 were inserted"):
        refresh(filled, pulls.reading(SESSIONS, 2, rows, low=10, newest=20, full=True))
    assert (ids(filled, "sessions"), watermarks(filled)) == ([(1, A), (1, B)], before)


@pytest.mark.parametrize("full", [False, True])
def test_lake_with_other_records_than_its_manifest_says_is_not_loaded(
    filled: AnyWarehouse, pulls: Pulls, full: bool
) -> None:
    """As many lines, but one of them twice: a record is missing."""
    reading = pulls.reading(
        SESSIONS, 2, [session(C, "Summer"), session(C, "Summer")], low=10, newest=20, full=full
    )
    assert reading.manifest
    manifest = msgspec.structs.replace(reading.manifest, rows=2)
    with pytest.raises(WarehouseError, match="t/2025 ed-fi/sessions: the lake holds 1 different records"):
        (refresh if full else delta)(filled, replace(reading, manifest=manifest))
    assert ids(filled, "sessions") == [(1, A), (1, B)]


def test_descriptors_that_share_a_code_both_stay_until_the_ods_says_which_is_gone(
    warehouse: AnyWarehouse, pulls: Pulls
) -> None:
    warehouse.prepare([])
    reading = pulls.reading(
        TERMS, 1, [term(A, "Fall"), term(B, "FALL"), term(C, "Spring")], low=None, newest=10, full=True
    )
    with holding(warehouse, PAIR, waiting=print) as lease, warehouse.connected() as connection:
        with pytest.raises(Suspected) as question:
            load.load_descriptors(connection, lease, [reading], judged={})
        assert question.value.suspects == {"term_descriptors": Suspects(read=frozenset({A, B}))}
        judged = {"term_descriptors": Judged(alive=frozenset({A, B}))}
        loaded = load.load_descriptors(connection, lease, [reading], judged=judged)
    assert loaded["term_descriptors"].inserted == {RECORDS: 3}
    assert current(warehouse, TERMS) == [A, B, C]
    gone = pulls.reading(
        TERMS, 2, [term(A, "Fall"), term(B, "FALL")], low=10, newest=20, full=True, gone=(B,)
    )
    descriptors(warehouse, gone)
    assert current(warehouse, TERMS) == [A]


def test_renamed_and_recreated_sessions_leave_no_row_that_is_untrue(
    filled: AnyWarehouse, pulls: Pulls
) -> None:
    loaded = delta(
        filled,
        pulls.reading(SESSIONS, 2, [session(A, "Autumn"), session(C, "Spring")], low=10, newest=20),
        pulls.reading(SESSIONS, 2, [tombstone(B, 15)], low=10, newest=20, kind=DELETES),
        pulls.reading(
            SESSIONS,
            2,
            [{"id": A, "changeVersion": 14, "oldKeyValues": {}, "newKeyValues": {}}],
            low=10,
            newest=20,
            kind=KEY_CHANGES,
        ),
    )
    assert loaded.inserted == {RECORDS: 2, DELETES: 1, KEY_CHANGES: 1}
    assert loaded.removed == 2
    assert ids(filled, "sessions") == [(2, A), (2, C)]
    assert current(filled, SESSIONS) == [A, C]


def test_delta_restored_by_its_tombstone_is_no_replacement(filled: AnyWarehouse, pulls: Pulls) -> None:
    """Tombstone of an id whose key lives under another id: the rows of the replaced id go, so that it cannot win."""
    delta(filled, pulls.reading(SESSIONS, 2, [session(C, "Fall")], low=10, newest=20))
    assert ids(filled, "sessions") == [(1, A), (1, B), (2, C)]  # nobody said yet that A is gone
    tomb = pulls.reading(SESSIONS, 3, [tombstone(A, 15)], low=10, newest=20, kind=DELETES)
    delta(filled, tomb)
    again = pulls.reading(SESSIONS, 4, [tombstone(A, 15)], low=20, newest=30, kind=DELETES)
    assert delta(filled, again).inserted == {DELETES: 0}
    assert ids(filled, "_deletes") == [(3, A)]
    assert current(filled, SESSIONS) == [B, C]


def test_ids_that_left_the_ods_after_a_key_change_are_removed(filled: AnyWarehouse, pulls: Pulls) -> None:
    changes = [{"id": A, "changeVersion": 14}, {"id": B, "changeVersion": 15}]
    reading = pulls.reading(SESSIONS, 2, changes, low=10, newest=20, kind=KEY_CHANGES, gone=(A,))
    assert delta(filled, reading).removed == 1
    assert ids(filled, "sessions") == [(1, B)]
    later = [*changes, {"id": B, "changeVersion": 25}]
    again = pulls.reading(SESSIONS, 3, later, low=20, newest=30, kind=KEY_CHANGES)
    assert delta(filled, again).inserted == {KEY_CHANGES: 1}


def test_record_that_lives_in_spite_of_its_tombstone_proves_a_restore(
    filled: AnyWarehouse, pulls: Pulls
) -> None:
    delta(filled, pulls.reading(SESSIONS, 2, [tombstone(A, 15)], low=10, newest=20, kind=DELETES))
    with pytest.raises(OdsRestored, match="1 records live that were deleted before"):
        delta(filled, pulls.reading(SESSIONS, 3, [session(A, "Fall", n=2)], low=10, newest=30))
    assert watermarks(filled)["sessions", RECORDS] == 10


def test_refresh_replaces_also_by_nothing_and_clears_tombstones(filled: AnyWarehouse, pulls: Pulls) -> None:
    other = Pulls(pulls.lake, TenantYear("u", 2025))
    refresh(filled, other.reading(SESSIONS, 1, [session(A, "Fall")], low=None, newest=5, full=True))
    delta(filled, pulls.reading(SESSIONS, 2, [tombstone(A, 15)], low=10, newest=20, kind=DELETES))
    (loaded,) = refresh(filled, pulls.reading(SESSIONS, 3, [], low=10, newest=30, full=True))
    assert (loaded.inserted, loaded.removed) == ({RECORDS: 0}, 2)
    assert [row[0] for row in raw(filled, "sessions")] == ["u"]
    assert raw(filled, "_deletes") == []
    kinds: tuple[RecordKind, ...] = (RECORDS, DELETES, KEY_CHANGES)
    assert watermarks(filled) == {("sessions", kind): 30 for kind in kinds}
    assert watermarks(filled, other.pair)["sessions", RECORDS] == 5


def test_refresh_without_its_closing_leaves_no_watermark(filled: AnyWarehouse, pulls: Pulls) -> None:
    reading = pulls.reading(SESSIONS, 2, [session(A, "Fall")], low=10, newest=20, full=True)
    with holding(filled, PAIR, waiting=print) as lease, filled.connected() as connection:
        load.load_refresh(connection, lease, reading)
    assert watermarks(filled) == {}


def test_descriptors_are_replaced_where_they_differ_and_their_watermarks_move(
    warehouse: AnyWarehouse, pulls: Pulls
) -> None:
    warehouse.prepare([])
    first = [term(A, "Fall"), term(B, "Spring")]

    def night(day: int, low: int | None, terms: list[dict[str, Any]]) -> dict[str, load.Loaded]:
        newest = day * 10
        return descriptors(
            warehouse,
            pulls.reading(TERMS, day, terms, low=low, newest=newest, full=True),
            pulls.reading(SEXES, day, [term(C, "X")], low=low, newest=newest, full=True),
        )

    assert night(1, None, first).keys() == {"term_descriptors", "sex_descriptors"}
    assert night(2, 10, first) == {}
    changed = night(3, 20, [first[0], term(C, "Spring")])
    assert (changed["term_descriptors"].inserted, changed["term_descriptors"].removed) == ({RECORDS: 2}, 2)
    assert changed.keys() == {"term_descriptors"}
    assert ids(warehouse, "_descriptors") == [(1, C), (3, A), (3, C)]
    assert watermarks(warehouse) == {("term_descriptors", RECORDS): 30, ("sex_descriptors", RECORDS): 30}
    assert current(warehouse, TERMS) == [A, C]


def test_pull_is_loaded_once_and_only_from_its_own_watermark(filled: AnyWarehouse, pulls: Pulls) -> None:
    reading = pulls.reading(SESSIONS, 2, [session(C, "Summer")], low=10, newest=20)
    assert delta(filled, reading).inserted == {RECORDS: 1}
    assert not delta(filled, reading).changed
    stale = pulls.reading(SESSIONS, 3, [session("e" * 32, "Winter")], low=10, newest=25)
    with pytest.raises(NotCommitted, match="change version was 10 when the pull began and is 20 now"):
        delta(filled, stale)
    assert ids(filled, "sessions") == [(1, A), (1, B), (2, C)]


def test_lake_that_lost_lines_since_its_manifest_is_not_loaded(filled: AnyWarehouse, pulls: Pulls) -> None:
    reading = pulls.reading(SESSIONS, 2, [session(C, "Summer"), session(A, "x")], low=10, newest=20)
    assert reading.manifest is not None
    (file,) = reading.manifest.files
    short = pulled(pulls.lake, file.path, [json.dumps(session(C, "Summer"))])
    with pytest.raises(DamagedFile, match=r"t/2025 ed-fi/sessions: .*sessions.jsonl.zst is not the file"):
        delta(filled, reading)
    miscounted = msgspec.structs.replace(short, rows=2)
    manifest = msgspec.structs.replace(reading.manifest, files=(miscounted,))
    with pytest.raises(WarehouseError, match=r"the lake holds 1 rows at .*, its manifest says 2"):
        delta(filled, replace(reading, manifest=manifest))


def test_two_tenants_load_into_the_same_tables_at_once(open_warehouse: Open, lake: LocalLake) -> None:
    open_warehouse().prepare(TABLES)
    pairs = [TenantYear("t", 2025), TenantYear("u", 2025), TenantYear("t", 2026)]
    errors: list[BaseException] = []

    def run(pair: TenantYear) -> None:
        try:
            warehouse, mine = open_warehouse(), Pulls(lake, pair)
            rows = [session(f"{n:032x}", f"S{n}") for n in range(20)]
            refresh(warehouse, mine.reading(SESSIONS, 1, rows, low=None, newest=10, full=True))
            for day in (2, 3):
                changed = [{**row, "day": day} for row in rows[day:]]
                deleted = [tombstone(rows[day - 2]["id"], day)]
                low, newest = 10 * (day - 1), 10 * day
                delta(
                    warehouse,
                    mine.reading(SESSIONS, day, changed, low=low, newest=newest),
                    mine.reading(SESSIONS, day, deleted, low=low, newest=newest, kind=DELETES),
                )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(pair,)) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    warehouse = open_warehouse()
    found = raw(warehouse, "sessions")
    for pair in pairs:
        assert len([row for row in found if row[:2] == pair]) == 20 + 18 + 17
        assert watermarks(warehouse, pair)["sessions", DELETES] == 30
    assert len(raw(warehouse, "_deletes")) == 6


def test_both_kinds_of_warehouse_hold_the_same_rows(
    tmp_path: Path, lake: LocalLake, snowflake: SnowflakeStandIn, database: str
) -> None:
    pulls = Pulls(lake)
    kinds: list[AnyWarehouse] = [
        DuckDBWarehouse(tmp_path / "w.duckdb", "edfi3", TableNames(), lake),
        snowflake.warehouse(database, lake),
    ]
    for warehouse in kinds:
        warehouse.prepare(TABLES)
        first = [session(A, "Fall"), session(B, "Spring", share=1.10, big=12345678901234567890)]
        people = [student(C, "1", firstName="O'Neil \\ \n ☂")]
        refresh(
            warehouse,
            pulls.reading(SESSIONS, 1, first, low=None, newest=10, full=True, parts=2),
            pulls.reading(STUDENTS, 1, people, low=None, newest=10, full=True),
        )
        descriptors(warehouse, pulls.reading(TERMS, 1, [term(A, "Fall")], low=None, newest=10, full=True))
        delta(
            warehouse,
            pulls.reading(SESSIONS, 2, [session(B, "Spring 2")], low=10, newest=20),
            pulls.reading(SESSIONS, 2, [tombstone(A, 12)], low=10, newest=20, kind=DELETES),
            pulls.reading(SESSIONS, 2, [{"id": B, "changeVersion": 13}], low=10, newest=20, kind=KEY_CHANGES),
        )
        descriptors(warehouse, pulls.reading(TERMS, 2, [term(B, "Fall")], low=10, newest=20, full=True))
    for table in ("sessions", "students", "_descriptors", "_deletes", "_key_changes"):
        one, other = (raw(warehouse, table) for warehouse in kinds)
        assert one == other
    assert watermarks(kinds[0]) == watermarks(kinds[1])
    kinds[1].close()
