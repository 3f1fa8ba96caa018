"""Whole runs on Ed-Fi's API 8, with its own rules: Basic alone, no inverted windows, strict parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml

from edfi_dagster.config import parse_platform
from edfi_dagster_tests.bench import PAIR, Bench
from edfi_dagster_tests.ods.data_management_service import DataManagementService
from edfi_dagster_tests.ods.stand_in import StandIn

MakeBench = Callable[..., Bench]


def pointed_at(bench: Bench, url: str) -> None:
    document = yaml.safe_load(bench.config.read_text())
    document["tenants"][PAIR.tenant]["years"][PAIR.year]["base_url"] = url
    bench.config.write_text(yaml.safe_dump(document))
    bench.platform = parse_platform(bench.config.read_text(), str(bench.config), bench.folder)


@pytest.mark.parametrize("overlap", [0, 10_000])
def test_a_first_run_a_quiet_night_and_a_night_with_news(overlap: int, make_bench: MakeBench) -> None:
    far = 1 << 40
    service = DataManagementService({far + n: n % 90 for n in range(130)}, newest=90)
    bench = make_bench("students", "sessions", change_version_overlap=overlap)
    with StandIn(service) as there:
        pointed_at(bench, there.url)
        assert bench.materialize()["students"].rows_inserted == 130
        quiet = bench.materialize()
        assert quiet["students"].rows_inserted == 0
        service.rows |= {far + 500: 91, far + 3: 92}
        service.newest = 95
        bench.materialize()
        assert len(bench.current("students")) == 131
        assert service.given == 1
