from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.ods.platforms import KEY_VARIABLE, SECRET_VARIABLE, Naps, session_at

ODS = "grand_bend/2025"


@pytest.fixture(autouse=True)
def tmp_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No token of another test is found, and none is left behind."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sandbox")
    monkeypatch.setenv(SECRET_VARIABLE, "sandbox-secret")


@pytest.fixture(scope="session")
def running() -> Iterator[SandboxServer]:
    with SandboxServer([ODS], max_page=50, rows={"students": 120}) as server:
        server.store(ODS).save("as generated")
        yield server


@pytest.fixture
def server(running: SandboxServer) -> SandboxServer:
    """One sandbox for all tests, put back to its first state for each. Its largest page holds 50 rows."""
    store = running.store(ODS)
    running.faults.clear()
    running.before_request.clear()
    running.after_response.clear()
    running.expire_tokens()
    running.latency = 0.0
    for path in store.denied_reads | store.denied_changes | store.withdrawn:
        store.allow(path)
    store.oddities.clear()
    store.restore("as generated")
    running.requests.clear()
    return running


@pytest.fixture
def store(server: SandboxServer) -> Store:
    return server.store(ODS)


@pytest.fixture
def base_url(server: SandboxServer) -> str:
    return server.url_of(ODS)


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def session(base_url: str, naps: Naps) -> Iterator[OdsSession]:
    """A session with the sandbox that has its token already; ``server.requests`` begins after that."""
    with session_at(base_url, sleep=naps, timeouts=(2.0, 5.0)) as opened:
        yield opened
