"""A night's delta of 150 resources with their deletes and key changes, ten of them changed, against the peer.

    python -m edfi_dagster_tests.benchmarks.nightly

The peer pulls one collection after the other into temporary files, as the Airflow project's bulk operator does. Ours is
measured twice: pulling into a folder, which is the same work, and as a run does it, which also loads the warehouse,
moves the watermarks, and reads again what the overlap behind the last version holds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import requests

from edfi_dagster.config import TenantYear, parse_platform
from edfi_dagster.ods.catalogue import endpoints_of
from edfi_dagster_tests.benchmarks.stage import (
    PAIR,
    Ods,
    Outcome,
    machine,
    middle,
    ours,
    peer,
    peer_python,
    serving,
    write_config,
)

CHANGED = {
    "ed-fi/students": "lastSurname",
    "ed-fi/staffs": "lastSurname",
    "ed-fi/schools": "nameOfInstitution",
    "ed-fi/localEducationAgencies": "nameOfInstitution",
    "ed-fi/educationServiceCenters": "nameOfInstitution",
    "ed-fi/stateEducationAgencies": "nameOfInstitution",
    "ed-fi/courses": "courseTitle",
    "ed-fi/assessments": "assessmentTitle",
    "ed-fi/surveys": "surveyTitle",
    "ed-fi/programs": "programId",
}
"""A field that may change without changing the key, by resource."""
KINDS = ("--kind", "records", "--kind", "deletes", "--kind", "key_changes")


def resources_of(ods: Ods, folder: Path, number: int) -> list[str]:
    """So many resources that have deletes and key changes, those to be changed among them."""
    config = write_config(ods, folder)
    platform = parse_platform(config.read_text(), str(config), folder)
    offered = [
        endpoint.path
        for endpoint in endpoints_of(platform, TenantYear(*PAIR))
        if endpoint.has_changes and not endpoint.is_descriptor
    ]
    others = [path for path in offered if path not in CHANGED]
    return [*CHANGED, *others][:number]


def change(ods: Ods) -> None:
    """Change one record of each of ten resources."""
    headers = {"Authorization": f"Bearer {ods.token()}"}
    for path, field in CHANGED.items():
        address = f"{ods.url}/data/v3/{path}"
        record = requests.get(address, params={"limit": "1"}, headers=headers, timeout=30).json()[0]
        body = {k: v for k, v in record.items() if k not in {"_etag", "_lastModifiedDate"}}
        body[field] = f"{str(record[field])[:15]} {ods.newest}"
        requests.put(f"{address}/{record['id']}", json=body, headers=headers, timeout=30).raise_for_status()


def compare(ods: Ods, given: argparse.Namespace, python: Path, folder: Path) -> None:
    resources = resources_of(ods, folder, given.resources)
    asked = ("--endpoints", ",".join(resources))
    ours(ods, folder, *asked, "--load", in_flight=given.in_flight)
    runs: dict[str, list[Outcome]] = {"ours, pulled": [], "ours, loaded": [], "edfi-api-client": []}
    for turn in range(given.repeats):
        low = ods.newest
        change(ods)
        since = (*asked, "--low", str(low), *KINDS)
        contenders: dict[str, Callable[[], Outcome]] = {
            "ours, pulled": lambda since=since: _pulled(ods, given.in_flight, *since),  # type: ignore[misc]
            "ours, loaded": lambda: ours(ods, folder, *asked, "--load", in_flight=given.in_flight),
            "edfi-api-client": lambda since=since: peer(python, ods, *since),  # type: ignore[misc]
        }
        ods.set_latency(given.latency)
        for name in list(contenders) if turn % 2 == 0 else reversed(contenders):
            runs[name].append(contenders[name]())
        ods.set_latency(0)
    report(ods.version, {name: middle(outcomes) for name, outcomes in runs.items()}, len(resources))


def _pulled(ods: Ods, in_flight: int, *options: str) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        return ours(ods, Path(folder), *options, in_flight=in_flight)


def report(version: str, medians: dict[str, Outcome], resources: int) -> None:
    pulled, loaded, other = medians.values()
    print(f"  {version}  {resources} resources, their deletes and key changes, {len(CHANGED)} changed")
    for name, outcome in medians.items():
        print(
            f"  {version}  {name:16s} {outcome.seconds:7.2f} s, {outcome.cpu:6.2f} s of CPU, {outcome.rows} rows"
        )
    if pulled.rows != other.rows or loaded.rows < len(CHANGED):
        raise SystemExit("not the same rows")
    print(f"  {version}  time against the peer, pulled: {pulled.seconds / other.seconds:.3f} (0.167 at most)")
    print(f"  {version}  time against the peer, loaded: {loaded.seconds / other.seconds:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", default="7.3", type=lambda text: text.split(","))
    parser.add_argument("--resources", type=int, default=150)
    parser.add_argument("--latency", type=float, default=50.0, help="milliseconds per request")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has edfi-api-client")
    given = parser.parse_args()
    python = peer_python(given.peer_python)
    print(f"{given.latency:g} ms, {given.in_flight} in flight, {machine()}; medians of {given.repeats}")
    for version in given.versions:
        with serving(version, {}) as ods, tempfile.TemporaryDirectory() as folder:
            compare(ods, given, python, Path(folder))
    print(machine())


if __name__ == "__main__":
    main()
