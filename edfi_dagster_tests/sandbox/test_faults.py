from __future__ import annotations

import time

import pytest
import requests

from edfi_dagster.sandbox import RequestInfo, SandboxServer, Store
from edfi_dagster_tests.sandbox.api import Api, student


def statuses(api: Api, path: str, count: int) -> list[int]:
    return [api.get(path).status_code for _ in range(count)]


def test_a_status_fault_strikes_its_number_of_times_after_some_requests(
    server: SandboxServer, api: Api
) -> None:
    rule = server.faults.add(
        "/students$", method="GET", status=503, times=2, after=1, headers={"Retry-After": "1"}
    )
    assert statuses(api, "students", 5) == [200, 503, 503, 200, 200]
    assert (rule.hits, server.faults.hits) == (2, 2)
    assert statuses(api, "schools", 1) == [200]


def test_headers_and_body_of_a_fault_are_sent(server: SandboxServer, api: Api) -> None:
    server.faults.add("students", status=429, headers={"Retry-After": "7"}, body=b"slow down")
    answer = api.get("students")
    assert (answer.status_code, answer.headers["Retry-After"], answer.text) == (429, "7", "slow down")
    server.faults.clear()
    assert api.get("students").status_code == 200


def test_a_fault_can_be_bound_to_a_method(server: SandboxServer, api: Api) -> None:
    server.faults.add("students", method="POST", status=500)
    assert api.get("students").status_code == 200
    assert api.post("students", student("000001")).status_code == 500


def test_a_rate_strikes_a_share_of_requests(server: SandboxServer, api: Api) -> None:
    server.faults.add("schools", status=500, rate=0.5)
    found = statuses(api, "schools", 40)
    assert 8 < found.count(500) < 32


def test_reset_closes_the_connection_without_an_answer(server: SandboxServer, api: Api) -> None:
    server.faults.add("students", action="reset", times=1)
    with pytest.raises(requests.ConnectionError):
        api.get("students")
    assert api.get("students").status_code == 200
    assert [request.status for request in server.requests] == [0, 200]


def test_truncate_cuts_the_body_short_of_its_content_length(server: SandboxServer, api: Api) -> None:
    server.faults.add("students", action="truncate", times=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        api.get("students")
    assert api.get("students").status_code == 200


def test_stall_sends_half_and_then_nothing(server: SandboxServer, api: Api) -> None:
    server.faults.add("students", action="stall", seconds=2, times=1)
    with pytest.raises(requests.exceptions.ConnectionError):
        api.session.get(api.url("students"), timeout=0.3)


def test_invalid_json_is_a_complete_answer_that_does_not_parse(server: SandboxServer, api: Api) -> None:
    server.faults.add("students", action="invalid_json", times=1)
    answer = api.get("students")
    assert answer.status_code == 200
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()


def test_html_with_status_200_looks_like_a_gateway(server: SandboxServer, api: Api) -> None:
    server.faults.add("students", action="html", status=200, times=1)
    answer = api.get("students")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html")
    assert answer.text.startswith("<html>")


def test_slow_and_latency_delay_an_ordinary_answer(server: SandboxServer, api: Api) -> None:
    server.faults.add("students", action="slow", seconds=0.2, times=1)
    began = time.monotonic()
    assert api.get("students").status_code == 200
    assert time.monotonic() - began > 0.2
    server.latency = 0.1
    began = time.monotonic()
    api.get("schools")
    assert 0.1 < time.monotonic() - began < 2


def test_latency_is_waited_for_by_all_requests_at_once(server: SandboxServer, api: Api) -> None:
    from concurrent.futures import ThreadPoolExecutor

    server.latency = 0.2
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: requests.get(server.url, timeout=10).status_code, range(8)))
    assert found == [200] * 8
    assert time.monotonic() - began < 1.2


@pytest.mark.parametrize(("path", "action"), [("(", "status"), ("x", "explode")])
def test_a_bad_rule_is_refused(server: SandboxServer, path: str, action: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|unknown action"):
        server.faults.add(path, action=action)  # type: ignore[arg-type]


def test_requests_are_recorded_in_order_and_can_be_cleared(server: SandboxServer, api: Api) -> None:
    api.get("students", limit=3, minChangeVersion=1)
    api.get("pupils")
    assert [(r.method, r.path, r.status) for r in server.requests] == [
        ("GET", "/grand_bend/2025/data/v3/ed-fi/students", 200),
        ("GET", "/grand_bend/2025/data/v3/ed-fi/pupils", 404),
    ]
    assert dict(server.requests[0].query) == {"limit": "3", "minChangeVersion": "1"}
    assert len(server.requests.matching("/Students")) == 1
    server.requests.clear()
    assert len(server.requests) == 0


def test_hooks_change_data_exactly_between_two_requests(
    server: SandboxServer, api: Api, store: Store
) -> None:
    count = store.count("students")

    def insert_before_second(request: RequestInfo) -> None:
        if request.query.get("offset") == "60":
            store.post("students", student("000001"))

    seen: list[tuple[str, int]] = []
    server.before_request.append(insert_before_second)
    server.after_response.append(lambda request: seen.append((request.ods, request.status)))
    first = api.get("students", limit=60, totalCount="true")
    second = api.get("students", limit=100, offset=60, totalCount="true")
    assert (first.headers["Total-Count"], second.headers["Total-Count"]) == (str(count), str(count + 1))
    assert seen == [("grand_bend/2025", 200)] * 2
