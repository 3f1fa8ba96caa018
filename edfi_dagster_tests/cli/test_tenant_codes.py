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
from edfi_dagster_tests.earthbeam.conftest import MakeBundleBench, bundles  # noqa: F401

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


@pytest.mark.slow
@pytest.mark.storage("production")
def test_a_code_is_the_same_in_a_bucket_and_in_snowflake(make_bench: MakeBench) -> None:
    code = "St. Mary's – Cañon"
    bench = make_bench("students", descriptors=("termDescriptors",))
    document = yaml.safe_load(bench.config.read_text())
    document["tenants"] = {code: document["tenants"]["grand_bend"]}
    bench.config.write_text(yaml.safe_dump(document))
    for _ in range(2):
        result = invoke(bench, "materialize", "--tenant", code, "--year", "2025", "--json")
        assert result.exit_code == 0, result.output
    with bench.warehouse.connected() as connection:
        found = connection.rows(
            f"SELECT tenant_code, {connection.text('id')}, filename FROM {connection.table('students')}"
        )
    assert {key for _, key, _ in found} == {row["id"] for row in bench.store.rows("students")}
    assert {tenant for tenant, _, _ in found} == {code}
    assert all(name.startswith("St.=20Mary=27s=20=E2=80=93=20Ca=C3=B1on/2025/") for _, _, name in found)


@pytest.mark.slow
@pytest.mark.parametrize("destination", ["ods", "warehouse"])
def test_a_bundle_runs_for_any_code(
    bundles: MakeBundleBench,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    destination: str,
) -> None:
    bench = bundles(endpoints=("students",))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(bench.folder)
    document = yaml.safe_load(bench.config.read_text())
    document["tenants"] = {"St. Mary's": document["tenants"]["grand_bend"]}
    bundle = document["earthbeam"]["bundles"]["riverbend"]
    bundle["destination"] = destination
    bundle["inputs"] = {"INPUT_FILE": {"folder": "incoming/{tenant}/{year}", "pattern": "*.csv"}}
    bench.config.write_text(yaml.safe_dump(document))
    folder = bench.folder / "incoming" / "St. Mary's" / "2025"
    folder.mkdir(parents=True)
    bench.file(600052, 600053).rename(folder / "results.csv")
    place = ["--tenant", "St. Mary's", "--year", "2025", "--param", "SEASON=Winter", "--json"]
    done = invoke(bench, "bundle", "run", "riverbend", *place)
    assert done.exit_code == 0, done.output
    assert list((bench.folder / "lake").glob("St.=20Mary=27s/2025/*/*/*")) != []
    if destination == "ods":
        assert len(bench.results_in_ods()) == 2
