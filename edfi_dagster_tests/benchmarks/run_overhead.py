"""What Dagster adds to a nightly delta: 150 resources with their deletes, key changes and tables, of which ten changed.

    python -m edfi_dagster_tests.benchmarks.run_overhead [--postgres]

Two partitions of the embedded default are pulled whole and changed alike. The delta of one is run by the engine alone
(HTTP, load and nothing else), that of the other as a Dagster run, with everything selected and then, after another
change, with only what changed, as ``run_type: dynamic`` launches it. The difference is what the run costs besides.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import requests
import yaml

from edfi_dagster.cli.runs import materialize_pair, open_instance
from edfi_dagster.config import Platform, TenantYear, embedded_platform
from edfi_dagster.config.embedded import SANDBOX_CLIENT_ID, SANDBOX_CLIENT_SECRET
from edfi_dagster.extract import Work, extract
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of
from edfi_dagster.resources import open_job
from edfi_dagster.sandbox.embedded import open_sandbox
from edfi_dagster_tests.automation.postgres import find_binaries, running_postgres
from edfi_dagster_tests.benchmarks.stage import machine

CHANGED = {
    "students": "lastSurname",
    "staffs": "lastSurname",
    "contacts": "lastSurname",
    "schools": "nameOfInstitution",
    "localEducationAgencies": "nameOfInstitution",
    "educationServiceCenters": "nameOfInstitution",
    "stateEducationAgencies": "nameOfInstitution",
    "courses": "courseTitle",
    "assessments": "assessmentTitle",
    "surveys": "surveyTitle",
}


def change(url: str, pair: TenantYear) -> None:
    """Change one record of each of ten endpoints."""
    base = f"{url}/{pair.tenant}/{pair.year}"
    form = {
        "grant_type": "client_credentials",
        "client_id": SANDBOX_CLIENT_ID,
        "client_secret": SANDBOX_CLIENT_SECRET,
    }
    token = requests.post(f"{base}/oauth/token", data=form, timeout=30).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    for endpoint, field in CHANGED.items():
        address = f"{base}/data/v3/ed-fi/{endpoint}"
        record = requests.get(address, params={"limit": "1"}, headers=headers, timeout=30).json()[0]
        body = {k: v for k, v in record.items() if k not in {"_etag", "_lastModifiedDate"}}
        body[field] = f"{record[field]} x"
        requests.put(f"{address}/{record['id']}", json=body, headers=headers, timeout=30).raise_for_status()


def engine(platform: Platform, pair: TenantYear, endpoints: Sequence[Endpoint]) -> tuple[float, list[str]]:
    """Seconds of the delta without Dagster, and which endpoints changed."""
    started = time.perf_counter()
    with open_job(platform, pair, endpoints_of(platform, pair), tell=quiet, warn=quiet) as job:
        results = list(extract(job, [Work(endpoint) for endpoint in endpoints]))
    return time.perf_counter() - started, [r.endpoint.path for r in results if r.table_changed]


def quiet(_: str) -> None:
    """Nobody watches."""


def compare(platform: Platform, url: str, number: int) -> None:
    alone, by_dagster = platform.pairs()[:2]
    resources = [e for e in endpoints_of(platform, alone) if e.has_changes and not e.is_descriptor]
    named = [e for e in resources if e.name in CHANGED]
    chosen = [*named, *(e for e in resources if e not in named)][:number]
    for pair in (alone, by_dagster):
        engine(platform, pair, chosen)
    open_instance(platform).dispose()
    selections = {"everything selected": [e.path for e in chosen], "what changed": [e.path for e in named]}
    for name, selected in selections.items():
        for pair in (alone, by_dagster):
            change(url, pair)
        seconds_alone, changed = engine(platform, alone, [e for e in chosen if e.path in selected])
        started = time.perf_counter()
        report = materialize_pair(platform, by_dagster, endpoints=selected)
        seconds = time.perf_counter() - started
        assert report.success, report.failure
        with open_instance(platform) as instance:
            stats = instance.get_run_stats(report.run_id)
            events = len(instance.all_logs(report.run_id))
        inside = float(stats.end_time or 0) - float(stats.start_time or 0)
        print(
            f"  {name}: {len(selected)} endpoints, {len(changed)} changed, {len(report.assets)} materializations, {events} events"
        )
        print(
            f"    without Dagster {seconds_alone:.1f} s; inside the run {inside:.1f} s: {inside - seconds_alone:.1f} s besides"
        )
        print(
            f"    command to end, planning included {seconds:.1f} s: {seconds - seconds_alone:.1f} s besides"
        )


@contextmanager
def on_postgres(folder: Path) -> Iterator[None]:
    """DAGSTER_HOME with an instance on a new Postgres."""
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit(
            "no Postgres server on this machine: neither initdb on PATH nor /usr/lib/postgresql/*/bin"
        )
    with running_postgres(binaries) as environment:
        document = {
            "scheme": "postgresql+psycopg2",
            "hostname": environment["DAGSTER_PG_HOST"],
            "port": int(environment["DAGSTER_PG_PORT"]),
            "username": environment["DAGSTER_PG_USERNAME"],
            "password": environment["DAGSTER_PG_PASSWORD"],
            "db_name": environment["DAGSTER_PG_DB"],
        }
        storage = {"storage": {"postgres": {"postgres_db": document}}}
        (folder / "dagster.yaml").write_text(yaml.safe_dump(storage))
        os.environ["DAGSTER_HOME"] = str(folder)
        try:
            yield
        finally:
            del os.environ["DAGSTER_HOME"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resources", type=int, default=150)
    parser.add_argument(
        "--postgres", action="store_true", help="events into a new Postgres instead of SQLite"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        platform = embedded_platform(Path(folder))
        print(f"{'Postgres' if given.postgres else 'SQLite'}, {machine()}")
        with on_postgres(Path(home)) if given.postgres else nullcontext(), open_sandbox(platform) as url:
            compare(platform, url, given.resources)


if __name__ == "__main__":
    main()
