from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edfi_dagster_tests.automation.slack_stand_in import SlackStandIn


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SlackStandIn]:
    """Slack on a port of this machine; its token is in the environment."""
    monkeypatch.setenv("SLACK_TOKEN", SlackStandIn.TOKEN)
    with SlackStandIn() as server:
        monkeypatch.setenv("SLACK_WEBHOOK", f"{server.url}/services/secret-part")
        yield server
