"""Runs of several tenants at once, each a process, into the same tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from edfi_dagster.config import parse_platform
from edfi_dagster.lake.store import open_lake
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster.warehouse.opening import open_warehouse
from edfi_dagster_tests.bench import KEY_VARIABLE, SECRET_VARIABLE, student

TENANTS = ("grand_bend", "lakeview", "northridge")
RESOURCES = {"students": "students", "sessions": "sessions", "locations": "locations"}


def write_config(folder: Path, server: SandboxServer, storage: dict[str, Any]) -> Path:
    document = {
        "lake": {"kind": "local", "root": "lake"},
        "warehouse": {"kind": "duckdb", "path": "warehouse.duckdb"},
        **storage,
        "extract": {
            "resources": {name: {} for name in RESOURCES},
            "descriptors": {"termDescriptors": {}},
            "change_version_overlap": 5,
        },
        "tenants": {
            tenant: {
                "years": {
                    2025: {
                        "base_url": server.url_of(f"{tenant}/2025"),
                        "client_id": {"env": KEY_VARIABLE},
                        "client_secret": {"env": SECRET_VARIABLE},
                    }
                }
            }
            for tenant in TENANTS
        },
    }
    path = folder / "platform.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def materialize_all(config: Path) -> None:
    """Every tenant's run at once; all must end well."""
    command = [sys.executable, "-W", "ignore", "-m", "edfi_dagster.cli", "--config", str(config)]
    runs = [
        subprocess.Popen(
            [*command, "materialize", "--tenant", tenant, "--year", "2025", "--json"],
            cwd=config.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for tenant in TENANTS
    ]
    for run in runs:
        _, said = run.communicate(timeout=240)
        assert run.returncode == 0, said


def rows(config: Path, table: str) -> dict[str, list[dict[str, Any]]]:
    """Tenant → its records in a table."""
    platform = parse_platform(config.read_text(), str(config), config.parent)
    lake = open_lake(platform.lake)
    found: dict[str, list[dict[str, Any]]] = {tenant: [] for tenant in TENANTS}
    with closing(open_warehouse(platform, lake, print)) as warehouse, warehouse.connected() as connection:
        for tenant, v in connection.rows(
            f"SELECT tenant_code, {connection.json()} FROM {connection.table(table)} ORDER BY pull_timestamp"
        ):
            found[tenant].append(json.loads(v))
    return found


@pytest.mark.slow
@pytest.mark.both_storages
def test_tenants_loaded_at_once_into_the_same_tables_lose_nothing(
    storage: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SandboxServer([f"{tenant}/2025" for tenant in TENANTS], rows={"students": 40}) as server:
        monkeypatch.setenv(KEY_VARIABLE, server.credentials[0])
        monkeypatch.setenv(SECRET_VARIABLE, server.credentials[1])
        config = write_config(tmp_path, server, storage)
        stores = {tenant: server.store(f"{tenant}/2025") for tenant in TENANTS}
        gone = {tenant: store.post("students", student(1)) for tenant, store in stores.items()}
        materialize_all(config)
        for number, (tenant, store) in enumerate(stores.items()):
            store.delete("students", gone[tenant])
            for n in range(number + 1):
                store.post("students", student(100 + n, firstName=tenant))
        materialize_all(config)

        loaded = rows(config, "students")
        deleted = rows(config, "_deletes")
        for tenant, store in stores.items():
            ids = [record["id"] for record in loaded[tenant]]
            assert sorted(ids) == sorted([*store.ids("students"), gone[tenant]])
            assert [record["id"] for record in deleted[tenant]] == [gone[tenant]]
        for table, resource in RESOURCES.items():
            if resource != "students":
                found = rows(config, table)
                assert {tenant: len(found[tenant]) for tenant in TENANTS} == {
                    tenant: store.count(resource) for tenant, store in stores.items()
                }


def test_setup_warehouse_makes_or_prints_what_loading_needs(storage: dict[str, Any], tmp_path: Path) -> None:
    with SandboxServer([f"{tenant}/2025" for tenant in TENANTS], rows={"students": 1}) as server:
        config = write_config(tmp_path, server, storage)

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "edfi_dagster.cli",
                "--config",
                str(config),
                "setup-warehouse",
                *arguments,
            ],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "80"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = command("--print")
    assert 'CREATE TABLE IF NOT EXISTS "edfi3"."students" (tenant_code VARCHAR' in printed
    assert not (tmp_path / "warehouse.duckdb").exists()
    assert command() == "duckdb: ready for 3 resources, descriptors, deletes and key changes\n"
    assert json.loads(command("--tenant", "lakeview", "--json")) == {"tables": sorted(RESOURCES)}
    assert rows(config, "students") == {tenant: [] for tenant in TENANTS}
