"""The default that needs no configuration."""

from __future__ import annotations

from pathlib import Path

from edfi_dagster.config import TenantYear, embedded_platform
from edfi_dagster.config.lake import LocalLake
from edfi_dagster.config.warehouse import DuckDBWarehouse


def test_embedded_default_is_two_tenants_in_two_years_on_this_machine(tmp_path: Path) -> None:
    platform = embedded_platform(tmp_path)
    assert platform.pairs() == (
        TenantYear("grand_bend", 2025),
        TenantYear("grand_bend", 2026),
        TenantYear("lakeview", 2025),
        TenantYear("lakeview", 2026),
    )
    home = tmp_path / ".dagster" / "embedded"
    assert platform.lake == LocalLake(kind="local", root=home / "lake")
    assert platform.warehouse == DuckDBWarehouse(
        kind="duckdb", path=home / "warehouse.duckdb", schema="edfi3"
    )
    assert platform.extract.data_standard == "5.2"
    assert platform.extract.resources.all
    assert platform.extract.descriptors.all
    assert platform.folder == tmp_path
    assert not home.exists()


def test_embedded_ods_is_the_sandbox_of_the_pair(tmp_path: Path) -> None:
    platform = embedded_platform(tmp_path)
    for pair in platform.pairs():
        ods = platform.ods(pair)
        assert ods.base_url == f"sandbox://{pair.tenant}/{pair.year}"
        assert (ods.client_id.read(), ods.client_secret.read()) == ("sandbox", "sandbox-secret")
        assert ods.schedules.everything is None
