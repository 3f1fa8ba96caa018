"""A bundle's run beside Earthmover alone over the same file: seconds, processor time, memory; then four files at once.

    python -m edfi_dagster_tests.benchmarks.bundle_overhead

Both are whole processes, from the command line to their end. Ours reads the configuration, starts Dagster, archives the
file and what was made of it, counts, and writes the run log; it sends nothing, as Earthmover does not. Memory is the sum
over a process and its children, sampled. ``the run itself`` leaves out what every command pays for once: the interpreter,
Dagster, its instance.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import yaml

from edfi_dagster.config.load import parse_platform
from edfi_dagster.earthbeam import BundleJob, run_bundle
from edfi_dagster.earthbeam.process import find_tool, scrubbed_environment
from edfi_dagster.lake.store import open_lake
from edfi_dagster.warehouse.opening import open_warehouse
from edfi_dagster_tests.bench import PAIR
from edfi_dagster_tests.benchmarks.stage import machine
from edfi_dagster_tests.earthbeam.conftest import DEMO, HEADER

_EVERY_SECONDS = 0.1


@dataclass(frozen=True)
class Cost:
    """Of a process and all that it started: seconds by the clock, seconds of processors, megabytes at most."""

    seconds: float
    cpu: float
    megabytes: float


def measured(argv: Sequence[str], folder: Path) -> Cost:
    """Run a command in ``folder``. Raises RuntimeError where it fails."""
    started, most = time.monotonic(), 0
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, env=scrubbed_environment(folder), stdout=log, stderr=log)
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            most = max(most, sum(_resident_kb(one) for one in family(process.pid)))
            time.sleep(_EVERY_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(
            f"{argv[0]} ended with {process.returncode}: {(folder / 'log').read_text()[-2000:]}"
        )
    return Cost(time.monotonic() - started, used.ru_utime + used.ru_stime, most / 1024)


def family(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def _resident_kb(pid: int) -> int:
    try:
        lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def bare(file: Path, room: Path) -> list[str]:
    """Earthmover's command over a copy of the bundle in ``room``."""
    shutil.copytree(DEMO, room / "bundle", dirs_exist_ok=True)
    told = {"INPUT_FILE": str(file), "API_YEAR": "2025", "OUTPUT_DIR": str(room / "output")}
    config = str(room / "bundle" / "earthmover.yaml")
    return [find_tool("earthmover"), "run", "-c", config, "-k", "-p", json.dumps(told)]


def ours(file: Path, config: Path) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "edfi_dagster.cli",
        "--config",
        str(config),
        "bundle",
        "run",
        "riverbend",
    ]
    return [*command, "--tenant", "grand_bend", "--year", "2025", "--input", f"INPUT_FILE={file}"]


def write_platform(folder: Path) -> Path:
    year = {"base_url": "http://127.0.0.1:9/api", "client_id": {"env": "A"}, "client_secret": {"env": "B"}}
    document = {
        "lake": {"kind": "local", "root": "lake"},
        "warehouse": {"kind": "duckdb", "path": "warehouse.duckdb"},
        "extract": {"resources": {"students": {}}, "descriptors": "none", "data_standard": "5.2"},
        "tenants": {"grand_bend": {"years": {2025: year}}},
        "earthbeam": {"bundles": {"riverbend": {"path": str(DEMO), "destination": "none"}}},
    }
    file = folder / "platform.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def write_file(file: Path, rows: int) -> Path:
    lines = (f"{number},Doe,Jo,03,09/12/2024,{number % 180},{number % 10}" for number in range(rows))
    file.write_text("\n".join([HEADER, *lines]) + "\n")
    return file


def side_by_side(rows: int, rounds: int, folder: Path) -> None:
    """Both over the same file, in turn."""
    config = write_platform(folder)
    found: dict[str, list[Cost]] = {"earthmover": [], "edfi-dagster": []}
    for number in range(rounds):
        room = folder / f"bare{number}"
        room.mkdir()
        file = write_file(folder / f"{number}.csv", rows + number)
        found["earthmover"].append(measured(bare(file, room), room))
        found["edfi-dagster"].append(measured(ours(file, config), folder))
        shutil.rmtree(room)
    best = {name: min(costs, key=lambda cost: cost.seconds) for name, costs in found.items()}
    for name, cost in best.items():
        print(f"  {name:13} {cost.seconds:6.1f} s  {cost.cpu:6.1f} s of processors  {cost.megabytes:5.0f} MB")
    alone, with_us = best["earthmover"], best["edfi-dagster"]
    print(
        f"  overhead: {with_us.seconds / alone.seconds - 1:+.1%} of seconds, {with_us.cpu / alone.cpu - 1:+.1%} of "
        f"processors, {with_us.megabytes - alone.megabytes:+.0f} MB"
    )


def run_itself(rows: int, folder: Path) -> None:
    """One run in this process: its own time of processors beside that of its Earthmover."""
    config = write_platform(folder)
    platform = parse_platform(config.read_text(), str(config), folder)
    lake = open_lake(platform.lake)
    file = write_file(folder / "itself.csv", rows)
    with closing(open_warehouse(platform, lake, print)) as warehouse:
        job = BundleJob(platform, PAIR, "riverbend", lake, warehouse, inputs={"INPUT_FILE": file})
        own, children = time.process_time(), _of_children()
        result = run_bundle(job)
    own, children = time.process_time() - own, _of_children() - children
    assert result.failure is None
    print(
        f"  the run itself: {own:.2f} s of processors beside Earthmover's {children:.1f}, {own / children:+.1%}"
    )


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def at_once(rows: int, files: int, folder: Path) -> None:
    """Several runs started together; how many Earthmovers there were at most."""
    config = write_platform(folder)
    (folder / "at_once").mkdir()
    started, most = time.monotonic(), 0
    running = []
    for number in range(files):
        file = write_file(folder / "at_once" / f"{number}.csv", rows + number)
        running.append(
            subprocess.Popen(
                ours(file, config), cwd=folder, env=scrubbed_environment(folder), stdout=subprocess.DEVNULL
            )
        )
    while any(process.poll() is None for process in running):
        alive = [one for process in running for one in family(process.pid)]
        most = max(most, sum(_is_earthmover(one) for one in alive))
        time.sleep(_EVERY_SECONDS)
    codes = [process.wait() for process in running]
    print(
        f"  {files} files at once: {time.monotonic() - started:.1f} s, at most {most} Earthmovers, exit codes {codes}"
    )


def _is_earthmover(pid: int) -> bool:
    try:
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.endswith(b"/earthmover") for word in words[:2]) and b"run" in words


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--files", type=int, default=4)
    given = parser.parse_args()
    print(f"{given.rows:,} rows, the demo's bundle, {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        side_by_side(given.rows, given.rounds, Path(folder))
        run_itself(given.rows, Path(folder))
        at_once(given.rows // 10, given.files, Path(folder))


if __name__ == "__main__":
    main()
