from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.sandbox.api import Api, VersionApi

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
    running.between_reads.clear()
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


@pytest.fixture(scope="session")
def running_versions() -> Iterator[dict[str, SandboxServer]]:
    """One small server of each version asked for, while the tests run."""
    with ExitStack() as stack:
        servers = VersionServers(stack)
        yield servers


class VersionServers(dict[str, SandboxServer]):
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __missing__(self, version: str) -> SandboxServer:
        server = SandboxServer([ODS], ods_version=version, rows={"students": 60})
        server.store(ODS).save("as generated")
        self[version] = self._stack.enter_context(server)
        return server


@pytest.fixture
def api_of(running_versions: dict[str, SandboxServer]) -> Iterator[Callable[[str], VersionApi]]:
    """``api_of(version)``: a client of an ODS of that version, as generated."""
    opened: list[VersionApi] = []

    def make(version: str) -> VersionApi:
        server = running_versions[version]
        store = server.store(ODS)
        store.drop_snapshot()
        store.restore("as generated")
        server.between_reads.clear()
        server.expire_tokens()
        opened.append(VersionApi(server, ODS))
        return opened[-1]

    yield make
    for api in opened:
        api.session.close()
