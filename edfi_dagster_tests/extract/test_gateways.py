"""A run past firewalls and gateways: what they answer is never taken for the ODS's word, and no row is missed for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edfi_dagster.extract.work import Result
from edfi_dagster.ods.pages import DELETES, RECORDS
from edfi_dagster.sandbox.gateways import PAGES
from edfi_dagster_tests.bench import Bench, failures

MakeBench = Callable[..., Bench]
QUICK = {"firewall", "kong", "empty", "login"}
EVERY_PAGE = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name, page in PAGES.items()
        if page.status in {302, 401, 403, 404}
    ],
)
of_every_version = pytest.mark.parametrize(
    "version", [pytest.param(version, marks=pytest.mark.ods(version)) for version in ("7.3", "6.1", "5.3")]
)
AT_ONCE: dict[str, Any] = {"endpoint_defaults": {"page_size": 20, "num_retries": 0}}


@of_every_version
@EVERY_PAGE
def test_a_first_run_fails_and_does_not_say_not_offered(
    name: str, version: str, make_bench: MakeBench
) -> None:
    bench = make_bench("students", "sessions", descriptors=("termDescriptors",), **AT_ONCE)
    bench.server.faults.add("/ed-fi/(students|termDescriptors)", page=name)
    results = bench.materialize(may_fail=True)
    assert {of for of, found in failures(results).items() if RECORDS in found} == {
        "students",
        "termDescriptors",
    }
    assert not {Result.NOT_OFFERED, Result.NOT_PERMITTED} & {
        kind.result for result in results.values() for kind in result.kinds.values()
    }
    assert {of for of, kind in bench.watermarks() if kind == RECORDS} == {"sessions"}
    bench.server.faults.clear()
    bench.materialize()
    bench.verify()


@EVERY_PAGE
def test_a_page_before_the_deletes_alone_keeps_their_watermark(name: str, make_bench: MakeBench) -> None:
    bench = make_bench("students", **AT_ONCE)
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", gone)
    bench.server.faults.add("/students/deletes", page=name)
    low = bench.watermarks()["students", DELETES]
    results = bench.materialize(may_fail=True)
    assert DELETES in failures(results)["students"]
    assert bench.watermarks()["students", DELETES] == low
    bench.server.faults.clear()
    bench.materialize()
    bench.verify()


@EVERY_PAGE
def test_a_page_that_passes_costs_a_retry_and_no_row(name: str, make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.server.faults.add("/data/", page=name, times=1, after=1)
    bench.materialize()
    bench.verify()


@pytest.mark.ods("6.1")
def test_an_endpoint_that_the_ods_does_not_offer_is_still_a_fact(make_bench: MakeBench) -> None:
    """An older ODS says so without a word; its OpenAPI agrees."""
    bench = make_bench("students", "sessions")
    bench.store.withdraw("students")
    results = bench.materialize()
    assert results["students"].kinds[RECORDS].result == Result.NOT_OFFERED
    bench.verify(["sessions"])
