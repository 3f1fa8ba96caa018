"""The configuration that needs none: a sandbox ODS, a lake in a folder, DuckDB."""

from __future__ import annotations

from pathlib import Path

from edfi_dagster.config.earthbeam import Bundle, Earthbeam
from edfi_dagster.config.extract import Extract
from edfi_dagster.config.lake import LocalLake
from edfi_dagster.config.models import Platform
from edfi_dagster.config.secrets import PublicValue
from edfi_dagster.config.tenants import OdsYear, Tenant
from edfi_dagster.config.warehouse import DuckDBWarehouse

EMBEDDED_SOURCE = "the embedded default"
EMBEDDED_TENANTS = ("grand_bend", "lakeview")
EMBEDDED_YEARS = (2025, 2026)
EMBEDDED_BUNDLE = "riverbend_reading"
SANDBOX_CLIENT_ID = "sandbox"
SANDBOX_CLIENT_SECRET = "sandbox-secret"  # noqa: S105  (no secret: the sandbox runs on this machine, with generated data)


def embedded_platform(home: Path) -> Platform:
    """Return the embedded default: two tenants, two years, every endpoint of data standard 5.2, and a bundle with a sample file.

    Lake and warehouse are kept under `<home>/.dagster/embedded/`; `base_url`s are `sandbox://<tenant>/<year>`.
    """
    folder = home.absolute() / ".dagster" / "embedded"
    tenants = {
        code: Tenant(years={year: _sandbox_year(code, year) for year in EMBEDDED_YEARS})
        for code in EMBEDDED_TENANTS
    }
    values = {
        "lake": LocalLake(kind="local", root=folder / "lake"),
        "warehouse": DuckDBWarehouse(kind="duckdb", path=folder / "warehouse.duckdb"),
        # The sandboxes are small: with the overlap of a real ODS every delta would read them whole.
        "extract": Extract(data_standard="5.2", change_version_overlap=500),
        "tenants": tenants,
        "earthbeam": Earthbeam(bundles={EMBEDDED_BUNDLE: _sample_bundle()}),
    }
    return Platform.model_validate(values, context={"folder": home.absolute(), "source": EMBEDDED_SOURCE})


def _sandbox_year(tenant: str, year: int) -> OdsYear:
    return OdsYear(
        base_url=f"sandbox://{tenant}/{year}",
        client_id=PublicValue(SANDBOX_CLIENT_ID),
        client_secret=PublicValue(SANDBOX_CLIENT_SECRET),
    )


def _sample_bundle() -> Bundle:
    """An assessment that does not exist, of students that every sandbox has."""
    path = Path(__file__).parent.parent / "earthbeam" / "demo" / EMBEDDED_BUNDLE
    return Bundle(
        path=path,
        parameters={"API_YEAR": "{year}"},
        inputs={"INPUT_FILE": str(path / "data" / "sandbox.csv")},
    )
