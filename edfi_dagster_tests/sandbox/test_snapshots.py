"""Snapshots by both protocols: a list of named ones before 7.0, the only one since."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edfi_dagster_tests.sandbox.api import VersionApi, body, student

Make = Callable[[str], VersionApi]
EVENTS = "studentSectionAttendanceEvents"
SINGLE = ["7.0", "7.1", "7.2", "7.3"]


def listed(api: VersionApi) -> list[dict[str, str]]:
    found: list[dict[str, str]] = api.session.get(f"{api.changes}/snapshots", timeout=10).json()
    return found


def newest(api: VersionApi, headers: dict[str, str]) -> int:
    answer = api.session.get(f"{api.changes}/availableChangeVersions", headers=headers, timeout=10).json()
    return int(answer.get("newestChangeVersion", answer.get("NewestChangeVersion")))


@pytest.mark.parametrize("version", ["5.3", "6.1"])
def test_before_7_0_snapshots_are_listed_and_chosen_by_identifier(api_of: Make, version: str) -> None:
    api = api_of(version)
    assert listed(api) == []
    first = api.store.take_snapshot()
    before = api.store.newest
    api.store.post("students", student("000001"))
    second = api.store.take_snapshot()
    api.store.post("students", student("000002"))
    rows = listed(api)
    assert [row["snapshotIdentifier"] for row in rows] == [first, second]
    assert rows[0]["snapshotDateTime"] < rows[1]["snapshotDateTime"]
    one = api.session.get(f"{api.changes}/snapshots/{rows[1]['id']}", timeout=10).json()
    assert one == rows[1]
    counts = [
        api.get("students", headers=headers, limit=0, totalCount="true").headers["Total-Count"]
        for headers in ({"Snapshot-Identifier": first}, {"Snapshot-Identifier": second}, {})
    ]
    assert counts == ["60", "61", "62"]
    assert newest(api, {"Snapshot-Identifier": first}) == before
    assert newest(api, {"Snapshot-Identifier": second}) == before + 1


@pytest.mark.parametrize("version", ["5.3", "6.1"])
def test_before_7_0_a_snapshot_that_is_gone_is_410(api_of: Make, version: str) -> None:
    api = api_of(version)
    use = {"Snapshot-Identifier": api.store.take_snapshot()}
    assert api.get("students", headers=use).status_code == 200
    api.store.replace_snapshot()
    for answer in (
        api.get("students", headers=use),
        api.get("students/deletes", headers=use),
        api.session.get(f"{api.changes}/availableChangeVersions", headers=use, timeout=10),
    ):
        assert (answer.status_code, answer.json()) == (410, {"message": "Snapshot not available."})
    assert len(listed(api)) == 1


@pytest.mark.parametrize("version", SINGLE)
def test_since_7_0_there_is_one_snapshot_without_a_list(api_of: Make, version: str) -> None:
    api = api_of(version)
    use = {"Use-Snapshot": "true"}
    absent = api.get("students", headers=use)
    told = absent.json().get("detail", absent.json().get("message"))
    assert (absent.status_code, told) == (404, "Snapshot not found.")
    api.store.take_snapshot()
    api.store.post("students", student("000001"))
    assert len(api.get("students", headers=use).json()) == 60
    api.store.take_snapshot()
    assert len(api.get("students", headers=use).json()) == 61
    assert api.session.get(f"{api.changes}/snapshots", timeout=10).status_code == 404
    api.store.drop_snapshot()
    assert api.get("students", headers=use).status_code == 404


@pytest.mark.parametrize("version", ["5.3", "6.1", "7.1", "7.3"])
def test_a_snapshot_serves_deletes_and_key_changes_of_its_instant(api_of: Make, version: str) -> None:
    api = api_of(version)
    event, room = api.store.rows(EVENTS)[0], api.store.rows("locations")[0]
    api.store.delete(EVENTS, event["id"])
    identifier = api.store.take_snapshot()
    use = {"Use-Snapshot": "true"} if version.startswith("7") else {"Snapshot-Identifier": identifier}
    instant = api.store.newest
    api.store.delete(EVENTS, api.store.ids(EVENTS)[0])
    api.store.put("locations", room["id"], body(room, classroomIdentificationCode="moved"))
    assert newest(api, use) == instant < api.newest
    assert len(api.get(f"{EVENTS}/deletes", headers=use).json()) == 1
    assert len(api.rows(f"{EVENTS}/deletes")) == 2
    if version != "5.3":
        assert api.get("locations/keyChanges", headers=use).json() == []
        assert len(api.rows("locations/keyChanges")) == 1
    assert api.get(f"locations/{room['id']}", headers=use).json() == room


@pytest.mark.parametrize("version", ["6.1", "7.1"])
def test_a_snapshot_is_never_written(api_of: Make, version: str) -> None:
    api = api_of(version)
    use = {"Snapshot-Identifier": api.store.take_snapshot()} if version == "6.1" else {"Use-Snapshot": "true"}
    refused = api.post("students", student("000001"), **use)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")


def test_the_header_of_the_other_protocol_is_ignored(api_of: Make) -> None:
    assert api_of("6.1").get("students", headers={"Use-Snapshot": "true"}).status_code == 200
    assert api_of("7.1").get("students", headers={"Snapshot-Identifier": "x"}).status_code == 200


def test_dropping_an_unknown_snapshot_is_an_error(api_of: Make) -> None:
    with pytest.raises(KeyError):
        api_of("6.1").store.drop_snapshot("never taken")
