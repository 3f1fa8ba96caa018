"""``init`` and ``config``, as somebody uses them who has never seen them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

import edfi_dagster
from edfi_dagster.cli.app import cli
from edfi_dagster.cli.commands import register
from edfi_dagster.config import TenantYear, load_platform
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import KEY_VARIABLE, ODS, SECRET_VARIABLE

ROOT = Path(edfi_dagster.__file__).parent.parent
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDFI_DAGSTER_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def run(*arguments: str) -> Result:
    register(cli)
    return CliRunner().invoke(cli, arguments, env={"TERM": "dumb"})


def of_pair(base_url: str, *arguments: str) -> tuple[str, ...]:
    return ("init", "--tenant", "grand_bend", "--year", "2025", "--base-url", base_url, *arguments)


def test_start_passes_check_once_its_variables_are_filled_in(folder: Path, sandbox: SandboxServer) -> None:
    done = run(*of_pair(sandbox.url_of(ODS)))
    assert done.exit_code == 0, done.stderr
    assert "grand_bend/2025: ODS/API 7.3.1, data standard 5.2" in done.stderr
    *_, check, materialize = done.stdout.splitlines()
    assert check == "  edfi-dagster check"
    assert materialize == "  edfi-dagster materialize --tenant grand_bend --year 2025"

    key, secret = sandbox.credentials
    example = (folder / ".env.example").read_text()
    filled = example.replace("_KEY=", f"_KEY={key}").replace("_SECRET=", f"_SECRET={secret}")
    (folder / ".env").write_text(filled)
    environment = {
        name: value for name, value in os.environ.items() if name not in {KEY_VARIABLE, SECRET_VARIABLE}
    }
    checked = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "edfi_dagster.cli", "check", "--json"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    states = {f["state"] for block in json.loads(checked.stdout)["checked"] for f in block["findings"]}
    assert "failed" not in states
    assert secret not in done.output + example + (folder / "edfi_dagster.yaml").read_text()


@pytest.mark.ods("6.1", mode="shared_instance")
def test_data_standard_is_asked_of_the_ods(sandbox: SandboxServer) -> None:
    assert run(*of_pair(sandbox.url_of(ODS))).exit_code == 0
    assert load_platform().extract.data_standard == sandbox.store(ODS).generation.standard != "5.2"


def test_ods_that_does_not_answer_is_told_of_and_the_file_is_written(folder: Path) -> None:
    done = run(*of_pair(f"{NOBODY}/{{tenant}}/{{year}}", "--tenant", "NO", "--year", "2026"))
    assert done.exit_code == 0
    assert done.stderr.count("is written as a guess") == 4
    platform = load_platform()
    assert len(platform.pairs()) == 4
    norway = platform.ods(TenantYear("NO", 2026))
    assert (norway.base_url, str(norway.client_id)) == (f"{NOBODY}/NO/2026", "{env: NO_2026_KEY}")


def test_pods_are_not_given_a_lake_and_a_warehouse_on_a_disk_of_their_own(folder: Path) -> None:
    done = run(*of_pair(NOBODY, "--offline", "--bucket", "lake", "--deploy", "kubernetes"))
    assert done.exit_code == 2
    assert "--bucket and --account" in done.stderr
    assert list(folder.iterdir()) == []


def test_production_stores_and_deployment_are_written_on_demand(folder: Path) -> None:
    stores = ["--bucket", "our-lake", "--account", "org-account", "--user", "LOADER"]
    done = run(*of_pair(NOBODY, *stores, "--offline", "--deploy", "compose"))
    assert done.exit_code == 0, done.stderr
    platform = load_platform()
    assert (platform.lake.kind, platform.warehouse.kind) == ("s3", "snowflake")
    assert "SNOWFLAKE_PRIVATE_KEY=" in (folder / ".env.example").read_text().splitlines()
    assert (folder / "deploy" / "docker-compose.yaml").is_file()
    again = run(*of_pair(NOBODY, *stores, "--offline", "--deploy", "compose", "--force"))
    assert again.exit_code == 0, again.stderr


def test_nothing_is_written_over_and_nothing_of_a_mistaken_answer(folder: Path) -> None:
    wrong = run(*of_pair("https://ods.example.org/data/v3", "--offline"))
    assert wrong.exit_code == 2
    assert "end it before '/data/v3'" in wrong.stderr
    assert list(folder.iterdir()) == []

    (folder / ".gitignore").write_text("mine\n")
    assert run(*of_pair(NOBODY, "--offline")).exit_code == 0
    assert (folder / ".gitignore").read_text() == "mine\n"
    (folder / "edfi_dagster.yaml").write_text("mine: {}\n")
    refused = run(*of_pair(NOBODY, "--offline"))
    assert refused.exit_code == 2 and "--force" in refused.stderr
    assert (folder / "edfi_dagster.yaml").read_text() == "mine: {}\n"


def test_without_a_terminal_what_is_missing_is_named() -> None:
    done = run("init", "--tenant", "grand_bend")
    assert done.exit_code == 2
    assert "--year, --base-url: missing" in done.stderr


def test_in_a_terminal_what_is_missing_is_asked(folder: Path) -> None:
    own, other = pty.openpty()
    answers = ["grand_bend, lakeview", "2025", f"{NOBODY}/{{tenant}}", "s3", "our-lake", "", ""]
    os.write(own, "".join(f"{answer}\n" for answer in answers).encode())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "edfi_dagster.cli", "init", "--offline"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=other,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(own)
    os.close(other)
    assert done.returncode == 0, done.stderr
    platform = load_platform()
    assert [platform.ods(pair).base_url for pair in platform.pairs()] == [
        f"{NOBODY}/grand_bend",
        f"{NOBODY}/lakeview",
    ]
    assert (platform.lake.kind, platform.warehouse.kind) == ("s3", "duckdb")


def test_files_beside_the_configuration_are_those_of_this_project(folder: Path) -> None:
    assert run(*of_pair(NOBODY, "--offline")).exit_code == 0
    for name in ("dagster.yaml", "workspace.yaml"):
        assert (folder / name).read_text() == (ROOT / name).read_text()
    text = (folder / "edfi_dagster.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=.dagster/edfi_dagster.schema.json\n")
    schema = json.loads((folder / ".dagster" / "edfi_dagster.schema.json").read_text())
    assert schema == json.loads(run("config", "schema").stdout)


def test_environment_goes_before_the_file_of_variables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKEN", "from the shell")
    monkeypatch.delenv("NEW", raising=False)
    (folder / ".env").write_text("TAKEN=from the file\nNEW='x y'\nEMPTY=\n")
    assert run(*of_pair(NOBODY, "--offline")).exit_code == 0
    assert (os.environ["TAKEN"], os.environ["NEW"], "EMPTY" in os.environ) == ("from the shell", "x y", False)
    monkeypatch.delenv("NEW")


def test_file_of_variables_that_cannot_be_read_is_told_of(folder: Path) -> None:
    (folder / ".env").write_bytes(b"KEY=\xff\xfe")
    done = run("config", "show")
    assert done.exit_code == 2 and ".env cannot be read" in done.stderr


def test_variable_that_is_not_set_stops_a_run_before_it_begins(folder: Path) -> None:
    assert run(*of_pair(NOBODY, "--offline")).exit_code == 0
    done = run("materialize", "--tenant", "grand_bend", "--year", "2025")
    assert done.exit_code == 2
    assert "environment variable GRAND_BEND_2025_KEY is not set; set it, in .env" in done.stderr
    assert not (folder / ".dagster" / "history").exists()


def test_shown_configuration_is_of_the_tenants_asked_for(folder: Path) -> None:
    assert run(*of_pair(NOBODY, "--tenant", "lakeview", "--year", "2026", "--offline")).exit_code == 0
    shown = run("config", "show", "--tenant", "lakeview", "--year", "2026")
    assert list(yaml.safe_load(shown.stdout)["tenants"]) == ["lakeview"]
    document = json.loads(run("config", "show", "--year", "2025", "--json").stdout)
    assert document["source"] == str(folder / "edfi_dagster.yaml")
    assert {tuple(tenant["years"]) for tenant in document["configuration"]["tenants"].values()} == {("2025",)}
    unknown = run("config", "show", "--tenant", "nobody")
    assert unknown.exit_code == 2 and "nobody is not declared" in unknown.stderr
