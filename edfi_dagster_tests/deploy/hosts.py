"""Hosts of one instance as far as processes are: each a code server with a home and a temporary folder of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import dagster as dg
import yaml
from dagster._cli.job import execute_launch_command
from dagster._cli.workspace.cli_target import RepositoryOpts
from dagster._core.definitions.partitions.utils.multi import get_tags_from_multi_partition_key
from dagster._core.instance.ref import InstanceRef
from dagster_shared.cli import WorkspaceOpts

from edfi_dagster.assets.keys import partition_key
from edfi_dagster.automation.jobs import EXTRACT_JOB
from edfi_dagster.automation.run_history import definition_tags
from edfi_dagster.config import TenantYear
from edfi_dagster.deploy import HOSTS_VARIABLE, write_deployment

BIN = Path(sys.executable).parent
PLACE_OF_LOGS = "/opt/dagster/logs"
START_SECONDS = 300.0
T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """A code server; ``folder`` is all of the disk it knows."""

    name: str
    folder: Path
    port: int

    def answers(self) -> bool:
        """Whether its code is loaded."""
        command = [BIN / "dagster", "api", "grpc-health-check", "-p", str(self.port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def environment(self, shared: Mapping[str, str]) -> dict[str, str]:
        own = {"HOME": "home", "TMPDIR": "tmp", "DAGSTER_HOME": "dagster_home"}
        for place in own.values():
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        places = {name: str(self.folder / place) for name, place in own.items()}
        return {**os.environ, **shared, **places, HOSTS_VARIABLE: "many"}


def make_host(folder: Path, name: str, config: str) -> Host:
    """A host with a copy of the configuration, as its image would have it."""
    (folder / name).mkdir()
    (folder / name / "edfi_dagster.yaml").write_text(config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return Host(name, folder / name, int(free.getsockname()[1]))


@contextmanager
def serving(host: Host, shared: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The host's code server, ended with the block."""
    options = [
        "-h",
        "127.0.0.1",
        "-p",
        str(host.port),
        "-m",
        "edfi_dagster.definitions",
        "--location-name",
        host.name,
    ]
    with started([BIN / "dagster", "api", "grpc", *options], host.folder, host.environment(shared)) as server:
        yield server


def write_instance(folder: Path, hosts: Sequence[Host]) -> Path:
    """DAGSTER_HOME of who launches: the compose deployment's instance, and a workspace of the hosts."""
    folder.mkdir()
    write_deployment(folder, "compose")
    instance = folder / "dagster.yaml"
    instance.write_text(instance.read_text().replace(PLACE_OF_LOGS, str(folder / "logs")))
    locations = [
        {"grpc_server": {"host": "127.0.0.1", "port": host.port, "location_name": host.name}}
        for host in hosts
    ]
    (folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": locations}))
    return folder


@contextmanager
def daemon(home: Path, shared: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon: it takes runs from the queue, and runs crashed ones again."""
    environment = {**os.environ, **shared, "DAGSTER_HOME": str(home)}
    command = [BIN / "dagster-daemon", "run", "-w", str(home / "workspace.yaml")]
    with started(command, home, environment) as process:
        yield process


@contextmanager
def started(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], *, log: str = "log"
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a folder, what it says in ``log`` there; told to end after the block, and killed if it does not."""
    with (folder / log).open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, env=dict(environment), stdout=said, stderr=said)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Launchpad:
    """The instance as an operator has it: launches runs on a host, and looks at them."""

    def __init__(self, home: Path) -> None:
        self.instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home)))
        self._workspace = str(home / "workspace.yaml")

    def close(self) -> None:
        self.instance.dispose()

    def submit(self, host: Host, pair: TenantYear) -> str:
        """Queue a run of the pair, as ``dagster job launch`` does; its id."""
        key = partition_key(pair)
        tags = {
            **definition_tags(pair),
            **get_tags_from_multi_partition_key(key),
            "dagster/partition": str(key),
        }
        with warnings.catch_warnings():
            # Dagster warns of the tags that it gives to runs of two-dimensional partitions itself.
            warnings.filterwarnings("ignore", "Non-compliant tag keys", DeprecationWarning)
            run = execute_launch_command(
                instance=self.instance,
                workspace_opts=WorkspaceOpts(workspace=(self._workspace,)),
                repository_opts=RepositoryOpts(location=host.name),
                job_name=EXTRACT_JOB,
                tags=json.dumps(tags),
            )
        return str(run.run_id)

    def records(self) -> list[dg.RunRecord]:
        return list(self.instance.get_run_records())

    def process_of(self, run_id: str) -> int:
        """The number of the process that runs it; 0 before it has started."""
        for entry in self.instance.all_logs(run_id):
            event = entry.dagster_event
            metadata = event.engine_event_data.metadata if event and event.is_engine_event else {}
            if "pid" in metadata:
                return int(str(metadata["pid"].value))
        return 0


def until(ask: Callable[[], T], *, seconds: float = START_SECONDS, what: str) -> T:
    """What ``ask`` answers, as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := ask():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not after {seconds:.0f} s")
