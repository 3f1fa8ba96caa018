from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from edfi_dagster_tests.automation.slack_stand_in import SlackStandIn


@pytest.fixture(scope="module")
def shared_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """One for the module: making its tables takes longer than most tests."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("instance"))) as instance:
        yield instance


@pytest.fixture
def instance(shared_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    shared_instance.wipe()
    assert shared_instance.schedule_storage
    shared_instance.schedule_storage.wipe()
    return shared_instance


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SlackStandIn]:
    """Slack on a port of this machine; its token is in the environment."""
    monkeypatch.setenv("SLACK_TOKEN", SlackStandIn.TOKEN)
    with SlackStandIn() as server:
        monkeypatch.setenv("SLACK_WEBHOOK", f"{server.url}/services/secret-part")
        yield server
