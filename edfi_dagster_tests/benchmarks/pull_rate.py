"""Rows per second and CPU per row of a whole pull, against the peer and against the wire.

    python -m edfi_dagster_tests.benchmarks.pull_rate

All contenders take the same rows from the same sandbox process, in turns. The bare load generator fetches the very
requests that our pull sent, over as many connections; without latency it shows how fast the server can be.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from edfi_dagster_tests.benchmarks.stage import (
    Ods,
    Outcome,
    bare,
    machine,
    middle,
    ours,
    peer,
    peer_python,
    serving,
)

ENDPOINT = "studentSectionAttendanceEvents"
# One student of the sandbox has room for so many of them.
_ROWS_PER_STUDENT = 3_000


def rows_of(number: int) -> dict[str, int]:
    """What the sandbox must generate to have so many rows of the endpoint."""
    return {"students": max(120, number // _ROWS_PER_STUDENT), ENDPOINT: number}


def our_pull(ods: Ods, in_flight: int) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        return ours(ods, Path(folder), "--endpoints", ENDPOINT, in_flight=in_flight)


def compare(ods: Ods, given: argparse.Namespace, python: Path) -> None:
    ods.set_latency(given.latency)
    ods.forget_requests()
    our_pull(ods, given.in_flight)
    pages = ods.pages_asked_for()
    contenders: dict[str, Callable[[], Outcome]] = {
        f"ours, {given.in_flight} in flight": lambda: our_pull(ods, given.in_flight),
        "ours, 1 in flight": lambda: our_pull(ods, 1),
        "edfi-api-client": lambda: peer(python, ods, "--endpoints", ENDPOINT),
        f"bare, {given.in_flight} in flight": lambda: bare(ods, pages, given.rows, given.in_flight),
    }
    runs: dict[str, list[Outcome]] = {name: [] for name in contenders}
    for turn in range(given.repeats):
        names = list(contenders)
        for name in names if turn % 2 == 0 else reversed(names):
            runs[name].append(contenders[name]())
    ods.set_latency(0)
    ceiling = middle([bare(ods, pages, given.rows, given.in_flight) for _ in range(given.repeats)])
    report(ods.version, {name: middle(outcomes) for name, outcomes in runs.items()}, ceiling, len(pages))


def report(version: str, medians: dict[str, Outcome], ceiling: Outcome, requests: int) -> None:
    many, one, other, wire = medians.values()
    for name, outcome in medians.items():
        if outcome.rows != ceiling.rows:
            raise SystemExit(f"{name} read {outcome.rows} rows of {ceiling.rows}")
        print(
            f"  {version}  {name:20s} {outcome.rate:9,.0f} rows/s {outcome.seconds:7.2f} s "
            f"{outcome.cpu / outcome.rows * 1e6:7.1f} µs of CPU per row"
        )
    print(f"  {version}  {'the server alone':20s} {ceiling.rate:9,.0f} rows/s, {requests} requests")
    print(f"  {version}  rows/s against the peer, many in flight: {many.rate / other.rate:.2f} (6 wanted)")
    print(f"  {version}  rows/s against the peer, 1 in flight:    {one.rate / other.rate:.2f} (1 wanted)")
    cpu = many.cpu / other.cpu
    print(f"  {version}  CPU per row against the peer:            {cpu:.2f} (0.33 at most)")
    print(f"  {version}  CPU per row, 1 in flight:                {one.cpu / other.cpu:.2f}")
    print(f"  {version}  rows/s against the bare wire:            {many.rate / wire.rate:.2f} (0.8 aimed at)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", default="7.3,6.1", type=lambda text: text.split(","))
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--latency", type=float, default=50.0, help="milliseconds per request")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has edfi-api-client")
    parser.add_argument("--data", type=Path, help="keep the sandbox's database here")
    given = parser.parse_args()
    python = peer_python(given.peer_python)
    print(f"{given.rows:,} rows, page 500, {given.latency:g} ms, {machine()}; medians of {given.repeats}")
    for version in given.versions:
        with serving(version, rows_of(given.rows), given.data) as ods:
            compare(ods, given, python)
    print(machine())


if __name__ == "__main__":
    main()
