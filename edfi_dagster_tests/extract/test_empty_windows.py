"""Without an overlap and with nothing new, a window ends before it begins: it is never sent, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from edfi_dagster.extract import Job
from edfi_dagster.extract.forecast import changed_endpoints
from edfi_dagster.ods.session import OdsSession
from edfi_dagster_tests.bench import PAIR, Bench

MakeBench = Callable[..., Bench]
ENDPOINTS = ("students", "sessions", "locations")
of_every_version = pytest.mark.parametrize(
    "version", [pytest.param(version, marks=pytest.mark.ods(version)) for version in ("7.3", "6.1", "5.3")]
)


def inverted(bench: Bench) -> list[str]:
    """The requests for a window that ends before it begins, which API 8 refuses."""
    return [
        request.path
        for request in bench.server.requests
        if int(request.query.get("minChangeVersion", 0)) > int(request.query.get("maxChangeVersion", 2**62))
    ]


def asked(bench: Bench) -> list[str]:
    return [request.path.partition("/ed-fi/")[2] for request in bench.server.requests.matching("/ed-fi/")]


def forecast(bench: Bench) -> list[str]:
    with closing(OdsSession(bench.platform.ods(PAIR), PAIR)) as session, bench.warehouse.connected():
        job = Job(bench.platform, PAIR, session, bench.lake, bench.warehouse, print, print)
        return [endpoint.name for endpoint in changed_endpoints(job, bench.endpoints)]


@of_every_version
def test_a_night_without_news_sends_no_window(version: str, make_bench: MakeBench) -> None:
    bench = make_bench(*ENDPOINTS, descriptors=("termDescriptors",), change_version_overlap=0)
    bench.materialize()
    before = bench.state()
    bench.server.requests.clear()
    results = bench.materialize()
    assert asked(bench) == ["termDescriptors"], "its count alone"
    assert not any(result.failures or result.rows_inserted for result in results.values())
    assert bench.state() == before
    assert forecast(bench) == []
    assert not inverted(bench)
    bench.add_student(1)
    assert forecast(bench) == ["students"]
    assert bench.materialize()["students"].rows_inserted == 1
    assert not inverted(bench)
    bench.verify()


@of_every_version
def test_deletes_and_key_changes_of_a_quiet_night_come_with_the_next(
    version: str, make_bench: MakeBench
) -> None:
    bench = make_bench(*ENDPOINTS, change_version_overlap=0)
    added = bench.add_student(1)
    bench.materialize()
    bench.materialize()
    bench.store.delete("students", added)
    bench.materialize()
    bench.materialize()
    assert not inverted(bench)
    bench.verify()
