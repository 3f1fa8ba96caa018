"""Tokens of one key on several hosts, each with a temporary folder of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edfi_dagster.ods.errors import OdsUnreachable
from edfi_dagster.ods.shelf import TOKENS_VARIABLE
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import ODS
from edfi_dagster_tests.ods import platforms
from edfi_dagster_tests.ods.platforms import session_at

CAP = 15
OnHost = Callable[[int], None]


@pytest.fixture
def on_host(sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnHost:
    """``on_host(n)``: a run on the nth host asks the ODS something."""
    monkeypatch.setenv(platforms.KEY_VARIABLE, sandbox.credentials[0])
    monkeypatch.setenv(platforms.SECRET_VARIABLE, sandbox.credentials[1])
    sandbox.expire_tokens()

    def ask(number: int) -> None:
        folder = tmp_path / f"host-{number}"
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with session_at(sandbox.url_of(ODS)) as session:
            assert session.newest_change_version() == sandbox.store(ODS).newest

    return ask


def tokens(sandbox: SandboxServer) -> int:
    return len(sandbox.requests.matching("/oauth/token", "POST"))


def test_every_host_takes_a_token_and_all_its_runs_share_it(sandbox: SandboxServer, on_host: OnHost) -> None:
    for number in (1, 2, 1, 2, 2):
        on_host(number)
    assert tokens(sandbox) == 2


def test_more_hosts_in_half_an_hour_than_a_key_has_tokens_are_told_what_to_do(
    sandbox: SandboxServer, on_host: OnHost
) -> None:
    for number in range(CAP):
        on_host(number)
    with pytest.raises(OdsUnreachable, match=rf"as many unexpired tokens .*\${TOKENS_VARIABLE} names"):
        on_host(CAP)
    on_host(0)  # whoever has one goes on


def test_hosts_that_share_a_folder_share_the_token(
    sandbox: SandboxServer, on_host: OnHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv(TOKENS_VARIABLE, str(shared))
    for number in range(CAP + 1):
        on_host(number)
    assert tokens(sandbox) == 1
    (folder,) = shared.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
