"""The two dagster.yaml: the local one, and that of a deployment on one host, on a real Postgres."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.instance.config import dagster_instance_config
from dagster._core.instance.ref import InstanceRef
from dagster._core.test_utils import create_run_for_test
from dagster._utils.tags import TagConcurrencyLimitsCounter

import edfi_dagster
from edfi_dagster_tests.assets.runs import materialized, run
from edfi_dagster_tests.automation.postgres import find_binaries, running_postgres
from edfi_dagster_tests.bench import Bench

LOCAL = Path(edfi_dagster.__file__).parents[1] / "dagster.yaml"
DEPLOYED = Path(edfi_dagster.__file__).parent / "deploy" / "templates" / "compose" / "dagster.yaml"


def settings_of(file: Path) -> Mapping[str, Any]:
    """What Dagster makes of it; raises where a key or value is not one of Dagster's."""
    settings, _ = dagster_instance_config(str(file.parent))
    return settings


@pytest.mark.parametrize("file", [LOCAL, DEPLOYED], ids=["local", "deployed"])
def test_dagster_takes_it_and_retries_crashes_only(file: Path) -> None:
    settings = settings_of(file)
    assert settings["run_retries"]["enabled"] is True
    assert settings["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert settings["telemetry"] == {"enabled": False}


@pytest.mark.parametrize("file", [LOCAL, DEPLOYED], ids=["local", "deployed"])
def test_one_run_at_a_time_per_tenant_and_year(file: Path, instance: dg.DagsterInstance) -> None:
    def a_run(partition: str) -> dg.DagsterRun:
        tags = {"dagster/partition": partition}
        made: dg.DagsterRun = create_run_for_test(instance, "extract_and_load", tags=tags)
        return made

    limits = settings_of(file)["concurrency"]["runs"]["tag_concurrency_limits"]
    running = TagConcurrencyLimitsCounter(limits, [a_run("grand_bend|2025")])
    assert running.is_blocked(a_run("grand_bend|2025"))
    assert not running.is_blocked(a_run("grand_bend|2026"))
    assert not running.is_blocked(a_run("lakeview|2025"))


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, str]]:
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(
            "no Postgres server on this machine: neither initdb on PATH nor /usr/lib/postgresql/*/bin"
        )
    with running_postgres(binaries) as environment:
        yield environment


@pytest.fixture
def deployed(
    postgres: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The instance of the deployment's file, but for the folder of logs."""
    for name, value in postgres.items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(DEPLOYED, home / "dagster.yaml")
    logs = {
        "module": "dagster._core.storage.local_compute_log_manager",
        "class": "LocalComputeLogManager",
        "config": {"base_dir": str(home / "logs")},
    }
    reference = InstanceRef.from_dir(str(home), overrides={"compute_logs": logs})
    with dg.DagsterInstance.from_ref(reference) as instance:
        yield instance


def test_runs_on_postgres(deployed: dg.DagsterInstance, make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("students", descriptors=("sexDescriptors",))
    first = run(bench, deployed)
    assert first.success
    assert materialized(deployed, first)["raw_edfi_3/students"]["edfi/rows_loaded"] == bench.store.count(
        "students"
    )
    assert materialized(deployed, run(bench, deployed)) == {}
    bench.verify(["students", "sexDescriptors"])

    assert type(deployed.run_storage).__name__ == "PostgresRunStorage"
    assert type(deployed.event_log_storage).__name__ == "PostgresEventLogStorage"
    assert deployed.run_retries_enabled
    assert deployed.run_monitoring_enabled
    assert type(deployed.run_coordinator).__name__ == "QueuedRunCoordinator"
    queue = deployed.get_concurrency_config().run_queue_config
    assert queue and queue.max_concurrent_runs == 4
    assert [limit["key"] for limit in queue.tag_concurrency_limits] == ["dagster/partition"]
