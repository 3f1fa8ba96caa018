"""Where benchmarks play: one sandbox process, and child processes whose time, CPU and memory are taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

import requests
import yaml

from edfi_dagster.config.embedded import SANDBOX_CLIENT_ID, SANDBOX_CLIENT_SECRET

PEER = "edfi-api-client==0.4.1"
PAIR = ("grand_bend", 2025)
STANDARDS = {"5.3": "3.3", "6.1": "4.0", "7.1": "5.0", "7.3": "5.2"}
HERE = Path(__file__).parent
_START_SECONDS = 1800.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ods:
    """A sandbox of its own process, without a route prefix: ``url`` is its base URL."""

    url: str
    pid: int
    version: str

    def control(self, method: str, path: str, document: object = None) -> Any:
        answer = requests.request(method, f"{self.url}/_control/{path}", json=document, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def set_latency(self, milliseconds: float) -> None:
        """What every request waits besides being answered."""
        self.control("POST", "settings", {"latency": milliseconds / 1000})

    @property
    def newest(self) -> int:
        return int(self.control("GET", "summary")["newest"])

    def token(self) -> str:
        form = {
            "grant_type": "client_credentials",
            "client_id": SANDBOX_CLIENT_ID,
            "client_secret": SANDBOX_CLIENT_SECRET,
        }
        return str(requests.post(f"{self.url}/oauth/token", data=form, timeout=30).json()["access_token"])

    def forget_tokens(self) -> None:
        """Everyone begins without one; and a key may have no more than fifteen."""
        self.control("POST", "settings", {"expire_tokens": True})

    def pages_asked_for(self) -> list[str]:
        """Path and query of every data request since ``forget_requests``, as they came."""
        asked = self.control("GET", "requests")
        return [
            f"{one['path']}?{urlencode(one['query'])}"
            for one in asked
            if one["method"] == "GET" and one["status"] == 200 and "/data/v3/" in one["path"].lower()
        ]

    def forget_requests(self) -> None:
        self.control("DELETE", "requests")

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def serving(version: str, rows: Mapping[str, int], data: Path | None = None) -> Iterator[Ods]:
    """A sandbox of ``version``. With ``data`` its database stays in a folder there, to be found again."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        counts = ",".join(f"{name}={count}" for name, count in rows.items())
        command = [sys.executable, "-m", "edfi_dagster.sandbox", "--ods", "", "--ods-version", version]
        command += ["--rows", counts, "--port-file", str(port_file)]
        if data is not None:
            command += ["--data", str(data / f"{version}_{counts.replace('=', '_').replace(',', '_')}")]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not port_file.exists():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the sandbox did not start")
                time.sleep(0.1)
            yield Ods(f"http://127.0.0.1:{port_file.read_text()}", server.pid, version)
        finally:
            server.terminate()
            server.wait()


@dataclass(frozen=True)
class Outcome:
    """What a child said of its work, without its start: seconds, CPU seconds (user and system), rows.

    ``memory_kb`` is its resident memory at seconds of that time, ``idle_kb`` the one before.
    """

    seconds: float
    cpu: float
    rows: int
    idle_kb: int = 0
    memory_kb: tuple[tuple[float, int], ...] = ()

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


def run(
    command: Sequence[str],
    *,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    every: float = 0.0,
) -> Outcome:
    """Run a child to its end, with a folder of its own for what is temporary.

    Its last line is JSON with seconds, cpu and rows; for its memory also with began and idle_kb. The memory is noted
    every so many seconds; ``began`` is of the monotonic clock, which processes share.
    """
    samples: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as temporary:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": temporary, **(environment or {})},
        )
        watching = threading.Thread(target=_watch, args=(child, every, samples))
        if every:
            watching.start()
        said, _ = child.communicate(stdin)
        if every:
            watching.join()
    if child.returncode:
        raise RuntimeError(f"{command[1:3]} failed with {child.returncode}")
    told = json.loads(said.strip().splitlines()[-1])
    began, seconds = told.get("began", 0.0), told["seconds"]
    during = tuple((at - began, resident) for at, resident in samples if 0 <= at - began <= seconds)
    return Outcome(seconds, told["cpu"], told["rows"], told.get("idle_kb", 0), during)


def _watch(child: subprocess.Popen[str], every: float, samples: list[tuple[float, int]]) -> None:
    while child.poll() is None:
        try:
            resident = resident_kb(child.pid)
        except (OSError, StopIteration):  # it ended meanwhile
            return
        samples.append((time.monotonic(), resident))
        time.sleep(every)


def resident_kb(pid: int | str = "self") -> int:
    """Resident memory of a process, in KB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def ours(ods: Ods, folder: Path, *options: str, in_flight: int, every: float = 0.0) -> Outcome:
    """Our client in a child; ``folder`` takes the configuration, what is pulled, and the warehouse."""
    ods.forget_tokens()
    config = write_config(ods, folder, max_concurrent_requests=in_flight)
    command = [sys.executable, "-m", "edfi_dagster_tests.benchmarks.ours", "--config", str(config), *options]
    return run(command, environment=credentials(), every=every)


def peer(python: Path, ods: Ods, *options: str) -> Outcome:
    """The peer at the same work, in a child of its own interpreter."""
    ods.forget_tokens()
    return run([str(python), str(HERE / "peer.py"), "--url", ods.url, *options], environment=credentials())


def bare(ods: Ods, pages: Sequence[str], rows: int, connections: int) -> Outcome:
    """The load generator: the bytes of ``pages`` over so many connections, and nothing done with them."""
    ods.forget_tokens()
    wanted = {
        "url": ods.url,
        "token": ods.token(),
        "pages": list(pages),
        "connections": connections,
        "rows": rows,
    }
    return run([sys.executable, str(HERE / "bare.py")], stdin=json.dumps(wanted))


def credentials() -> dict[str, str]:
    """The environment that the configuration reads key and secret from."""
    return {"BENCHMARK_KEY": SANDBOX_CLIENT_ID, "BENCHMARK_SECRET": SANDBOX_CLIENT_SECRET}


def write_config(ods: Ods, folder: Path, **extract: Any) -> Path:
    """``platform.yaml`` in ``folder`` for one tenant and year at the ODS, page size 500."""
    tenant, year = PAIR
    key, secret = ({"env": name} for name in credentials())
    document = {
        "lake": {"kind": "local", "root": "lake"},
        "warehouse": {"kind": "duckdb", "path": "warehouse.duckdb"},
        "extract": {
            "data_standard": STANDARDS[ods.version],
            "endpoint_defaults": {"page_size": 500},
            "get_key_changes": True,
            "change_version_overlap": 500,
            **extract,
        },
        "tenants": {
            tenant: {"years": {year: {"base_url": ods.url, "client_id": key, "client_secret": secret}}}
        },
    }
    path = folder / "platform.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def peer_python(given: Path | None) -> Path:
    """The interpreter that has the peer: the one given, else one made for it (once) beside other temporary files."""
    if given is not None:
        return given
    folder = Path(tempfile.gettempdir()) / PEER.replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", PEER], check=True)
        (folder / "ready").touch()
    return python


def middle(outcomes: Sequence[Outcome]) -> Outcome:
    """The medians of repeated runs."""
    return Outcome(
        median(outcome.seconds for outcome in outcomes),
        median(outcome.cpu for outcome in outcomes),
        outcomes[0].rows,
    )


def machine() -> str:
    """Where and when a figure was taken."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, load {load}, Python {sys.version.split()[0]}"
