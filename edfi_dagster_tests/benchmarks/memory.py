"""Memory of a pull above that of the idle process, and whether it grows with the endpoint.

    python -m edfi_dagster_tests.benchmarks.memory

Idle is the process with everything imported and the configuration read. Growth is the line through the samples
between half and four fifths of the run: before, the allocator still settles; after, ids are counted, in portions of a
fixed size. From it the peak of a ten times larger endpoint is worked out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import linear_regression

from edfi_dagster_tests.benchmarks.pull_rate import ENDPOINT, rows_of
from edfi_dagster_tests.benchmarks.stage import Outcome, machine, ours, serving

_EVERY_SECONDS = 0.05
_TENTHS = 10


def report(version: str, outcome: Outcome) -> None:
    idle = outcome.idle_kb / 1024
    above = [(at, kb / 1024 - idle) for at, kb in outcome.memory_kb]
    peak = max(mb for _, mb in above)
    settled = [(at, mb) for at, mb in above if 0.5 < at / outcome.seconds < 0.8]
    per_second = linear_regression(*zip(*settled, strict=True)).slope
    per_million = per_second * outcome.seconds / outcome.rows * 1e6
    tenths = [
        max((mb for at, mb in above if n <= at / outcome.seconds * _TENTHS < n + 1), default=0.0)
        for n in range(_TENTHS)
    ]
    print(f"  {version}  {outcome.rows:,} rows in {outcome.seconds:.1f} s; idle {idle:.0f} MB")
    print(
        f"  {version}  above idle, peak of each tenth of the run: {' '.join(f'{mb:.0f}' for mb in tenths)} MB"
    )
    print(f"  {version}  peak above idle: {peak:.1f} MB (60 at most)")
    larger = peak + max(per_million, 0.0) * outcome.rows * 9 / 1e6
    print(
        f"  {version}  growth: {per_million:+.1f} MB per million rows; "
        f"{outcome.rows * 10:,} rows would take {larger:.1f} MB (60 at most)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", default="7.3,6.1", type=lambda text: text.split(","))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds per request")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--data", type=Path, help="keep the sandbox's database here")
    given = parser.parse_args()
    print(f"{given.rows:,} rows, page 500, {given.in_flight} in flight, {given.latency:g} ms, {machine()}")
    for version in given.versions:
        with (
            serving(version, rows_of(given.rows), given.data) as ods,
            tempfile.TemporaryDirectory() as folder,
        ):
            ods.set_latency(given.latency)
            options = ("--endpoints", ENDPOINT)
            pulled = ours(ods, Path(folder), *options, in_flight=given.in_flight, every=_EVERY_SECONDS)
            if pulled.rows != given.rows:
                raise SystemExit(f"{pulled.rows} rows came")
            report(version, pulled)
    print(machine())


if __name__ == "__main__":
    main()
