"""Loading compressed lines into DuckDB, against a bare INSERT … SELECT of the same files into the same ten columns.

    python -m edfi_dagster_tests.benchmarks.load

A load also counts the lines against the manifest, looks for ids and keys that came twice, checks lease and watermark, and
commits both with the rows; the bare one does none of that. Runs take turns, each into a database of its own. The rows are
of about 1 KB, in eight parts.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.warehouse.duckdb import DuckDBWarehouse
from edfi_dagster.warehouse.ledger import Reading
from edfi_dagster_tests.benchmarks.stage import machine
from edfi_dagster_tests.warehouse.pulls import STUDENTS, TABLES, Pulls, delta, refresh

_PARTS = 8


def students(number: int, *, changed: int = 0) -> Iterator[dict[str, Any]]:
    """Records of about 1 KB; the first ``changed`` of them with another name."""
    chance = random.Random(1)
    for n in range(number):
        words = [f"{chance.getrandbits(64):016x}" for _ in range(28)]
        yield {
            "id": f"{n:032x}",
            "studentUniqueId": str(600_000 + n),
            "firstName": "New" if n < changed else "Ada",
            "addresses": [{"city": word, "postalCode": word[:5]} for word in words[:6]],
            "notes": " ".join(words),
            "_lastModifiedDate": "2026-01-01T06:00:00Z",
        }


def bare(folder: Path, lake: LocalLake, reading: Reading) -> float:
    """Seconds of one INSERT … SELECT."""
    assert reading.manifest is not None
    with lake.local_files([file.path for file in reading.manifest.files]) as places:
        listed = ", ".join(f"'{place}'" for place in places)
        with duckdb.connect(str(folder / "bare.duckdb")) as database:
            database.execute(
                "CREATE TABLE students (tenant_code VARCHAR, api_year INTEGER, pull_date DATE, pull_timestamp TIMESTAMP, "
                "file_row_number BIGINT, filename VARCHAR, name VARCHAR, ods_version VARCHAR, data_model_version VARCHAR, "
                "v JSON)"
            )
            began = time.perf_counter()
            database.execute(
                "INSERT INTO students SELECT 't', 2025, DATE '2026-01-01', TIMESTAMP '2026-01-01', row_number() OVER (), "
                "filename, 'students', '7.3.1', '5.2.0', json FROM read_json_objects("
                f"[{listed}], format='newline_delimited', compression='zstd', filename=true)"
            )
            return time.perf_counter() - began


def loaded(folder: Path, lake: LocalLake, first: Reading, second: Reading) -> tuple[float, float]:
    """Seconds of a refresh, and of a delta that re-reads everything and finds some of it changed."""
    warehouse = DuckDBWarehouse(folder / "ours.duckdb", "edfi3", TableNames(), lake)
    warehouse.prepare(TABLES)
    with warehouse.connected():
        began = time.perf_counter()
        refresh(warehouse, first)
        between = time.perf_counter()
        delta(warehouse, second)
        return between - began, time.perf_counter() - between


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lake = LocalLake(folder / "lake")
        first = list(students(given.rows))
        size = len(json.dumps(first[0]))
        pulls = Pulls(lake)
        full = pulls.reading(STUDENTS, 1, first, low=None, newest=10, full=True, parts=_PARTS)
        again = list(students(given.rows, changed=given.rows // 100))
        read = pulls.reading(STUDENTS, 2, again, low=10, newest=20, parts=_PARTS)
        del first, again
        print(
            f"{given.rows:,} rows of {size} bytes in {_PARTS} zstd files, DuckDB {duckdb.__version__}, {machine()}"
        )
        ratios, deltas = [], []
        for turn in range(given.repeats):
            place = folder / str(turn)
            place.mkdir()
            plain = bare(place, lake, full)
            ours, night = loaded(place, lake, full, read)
            ratios.append(plain / ours)
            deltas.append(night)
            print(
                f"  bare {plain:.1f} s, load {ours:.1f} s ({plain / ours:.2f} of it; 0.7 at least), delta {night:.1f} s"
            )
        print(
            f"  median: {median(ratios):.2f} of the bare rate; delta over all rows, 1 % changed: {median(deltas):.1f} s"
        )


if __name__ == "__main__":
    main()
