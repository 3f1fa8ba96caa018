"""Transactions that stay open: late commits, gaps, locks, refusals within."""

from __future__ import annotations

import pytest

from edfi_dagster.sandbox import ApiError, Store
from edfi_dagster_tests.sandbox.api import EVENTS, Api, body, changed_ids, room, student, version


def test_a_late_commit_appears_behind_newest_with_its_early_numbers(api: Api, store: Store) -> None:
    rows_before = store.ids("students")
    transaction = store.begin()
    early = transaction.post("students", student("000001"))
    taken = api.newest
    late = store.post("students", student("000002"))
    assert api.newest == taken + 1
    assert changed_ids(api, "students", taken, taken) == []
    assert [row["id"] for row in api.rows("students")] == [*rows_before, late]
    transaction.commit()
    assert version(store, "students", early) == taken
    assert changed_ids(api, "students", taken, taken) == [early]
    assert [row["id"] for row in api.rows("students")] == [*rows_before, early, late]
    assert api.newest == taken + 1


def test_a_rolled_back_transaction_leaves_a_gap(api: Api, store: Store) -> None:
    before = api.newest
    transaction = store.begin()
    transaction.post("students", student("000001"))
    transaction.rollback()
    assert api.newest == before + 1
    assert changed_ids(api, "students", before + 1) == []
    with pytest.raises(ApiError, match="no open transaction"):
        transaction.commit()


def test_a_transaction_sees_its_own_writes_and_hides_them_from_others(api: Api, store: Store) -> None:
    place = body(store.rows("studentSchoolAssociations")[0], studentReference={"studentUniqueId": "000001"})
    event = store.rows(EVENTS)[0]
    transaction = store.begin()
    transaction.post("students", student("000001"))
    place_id = transaction.post("studentSchoolAssociations", place)
    transaction.put("studentSchoolAssociations", place_id, {**place, "primarySchool": False})
    transaction.delete(EVENTS, event["id"])
    assert api.get(f"{EVENTS}/{event['id']}").status_code == 200
    assert api.rows(f"{EVENTS}/deletes") == []
    with pytest.raises(ApiError, match="does not exist"):
        store.post("studentSchoolAssociations", {**place, "entryDate": "2024-12-01"})
    transaction.commit()
    assert store.get("studentSchoolAssociations", place_id)["primarySchool"] is False
    assert [d["id"] for d in api.rows(f"{EVENTS}/deletes")] == [event["id"]]


def test_rows_touched_by_an_open_transaction_are_locked(store: Store) -> None:
    row = store.rows("students")[0]
    transaction = store.begin()
    transaction.put("students", row["id"], body(row, firstName="Mine"))
    with pytest.raises(ApiError, match="multi-user-conflict"):
        store.put("students", row["id"], body(row, firstName="Yours"))
    transaction.commit()
    assert store.get("students", row["id"])["firstName"] == "Mine"


def test_a_row_that_a_pending_row_refers_to_cannot_be_deleted(store: Store) -> None:
    code = store.post("locations", room(store, "free"))
    section = body(store.rows("sections")[0], sectionIdentifier="new")
    school = store.get("locations", code)["schoolReference"]["schoolId"]
    section["locationReference"] = {"classroomIdentificationCode": "free", "schoolId": school}
    transaction = store.begin()
    transaction.post("sections", section)
    with pytest.raises(ApiError, match="409"):
        store.delete("locations", code)
    transaction.commit()
    assert store.count("locations") == 25


def test_a_deleted_key_can_be_recreated_in_one_transaction(api: Api, store: Store) -> None:
    row = store.rows(EVENTS)[0]
    transaction = store.begin()
    transaction.delete(EVENTS, row["id"])
    new_id = transaction.post(EVENTS, body(row))
    transaction.commit()
    assert api.rows(f"{EVENTS}/deletes") == []
    assert [d["id"] for d in store.tombstones(EVENTS)] == [row["id"]]
    assert store.get(EVENTS, new_id)["eventDate"] == row["eventDate"]


def test_two_rows_can_swap_keys_in_one_transaction(store: Store) -> None:
    first, second = (store.post("locations", room(store, code)) for code in ("L1", "L2"))
    transaction = store.begin()
    transaction.put("locations", first, room(store, "spare"))
    transaction.put("locations", second, room(store, "L1"))
    transaction.put("locations", first, room(store, "L2"))
    transaction.commit()
    assert store.get("locations", first)["classroomIdentificationCode"] == "L2"
    assert store.get("locations", second)["classroomIdentificationCode"] == "L1"


def test_a_refused_write_leaves_nothing_in_its_transaction(api: Api, store: Store) -> None:
    row, other = store.rows("students")[:2]
    first, second = store.begin(), store.begin()
    first.put("students", row["id"], body(row, firstName="First"))
    with pytest.raises(ApiError, match="multi-user-conflict"):
        second.put("students", row["id"], body(row, firstName="Second"))
    second.put("students", other["id"], body(other, firstName="Second"))
    first.commit()
    second.commit()
    names = [store.get("students", found["id"])["firstName"] for found in (row, other)]
    assert names == ["First", "Second"]


def test_a_cascade_refused_half_way_leaves_nothing_either(store: Store) -> None:
    section = store.rows("sections")[0]
    held = store.begin()
    held.put("sections", section["id"], body(section, sectionName="Held"))
    place = section["locationReference"]
    row = next(
        r
        for r in store.rows("locations")
        if r["classroomIdentificationCode"] == place["classroomIdentificationCode"]
        and r["schoolReference"]["schoolId"] == place["schoolId"]
    )
    late = store.begin()
    with pytest.raises(ApiError, match="multi-user-conflict"):
        late.put("locations", row["id"], body(row, classroomIdentificationCode="moved"))
    late.post("students", student("000001"))
    held.commit()
    late.commit()
    assert store.get("locations", row["id"]) == row
    assert store.get("sections", section["id"])["sectionName"] == "Held"
    assert store.key_changes("locations") == []


def test_an_open_transaction_goes_on_after_a_refusal_over_http(api: Api, store: Store) -> None:
    row = store.rows("students")[0]
    opened = store.begin()
    join = {"X-Sandbox-Transaction": opened.id}
    assert api.post("students", student("000001"), **join).status_code == 201
    holder = store.begin()
    holder.put("students", row["id"], body(row, firstName="Held"))
    assert api.put(f"students/{row['id']}", body(row, firstName="Mine"), **join).status_code == 409
    assert api.post("students", student("000002"), **join).status_code == 201
    opened.commit()
    holder.rollback()
    assert [r["studentUniqueId"] for r in store.rows("students")[-2:]] == ["000001", "000002"]
    assert store.get("students", row["id"]) == row
