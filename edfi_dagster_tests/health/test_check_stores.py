"""What ``check`` says of lake, warehouse and Slack: each thing that can be wrong, and its remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from edfi_dagster.config import Platform, parse_platform
from edfi_dagster.health import stores
from edfi_dagster.health.findings import Finding, State
from edfi_dagster.health.slack import examine_slack
from edfi_dagster.health.stores import examine_lake, examine_warehouse
from edfi_dagster.lake.store import open_lake
from edfi_dagster.ods.catalogue import standard_endpoints
from edfi_dagster.warehouse.opening import open_warehouse, tables_of
from edfi_dagster_tests.config.documents import TENANTS
from edfi_dagster_tests.health.asking import by_question
from edfi_dagster_tests.lake.s3_server import Bucket
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn

ENDPOINTS = [e for e in standard_endpoints("5.2") if e.name in {"students", "schools", "sexDescriptors"}]
HOLDS_FILE = """
import duckdb, sys
held = duckdb.connect(sys.argv[1])
print("open", flush=True)
input()
"""


def platform_in(folder: Path, **blocks: Any) -> Platform:
    text = "".join(f"{name}: {value}\n" for name, value in blocks.items()) + TENANTS
    return parse_platform(text, "agency.yaml", folder)


def the_lake(platform: Platform) -> Finding:
    return by_question(examine_lake(platform))["writable"]


def the_warehouse(platform: Platform) -> dict[str, Finding]:
    return by_question(examine_warehouse(platform, ENDPOINTS, print))


# -- lake -------------------------------------------------------------------------------------------------


def test_a_lake_that_can_be_written_is_well_and_left_empty(tmp_path: Path) -> None:
    platform = platform_in(tmp_path, lake="{kind: local, root: lake}")
    assert the_lake(platform).state == State.OK
    assert "are free" in the_lake(platform).found
    assert list((tmp_path / "lake").iterdir()) == []


def test_a_lake_that_cannot_be_written_fails_and_names_its_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, where a folder should be")
    found = the_lake(platform_in(tmp_path, lake="{kind: local, root: taken/lake}"))
    assert found.state == State.FAILED
    assert f"lake {tmp_path}/taken/lake: Not a directory" in found.found
    assert found.remedy == "check that the folder is writable and has room"


def test_a_lake_with_little_room_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5 * 10**8}))
    found = the_lake(platform_in(tmp_path, lake="{kind: local, root: lake}"))
    assert (found.state, found.found) == (State.WARNING, "a file was written, but 0.5 GB are free")


def test_a_bucket_that_is_not_there_fails_and_one_that_is_is_well(tmp_path: Path, bucket: Bucket) -> None:
    document = bucket.document(prefix="edfi")
    assert the_lake(platform_in(tmp_path, lake=document)).state == State.OK
    found = the_lake(platform_in(tmp_path, lake=document | {"bucket": "not-there"}))
    assert found.state == State.FAILED
    assert "there is no bucket not-there" in found.found
    assert found.remedy == "create it or correct lake.bucket"


# -- warehouse --------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_yet_is_well_and_not_made(tmp_path: Path) -> None:
    found = the_warehouse(platform_in(tmp_path, warehouse="{kind: duckdb, path: new/w.duckdb}"))
    assert found["reachable"].found == "the file is not there yet; the first run makes it"
    assert not (tmp_path / "new").exists()


def test_a_file_that_cannot_be_made_fails(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, where a folder should be")
    found = the_warehouse(platform_in(tmp_path, warehouse="{kind: duckdb, path: taken/w.duckdb}"))
    assert found["reachable"].state == State.FAILED
    assert "correct warehouse.path" in found["reachable"].remedy


def test_tables_are_missing_until_they_are_made(tmp_path: Path) -> None:
    platform = platform_in(tmp_path, warehouse="{kind: duckdb, path: w.duckdb}")
    duckdb.connect(str(tmp_path / "w.duckdb")).close()
    found = the_warehouse(platform)
    assert found["reachable"].state == State.OK
    assert (found["tables"].state, found["tables"].found) == (State.WARNING, "none is there yet")
    assert "the next run makes them" in found["tables"].remedy
    open_warehouse(platform, open_lake(platform.lake), print).prepare(tables_of(ENDPOINTS[:1]))
    found = the_warehouse(platform)
    assert found["tables"].found == f"1 of 8 are missing: {ENDPOINTS[1].snake}"
    open_warehouse(platform, open_lake(platform.lake), print).prepare(tables_of(ENDPOINTS))
    assert the_warehouse(platform)["tables"].found == "all 8 are there"


def test_a_ledger_of_airflow_without_its_column_fails(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as database:
        database.execute("CREATE SCHEMA edfi3")
        database.execute("CREATE TABLE edfi3._meta_change_versions (tenant_code VARCHAR, is_deletes BOOLEAN)")
    found = the_warehouse(platform_in(tmp_path, warehouse="{kind: duckdb, path: w.duckdb}"))
    assert found["change versions"].state == State.FAILED
    assert "has no column is_key_changes" in found["change versions"].found
    assert "edfi-dagster setup-warehouse" in found["change versions"].remedy


def test_a_file_that_is_no_database_fails(tmp_path: Path) -> None:
    (tmp_path / "w.duckdb").write_text("no database at all, but long enough to be looked at\n" * 200)
    found = the_warehouse(platform_in(tmp_path, warehouse="{kind: duckdb, path: w.duckdb}"))
    assert list(found) == ["reachable"]
    assert found["reachable"].state == State.FAILED
    assert f"warehouse {tmp_path}/w.duckdb cannot be opened" in found["reachable"].found
    assert found["reachable"].remedy.endswith("check the disk")


def test_a_file_that_another_program_has_open_fails_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "CHECK_SECONDS", 0.3)
    path = tmp_path / "w.duckdb"
    duckdb.connect(str(path)).close()
    holding = [sys.executable, "-c", HOLDS_FILE, str(path)]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.readline()
        found = the_warehouse(platform_in(tmp_path, warehouse="{kind: duckdb, path: w.duckdb}"))
        program.stdin.close()
    assert found["reachable"].state == State.FAILED
    assert "close the program that has it open" in found["reachable"].remedy


def test_snowflake_is_signed_in_to_and_its_tables_looked_for(
    tmp_path: Path, snowflake: SnowflakeStandIn, database: str
) -> None:
    platform = platform_in(tmp_path, warehouse=snowflake.block(database))
    before = the_warehouse(platform)
    assert before["reachable"].found == "signed in"
    warehouse = open_warehouse(platform, open_lake(platform.lake), print)
    warehouse.setup(tables_of(ENDPOINTS))
    warehouse.close()
    assert the_warehouse(platform)["tables"].found == "all 8 are there"


def test_a_warehouse_without_its_secret_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_PASSWORD", raising=False)
    block = "{kind: snowflake, account: a-b, user: u, password: {env: NO_SUCH_PASSWORD}}"
    found = the_warehouse(platform_in(tmp_path, warehouse=block))
    assert found["reachable"].state == State.FAILED
    assert "environment variable NO_SUCH_PASSWORD is not set" in found["reachable"].found


# -- Slack ------------------------------------------------------------------------------------------------

BY_TOKEN = '{token: {env: SLACK_TOKEN}, channel: "#edfi"}'


def the_slack(platform: Platform, *, ask: bool = False, api: str = "http://127.0.0.1:9/") -> Finding:
    block = examine_slack(platform, ask=ask, api=api)
    assert block is not None
    (finding,) = block.findings
    return finding


@pytest.mark.parametrize(
    ("block", "value", "state"),
    [
        (BY_TOKEN, "xoxb-1-2-abc", State.OK),
        (BY_TOKEN, "my token", State.FAILED),
        (BY_TOKEN, None, State.FAILED),
        ("{webhook_url: {env: SLACK_TOKEN}}", "https://hooks.slack.com/services/T/B/x", State.OK),
        ("{webhook_url: {env: SLACK_TOKEN}}", "xoxb-1-2-abc", State.FAILED),
    ],
)
def test_the_form_of_a_token_is_judged_and_the_token_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: str, value: str | None, state: State
) -> None:
    monkeypatch.delenv("SLACK_TOKEN", raising=False)
    if value:
        monkeypatch.setenv("SLACK_TOKEN", value)
    found = the_slack(platform_in(tmp_path, slack=block))
    assert found.state == state
    assert bool(found.remedy) == (state == State.FAILED)
    assert value is None or value not in str(found)
    if value is None:
        assert "environment variable SLACK_TOKEN is not set" in found.found


def test_slack_itself_is_asked_only_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_TOKEN", "xoxb-good")

    def answering(asked: Asked) -> Reply:
        if asked.headers["authorization"] == "Bearer xoxb-good":
            return Reply({"ok": True, "user": "edfi-bot", "team": "Agency"})
        return Reply({"ok": False, "error": "invalid_auth"})

    platform = platform_in(tmp_path, slack=BY_TOKEN)
    with StandIn(answering) as slack:
        the_slack(platform, api=f"{slack.url}/")
        assert slack.asked == []
        assert the_slack(platform, ask=True, api=f"{slack.url}/").found == "edfi-bot of Agency"
        monkeypatch.setenv("SLACK_TOKEN", "xoxb-revoked")
        refused = the_slack(platform, ask=True, api=f"{slack.url}/")
        assert [asked.path for asked in slack.asked] == ["/auth.test", "/auth.test"]
    assert (refused.state, refused.found) == (State.FAILED, "Slack refuses it (invalid_auth)")
    assert the_slack(platform, ask=True).found.startswith("Slack cannot be reached")


def test_without_a_slack_block_there_is_nothing_to_ask(tmp_path: Path) -> None:
    assert examine_slack(platform_in(tmp_path), ask=True) is None
