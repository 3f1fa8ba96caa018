from __future__ import annotations

from collections.abc import Iterator

import pytest

from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.sandbox.api import Api

ODS = "grand_bend/2025"


@pytest.fixture(scope="session")
def running() -> Iterator[SandboxServer]:
    with SandboxServer([ODS]) as server:
        server.store(ODS).save("as generated")
        yield server


@pytest.fixture
def server(running: SandboxServer) -> SandboxServer:
    """One server for all tests, put back to its first state for each."""
    running.faults.clear()
    running.before_request.clear()
    running.after_response.clear()
    running.expire_tokens()
    running.latency = 0.0
    store = running.store(ODS)
    for path in store.denied_reads | store.denied_changes | store.withdrawn:
        store.allow(path)
    store.drop_snapshot()
    store.cascade_bumps = True
    store.restore("as generated")
    running.requests.clear()
    return running


@pytest.fixture
def store(server: SandboxServer) -> Store:
    return server.store(ODS)


@pytest.fixture
def api(server: SandboxServer) -> Iterator[Api]:
    client = Api(server, ODS)
    server.requests.clear()
    yield client
    client.session.close()
