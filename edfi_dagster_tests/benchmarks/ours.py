"""The child that pulls with our client, timed without the start of the process.

By default it does what ``edfi-dagster pull`` does, into a folder. With ``--load`` it does what a nightly run does:
records, deletes and key changes since the last run, into the lake and the warehouse.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edfi_dagster.cli.pull import PullRequest, run_pull
from edfi_dagster.config import Platform, TenantYear, parse_platform
from edfi_dagster.extract import Work, extract
from edfi_dagster.ods.catalogue import endpoints_of, find_endpoints
from edfi_dagster.resources import open_job
from edfi_dagster_tests.benchmarks.stage import PAIR, resident_kb

_PAIR = TenantYear(*PAIR)


def pull(platform: Platform, given: argparse.Namespace) -> int:
    """The rows that ``edfi-dagster pull`` brings of every kind asked for."""
    rows = 0
    for kind in given.kind or ["records"]:
        request = PullRequest(platform, _PAIR, given.endpoints, kind, given.low, None, None)
        manifests, failures = run_pull(request, given.config.parent / "pulled")
        if failures:
            raise SystemExit("\n".join(failures))
        rows += sum(manifest["rows"] for manifest in manifests)
    return rows


def load(platform: Platform, given: argparse.Namespace) -> int:
    """The rows that a run brings into the raw tables."""
    endpoints = tuple(find_endpoints(given.endpoints, endpoints_of(platform, _PAIR)))
    with open_job(platform, _PAIR, endpoints, tell=_silent, warn=print) as job:
        results = list(extract(job, [Work(endpoint) for endpoint in endpoints]))
    if failures := [cause for result in results for cause in result.failures.values()]:
        raise SystemExit("\n".join(failures))
    return sum(result.rows_inserted for result in results)


def _silent(_: str) -> None:
    """Nobody watches."""


def timed(work: Callable[[], int]) -> dict[str, float]:
    idle = resident_kb()
    began, cpu = time.monotonic(), time.process_time()
    rows = work()
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return {"began": began, "seconds": seconds, "cpu": cpu, "rows": rows, "idle_kb": idle}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--endpoints", required=True, type=lambda text: text.split(","))
    parser.add_argument("--kind", action="append", choices=["records", "deletes", "key_changes"])
    parser.add_argument("--low", type=int)
    parser.add_argument("--load", action="store_true")
    given = parser.parse_args()
    config = given.config
    platform = parse_platform(config.read_text(), str(config), config.parent)
    print(json.dumps(timed(partial(load if given.load else pull, platform, given))))


if __name__ == "__main__":
    main()
