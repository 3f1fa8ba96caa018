"""Writing the files of a deployment, and what several hosts ask of a configuration."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edfi_dagster
from edfi_dagster import definitions as code_location
from edfi_dagster.config import ConfigError, parse_platform
from edfi_dagster.deploy import HOSTS_VARIABLE, KINDS, FileExists, check_stores, write_deployment
from edfi_dagster.deploy.files import Kind

WRITTEN = {
    "kubernetes": {"Dockerfile", "Dockerfile.dockerignore", "values.yaml"},
    "compose": {
        *("Dockerfile", "Dockerfile.dockerignore", ".env.example"),
        *("docker-compose.yaml", "dagster.yaml", "workspace.yaml"),
    },
}
TENANTS = """
tenants:
  grand_bend:
    years:
      2025: {base_url: "https://ods.example.org", client_id: {env: KEY}, client_secret: {env: SECRET}}
"""
S3 = "lake: {kind: s3, bucket: edfi-lake, region: us-east-2}\n"
SNOWFLAKE = (
    "warehouse: {kind: snowflake, account: a, user: u, password: {env: P}, database: raw, schema: edfi3}\n"
)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_a_deployment(kind: Kind, tmp_path: Path) -> None:
    written = write_deployment(tmp_path / "new" / "deploy", kind)
    assert {path.name for path in written} == WRITTEN[kind]
    assert {path.name for path in (tmp_path / "new" / "deploy").iterdir()} == WRITTEN[kind]


def test_nothing_is_written_where_one_of_them_was_changed_by_hand(tmp_path: Path) -> None:
    mine = tmp_path / "workspace.yaml"
    mine.write_text("mine")
    with pytest.raises(FileExists, match=r"workspace\.yaml is there already; move it away, or .* --force$"):
        write_deployment(tmp_path, "compose")
    assert [path.name for path in tmp_path.iterdir()] == ["workspace.yaml"]
    write_deployment(tmp_path, "compose", force=True)
    assert "grpc_server" in mine.read_text()


def test_templates_are_in_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    root = Path(edfi_dagster.__file__).parents[1]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "/deploy/templates/" in name}
    assert inside == WRITTEN["kubernetes"] | WRITTEN["compose"]


@pytest.mark.parametrize(
    ("stores", "wrong"),
    [
        ("", "lake.kind: local and warehouse.kind: duckdb are on the disk of one host"),
        (S3, "warehouse.kind: duckdb is on the disk of one host"),
        (SNOWFLAKE, "lake.kind: local is on the disk of one host"),
    ],
    ids=["both", "DuckDB", "local lake"],
)
def test_stores_on_one_hosts_disk_are_refused_on_many_hosts(
    stores: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = parse_platform(stores + TENANTS, "edfi_dagster.yaml", tmp_path)
    check_stores(platform)
    monkeypatch.setenv(HOSTS_VARIABLE, "many")
    with pytest.raises(ConfigError) as caught:
        check_stores(platform)
    assert str(caught.value).startswith(f"edfi_dagster.yaml: {wrong}, but ${HOSTS_VARIABLE} says")
    check_stores(parse_platform(S3 + SNOWFLAKE + TENANTS, "edfi_dagster.yaml", tmp_path))
    monkeypatch.setenv(HOSTS_VARIABLE, "several")
    with pytest.raises(ConfigError, match="write one or many"):
        check_stores(platform)


def test_code_location_on_many_hosts_does_not_load_with_the_embedded_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image whose configuration was left out would else pull the sandbox into its pods."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDFI_DAGSTER_CONFIG", raising=False)
    monkeypatch.setenv(HOSTS_VARIABLE, "many")
    with pytest.raises(
        ConfigError, match=r"^the embedded default: lake\.kind: local and warehouse\.kind: duckdb are on"
    ):
        code_location.defs()
