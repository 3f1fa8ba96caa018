"""Tenants spread over two hosts that share Postgres, S3 and Snowflake, and nothing else; a run is killed among them."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from edfi_dagster.assets.keys import partition_key
from edfi_dagster.config import Platform, TenantYear, parse_platform
from edfi_dagster.lake.store import open_lake
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of
from edfi_dagster.sandbox import RequestInfo, SandboxServer, Store
from edfi_dagster.warehouse.contract import Connection
from edfi_dagster.warehouse.opening import open_warehouse
from edfi_dagster_tests.automation.postgres import find_binaries, running_postgres
from edfi_dagster_tests.bench import KEY_VARIABLE, SECRET_VARIABLE, changed, student
from edfi_dagster_tests.deploy.hosts import (
    Host,
    Launchpad,
    daemon,
    make_host,
    serving,
    until,
    write_instance,
)

PAIRS = [TenantYear(tenant, year) for tenant in ("amber", "brook", "cedar", "dale") for year in (2025, 2026)]
EAST, WEST = PAIRS[::2], PAIRS[1::2]
VICTIM = PAIRS[2]
RESOURCES = ("students", "sessions", "courseOfferings", "sections")
FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
GIVEN_TIME = 600.0


@pytest.fixture
def sandboxes(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    with SandboxServer([str(pair) for pair in PAIRS], rows={"students": 24}) as server:
        monkeypatch.setenv(KEY_VARIABLE, server.credentials[0])
        monkeypatch.setenv(SECRET_VARIABLE, server.credentials[1])
        yield server


def configuration(server: SandboxServer, storage: dict[str, Any]) -> str:
    tenants: dict[str, Any] = defaultdict(lambda: {"years": {}})
    for pair in PAIRS:
        tenants[pair.tenant]["years"][pair.year] = {
            "base_url": server.url_of(str(pair)),
            "client_id": {"env": KEY_VARIABLE},
            "client_secret": {"env": SECRET_VARIABLE},
        }
    document = {
        **storage,
        "extract": {
            "resources": {name: {} for name in RESOURCES},
            "descriptors": {"termDescriptors": {}},
            "change_version_overlap": 5,
            "endpoint_defaults": {"page_size": 20},
        },
        "tenants": dict(tenants),
    }
    return yaml.safe_dump(document, sort_keys=False)


def work(store: Store) -> str:
    """A day of a district: records come, change, go and come back, and a session is renamed with what hangs on it.

    The id of the student who is gone.
    """
    mine = {row["studentUniqueId"]: row for row in store.rows("ed-fi/students")}
    gone, replaced = mine["bench-1"], mine["bench-2"]
    store.delete("students", gone["id"])
    store.delete("students", replaced["id"])
    store.post("students", changed(replaced))
    for number in range(3):
        store.post("students", student(100 + number))
    first = store.ids("students")[0]
    store.put("students", first, changed(store.get("students", first), firstName="Änna"))
    session = store.ids("sessions")[0]
    store.put("sessions", session, changed(store.get("sessions", session), sessionName="Autumn"))
    return str(gone["id"])


class Night:
    """What came of the runs."""

    def __init__(self, launchpad: Launchpad) -> None:
        self.launchpad = launchpad

    def wait_for(self, number: int) -> list[dg.RunRecord]:
        """So many runs, retries counted, all of them over."""

        def over() -> list[dg.RunRecord]:
            records = self.launchpad.records()
            done = [record for record in records if record.dagster_run.status in FINISHED]
            return records if len(done) == len(records) >= number else []

        return until(over, seconds=GIVEN_TIME, what=f"{number} runs")


def check_one_at_a_time(records: list[dg.RunRecord]) -> None:
    """No two runs of a tenant and year were in progress at once; over all of them, some were."""
    spans = defaultdict(list)
    for record in records:
        assert record.start_time is not None and record.end_time is not None
        spans[record.dagster_run.tags["dagster/partition"]].append((record.start_time, record.end_time))
    for partition, of_pair in spans.items():
        of_pair.sort()
        for (_, end), (start, _) in pairwise(of_pair):
            assert end <= start, f"{partition}: two runs at once"
    every = sorted(span for of_pair in spans.values() for span in of_pair)
    assert any(start < end for (_, end), (start, _) in pairwise(every))


def check_rows(
    platform: Platform, connection: Connection, pair: TenantYear, store: Store, nights: int
) -> None:
    """Every record of the ODS is current as it stands there, and nothing else; nothing was loaded twice."""
    for endpoint in endpoints_of(platform, pair):
        table = "_descriptors" if endpoint.is_descriptor else endpoint.snake
        where = f"tenant_code = '{pair.tenant}' AND api_year = {pair.year} AND name = '{endpoint.snake}'"
        current = connection.rows(f"SELECT v FROM edfi3.{table}_current WHERE {where}")
        rows = [json.loads(v) for (v,) in current]
        expected = {row["id"]: row for row in store.rows(endpoint.path)}
        assert {row["id"]: row for row in rows} == expected, f"{pair} {endpoint.path}"
        assert len(rows) == len(expected)
        _check_raw(connection, endpoint, table, where, nights)


def _check_raw(connection: Connection, endpoint: Endpoint, table: str, where: str, nights: int) -> None:
    raw = connection.rows(f"SELECT v, pull_timestamp FROM edfi3.{table} WHERE {where}")
    twice = [key for key, n in Counter((json.loads(v)["id"], stamp) for v, stamp in raw).items() if n > 1]
    assert twice == [], f"{endpoint.path}: rows of one id and stamp"
    watermarks = connection.rows(
        f"SELECT pull_timestamp, max_version FROM edfi3._meta_change_versions WHERE {where} AND is_active "
        "AND NOT is_deletes AND NOT is_key_changes"
    )
    assert 1 <= len(watermarks) <= nights


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_tenants_on_two_hosts_lose_nothing_though_a_run_is_killed(
    production: dict[str, Any], sandboxes: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no Postgres server on this machine")
    monkeypatch.setenv(
        "DAGSTER_GRPC_TIMEOUT_SECONDS", "300"
    )  # else a busy machine fails to launch, which is no matter here
    text = configuration(sandboxes, production)
    east, west = (make_host(tmp_path, name, text) for name in ("east", "west"))
    stores = {pair: sandboxes.store(str(pair)) for pair in PAIRS}
    for store in stores.values():
        for number in (1, 2):
            store.post("students", student(number))
    with ExitStack() as running:
        database = running.enter_context(running_postgres(binaries))
        for name, value in database.items():
            monkeypatch.setenv(name, value)
        home = write_instance(tmp_path / "control", [east, west])
        for host in (east, west):
            running.enter_context(serving(host, database))
        launchpad = running.enter_context(closing(Launchpad(home)))
        for host in (east, west):
            until(host.answers, what=f"code server {host.name}")
        running.enter_context(daemon(home, database))
        night = Night(launchpad)

        _kill_once(sandboxes, launchpad, [(east, EAST), (west, WEST)])
        records = night.wait_for(len(PAIRS) + 1)
        _check_the_killed_run_was_run_again(records)
        platform = parse_platform(text, "edfi_dagster.yaml", tmp_path)
        _check(platform, stores, nights=1)

        gone = {pair: work(store) for pair, store in stores.items()}
        _submit(launchpad, [(west, EAST), (east, WEST)])
        records = night.wait_for(2 * len(PAIRS) + 1)
        _check(platform, stores, nights=2, gone=gone)
        check_one_at_a_time(records)
        _check_spread(records)
    for host in (east, west):
        assert list((host.folder / "tmp").glob("edfi-dagster-*/*.json")), "a token of its own"
        assert not list(host.folder.rglob("*.jsonl*")), "what was spooled is gone"


def _submit(launchpad: Launchpad, shares: list[tuple[Host, list[TenantYear]]]) -> list[str]:
    return [launchpad.submit(host, pair) for host, pairs in shares for pair in pairs]


def _kill_once(
    sandboxes: SandboxServer, launchpad: Launchpad, shares: list[tuple[Host, list[TenantYear]]]
) -> None:
    """Submit a run of every pair, and end the victim's process while it pulls."""
    pulling = threading.Event()

    def hook(request: RequestInfo) -> None:
        if request.ods == str(VICTIM) and request.path.endswith("/ed-fi/sections"):
            pulling.set()

    sandboxes.before_request.append(hook)
    sandboxes.latency = 0.02
    _submit(launchpad, shares)
    assert pulling.wait(GIVEN_TIME), "the victim did not start"
    (victim,) = launchpad.instance.get_runs(
        dg.RunsFilter(tags={"dagster/partition": str(partition_key(VICTIM))})
    )
    process = until(lambda: launchpad.process_of(victim.run_id), seconds=10, what="its process")
    os.kill(process, signal.SIGKILL)
    sandboxes.before_request.remove(hook)
    sandboxes.latency = 0.0


