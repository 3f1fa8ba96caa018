"""Runs of a chaos campaign: each in a process of its own, which writes down what it says, and may be made to suffer."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import edfi_dagster.cli.commands  # long to load: once, before the first run
import edfi_dagster.lake.pull
import edfi_dagster.lake.s3_client
import edfi_dagster.warehouse.duckdb
import edfi_dagster.warehouse.lease
from edfi_dagster.cli import main as command
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster_tests.bench import PAIR, Bench, failures
from edfi_dagster_tests.extract.child import Orders, arm

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__, "edfi_dagster_tests.chaos.ods"])
# Two runs that race for one partition come one after the other, each with a fault in every fifth answer.
_LONGEST_RUN_SECONDS = 600.0
# Connecting and silence, in seconds; waits between retries are cut to a thirtieth.
_TIMEOUTS = (5.0, 1.2)
_HASTE = 30.0


@dataclass(frozen=True)
class Errand:
    """One run. ``what`` is delta, refresh, store (pull and do not load), load (what is stored), or dagster (the command).

    ``endpoints``: all where there are none. ``kill`` as in ``Orders``; ``killed_after`` seconds it is killed wherever it
    is. ``largest_file`` in bytes; ``back``: seconds by which this machine's clock has stepped back.
    """

    what: str = "delta"
    endpoints: tuple[str, ...] = ()
    kill: Orders = field(default_factory=Orders)
    killed_after: float = 0.0
    largest_file: int = 0
    back: float = 0.0


@dataclass(frozen=True)
class Ended:
    """``verdict`` is done, failed (some endpoints, or with one of our errors), killed, or broken: what must not happen."""

    verdict: str
    said: str


class Run:
    """A started errand; its words go to ``log``."""

    def __init__(self, config: Path, errand: Errand, log: Path) -> None:
        self._errand, self._log = errand, log
        self._process = _processes.Process(target=_main, args=(config, errand, log, dict(os.environ)))
        self._process.start()
        self._started = time.monotonic()

    def end(self) -> Ended:
        """Wait for it, and kill it when that is its errand."""
        if self._errand.killed_after:
            self._process.join(max(0.0, self._started + self._errand.killed_after - time.monotonic()))
            self._process.kill()
        self._process.join(_LONGEST_RUN_SECONDS)
        status = self._process.exitcode
        if status is None:
            self._process.kill()
            self._process.join()
            said = self._log.read_text(errors="replace") if self._log.exists() else ""
            return Ended("broken", f"it hung for {_LONGEST_RUN_SECONDS:.0f} s: {self._errand}\n{said}")
        self._process.close()
        if status == -signal.SIGKILL:
            return Ended("killed", "")
        said = self._log.read_text(errors="replace") if self._log.exists() else ""
        return Ended({0: "done", 1: "failed"}.get(status, "broken"), said)


def _main(config: Path, errand: Errand, log: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(config.parent)
    with log.open("ab") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    faulthandler.dump_traceback_later(_LONGEST_RUN_SECONDS - 5, file=sys.stderr)
    _hurry()
    _set_clock_back(errand.back)
    try:
        status = _dagster(config) if errand.what == "dagster" else _engine(config, errand)
    except (EdFiError, LakeError, WarehouseError) as error:
        print(f"Error: {error}")
        status = 1
    except BaseException:
        traceback.print_exc()
        status = 2
    sys.stdout.flush()
    os._exit(status)


def _engine(config: Path, errand: Errand) -> int:
    bench = Bench(config)
    bench.pause = _pause
    names = errand.endpoints or tuple(endpoint.path for endpoint in bench.endpoints)
    if errand.kill.kill:
        arm(errand.kill)
    if errand.largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (errand.largest_file, resource.RLIM_INFINITY))
    if errand.what == "load":
        results = bench.load_stored(names)
    else:
        results = bench.materialize(
            names, full_refresh=errand.what == "refresh", load=errand.what != "store", may_fail=True
        )
    print(*bench.told, sep="\n")
    found = failures(results)
    print(json.dumps(found, indent=1))
    return 1 if found else 0


def _dagster(config: Path) -> int:
    asked = ("materialize", "--tenant", PAIR.tenant, "--year", str(PAIR.year), "--json")
    sys.argv = ["edfi-dagster", "--config", str(config), *asked]
    try:
        command()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _hurry() -> None:
    """Wait less: for the next bytes, for a connection, and before a retry."""
    pauses = tuple(pause / _HASTE for pause in edfi_dagster.lake.s3_client.PAUSES)
    setattr(edfi_dagster.lake.s3_client, "PAUSES", pauses)  # noqa: B010
    options: dict[str, Any] = OdsSession.__init__.__kwdefaults__
    options |= {"timeouts": _TIMEOUTS, "sleep": _pause}


def _pause(seconds: float) -> None:
    time.sleep(seconds / _HASTE)


def _set_clock_back(seconds: float) -> None:
    if not seconds:
        return
    now = time.time

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(now(), tz or UTC) - timedelta(seconds=seconds)

    setattr(time, "time", lambda: now() - seconds)  # noqa: B010
    for module in (edfi_dagster.warehouse.lease, edfi_dagster.warehouse.duckdb, edfi_dagster.lake.pull):
        setattr(module, "datetime", Earlier)  # noqa: B010
