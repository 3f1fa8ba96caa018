"""Sandboxes for all tests that pull, put back to their first state before each; a platform on one for each test.

``@pytest.mark.ods("6.1", mode="year_specific")`` chooses what the sandbox of a test speaks; 7.3 without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import KEY_VARIABLE, ODS, SECRET_VARIABLE, Bench, write_config

OpenSandbox = Callable[[str, str | None], SandboxServer]


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[OpenSandbox]:
    """One server for each version and API mode, started when a test first asks for it."""
    with ExitStack() as running:

        @cache
        def of(version: str, mode: str | None) -> SandboxServer:
            server = SandboxServer([ODS], rows={"students": 16}, ods_version=version, mode=mode)
            running.enter_context(server)
            server.store(ODS).save("first")
            return server

        yield of


@pytest.fixture
def sandbox(
    request: pytest.FixtureRequest, running_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SandboxServer]:
    wanted = request.node.get_closest_marker("ods")
    version = wanted.args[0] if wanted else "7.3"
    server = running_sandbox(version, wanted.kwargs.get("mode") if wanted else None)
    monkeypatch.setenv(KEY_VARIABLE, server.credentials[0])
    monkeypatch.setenv(SECRET_VARIABLE, server.credentials[1])
    store = server.store(ODS)
    store.restore("first")
    server.requests.clear()
    yield server
    server.faults.clear()
    for hooks in (server.before_request, server.after_response, server.between_reads):
        hooks.clear()
    server.latency = 0.0
    store.drop_snapshot()
    store.cascade_bumps = store.generation.cascades_bump
    for refused in (store.denied_reads, store.denied_changes, store.withdrawn):
        refused.clear()


@pytest.fixture
def make_bench(sandbox: SandboxServer, tmp_path: Path) -> Callable[..., Bench]:
    """``make_bench(*endpoints, descriptors=(), year={}, **extract options)``."""

    def make(*endpoints: str, descriptors: tuple[str, ...] = (), **options: Any) -> Bench:
        return Bench(write_config(tmp_path, sandbox, endpoints, descriptors, **options), sandbox)

    return make
