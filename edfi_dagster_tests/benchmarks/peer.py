"""The child that pulls with edfi-api-client, the way edu_edfi_airflow's operators drive it. Run by the peer's interpreter.

A whole pull takes ``get_rows``, which reads by cursor on ODS/API 7.3 and in steps of change versions, each paged in
reverse, before. A nightly one does as the bulk operator does: one client, the newest change version once, then one
collection after the other between the last version and that one, in steps paged in reverse. Every row becomes a line
of JSON in a temporary file, and the count is asked for at the end, as the operator does.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable
from typing import Any, cast

from edfi_api_client import EdFiClient  # type: ignore[import-not-found,import-untyped,unused-ignore]

PAGING = {
    "page_size": 500,
    "step_change_version": True,
    "change_version_step_size": 50_000,
    "reverse_paging": True,
    "retry_on_failure": True,
    "max_retries": 5,
}
KINDS: dict[str, dict[str, bool]] = {
    "records": {},
    "deletes": {"get_deletes": True},
    "key_changes": {"get_key_changes": True},
}


def write_lines(rows: Iterable[Any]) -> int:
    """The rows as JSON lines in a temporary file; how many."""
    count = 0
    with tempfile.NamedTemporaryFile("w+b") as file:
        for row in rows:
            file.write(json.dumps(row).encode("utf8") + b"\n")
            count += 1
    return count


def pull(client: Any, endpoint: str, kind: str, low: int, newest: int, *, nightly: bool) -> int:
    namespace, _, name = endpoint.rpartition("/")
    resource = client.resource(
        name,
        namespace=namespace or "ed-fi",
        min_change_version=low,
        max_change_version=newest,
        **KINDS[kind],
    )
    if nightly:
        count = write_lines(row for page in resource.get_pages(**PAGING) for row in page)
    else:
        count = write_lines(resource.get_rows(**PAGING))
    if count != resource.get_total_count():
        raise SystemExit(f"{endpoint} {kind}: the peer read {count} rows, which is not what the ODS counts")
    return count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--endpoints", required=True, type=lambda text: text.split(","))
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--low", type=int)
    given = parser.parse_args()
    started, cpu = time.perf_counter(), time.process_time()
    client = EdFiClient(given.url, os.environ["BENCHMARK_KEY"], os.environ["BENCHMARK_SECRET"])
    newest = cast(int, client.get_newest_change_version())
    rows = sum(
        pull(client, endpoint, kind, given.low or 0, newest, nightly=given.low is not None)
        for kind in given.kind or ["records"]
        for endpoint in given.endpoints
    )
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": rows}))


if __name__ == "__main__":
    main()
