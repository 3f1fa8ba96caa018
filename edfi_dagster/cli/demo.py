"""``edfi-dagster demo``: the whole way of the data on one machine, and the proof that it arrived."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from edfi_dagster.cli.district import BUNDLE_ENDPOINTS, CHANGED_ENDPOINTS, REFRESHED_ENDPOINTS, District
from edfi_dagster.cli.screen import Screen
from edfi_dagster.config import ConfigError, Platform, TenantYear, embedded_platform, find_config
from edfi_dagster.config.embedded import EMBEDDED_BUNDLE, EMBEDDED_YEARS
from edfi_dagster.lake.store import open_lake
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of, find_endpoints
from edfi_dagster.sandbox.embedded import open_sandbox
from edfi_dagster.warehouse.contract import Connection
from edfi_dagster.warehouse.current import current_rows
from edfi_dagster.warehouse.opening import open_warehouse

# Each run is a process of its own and mostly computes: more than two at a time only wait for each other.
_RUNS_AT_A_TIME = 2


@dataclass
class _Tally:
    """What the demo did to one partition."""

    seconds: float = 0.0
    rows: int = 0
    endpoints: int = 0
    deletes: int = 0
    key_changes: int = 0
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def verified(self) -> bool:
        return not self.failures and not self.differences


def run_demo(*, port: int | None) -> int:
    """Run the demo here, then the UI on ``port`` if one is given; the exit code."""
    console = Screen()
    if find_config() is not None:
        raise ConfigError(
            "the demo brings its own configuration; run it in a folder without edfi_dagster.yaml "
            "and with EDFI_DAGSTER_CONFIG unset"
        )
    platform = embedded_platform(Path.cwd())
    shutil.rmtree(platform.folder / ".dagster" / "embedded", ignore_errors=True)
    tallies = {pair: _Tally() for pair in platform.pairs()}
    started = time.monotonic()
    spawned = ProcessPoolExecutor(_RUNS_AT_A_TIME, mp_context=get_context("spawn"))
    with open_sandbox(platform) as url, spawned as processes, _progress(console) as progress:
        runs = _Runs(processes, progress, platform.folder, tallies)
        districts = {pair: District(url, pair) for pair in platform.pairs()}
        endpoints = _pulled(platform, next(iter(districts.values())))
        runs.run("first full pull", select=_first_selection(platform, endpoints))
        for district in districts.values():
            district.change()
        runs.run("delta: inserts, updates, deletes, key changes", CHANGED_ENDPOINTS)
        for district in districts.values():
            district.commit_late()
        runs.run("delta: a transaction that committed late", CHANGED_ENDPOINTS, years=EMBEDDED_YEARS[:1])
        runs.run("full refresh of a subset", REFRESHED_ENDPOINTS, years=EMBEDDED_YEARS[1:], full_refresh=True)
        assessed, *_ = districts
        runs.run_bundle(f"bundle {EMBEDDED_BUNDLE}: Earthmover, Lightbeam", assessed)
        runs.run("delta: what the bundle sent", BUNDLE_ENDPOINTS, pairs=[assessed])
        arrived = _compare_file(progress, platform, assessed, tallies[assessed])
        _compare_all(progress, platform, endpoints, districts, tallies)
    _print(console, tallies, time.monotonic() - started)
    console.print(arrived)
    if port is not None:
        _serve_ui(console, platform, port)
    return 0 if all(tally.verified for tally in tallies.values()) else 1


def _progress(console: Screen) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    return Progress(*columns, TimeElapsedColumn(), console=console)


class _Runs:
    """Dagster runs of every partition, a few at a time."""

    def __init__(
        self, processes: Executor, progress: Progress, folder: Path, tallies: dict[TenantYear, _Tally]
    ) -> None:
        self._processes = processes
        self._progress = progress
        self._folder = folder
        self._tallies = tallies

    def run(
        self,
        what: str,
        endpoints: Sequence[str] = (),
        *,
        select: Sequence[str] = (),
        years: Sequence[int] = EMBEDDED_YEARS,
        pairs: Sequence[TenantYear] = (),
        full_refresh: bool = False,
    ) -> None:
        """One run per partition of ``years``, or for each of ``pairs``, all of them done when this returns."""
        chosen = pairs or [pair for pair in self._tallies if pair.year in years]
        runs = {
            self._processes.submit(_materialize, self._folder, pair, endpoints, select, full_refresh): pair
            for pair in chosen
        }
        self._wait(what, runs)

    def run_bundle(self, what: str, pair: TenantYear) -> None:
        """The sample bundle, over its sample file, for one partition."""
        self._wait(what, {self._processes.submit(_run_bundle, self._folder, pair): pair})

    def _wait(self, what: str, runs: Mapping[Future[str], TenantYear]) -> None:
        task = self._progress.add_task(what, total=len(runs))
        started = time.monotonic()
        for done in as_completed(runs):
            tally = self._tallies[runs[done]]
            tally.seconds += time.monotonic() - started
            if failure := done.result():
                tally.failures.append(failure)
                self._progress.console.print(failure, style="red")
            self._progress.advance(task)


def _materialize(
    folder: Path, pair: TenantYear, endpoints: Sequence[str], select: Sequence[str], full_refresh: bool
) -> str:
    """In a process of its own: one Dagster run of one partition; why it failed, or nothing."""
    from edfi_dagster.cli.runs import materialize_pair

    platform = embedded_platform(folder)
    report = materialize_pair(
        platform, pair, endpoints=endpoints, select=select, full_refresh=full_refresh, terse=False
    )
    return report.failure


def _run_bundle(folder: Path, pair: TenantYear) -> str:
    """In a process of its own: the Dagster run of the sample bundle; why it failed, or nothing."""
    from edfi_dagster.assets.bundles import BundleRun
    from edfi_dagster.cli.bundle_runs import run_bundle_assets

    platform = embedded_platform(folder)
    return run_bundle_assets(platform, pair, EMBEDDED_BUNDLE, BundleRun(), terse=False).failure


def _pulled(platform: Platform, district: District) -> list[Endpoint]:
    """Every resource that holds records, and the descriptors that the demo changes.

    An event costs Dagster's SQLite some 15 ms: the other descriptors, more of the same, would double the demo's time.
    """
    changed = {*CHANGED_ENDPOINTS, *REFRESHED_ENDPOINTS, *BUNDLE_ENDPOINTS}
    filled = district.filled()
    return [
        endpoint
        for endpoint in endpoints_of(platform, district.pair)
        if endpoint.name in changed or (endpoint.path in filled and not endpoint.is_descriptor)
    ]


def _first_selection(platform: Platform, endpoints: Sequence[Endpoint]) -> list[str]:
    """Records and tables; a full pull covers deletes and key changes."""
    from edfi_dagster.assets.keys import AssetKeys

    keys = AssetKeys(platform)
    tables = [keys.table(endpoint) for endpoint in endpoints if not endpoint.is_descriptor]
    return [key.to_user_string() for key in (*map(keys.endpoint, endpoints), *tables)]


# -- comparing ---------------------------------------------------------------------------------------------


def _compare_all(
    progress: Progress,
    platform: Platform,
    endpoints: Sequence[Endpoint],
    districts: dict[TenantYear, District],
    tallies: dict[TenantYear, _Tally],
) -> None:
    """Every record of every endpoint that was pulled, in every partition: warehouse against ODS."""
    task = progress.add_task(
        "compare warehouse and ODS record by record", total=len(endpoints) * len(districts)
    )
    warehouse = open_warehouse(
        platform, open_lake(platform.lake, platform.extract.tmp_dir), progress.console.print
    )
    with warehouse.connected() as connection:
        for pair, district in districts.items():
            tally = tallies[pair]
            tally.deletes = _count(connection, platform.tables.deletes, pair)
            tally.key_changes = _count(connection, platform.tables.key_changes, pair)
            tally.requests = district.requests()
            for endpoint in endpoints:
                _compare(connection, district, endpoint, tally)
                progress.advance(task)


def _compare(connection: Connection, district: District, endpoint: Endpoint, tally: _Tally) -> None:
    there = Counter(_canonical(line) for line in district.rows(endpoint.path))
    here = Counter(_canonical(value) for _, value in current_rows(connection, district.pair, endpoint))
    tally.endpoints += 1
    tally.rows += sum(there.values())
    missing, extra = there - here, here - there
    if missing or extra:
        counts = f"{sum(missing.values())} records missing or stale, {sum(extra.values())} too many"
        tally.differences.append(f"{district.pair} {endpoint.path}: {counts}")


def _compare_file(progress: Progress, platform: Platform, pair: TenantYear, tally: _Tally) -> str:
    """Every row of the bundle's file: the student's result must be in the warehouse, as the file has it. What was found."""
    file = Path(str(platform.earthbeam.bundles[EMBEDDED_BUNDLE].inputs["INPUT_FILE"]))
    with file.open(encoding="utf-8", newline="") as text:
        wanted = {row["student_id"]: row["words_per_minute"] for row in csv.DictReader(text)}
    (endpoint,) = find_endpoints(["studentAssessments"], endpoints_of(platform, pair))
    warehouse = open_warehouse(
        platform, open_lake(platform.lake, platform.extract.tmp_dir), progress.console.print
    )
    with warehouse.connected() as connection:
        records = [json.loads(value) for _, value in current_rows(connection, pair, endpoint)]
    found = {
        record["studentReference"]["studentUniqueId"]: record["scoreResults"][0]["result"]
        for record in records
        if record["assessmentReference"]["assessmentIdentifier"] == "RIVERBEND-READING"
    }
    task = progress.add_task(f"compare warehouse and {file.name} row by row", total=len(wanted))
    arrived = sum(found.get(student) == words for student, words in wanted.items())
    progress.advance(task, arrived)
    told = f"{pair} {EMBEDDED_BUNDLE}: {arrived} of {len(wanted)} results of {file.name} in the warehouse"
    if found != wanted:
        tally.differences.append(told)
    return told


def _canonical(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


def _count(connection: Connection, table: str, pair: TenantYear) -> int:
    ((count,),) = connection.rows(
        f"SELECT count(*) FROM {connection.table(table)} WHERE tenant_code = ? AND api_year = ?",  # noqa: S608
        list(pair),
    )
    return int(count)


def _print(console: Screen, tallies: dict[TenantYear, _Tally], seconds: float) -> None:
    # As narrow as its figures: it must stand in 80 columns.
    table = Table(title="Warehouse against ODS", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in (
        "partition",
        "endpoints",
        "rows",
        "deletes",
        "key changes",
        "requests",
        "seconds",
        "verified",
    ):
        left = heading in {"partition", "verified"}
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for pair, tally in tallies.items():
        numbers = (tally.endpoints, tally.rows, tally.deletes, tally.key_changes, tally.requests)
        verified = Text("yes", "green") if tally.verified else Text("NO", "bold red")
        table.add_row(str(pair), *(f"{n:,}" for n in numbers), f"{tally.seconds:.1f}", verified)
    console.print(table)
    for tally in tallies.values():
        for line in [*tally.failures, *tally.differences]:
            console.print(f"- {line}", style="red")
    console.print(f"{len(tallies)} partitions in {seconds:.0f} s")


# -- the UI ------------------------------------------------------------------------------------------------


def _serve_ui(console: Screen, platform: Platform, port: int) -> None:
    """``dagster dev`` over the instance of the runs above, until it is interrupted."""
    environment = dict(os.environ)
    if not environment.get("DAGSTER_HOME") and not Path("dagster.yaml").is_file():
        environment["DAGSTER_HOME"] = str(platform.folder / ".dagster")
    console.print(f"UI: http://127.0.0.1:{port}/asset-groups (Ctrl-C ends it)")
    command = [sys.executable, "-m", "dagster", "dev", "-m", "edfi_dagster.definitions", "-h", "127.0.0.1"]
    try:
        subprocess.run([*command, "-p", str(port)], env=environment, check=False)  # noqa: S603 - our own command
    except KeyboardInterrupt:
        console.print("ended")
