"""The ODS of a chaos run, a process of its own in which people work.

It can be killed at any moment and started again over the same folder. SIGTERM lets everybody finish first.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edfi_dagster.sandbox import RequestInfo, SandboxServer
from edfi_dagster_tests.bench import ODS
from edfi_dagster_tests.extract.district import District

_processes = multiprocessing.get_context("forkserver")
ROWS = {"students": 16}
OTHER_ODS = "grand_bend/2024"
"""Another year's ODS on the same host, which a wrong configuration may name."""
_START_SECONDS = 120.0
# A commit must come before the sequence has left the reader's window behind; one deed takes fewer numbers than this.
_MARGIN = 300


@dataclass(frozen=True)
class Settings:
    """``back`` are the seconds by which the ODS's clock has stepped back since it last ran."""

    folder: str
    version: str
    mode: str | None
    overlap: int
    seed: int
    token_seconds: int = 4
    back: float = 0.0

    def server(self, **options: int) -> SandboxServer:
        """A server over the folder's database."""
        return SandboxServer(
            [ODS, OTHER_ODS],
            rows=ROWS,
            data_dir=self.folder,
            ods_version=self.version,
            mode=self.mode,
            **options,
        )


class People:
    """A district at work in a thread, and between the two reads of a page."""

    def __init__(self, server: SandboxServer, settings: Settings) -> None:
        self._district = District(server.store(ODS), settings.seed, overlap=settings.overlap)
        self._overlap = settings.overlap
        self._pace = random.Random(settings.seed + 1)
        self._guard = server.store(ODS).lock  # the reads of a page hold it as well
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work_on)
        server.between_reads.append(self._between_reads)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._stop.set()
        self._thread.join()
        with self._guard:
            self._district.end_all()

    def _work_on(self) -> None:
        while not self._stop.wait(self._pace.choice([0.005, 0.02, 0.05, 0.2])):
            with self._guard:
                self._work(self._pace.randrange(1, 4))
                if not self._district.open and self._pace.random() < 0.02:
                    # As work that is rolled back does: no later window mends what was lost before.
                    store = self._district.store
                    store.take_numbers(store.endpoint("students"), self._overlap + 1)
                    store.save_counters()  # a sequence never goes back, whoever is killed

    def _between_reads(self, request: RequestInfo) -> None:
        if self._pace.random() < 0.05:
            with self._guard:
                self._work(1)

    def _work(self, times: int) -> None:
        for _ in range(times):
            self._district.end_all(until=self._district.store.newest - self._overlap + _MARGIN)
            self._district.work(1)


class OdsProcess:
    """The process as the campaign sees it; what it says goes to ``log``."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._port_file = log.with_suffix(".port")
        self._port_file.unlink(missing_ok=True)
        self._process = _processes.Process(target=_main, args=(settings, self._port_file, log))
        self._process.start()

    def place(self) -> str:
        """Host and port, once it serves. Raises RuntimeError where it does not."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._port_file.exists():
            if not self._process.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the ODS did not start; see its log")
            time.sleep(0.02)
        return f"127.0.0.1:{self._port_file.read_text()}"

    def kill(self) -> None:
        """Also where it has ended already."""
        self._process.kill()
        self._process.join()

    def finish(self) -> None:
        """Let the people finish, and end."""
        self._process.terminate()
        self._process.join(60)
        if self._process.exitcode != 0:
            raise RuntimeError("the ODS ended badly; see its log")


def _main(settings: Settings, port_file: Path, log: Path) -> None:
    with log.open("ab") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
    with settings.server(token_seconds=settings.token_seconds) as server:
        _set_clock_back(server, settings.back)
        people = People(server, settings)
        people.start()
        part = port_file.with_suffix(".part")
        part.write_text(str(server.port))
        part.replace(port_file)
        stopped.wait()
        people.finish()


def _set_clock_back(server: SandboxServer, seconds: float) -> None:
    store = server.store(ODS)
    ticks, back = store.ticks, int(seconds * 10_000_000)
    setattr(store, "ticks", lambda: ticks() - back)  # noqa: B010
