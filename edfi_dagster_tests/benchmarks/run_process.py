"""What one run is for the machine it runs on and for Dagster's database: seconds to start, memory, rows and bytes.

    python -m edfi_dagster_tests.benchmarks.run_process

Every run is a process of its own, as it is in a pod, on a new Postgres and the sandbox of the embedded default, all
its endpoints: the first pull; a night on which nothing changed and one on which ten resources did, everything selected;
and the latter with only those selected, as ``run_type: dynamic`` launches it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import requests
import yaml

from edfi_dagster.cli.runs import open_instance
from edfi_dagster.config import Platform, TenantYear, embedded_platform
from edfi_dagster.sandbox.embedded import open_sandbox
from edfi_dagster_tests.automation.postgres import find_binaries, running_postgres
from edfi_dagster_tests.benchmarks.run_overhead import CHANGED, change
from edfi_dagster_tests.benchmarks.stage import machine

LOAD = "import edfi_dagster.definitions as location; location.defs().get_repository_def()"
TABLES = ("event_logs", "runs", "run_tags", "asset_event_tags")


@dataclass(frozen=True)
class Process:
    """How long a process took, seconds of CPU, its largest memory in MB, and what it said."""

    seconds: float
    cpu: float
    peak: float
    said: str


def run(folder: Path, *command: str) -> Process:
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=said, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}: {text[-500:]}")
    return Process(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text)


class Database:
    """Dagster's Postgres from outside."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._options = {
            "host": environment["DAGSTER_PG_HOST"],
            "port": int(environment["DAGSTER_PG_PORT"]),
            "user": environment["DAGSTER_PG_USERNAME"],
            "password": environment["DAGSTER_PG_PASSWORD"],
            "dbname": environment["DAGSTER_PG_DB"],
        }

    def measured(self) -> dict[str, int]:
        """Rows by table, and ``bytes`` of all."""
        with closing(psycopg2.connect(**self._options)) as connection, connection.cursor() as cursor:
            found = {}
            for table in TABLES:
                cursor.execute(f"SELECT count(*) FROM {table}")
                found[table] = int(cursor.fetchone()[0])
            cursor.execute("SELECT pg_database_size(current_database())")
            return {**found, "bytes": int(cursor.fetchone()[0])}


@contextmanager
def database_of(home: Path) -> Iterator[Database]:
    """A new Postgres, and DAGSTER_HOME with an instance on it."""
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit(
            "no Postgres server on this machine: neither initdb on PATH nor /usr/lib/postgresql/*/bin"
        )
    with running_postgres(binaries) as environment:
        names = {"hostname": "HOST", "username": "USERNAME", "password": "PASSWORD", "db_name": "DB"}
        document: dict[str, Any] = {key: environment[f"DAGSTER_PG_{name}"] for key, name in names.items()}
        document |= {"scheme": "postgresql+psycopg2", "port": int(environment["DAGSTER_PG_PORT"])}
        (home / "dagster.yaml").write_text(
            yaml.safe_dump({"storage": {"postgres": {"postgres_db": document}}})
        )
        os.environ["DAGSTER_HOME"] = str(home)
        try:
            yield Database(environment)
        finally:
            del os.environ["DAGSTER_HOME"]


def measure(
    name: str, platform: Platform, url: str, pair: TenantYear, database: Database, *options: str
) -> None:
    requests_since(url, pair)
    before = database.measured()
    given = (
        "-m",
        "edfi_dagster.cli",
        "materialize",
        "--tenant",
        pair.tenant,
        "--year",
        str(pair.year),
        "--json",
    )
    process = run(platform.folder, *given, *options)
    after = database.measured()
    report = json.loads(process.said)
    with open_instance(platform) as instance:
        record = instance.get_run_record_by_id(report["run_id"])
    assert record and record.start_time and record.end_time
    planning = record.start_time - record.create_timestamp.timestamp()
    inside = record.end_time - record.start_time
    grown = {key: after[key] - before[key] for key in after}
    print(
        f"  {name}: {process.seconds:.1f} s, of these {planning:.1f} s planning and {inside:.1f} s inside the run; "
        f"{process.cpu:.1f} s of CPU; peak {process.peak:.0f} MB; {len(report['materialized'])} materializations; {len(requests_since(url, pair))} requests"
    )
    rows = ", ".join(f"{grown[table]} {table}" for table in TABLES)
    print(f"    Postgres: {rows}; {grown['bytes'] / 1024:.0f} kB")


def requests_since(url: str, pair: TenantYear) -> list[dict[str, Any]]:
    """The requests to the pair's ODS since this was asked last."""
    address = f"{url}/{pair.tenant}/{pair.year}/_control/requests"
    found: list[dict[str, Any]] = requests.get(address, timeout=30).json()
    requests.delete(address, timeout=30).raise_for_status()
    return [one for one in found if one["ods"] == str(pair)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        platform = embedded_platform(Path(folder))
        pair = platform.pairs()[0]
        print(machine())
        with database_of(Path(home)) as database, open_sandbox(platform) as url:
            loaded = run(platform.folder, "-c", LOAD)
            print(
                f"  code location loaded: {loaded.seconds:.1f} s, {loaded.cpu:.1f} s of CPU, peak {loaded.peak:.0f} MB"
            )
            open_instance(platform).dispose()
            measure("first pull", platform, url, pair, database)
            measure("night, nothing changed", platform, url, pair, database)
            change(url, pair)
            measure("night, ten changed", platform, url, pair, database)
            change(url, pair)
            only = ("--endpoints", ",".join(CHANGED))
            measure("night, ten changed and selected", platform, url, pair, database, *only)
        print(machine())


if __name__ == "__main__":
    main()
