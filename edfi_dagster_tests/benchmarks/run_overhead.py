"""What Dagster adds to a nightly delta: a run of every endpoint of which ten changed, with and without it.

    python -m edfi_dagster_tests.benchmarks.run_overhead

Two partitions of the embedded default are pulled whole and changed alike. The delta of one is run by the engine alone
(HTTP, load and nothing else), that of the other as a Dagster run; the difference is what the run costs besides.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import requests

from edfi_dagster.cli.runs import materialize_pair, open_instance
from edfi_dagster.config import Platform, TenantYear, embedded_platform
from edfi_dagster.config.embedded import SANDBOX_CLIENT_ID, SANDBOX_CLIENT_SECRET
from edfi_dagster.extract import Work, extract
from edfi_dagster.ods.catalogue import endpoints_of
from edfi_dagster.resources import open_job
from edfi_dagster.sandbox.embedded import open_sandbox

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


def engine(platform: Platform, pair: TenantYear) -> tuple[float, int]:
    """Seconds of the delta without Dagster, and how many endpoints changed."""
    endpoints = endpoints_of(platform, pair)
    started = time.perf_counter()
    with open_job(platform, pair, endpoints, tell=print, warn=print) as job:
        results = list(extract(job, [Work(endpoint) for endpoint in endpoints]))
    return time.perf_counter() - started, sum(result.table_changed for result in results)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        platform = embedded_platform(Path(folder))
        alone, by_dagster = platform.pairs()[:2]
        with open_sandbox(platform) as url:
            for pair in (alone, by_dagster):
                engine(platform, pair)
                change(url, pair)
            open_instance(platform).dispose()
            seconds_alone, changed = engine(platform, alone)
            started = time.perf_counter()
            report = materialize_pair(platform, by_dagster)
            seconds = time.perf_counter() - started
            with open_instance(platform) as instance:
                stats = instance.get_run_stats(report.run_id)
        inside = float(stats.end_time or 0) - float(stats.start_time or 0)
        print(f"endpoints that changed: {changed}, assets materialized: {len(report.assets)}")
        print(f"the delta without Dagster:           {seconds_alone:6.1f} s")
        print(
            f"the Dagster run, start to end:       {inside:6.1f} s  (besides HTTP and load: {inside - seconds_alone:.1f} s)"
        )
        print(
            f"with its planning, command to end:   {seconds:6.1f} s  (besides HTTP and load: {seconds - seconds_alone:.1f} s)"
        )


if __name__ == "__main__":
    main()
