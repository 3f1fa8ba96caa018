"""A run without change versions at the end of restless nights: it replaces what is there, and going back begins anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edfi_dagster_tests.bench import Bench
from edfi_dagster_tests.extract.test_random_nights import Nights, bench_of

VERSIONS = [pytest.param(version, marks=pytest.mark.ods(version)) for version in ("6.1", "7.3")]
SEED = 11


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_is_replaced_by_what_stands_in_the_ods(
    make_bench: Callable[..., Bench], version: str
) -> None:
    nights = Nights(bench_of(make_bench, SEED), SEED)
    nights.live_through(1)
    without = bench_of(make_bench, SEED, use_change_version=False)
    without.materialize()
    without.verify()
    assert without.watermarks() == {}
    assert without.raw("_deletes") == without.raw("_key_changes") == []

    nights.district.work(10)
    nights.district.end_all()
    without.materialize()
    without.verify()
    again = bench_of(make_bench, SEED)
    assert again.materialize()["locations"].full
    again.verify()
    nights.district.work(10)
    nights.district.end_all()
    assert not again.materialize()["locations"].full
    again.verify()
