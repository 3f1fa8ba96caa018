"""Whether the thousandth delta costs what the tenth did: Dagster runs of ten endpoints, one after the other, on one instance.

    python -m edfi_dagster_tests.benchmarks.soak --runs 2000

Before each run two records change. Every run is a Dagster run in this process on one SQLite instance, one lake and one
DuckDB file. At the start, the middle and the end it prints the seconds of a run (and of CPU), the memory and open files
of this process, what instance, lake and warehouse take on disk, and how long the lake takes to tell its stamps.
Then all runs but the last ones (``--kept``) are deleted from the instance, as a nightly job would, and one more delta is run.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import requests

from edfi_dagster.cli.runs import materialize_pair, open_instance
from edfi_dagster.config import Platform, TenantYear, parse_platform
from edfi_dagster.lake.manifest import latest_stamp, stamps
from edfi_dagster.lake.store import open_lake
from edfi_dagster_tests.benchmarks.stage import (
    PAIR,
    Ods,
    credentials,
    machine,
    resident_kb,
    serving,
    write_config,
)

ENDPOINTS = (
    "students",
    "staffs",
    "schools",
    "courses",
    "sessions",
    "sections",
    "locations",
    "grades",
    "studentSchoolAssociations",
    "studentSectionAssociations",
)
CHANGED = {"students": "lastSurname", "staffs": "lastSurname", "courses": "courseTitle"}
_TOKEN_SECONDS = 1500.0
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Sample:
    """After so many runs. Bytes in MB, times in seconds."""

    runs: int
    run: float
    cpu: float
    resident: float
    files: int
    instance: float
    lake: float
    warehouse: float
    latest: float
    listing: float

    def told(self) -> str:
        return (
            f"  after {self.runs:5d} runs: {self.run:5.2f} s a run, {self.cpu:4.2f} of CPU, {self.resident:4.0f} MB, "
            f"{self.files} open files; instance {self.instance:.1f} MB, lake {self.lake:.1f} MB, warehouse {self.warehouse:.1f} MB; "
            f"latest stamp {self.latest * 1e3:.1f} ms, all stamps {self.listing * 1e3:.0f} ms"
        )


class Soak:
    """One tenant and year, and the runs of it."""

    def __init__(self, ods: Ods, folder: Path) -> None:
        config = write_config(
            ods,
            folder,
            resources={name: {} for name in ENDPOINTS},
            descriptors="none",
            change_version_overlap=50,
        )
        self.platform: Platform = parse_platform(config.read_text(), str(config), folder)
        self.pair = TenantYear(*PAIR)
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self._ods, self._folder = ods, folder
        self._token, self._good_until = "", 0.0
        self._records = {name: self._pages(name) for name in CHANGED}

    def _pages(self, endpoint: str) -> list[dict[str, object]]:
        url = f"{self._ods.url}/data/v3/ed-fi/{endpoint}"
        answer = requests.get(url, {"limit": "100"}, headers=self._headers(), timeout=30)
        found: list[dict[str, object]] = answer.json()
        return found

    def _headers(self) -> dict[str, str]:
        """With a token that is kept as long as it lives: a key may have no more than fifteen."""
        if time.monotonic() > self._good_until:
            self._token, self._good_until = self._ods.token(), time.monotonic() + _TOKEN_SECONDS
        return {"Authorization": f"Bearer {self._token}"}

    def change(self, number: int) -> None:
        """Change two records, never twice the same way."""
        for endpoint in list(CHANGED)[number % 2 :][:2]:
            record = self._records[endpoint][number % len(self._records[endpoint])]
            body = {k: v for k, v in record.items() if k not in {"_etag", "_lastModifiedDate"}}
            body[CHANGED[endpoint]] = f"changed {number}"
            url = f"{self._ods.url}/data/v3/ed-fi/{endpoint}/{record['id']}"
            requests.put(url, json=body, headers=self._headers(), timeout=30).raise_for_status()

    def run(self) -> None:
        started, worked = time.perf_counter(), time.process_time()
        report = materialize_pair(self.platform, self.pair, terse=False)
        self.seconds.append(time.perf_counter() - started)
        self.cpu.append(time.process_time() - worked)
        assert report.success, report.failure
        assert len(report.assets) >= 2, "a change was not seen"

    def sample(self, over: int) -> Sample:
        """Where the runs stand; the seconds of a run are medians of the last ``over``."""
        lake = open_lake(self.platform.lake)
        started = time.perf_counter()
        latest_stamp(lake, self.pair)
        latest = time.perf_counter() - started
        started = time.perf_counter()
        found = stamps(lake, self.pair)
        listing = time.perf_counter() - started
        assert len(found) == len(self.seconds)
        gc.collect()
        return Sample(
            runs=len(self.seconds),
            run=median(self.seconds[-over:]),
            cpu=median(self.cpu[-over:]),
            resident=resident_kb() / 1024,
            files=len(list(Path("/proc/self/fd").iterdir())),
            instance=_size(Path(os.environ["DAGSTER_HOME"])),
            lake=_size(self._folder / "lake"),
            warehouse=_size(self._folder / "warehouse.duckdb"),
            latest=latest,
            listing=listing,
        )

    def purge(self, kept: int) -> None:
        """Delete all runs but the newest from the instance: what Dagster leaves to whoever keeps it.

        SQLite gives no room back: there the run's file of events and its folder of logs must go as well.
        """
        home = Path(os.environ["DAGSTER_HOME"])
        with open_instance(self.platform) as instance:
            runs = [run.run_id for run in instance.get_runs()]
            before, started = _size(home), time.perf_counter()
            for run_id in runs[kept:]:
                instance.delete_run(run_id)
            seconds = time.perf_counter() - started
            left, emptied = instance.get_runs_count(), _size(home)
        for run_id in runs[kept:]:
            for file in (home / "history" / "runs").glob(f"{run_id}.db*"):
                file.unlink()
            shutil.rmtree(home / "storage" / run_id, ignore_errors=True)
        print(
            f"  purge: {len(runs)} runs to {left} in {seconds:.1f} s, instance {before:.1f} MB to {emptied:.1f} MB, "
            f"without their files {_size(home):.1f} MB"
        )


def _size(place: Path) -> float:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(file.stat().st_size for file in files) / _MEGABYTE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--kept", type=int, default=100, help="runs that stay in the instance")
    given = parser.parse_args()
    print(f"{given.runs} runs of {len(ENDPOINTS)} endpoints, {machine()}")
    with serving("7.3", {"students": 100}) as ods, tempfile.TemporaryDirectory() as named:
        folder = Path(named)
        (folder / "instance").mkdir()
        (folder / "instance" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        os.environ |= {**credentials(), "DAGSTER_HOME": str(folder / "instance")}
        soak = Soak(ods, folder)
        every = max(1, given.runs // given.samples)
        for number in range(given.runs):
            soak.change(number)
            soak.run()
            if number + 1 == min(10, every) or (number + 1) % every == 0:
                print(soak.sample(min(every, 50)).told(), flush=True)
        soak.purge(given.kept)
        soak.change(given.runs)
        soak.run()
        print(soak.sample(1).told())
    print(machine())


if __name__ == "__main__":
    main()
