"""Tenant codes as people have them, from the ODS to the tables, and back out of the lake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from edfi_dagster_tests.bench import MakeBench
from edfi_dagster_tests.cli.in_process import invoke

CODES = ("Grand Bend", "48227901", "St. Mary's", "Cañon City", "20250101T000000", "A&M (255901)", "json=1")


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES)
def test_a_code_is_the_same_in_tables_partitions_and_lake(make_bench: MakeBench, code: str) -> None:
    bench = make_bench("students", "sessions")
    document = yaml.safe_load(bench.config.read_text())
    document["tenants"] = {code: document["tenants"]["grand_bend"]}
    document["lake"]["root"] = "lake/json=1"
    bench.config.write_text(yaml.safe_dump(document))
    place = ["--tenant", code, "--year", "2025"]

    def run(*arguments: str) -> Any:
        result = invoke(bench, *arguments, *place, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    run("materialize")
    wanted = {row["id"] for row in bench.store.rows("students")}
    first = _students(bench.folder)
    assert {key for _, _, key in first} == wanted
    assert {(tenant, is_todays) for tenant, is_todays, _ in first} == {(code, True)}
    run("materialize")  # a delta from the first one's watermark
    assert _students(bench.folder) == first
    assert code in str(run("status"))
    (bench.folder / "warehouse.duckdb").unlink()
    run("rebuild")
    assert {key for _, _, key in _students(bench.folder)} == wanted


def _students(folder: Path) -> list[tuple[str, bool, str]]:
    """(tenant code, whether the date of the pull is that of its time, id) of each row."""
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as warehouse:
        return warehouse.sql(
            "SELECT tenant_code, pull_date = pull_timestamp::DATE, v ->> 'id' FROM edfi3.students ORDER BY 3"
        ).fetchall()
