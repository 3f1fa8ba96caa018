"""Platforms whose ODSs nobody reaches: for what depends on configuration, runs and change versions alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edfi_dagster.config import Platform, TenantYear, parse_platform
from edfi_dagster.ods.errors import OdsDown

GRAND_BEND = TenantYear("grand_bend", 2025)
LAKEVIEW = TenantYear("lakeview", 2025)


def platform_of(folder: Path, years: Mapping[TenantYear, Mapping[str, Any]], **document: Any) -> Platform:
    """A platform of students and one descriptor; ``years`` is what each pair says beside address and key."""
    tenants: dict[str, Any] = {}
    for pair, settings in years.items():
        tenants.setdefault(pair.tenant, {"years": {}})["years"][pair.year] = {
            "base_url": f"https://{pair.tenant}.example.org/{pair.year}",
            "client_id": {"env": "NOBODYS_KEY"},
            "client_secret": {"env": "NOBODYS_SECRET"},
            **settings,
        }
    text = yaml.safe_dump(
        {
            "extract": {"resources": {"students": {}}, "descriptors": {"sexDescriptors": {}}},
            "tenants": tenants,
            **document,
        },
        sort_keys=False,
    )
    return parse_platform(text, "platform.yaml", folder)


class FakeOds:
    """Newest change versions by pair; a pair that has none is down."""

    def __init__(self, **newest: int) -> None:
        self.newest: dict[TenantYear, int | None] = {
            TenantYear(tenant, 2025): version for tenant, version in newest.items()
        }
        self.asked: list[TenantYear] = []

    def __call__(self, pair: TenantYear) -> int | None:
        self.asked.append(pair)
        if pair not in self.newest:
            raise OdsDown("no connection from ods.example.org, 1 attempt", pair=pair)
        return self.newest[pair]
