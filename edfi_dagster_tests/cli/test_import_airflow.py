"""``import-airflow`` from files to loaded rows: several tenants, and the tables that Airflow left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result

from edfi_dagster.airflow.arguments import markdown
from edfi_dagster.cli.app import cli
from edfi_dagster.cli.commands import register
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.airflow.project import CONFIG, CONNECTIONS, SECRETS, write_project
from edfi_dagster_tests.bench import ODS, Bench, student

ODSS = (ODS, "lakeview/2025")
TENANTS = """
edfi_resource_dags:
  grand_bend:
    2025: {edfi_conn_id: edfi_grand_bend_2025, schedule_interval: '0 8 * * *', pool: a, tmp_dir: /nowhere}
  lakeview:
    2025: {edfi_conn_id: edfi_lakeview_2025, use_change_version: False, pull_total_counts: True}
"""
RESOURCES = """
students: {enabled: True, namespace: ed-fi, page_size: 50, fetch_deletes: True}
sessions: {enabled: True, namespace: ed-fi, page_size: 50, fetch_deletes: True}
payrolls: {enabled: False, namespace: ed-fi, page_size: 50, fetch_deletes: True}
"""
DESCRIPTORS = "termDescriptors: {enabled: True, namespace: ed-fi, page_size: 50, fetch_deletes: False}"


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(ODSS, rows={"students": 16}) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose connections lead to the sandbox; its configuration lies in ``airflow/``, this is the folder beside."""
    key, secret = server.credentials
    connections = {
        f"edfi_{ods.replace('/', '_')}": {
            "conn_type": "http",
            "host": server.url_of(ods),
            "login": key,
            "password": secret,
        }
        for ods in ODSS
    }
    write_project(tmp_path / "airflow", TENANTS, RESOURCES, DESCRIPTORS, connections)
    for ods in ODSS:
        name = f"EDFI_{ods.replace('/', '_').upper()}"
        monkeypatch.setenv(f"{name}_KEY", key)
        monkeypatch.setenv(f"{name}_SECRET", secret)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return tmp_path


def run(*arguments: str) -> Result:
    register(cli)
    environment = {"COLUMNS": "80", "TERM": "dumb", "EDFI_DAGSTER_CONFIG": None}
    return CliRunner().invoke(cli, arguments, env=environment)


def import_project(*arguments: str) -> Result:
    connections = ["--connections", "airflow/connections.json"]
    return run("import-airflow", "airflow/airflow_config_prod.yml", *connections, *arguments)


def materialize(tenant: str, *arguments: str) -> Any:
    done = run("materialize", "--tenant", tenant, "--year", "2025", "--json", *arguments)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_imported_tenants_are_materialized_each_in_its_own_way(project: Path, server: SandboxServer) -> None:
    done = import_project("--local")
    assert done.exit_code == 0, done.stderr
    assert "data standard 5.2" in done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert run("config", "show").exit_code == 0

    for tenant in ("grand_bend", "lakeview"):
        loaded = materialize(tenant)["materialized"]
        assert loaded["raw_edfi_3/students"]["edfi/rows_loaded"] == server.store(f"{tenant}/2025").count(
            "students"
        )
        assert "ed_fi/payrolls" not in loaded
        assert "ed_fi/term_descriptors" in loaded
    with duckdb.connect(str(project / "data" / "warehouse.duckdb"), read_only=True) as warehouse:
        versions = warehouse.sql(
            "SELECT DISTINCT tenant_code FROM edfi3._meta_change_versions WHERE is_active AND max_version > 0"
        ).fetchall()
        counted = warehouse.sql("SELECT DISTINCT tenant_code FROM edfi3._meta_total_counts").fetchall()
    assert (versions, counted) == ([("grand_bend",)], [("lakeview",)])


def write_as_airflow(path: Path, server: SandboxServer) -> None:
    """The tables of a finished night of the project's: its columns and names, records as the API sends them."""
    store = server.store(ODS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(path)) as warehouse:
        warehouse.execute("CREATE SCHEMA edfi3")
        for table in ("students", "sessions", "_deletes", "_descriptors"):
            warehouse.execute(
                f"CREATE TABLE edfi3.{table} (tenant_code VARCHAR, api_year INTEGER, pull_date DATE, pull_timestamp "
                "TIMESTAMP, file_row_number INTEGER, filename VARCHAR, name VARCHAR, ods_version VARCHAR, "
                "data_model_version VARCHAR, v JSON)"
            )
        warehouse.execute(
            "CREATE TABLE edfi3._meta_change_versions (tenant_code VARCHAR, api_year INTEGER, name VARCHAR, pull_date "
            "DATE, pull_timestamp TIMESTAMP, max_version INTEGER, is_active BOOLEAN, is_deletes BOOLEAN)"
        )
        night = ["grand_bend", 2025, "2026-01-05", "2026-01-05 08:00:00"]
        for name in ("students", "sessions"):
            for number, row in enumerate(store.rows(name)):
                warehouse.execute(
                    f"INSERT INTO edfi3.{name} VALUES (?, ?, ?, ?, ?, ?, ?, '7.3', '5.2.0', ?)",
                    [
                        *night,
                        number,
                        f"grand_bend/2025/20260105/x/resources/{name}.jsonl",
                        name,
                        json.dumps(row, separators=(",", ":"), ensure_ascii=False),
                    ],
                )
            # A night before, which counts no more, and the last; descriptors have none.
            for version, active in ((1, False), (store.newest, True)):
                for is_deletes in (False, True):
                    warehouse.execute(
                        "INSERT INTO edfi3._meta_change_versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        [*night[:2], name, *night[2:], version, active, is_deletes],
                    )


