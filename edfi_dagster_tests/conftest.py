"""One sandbox for all tests that pull, put back to its first state before each; a platform on it for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import KEY_VARIABLE, ODS, SECRET_VARIABLE, Bench, write_config


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[SandboxServer]:
    with SandboxServer([ODS], rows={"students": 16}) as server:
        server.store(ODS).save("first")
        yield server


@pytest.fixture
def sandbox(running_sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    server = running_sandbox
    monkeypatch.setenv(KEY_VARIABLE, server.credentials[0])
    monkeypatch.setenv(SECRET_VARIABLE, server.credentials[1])
    store = server.store(ODS)
    store.restore("first")
    server.requests.clear()
    yield server
    server.faults.clear()
    server.before_request.clear()
    server.after_response.clear()
    server.latency = 0.0
    store.cascade_bumps = True
    for refused in (store.denied_reads, store.denied_changes, store.withdrawn):
        refused.clear()


@pytest.fixture
def make_bench(sandbox: SandboxServer, tmp_path: Path) -> Callable[..., Bench]:
    """``make_bench(*endpoints, descriptors=(), **extract options)``."""

    def make(*endpoints: str, descriptors: tuple[str, ...] = (), **options: Any) -> Bench:
        return Bench(write_config(tmp_path, sandbox.url, endpoints, descriptors, **options), sandbox)

    return make