def _check_the_killed_run_was_run_again(records: list[dg.RunRecord]) -> None:
    failed = [r.dagster_run for r in records if r.dagster_run.status is not dg.DagsterRunStatus.SUCCESS]
    (killed,) = failed
    assert killed.tags["dagster/partition"] == str(partition_key(VICTIM))
    (again,) = [r.dagster_run for r in records if r.dagster_run.parent_run_id == killed.run_id]
    assert again.tags["dagster/retry_number"] == "1"
    assert again.status is dg.DagsterRunStatus.SUCCESS


def _check_spread(records: list[dg.RunRecord]) -> None:
    """Each host ran half of the tenants, each night others, and every run but the killed one ended well."""
    hosts = Counter()
    for record in records:
        run = record.dagster_run
        assert run.remote_job_origin is not None
        if run.status is dg.DagsterRunStatus.SUCCESS:
            hosts[run.remote_job_origin.location_name] += 1
    assert hosts == {"east": len(PAIRS), "west": len(PAIRS)}


def _check(
    platform: Platform,
    stores: Mapping[TenantYear, Store],
    *,
    nights: int,
    gone: Mapping[TenantYear, str] | None = None,
) -> None:
    lake = open_lake(platform.lake)
    with closing(open_warehouse(platform, lake, print)) as warehouse, warehouse.connected() as connection:
        for pair, store in stores.items():
            check_rows(platform, connection, pair, store, nights)
        deleted = connection.rows(
            "SELECT tenant_code, api_year, v FROM edfi3._deletes WHERE name = 'students'"
        )
    found = {TenantYear(tenant, year): json.loads(v)["id"] for tenant, year, v in deleted}
    assert found == dict(gone or {})
    assert len(deleted) == len(found)
