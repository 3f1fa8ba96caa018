"""The values for Dagster's Helm chart: the instance that comes of them, and the pod that a run becomes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import process_config
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance.config import dagster_instance_config
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._utils.tags import TagConcurrencyLimitsCounter

from edfi_dagster.deploy import HOSTS_VARIABLE, write_deployment
from edfi_dagster_tests.deploy.chart import NAMESPACE, instance_of

IMAGE = "registry.example.org/edfi-dagster:1"


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    write_deployment(tmp_path / "deploy", "kubernetes")
    found: dict[str, Any] = yaml.safe_load((tmp_path / "deploy" / "values.yaml").read_text())
    return found


def test_dagster_takes_the_instance_and_retries_crashes_only(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance_of(values)))
    settings, _ = dagster_instance_config(str(tmp_path))
    assert settings["run_retries"] == {
        "enabled": True,
        "max_retries": 2,
        "retry_on_asset_or_op_failure": False,
    }
    # A pod that is resumed would go on as the same run; a new run begins at what is committed.
    assert settings["run_monitoring"]["max_resume_run_attempts"] == 0
    for storage in ("run_storage", "schedule_storage", "event_log_storage"):
        assert settings[storage]["config"]["postgres_db"]["scheme"] == "postgresql+psycopg2"


def test_one_pod_at_a_time_per_tenant_and_year(values: dict[str, Any], instance: dg.DagsterInstance) -> None:
    def a_run(partition: str) -> dg.DagsterRun:
        tags = {"dagster/partition": partition}
        made: dg.DagsterRun = create_run_for_test(instance, "extract_and_load", tags=tags)
        return made

    limits = instance_of(values)["concurrency"]["runs"]["tag_concurrency_limits"]
    running = TagConcurrencyLimitsCounter(limits, [a_run("grand_bend|2025")])
    assert running.is_blocked(a_run("grand_bend|2025"))
    assert not running.is_blocked(a_run("grand_bend|2026"))


def test_every_pod_is_of_one_image_and_knows_that_it_is_not_alone(values: dict[str, Any]) -> None:
    (server,) = values["dagster-user-deployments"]["deployments"]
    images = [server["image"], values["dagsterDaemon"]["image"], values["dagsterWebserver"]["image"]]
    assert [f"{image['repository']}:{image['tag']}" for image in images] == [IMAGE] * 3
    assert {"name": HOSTS_VARIABLE, "value": "many"} in server["env"]
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    assert f"{HOSTS_VARIABLE}=many" in launcher["envVars"]
    assert launcher["envSecrets"] == server["envSecrets"]
    assert server["dagsterApiGrpcArgs"] == ["-m", "edfi_dagster.definitions"]


class _Api(BaseHTTPRequestHandler):
    """As much of a cluster's API as takes a job."""

    jobs: list[dict[str, Any]]

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def do_POST(self) -> None:
        assert self.path == f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.jobs.append(json.loads(body))
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """A kubeconfig that leads to an API on this machine, and the jobs it was given."""
    jobs: list[dict[str, Any]] = []
    handler = type("Api", (_Api,), {"jobs": jobs})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        name = {"name": "here"}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{**name, "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
            "contexts": [{**name, "context": {"cluster": "here", "user": "here"}}],
            "users": [{**name, "user": {}}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        yield tmp_path / "kubeconfig", jobs
        server.shutdown()
        thread.join()


def test_run_becomes_a_pod_with_role_secrets_memory_and_time_to_let_its_lease_go(
    values: dict[str, Any], cluster: tuple[Path, list[dict[str, Any]]], instance: dg.DagsterInstance
) -> None:
    k8s = pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed")
    kubeconfig, jobs = cluster
    config = instance_of(values)["run_launcher"]["config"]
    config |= {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
    taken = process_config(k8s.K8sRunLauncher.config_type(), config)
    assert taken.success and taken.value, taken.errors
    launcher = k8s.K8sRunLauncher.from_config_value(None, taken.value)
    launcher.register_instance(instance)

    pointer = ModuleCodePointer("edfi_dagster.definitions", "defs", None)
    location = RepositoryPythonOrigin("python", pointer, container_image=IMAGE, entry_point=["dagster"])
    origin = JobPythonOrigin("extract_and_load", location)
    run = create_run_for_test(instance, "extract_and_load", job_code_origin=origin)
    launcher.launch_run(LaunchRunContext(run, workspace=None))

    (job,) = jobs
    assert job["spec"]["backoffLimit"] == 0  # Dagster runs it again, and nobody else
    assert job["spec"]["ttlSecondsAfterFinished"] == 86_400
    pod = job["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "edfi-dagster"
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 120
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    assert container["envFrom"] == [{"secretRef": {"name": "edfi-dagster"}}]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert variables[HOSTS_VARIABLE] == "many"
    assert "DAGSTER_PG_PASSWORD" in variables
    assert container["resources"]["limits"]["memory"] == "2Gi"
    assert {"name": "spool", "mountPath": "/tmp"} in container["volumeMounts"]
    assert [volume["name"] for volume in pod["volumes"]] == ["spool"]
