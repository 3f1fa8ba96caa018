"""Tenants, their school years, and how each one's ODS is reached."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, WithJsonSchema, field_validator

from edfi_dagster.config.errors import Problems
from edfi_dagster.config.extract import DataStandard, VerifyCounts, YearExtract
from edfi_dagster.config.secrets import Secret
from edfi_dagster.config.values import BaseUrl, Count, Cron, Flag, Model, Profile, TenantYear, Url, Year

ApiMode = Literal[
    "sandbox", "shared_instance", "district_specific", "year_specific", "instance_year_specific"
]
_INSTANCE = re.compile(r"[A-Za-z0-9_-]+")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,3}")


def _api_version(value: object) -> str:
    if isinstance(value, float):
        raise ValueError('YAML reads 7.10 as 7.1; write the version in quotes, as in "7.3"')
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise ValueError('is not a version; write it in quotes, as in "7.3"')
    return value


def _api_mode(value: object) -> object:
    return re.sub(r"[\s-]+", "_", value.strip().lower()) if isinstance(value, str) else value


ApiVersion = Annotated[
    str, BeforeValidator(_api_version), WithJsonSchema({"type": ["string", "integer"], "examples": ["7.3"]})
]


def _instance_code(value: str) -> str:
    if not _INSTANCE.fullmatch(value):
        raise ValueError("is not an instance's code; use letters, digits, - and _")
    return value


class Credentials(Model):
    """A key and secret of an ODS."""

    client_id: Secret
    """Key."""
    client_secret: Secret
    """Secret."""


class OdsYear(Model):
    """The ODS of one tenant in one school year. What is left out of api_* is found out from the ODS."""

    base_url: BaseUrl
    """Root of the API, before /data/v3 or /oauth."""
    client_id: Secret
    """Key."""
    client_secret: Secret
    """Secret."""
    api_version: ApiVersion | None = None
    """ODS/API version where it cannot be found out: 2 for Ed-Fi 2."""
    api_mode: Annotated[ApiMode, BeforeValidator(_api_mode), WithJsonSchema({"type": "string"})] | None = None
    """Mode of an ODS before 7.0 that does not tell it."""
    oauth_url: Url | None = None
    """Token address, if it is not the ODS's own (base_url, then /oauth/token). Key and secret go only there."""
    instance_code: Annotated[StrictStr, AfterValidator(_instance_code)] | None = None
    """Instance, where an Instance Year Specific ODS is addressed without it."""
    verify_ssl: Flag = True
    """Whether the certificate must be valid."""
    profile: Profile | None = None
    """Profile by which records are read where it covers them, for a key that has several."""
    multiyear: Flag = False
    """Whether the ODS holds several school years; then only the partition's own is asked for."""
    send: Credentials | None = None
    """Key and secret for Lightbeam, where it has its own."""
    schedule: Cron | None = None
    """Cron of everything."""
    schedule_resources: Cron | None = None
    """Cron of resources alone."""
    schedule_descriptors: Cron | None = None
    """Cron of descriptors alone."""
    schedule_full_refresh: Cron | None = None
    """Cron of a full refresh; day of the month and weekday are both meant."""
    extract: YearExtract = YearExtract()
    """What this year does differently from the platform's extract."""


class Tenant(Model):
    """An education organization and its school years."""

    education_organization_id: Count | None = None
    """The organization the keys should belong to; check compares."""
    years: Annotated[
        Mapping[Year, OdsYear], Field(json_schema_extra={"propertyNames": {"pattern": r"^(19|20|21)\d\d$"}})
    ]
    """School years, named by their spring: 2025 is 2024-25."""

    @field_validator("years")
    @classmethod
    def _has_a_year(cls, years: Mapping[int, OdsYear]) -> Mapping[int, OdsYear]:
        if not years:
            raise ValueError(
                "declares no school year; write at least one, as in years: {2025: {base_url: …}}"
            )
        return years


def check_tenants(tenants: Mapping[str, Tenant]) -> Mapping[str, Tenant]:
    """Return `tenants` if there is one and no two share a folder. Raises ValueError."""
    if not tenants:
        raise ValueError("declares no tenant; write at least one, as in tenants: {lakeview: {years: …}}")
    seen: dict[str, str] = {}
    problems = []
    for code in tenants:
        first = seen.setdefault(unicodedata.normalize("NFC", code).lower(), code)
        if first != code:
            how = "case" if first.lower() == code.lower() else "how its accents are encoded"
            problems.append(
                ((code,), f"differs from {first!r} only in {how}, so their files would mix; rename one")
            )
    if problems:
        raise Problems(problems)
    return tenants


@dataclass(frozen=True)
class Schedules:
    """Cron schedules of one (tenant, year); None where there is none."""

    everything: str | None
    resources: str | None
    descriptors: str | None
    full_refresh: str | None


@dataclass(frozen=True)
class PairExtract:
    """Limits and switches that hold for one (tenant, year)."""

    data_standard: DataStandard
    max_concurrent_requests: int
    change_version_overlap: int
    use_change_version: bool
    get_key_changes: bool
    pull_total_counts: bool
    verify_counts: VerifyCounts
    use_snapshot: bool
    late_after_hours: float


@dataclass(frozen=True)
class OdsSettings:
    """All that is needed to speak with the ODS of one (tenant, year). `send` are Lightbeam's credentials."""

    pair: TenantYear
    education_organization_id: int | None
    base_url: str
    client_id: Secret
    client_secret: Secret
    send: Credentials
    api_version: str | None
    api_mode: ApiMode | None
    oauth_url: str | None
    instance_code: str | None
    verify_ssl: bool
    multiyear: bool
    schedules: Schedules
    extract: PairExtract
