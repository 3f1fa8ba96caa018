"""Permissions, endpoints that are not offered, snapshots, saved states."""

from __future__ import annotations

from pathlib import Path

import pytest

from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.sandbox.api import Api, body, student

ODS = "grand_bend/2025"


def test_without_read_permission_collection_item_and_partitions_are_forbidden(api: Api, store: Store) -> None:
    row_id = store.ids("staffs")[0]
    store.deny("staffs", read_changes=False)
    paths = [
        "staffs",
        f"staffs/{row_id}",
        "staffs/partitions",
        "staffs/deletes",
        "staffs/keyChanges",
        "students",
    ]
    assert [api.get(path).status_code for path in paths] == [403, 403, 403, 200, 200, 200]
    assert api.get("staffs").json()["type"].startswith("urn:ed-fi:api:security:authorization")


def test_read_changes_is_a_permission_of_its_own(api: Api, store: Store) -> None:
    store.deny("staffs", read=False)
    assert [api.get(p).status_code for p in ("staffs", "staffs/deletes", "staffs/keyChanges")] == [
        200,
        403,
        403,
    ]
    store.allow("staffs")
    assert api.get("staffs/deletes").status_code == 200


def test_a_withdrawn_endpoint_is_not_found_and_not_described(api: Api, store: Store) -> None:
    store.withdraw("tpdm/candidates")
    path = "/data/v3/tpdm/candidates"
    assert [api.get(p).status_code for p in (path, f"{path}/deletes", f"{path}/partitions")] == [
        404,
        404,
        404,
    ]
    assert "/tpdm/candidates" not in api.get("/metadata/data/v3/resources/swagger.json").json()["paths"]
    resources = {row["resource"] for row in api.get("/metadata/data/v3/dependencies").json()}
    assert "/tpdm/candidates" not in resources
    store.allow("tpdm/candidates")
    assert api.get(path).status_code == 200


def test_a_snapshot_is_read_by_header_and_never_written(api: Api, store: Store) -> None:
    use = {"Use-Snapshot": "true"}
    missing = api.get("students", headers=use)
    assert (missing.status_code, missing.json()["detail"]) == (404, "Snapshot not found.")
    store.take_snapshot()
    newest = store.newest
    store.post("students", student("000001"))
    assert len(api.get("students", headers=use).json()) == len(api.rows("students")) - 1
    versions = api.get("/changeQueries/v1/availableChangeVersions", headers=use).json()
    assert (versions["newestChangeVersion"], api.newest) == (newest, newest + 1)
    refused = api.post("students", student("000002"), **use)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")
    assert refused.json()["type"] == "urn:ed-fi:api:snapshots:method-not-allowed"


def test_a_snapshot_keeps_its_deletes(api: Api, store: Store) -> None:
    endpoint = "studentSectionAttendanceEvents"
    store.take_snapshot()
    store.delete(endpoint, store.ids(endpoint)[0])
    assert api.get(f"{endpoint}/deletes", headers={"Use-Snapshot": "true"}).json() == []
    assert len(api.rows(f"{endpoint}/deletes")) == 1


def test_restoring_a_state_takes_sequences_back_but_never_returns_ids(api: Api, store: Store) -> None:
    store.save("before")
    newest, rows = store.newest, store.rows("students")
    lost = store.post("students", student("000001"))
    store.delete("studentSectionAttendanceEvents", store.ids("studentSectionAttendanceEvents")[0])
    store.restore("before")
    assert (api.newest, store.rows("students")) == (newest, rows)
    assert store.tombstones("studentSectionAttendanceEvents") == []
    again = store.post("students", student("000001"))
    assert again != lost
    row = store.row("students", again)
    assert row is not None and row.change_version == newest + 1
    with pytest.raises(KeyError):
        store.restore("never saved")


def test_data_in_a_folder_survives_a_restart(tmp_path: Path) -> None:
    with SandboxServer([ODS], data_dir=tmp_path) as server:
        store = server.store()
        created = store.post("students", student("000001"))
        store.delete("studentSectionAttendanceEvents", store.ids("studentSectionAttendanceEvents")[0])
        store.save("kept")
        store.post("students", student("000002"))
        newest, rows = store.newest, store.rows("students")
    with SandboxServer([ODS], data_dir=tmp_path, seed=99) as server:
        store = server.store()
        assert (store.newest, store.rows("students")) == (newest, rows)
        assert len(store.deletes("studentSectionAttendanceEvents")) == 1
        later = store.post("students", student("000003"))
        row = store.row("students", later)
        assert row is not None and row.change_version == newest + 1
        store.restore("kept")
        assert store.ids("students")[-1] == created
        assert store.newest == newest - 1


def test_data_left_half_generated_by_a_killed_process_is_generated_anew(tmp_path: Path) -> None:
    with SandboxServer([ODS], data_dir=tmp_path) as server:
        whole = server.store().rows("students")
        server.store().connection.execute("DELETE FROM row WHERE endpoint > 20")
        server.store().connection.execute("DELETE FROM counter WHERE name = 'complete'")
    with SandboxServer([ODS], data_dir=tmp_path) as server:
        assert server.store().rows("students") == whole


def test_each_ods_has_its_own_rows_keys_and_sequence() -> None:
    with SandboxServer([ODS, "grand_bend/2026"]) as server:
        first, second = server.store(ODS), server.store("grand_bend/2026")
        newest = second.newest
        first.post("students", student("000001"))
        assert second.newest == newest
        assert not {row["id"] for row in first.rows("schools")} & {
            row["id"] for row in second.rows("schools")
        }
        with pytest.raises(ValueError, match="unpack"):
            server.store()


def test_a_direct_write_follows_the_same_rules(store: Store) -> None:
    row = store.rows("students")[0]
    newest = store.newest
    assert store.post("students", body(row)) == row["id"]
    assert store.newest == newest


def test_hidden_records_are_in_no_page_count_or_change_and_forbidden_by_id(api: Api, store: Store) -> None:
    events = "studentSectionAttendanceEvents"
    kept, hidden, deleted = store.ids(events)[:3]
    total = store.count(events)
    version = api.newest
    store.hide(events, hidden, deleted)
    assert api.get(events, limit=0, totalCount="true").headers["Total-Count"] == str(total - 2)
    listed = {row["id"] for row in api.rows(events, limit=500)}
    assert kept in listed and not {hidden, deleted} & listed
    assert api.rows(events, id=hidden) == []
    assert api.get(f"{events}/{kept}").status_code == 200
    refused = api.get(f"{events}/{hidden}")
    assert (refused.status_code, refused.json()["type"]) == (
        403,
        "urn:ed-fi:api:security:authorization:access-denied:resource",
    )
    assert api.delete(f"{events}/{hidden}").status_code == 403
    store.delete(events, deleted)
    assert api.rows(f"{events}/deletes", minChangeVersion=version) == []
    store.show(events, hidden)
    assert api.rows(events, id=hidden, minChangeVersion=version + 1) == []
    assert [row["id"] for row in api.rows(events, id=hidden)] == [hidden]