def test_first_run_goes_on_where_airflow_ended(project: Path, server: SandboxServer) -> None:
    store = server.store(ODS)
    leaver = store.post("students", student(900))
    write_as_airflow(project / "data" / "warehouse.duckdb", server)
    imported = import_project("--local")
    assert imported.exit_code == 0, imported.stderr
    newcomer = store.post("students", student(901))
    store.delete("students", leaver)
    session = store.rows("sessions")[0]
    kept = {name: value for name, value in session.items() if not name.startswith("_")}
    store.put("sessions", session["id"], {**kept, "sessionName": "Renamed after the switch"})

    bench = Bench(project / "edfi_dagster.yaml", server)
    bench.warehouse.setup([])
    results = bench.materialize()
    assert not any(results[name].full for name in ("students", "sessions"))
    assert results["students"].rows_inserted == 1, "what is as Airflow loaded it is not loaded again"
    bench.verify(["students", "sessions", "termDescriptors"])
    assert newcomer in bench.current("students") and set(bench.deletes("students")) == {leaver}
    assert bench.watermarks()["students", "records"] == store.newest


def test_nothing_secret_is_written_and_nothing_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path / "airflow", CONFIG)
    done = import_project("--offline", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert {row["variable"] for row in report["secrets"]} >= {
        "EDFI_LAKEVIEW_2025_SECRET",
        "SNOWFLAKE_PASSWORD",
    }
    written = {path: path.read_text() for path in map(Path, report["written"])}
    everything = done.output + "".join(written.values())
    assert [secret for secret in SECRETS if secret in everything] == []
    assert written[tmp_path / ".env.example"].endswith("EDFI_LAKEVIEW_2025_SECRET=\n")

    again = import_project("--offline")
    assert again.exit_code == 2
    assert "holds edfi_dagster.yaml and .env.example already" in again.stderr
    assert import_project("--offline", "--force").exit_code == 0


ODD = """
edfi_resource_dags__default_args: &defaults
  s3_conn_id: lake
  snowflake_conn_id: db
  schedule_interval: !timedelta 21_600
edfi_resource_dags:
  Grand Bend:
    2025: {edfi_conn_id: edfi_grand_bend_2025, schedule_interval_full_refresh: '* * * * L5', <<: *defaults}
  48227901:
    2025: {edfi_conn_id: nowhere, <<: *defaults}
  a|b:
    2025: {edfi_conn_id: nowhere, <<: *defaults}
  Nothing: {}
"""


def test_what_cannot_be_carried_over_is_one_list_and_stands_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    connections = {
        **CONNECTIONS,
        "lake": {"conn_type": "wasb", "host": "account", "schema": "container", "password": SECRETS[0]},
        "db": "databricks://token:snow-pass@adb.example.org/?http_path=x",
    }
    write_project(tmp_path / "airflow", ODD, connections=connections)
    done = import_project("--offline")
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / "edfi_dagster.yaml").read_text()
    listed = done.stdout.partition("Could not be carried over\n")[2].partition("\nWritten:")[0].split("\n- ")
    said = [" ".join(line.removeprefix("- ").split()) for line in listed if line]
    for line, words in zip(
        said,
        [
            "airflow_config_prod.yml, edfi_resource_dags.Nothing: tenant: declares no school year that could be imported;",
            "connections.json, nowhere: host: the connection is not among those given; write base_url",
            "connections.json, lake: connection of Azure (wasb): there is no lake of this kind; write lake by hand.",
            "connections.json, db: connection of Databricks (databricks): there is no warehouse of this kind;",
            "airflow_config_prod.yml, edfi_resource_dags.a|b: a|b: tenant code 'a|b' holds '|', which breaks paths",
        ],
        strict=True,
    ):
        assert line.startswith(words)
        assert f"# {line}" in text
    assert "# Write lake by hand; until then it is the folder data/lake." in text
    assert "# Write warehouse by hand; until then it is data/warehouse.duckdb." in text
    assert [secret for secret in SECRETS if secret in done.output + text] == []
    shown = run("config", "show")
    assert shown.exit_code == 0, shown.output
    for words in ("Grand Bend:", "'48227901':", "0 */6 * * L5", "schedule: 0 */6 * * *", "kind: local"):
        assert words in shown.stdout


def test_arguments_are_printed_without_a_project() -> None:
    done = run("import-airflow", "--arguments")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == markdown()
    assert "| `schedule_interval_descriptors` | `schedule_descriptors` | ✓ |" in done.stdout
    assert run("import-airflow").exit_code == 2
