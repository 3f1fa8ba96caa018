"""The two dagster.yaml: the local one, and the production one as it would be deployed, on a real Postgres."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config
from dagster._core.instance.ref import InstanceRef
from dagster._core.test_utils import create_run_for_test
from dagster._utils.tags import TagConcurrencyLimitsCounter

import edfi_dagster
from edfi_dagster_tests.assets.runs import materialized, run
from edfi_dagster_tests.automation.postgres import find_binaries, running_postgres
from edfi_dagster_tests.bench import Bench

LOCAL = Path(edfi_dagster.__file__).parents[1] / "dagster.yaml"
PRODUCTION = Path(edfi_dagster.__file__).parent / "automation" / "production" / "dagster.yaml"
ENVIRONMENT = {
    "DAGSTER_NAMESPACE": "dagster",
    "EDFI_DAGSTER_IMAGE": "registry.example.org/edfi-dagster:1",
    "DAGSTER_LOGS_BUCKET": "logs",
}


def settings_of(file: Path) -> Mapping[str, Any]:
    """What Dagster makes of it; raises where a key or value is not one of Dagster's."""
    settings, _ = dagster_instance_config(str(file.parent))
    return settings


@pytest.mark.parametrize("file", [LOCAL, PRODUCTION], ids=["local", "production"])
def test_dagster_takes_it_and_retries_crashes_only(file: Path) -> None:
    settings = settings_of(file)
    assert settings["run_retries"]["enabled"] is True
    assert settings["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert settings["telemetry"] == {"enabled": False}


@pytest.mark.parametrize("file", [LOCAL, PRODUCTION], ids=["local", "production"])
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


def test_the_run_launcher_of_production_takes_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    k8s = pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    config = yaml.safe_load(PRODUCTION.read_text())["run_launcher"]["config"]
    taken = process_config(k8s.K8sRunLauncher.config_type(), config)
    assert taken.success and taken.value, taken.errors
    assert taken.value["job_image"] == ENVIRONMENT["EDFI_DAGSTER_IMAGE"]


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
def production(
    postgres: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The instance of the production file, but for the folder of logs, which is not on S3."""
    for name, value in {**ENVIRONMENT, **postgres}.items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(PRODUCTION, home / "dagster.yaml")
    logs = {
        "module": "dagster._core.storage.local_compute_log_manager",
        "class": "LocalComputeLogManager",
        "config": {"base_dir": str(home / "logs")},
    }
    reference = InstanceRef.from_dir(str(home), overrides={"compute_logs": logs})
    with dg.DagsterInstance.from_ref(reference) as instance:
        yield instance


def test_production_runs_on_postgres(
    production: dg.DagsterInstance, make_bench: Callable[..., Bench]
) -> None:
    bench = make_bench("students", descriptors=("sexDescriptors",))
    first = run(bench, production)
    assert first.success
    assert materialized(production, first)["raw_edfi_3/students"]["edfi/rows_loaded"] == bench.store.count(
        "students"
    )
    assert materialized(production, run(bench, production)) == {}
    bench.verify(["students", "sexDescriptors"])

    assert type(production.run_storage).__name__ == "PostgresRunStorage"
    assert type(production.event_log_storage).__name__ == "PostgresEventLogStorage"
    assert production.run_retries_enabled
    assert production.run_monitoring_enabled
    assert type(production.run_coordinator).__name__ == "QueuedRunCoordinator"
    queue = production.get_concurrency_config().run_queue_config
    assert queue and queue.max_concurrent_runs == 25
    assert [limit["key"] for limit in queue.tag_concurrency_limits] == ["dagster/partition"]
