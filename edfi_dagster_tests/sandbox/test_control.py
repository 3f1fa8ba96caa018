from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.sandbox.api import Api, student


class Control:
    def __init__(self, server: SandboxServer) -> None:
        self.url = f"{server.url}/grand_bend/2025/_control"

    def __call__(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = requests.request(method, f"{self.url}/{path}", json=body, timeout=10)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def control(server: SandboxServer) -> Control:
    return Control(server)


def test_summary_tells_newest_and_counts(control: Control, store: Store) -> None:
    assert control("GET", "summary") == {"newest": store.newest, "counts": store.counts()}


@pytest.mark.parametrize("kind", ["", "deletes", "keyChanges"])
def test_rows_are_the_truth_as_json_lines(control: Control, store: Store, kind: str) -> None:
    store.delete("grades", store.ids("grades")[0])
    answer = requests.get(f"{control.url}/rows", params={"endpoint": "grades", "kind": kind}, timeout=10)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == {"": store.rows, "deletes": store.deletes, "keyChanges": store.key_changes}[kind](
        "grades"
    )


def test_api_writes_join_a_transaction_by_header(control: Control, api: Api, store: Store) -> None:
    opened = control("POST", "transactions", status=201)["id"]
    created = api.post("students", student("000001"), **{"X-Sandbox-Transaction": opened})
    assert created.status_code == 201
    assert control("GET", "transactions") == {"open": [opened]}
    assert api.rows("students", studentUniqueId="000001") == []
    control("POST", f"transactions/{opened}/commit")
    assert len(api.rows("students", studentUniqueId="000001")) == 1
    control("POST", f"transactions/{opened}/commit", status=404)


def test_a_transaction_can_be_rolled_back(control: Control, api: Api) -> None:
    opened = control("POST", "transactions", status=201)["id"]
    api.post("students", student("000001"), **{"X-Sandbox-Transaction": opened})
    control("POST", f"transactions/{opened}/rollback")
    assert api.rows("students", studentUniqueId="000001") == []
    unknown = api.post("students", student("000001"), **{"X-Sandbox-Transaction": "none"})
    assert unknown.status_code == 404


def test_states_are_saved_and_restored(control: Control, api: Api, store: Store) -> None:
    saved = control("POST", "states/here/save")["newest"]
    api.post("students", student("000001"))
    assert control("POST", "states/here/restore") == {"newest": saved}
    assert store.newest == saved
    control("POST", "states/unknown/restore", status=404)


def test_a_snapshot_is_taken_and_dropped(control: Control, api: Api) -> None:
    control("POST", "states/snapshot/take")
    assert api.get("schools", headers={"Use-Snapshot": "true"}).status_code == 200
    control("POST", "states/snapshot/drop")
    assert api.get("schools", headers={"Use-Snapshot": "true"}).status_code == 404


def test_faults_are_added_counted_and_cleared(control: Control, api: Api) -> None:
    control("POST", "faults", {"path": "/students$", "status": 500, "times": 1, "body": "no"})
    assert api.get("students").text == "no"
    assert control("GET", "faults") == {"hits": 1}
    control("POST", "faults", {"path": "("}, status=400)
    control("POST", "faults", {"unknown": 1}, status=400)
    assert control("DELETE", "faults") == {"hits": 0}


def test_oddities_are_set_and_taken_back(control: Control, api: Api, server: SandboxServer) -> None:
    (store,) = server.site.stores.values()
    row = api.rows("students", limit=1)[0]
    control(
        "POST",
        "oddities",
        {"repeated": [row["id"]], "mark": "\ufeff", "spellings": {row["firstName"]: "Odd"}},
    )
    answer = api.get("students", limit=2, totalCount="true")
    assert answer.content.startswith(b"\xef\xbb\xbf[")
    assert answer.headers["Total-Count"] == str(store.count("students") + 1)
    assert answer.content.count(row["id"].encode()) == 2 and b'"Odd"' in answer.content
    control("POST", "oddities", {"unknown": 1}, status=400)
    control("DELETE", "oddities")
    assert api.rows("students", limit=1) == [row]


def test_permissions_are_denied_and_allowed(control: Control, api: Api) -> None:
    denied = control("POST", "permissions", {"endpoint": "staffs", "action": "deny", "read": False})
    assert denied == {"denied": {"reads": [], "changes": ["ed-fi/staffs"]}, "withdrawn": []}
    assert (api.get("staffs").status_code, api.get("staffs/deletes").status_code) == (200, 403)
    control("POST", "permissions", {"endpoint": "staffs", "action": "withdraw"})
    assert api.get("staffs").status_code == 404
    control("POST", "permissions", {"endpoint": "staffs", "action": "allow"})
    assert api.get("staffs/deletes").status_code == 200
    ids = [row["id"] for row in api.rows("staffs", limit=2)]
    control("POST", "permissions", {"endpoint": "staffs", "action": "hide", "ids": ids})
    control("POST", "permissions", {"endpoint": "staffs", "action": "show", "ids": ids[1:]})
    assert [api.get(f"staffs/{row_id}").status_code for row_id in ids] == [403, 200]
    control("POST", "permissions", {"endpoint": "pupils", "action": "deny"}, status=400)
    control("POST", "permissions", {"endpoint": "staffs", "action": "ban"}, status=400)


def test_requests_are_listed_without_headers(control: Control, api: Api) -> None:
    api.get("students", limit=1)
    (listed,) = control("GET", "requests")
    assert listed == {
        "method": "GET",
        "path": "/grand_bend/2025/data/v3/ed-fi/students",
        "query": {"limit": "1"},
        "ods": "grand_bend/2025",
        "status": 200,
    }
    assert control("DELETE", "requests") == []


def test_settings_change_latency_and_expire_tokens(control: Control, server: SandboxServer, api: Api) -> None:
    assert control("POST", "settings", {"latency": 0.01})["latency"] == 0.01
    assert server.latency == 0.01
    control("POST", "settings", {"expire_tokens": True})
    assert api.get("students").status_code == 401


def test_an_unknown_control_route_is_not_found(control: Control) -> None:
    control("GET", "nothing", status=404)
