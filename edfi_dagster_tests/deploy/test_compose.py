"""The files for one host: everything they name is there, and the services start and run without Docker as well."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from edfi_dagster.deploy import write_deployment
from edfi_dagster_tests.automation.postgres import find_binaries, running_postgres
from edfi_dagster_tests.deploy.hosts import started

BIN = Path(sys.executable).parent
SERVICES = ("code", "webserver", "daemon")
PLACES = ("/opt/dagster/dagster_home", "/opt/dagster/logs")
START_SECONDS = 300.0
VERSION = "{ version repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_deployment(tmp_path / "deploy", "compose")
    return tmp_path / "deploy"


def compose(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "docker-compose.yaml").read_text())
    return found


def named(folder: Path) -> set[str]:
    """The variables that ``.env.example`` lists."""
    return set(re.findall(r"^([A-Z_0-9]+)=", (folder / ".env.example").read_text(), re.MULTILINE))


def test_variables_are_those_that_the_example_lists(folder: Path) -> None:
    text = (folder / "docker-compose.yaml").read_text()
    in_compose = set(re.findall(r"(?<!\$)\$\{(\w+)\}", text))
    in_instance = set(re.findall(r"env: (\w+)", (folder / "dagster.yaml").read_text()))
    assert in_compose | in_instance == named(folder)
    assert (
        re.findall(r"^\w*(?:PASSWORD|SECRET|KEY)=.+", (folder / ".env.example").read_text(), re.MULTILINE)
        == []
    )


def test_files_volumes_and_ports(folder: Path) -> None:
    document = compose(folder)
    services = document["services"]
    assert set(services) == {"postgres", *SERVICES}
    for name in SERVICES:
        sources = [volume.split(":")[0] for volume in services[name]["volumes"]]
        for source in sources:
            is_file = source.startswith("./")
            assert (folder / source).is_file() if is_file else source in document["volumes"]
        build = services[name]["build"]
        assert (folder / build["context"] / build["dockerfile"]).is_file()
        # Services of one file see it change only together.
        assert services[name]["image"] == services["code"]["image"]
    assert services["webserver"]["ports"] == ["127.0.0.1:3000:3000"]
    assert [name for name in services if "ports" in services[name]] == ["webserver"]
    (location,) = yaml.safe_load((folder / "workspace.yaml").read_text())["load_from"]
    assert location["grpc_server"]["host"] == "code"
    assert f" -p {location['grpc_server']['port']} " in services["code"]["command"][-1]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_services_start_as_they_stand_there(folder: Path, tmp_path: Path) -> None:
    """Postgres, code server, webserver and daemon, with ports and folders of the test's in place of the containers'."""
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no Postgres server on this machine")
    home = tmp_path / "home"
    home.mkdir()
    ports = {"4000": str(free_port()), "3000": str(free_port())}
    for name in ("dagster.yaml", "workspace.yaml"):
        text = (folder / name).read_text().replace("host: code", "host: 127.0.0.1")
        text = text.replace("4000", ports["4000"]).replace(PLACES[1], str(tmp_path / "logs"))
        (home / name).write_text(text)
    services = compose(folder)["services"]
    here = {**ports, PLACES[0]: str(home), "0.0.0.0": "127.0.0.1"}
    commands = {name: [_replaced(word, here) for word in services[name]["command"]] for name in SERVICES}
    with ExitStack() as running, running_postgres(binaries) as database:
        path = f"{BIN}:{os.environ['PATH']}"
        environment = {**database, "DAGSTER_HOME": str(home), "EDFI_DAGSTER_CONFIG": "", "PATH": path}
        assert set(database) == named(folder)
        processes = {}
        for name in SERVICES:  # the code server first, as the others wait for its health
            process = started(commands[name], tmp_path, {**os.environ, **environment}, log=f"{name}.log")
            processes[name] = running.enter_context(process)
            if name == "code":
                health = services[name]["healthcheck"]["test"][1:]
                _until(partial(_succeeds, [_replaced(word, here) for word in health]), processes)
        url = f"http://127.0.0.1:{ports['3000']}/graphql"
        assert _repositories(url, processes) == ["__repository__"]
        assert _healthy_daemons(url, processes) >= {
            "QUEUED_RUN_COORDINATOR",
            "SCHEDULER",
            "SENSOR",
            "MONITORING",
        }
    shutil.rmtree(home)


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run([BIN / command[0], *command[1:]], capture_output=True, check=False).returncode == 0


def _replaced(word: str, here: Mapping[str, str]) -> str:
    for there, place in here.items():
        word = word.replace(there, place)
    return word


def _repositories(url: str, processes: Mapping[str, subprocess.Popen[bytes]]) -> list[str]:
    """The repositories that the webserver sees, as soon as it sees any."""

    def ask() -> list[str]:
        found = requests.post(url, json={"query": VERSION}, timeout=30).json()["data"]
        return [node["name"] for node in found["repositoriesOrError"]["nodes"]]

    found: list[str] = _until(ask, processes)
    return found


def _healthy_daemons(url: str, processes: Mapping[str, subprocess.Popen[bytes]]) -> set[str]:
    query = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"

    def ask() -> set[str]:
        found = requests.post(url, json={"query": query}, timeout=30).json()["data"]["instance"][
            "daemonHealth"
        ]
        wanted = [status for status in found["allDaemonStatuses"] if status["required"]]
        return {s["daemonType"] for s in wanted} if all(s["healthy"] for s in wanted) else set()

    found: set[str] = _until(ask, processes)
    return found


def _until(ask: Any, processes: Mapping[str, subprocess.Popen[bytes]]) -> Any:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        ended = {name: process.poll() for name, process in processes.items()}
        assert ended == dict.fromkeys(processes)
        try:
            if found := ask():
                return found
        except (requests.ConnectionError, KeyError, TypeError):
            pass  # not up yet
        time.sleep(0.5)
    raise AssertionError(f"not there after {START_SECONDS:.0f} s")
