"""The whole configuration: one `Platform`, and what it says about each (tenant, year)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, model_validator

from edfi_dagster.config.earthbeam import Earthbeam
from edfi_dagster.config.errors import Problems, UndeclaredPair
from edfi_dagster.config.extract import (
    ENDPOINT_KINDS,
    EndpointKind,
    Extract,
    OptionOverrides,
    ResolvedOptions,
    merge_options,
    normalise_endpoint,
)
from edfi_dagster.config.lake import Lake
from edfi_dagster.config.secrets import Secret, place_secrets
from edfi_dagster.config.tenants import (
    Credentials,
    OdsSettings,
    OdsYear,
    PairExtract,
    Schedules,
    Tenant,
    check_tenants,
)
from edfi_dagster.config.values import Model, Owner, TenantCode, TenantYear, Text, Timezone, folder_of
from edfi_dagster.config.warehouse import TableNames, Warehouse
from edfi_dagster.config.watched_folders import shared_folders

SlackEvent = Literal["failure", "success", "late"]


class Slack(Model):
    """Where messages go: a bot's token and a channel, or an incoming webhook. ``ui_url`` is where their links lead."""

    token: Secret | None = None
    """Token of a bot that may write to the channel."""
    channel: Text | None = None
    """Channel of the bot's messages."""
    webhook_url: Secret | None = None
    """Incoming webhook, instead of token and channel."""
    events: tuple[SlackEvent, ...] = ("failure", "late")
    """What is told: failed runs, successful runs, tenants and years that become late."""
    ui_url: Text = "http://127.0.0.1:3000"
    """Address of the Dagster UI, where the links in messages lead."""

    @model_validator(mode="after")
    def _one_way_to_send(self) -> Self:
        if (self.token is None) == (self.webhook_url is None):
            raise ValueError("needs either token and channel, or webhook_url; give one of the two")
        if (self.token is None) != (self.channel is None):
            raise ValueError("token and channel go together; a webhook has its channel already")
        return self


Problem = tuple[tuple[str | int, ...], str]


class Platform(Model):
    """The configuration file. Relative paths in it start from its own folder."""

    lake: Lake = Field({"kind": "local", "root": "data/lake"}, validate_default=True)
    """Where pulled files are kept."""
    warehouse: Warehouse = Field({"kind": "duckdb", "path": "data/warehouse.duckdb"}, validate_default=True)
    """Where raw tables are kept."""
    slack: Slack | None = None
    """Messages; none without it."""
    owners: tuple[Owner, ...] = ()
    """Owners of every asset: team:name or an e-mail address."""
    timezone: Timezone = "UTC"
    """Time zone of all schedules."""
    extract: Extract = Extract()
    """What is pulled from every ODS, and how."""
    tables: TableNames = TableNames()
    """Names of the shared raw tables."""
    tenants: Annotated[Mapping[TenantCode, Tenant], AfterValidator(check_tenants)]
    """Education organizations by code, as in the raw tables' tenant_code."""
    earthbeam: Earthbeam = Earthbeam()
    """Assessment files: bundles, and the tools that run them."""

    _source: str = PrivateAttr("")
    _folder: Path = PrivateAttr()

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        problems = [
            *_undeclared_bundle_pairs(self),
            *_endpoints_added_by_years(self),
            *_taken_prefix(self),
            *shared_folders(self),
        ]
        if problems:
            raise Problems(problems)
        return self

    @model_validator(mode="after")
    def _note_source(self, info: ValidationInfo) -> Self:
        self._folder = folder_of(info)
        self._source = str((info.context or {}).get("source", "the configuration"))
        place_secrets(self, self._source)
        return self

    @property
    def source(self) -> str:
        """The file this was read from, or words that say where else it comes from."""
        return self._source

    @property
    def folder(self) -> Path:
        """The folder that relative paths started from."""
        return self._folder

    def pairs(self) -> tuple[TenantYear, ...]:
        """Return every declared (tenant, year), in the order of the file."""
        return tuple(TenantYear(code, year) for code, tenant in self.tenants.items() for year in tenant.years)

    def bundle_pairs(self, bundle: str) -> tuple[TenantYear, ...]:
        """Return the pairs a bundle applies to: those it names, else every declared one."""
        applies_to = self.earthbeam.bundles[bundle].applies_to
        if applies_to is None:
            return self.pairs()
        return tuple(TenantYear(code, year) for code, years in applies_to.items() for year in years)

    def ods(self, pair: TenantYear) -> OdsSettings:
        """Return how the pair's ODS is reached and pulled, the year's own settings first.

        An Ed-Fi 2 ODS has no change versions, whatever `use_change_version` says.
        Raises UndeclaredPair, before anything is asked of any ODS.
        """
        year = self._year(pair)
        return OdsSettings(
            pair=pair,
            education_organization_id=self.tenants[pair.tenant].education_organization_id,
            base_url=year.base_url,
            client_id=year.client_id,
            client_secret=year.client_secret,
            send=year.send or Credentials(client_id=year.client_id, client_secret=year.client_secret),
            api_version=year.api_version,
            api_mode=year.api_mode,
            oauth_url=year.oauth_url,
            instance_code=year.instance_code,
            verify_ssl=year.verify_ssl,
            multiyear=year.multiyear,
            schedules=Schedules(
                everything=year.schedule,
                resources=year.schedule_resources,
                descriptors=year.schedule_descriptors,
                full_refresh=year.schedule_full_refresh,
            ),
            extract=self._pair_extract(year),
        )

    def endpoint_options(
        self, pair: TenantYear, namespace: str, name: str, kind: EndpointKind
    ) -> ResolvedOptions:
        """Return the options of one endpoint for one pair.

        The more specific wins: the platform's `endpoint_defaults`, the year's `profile` and `endpoint_defaults`, then what `resources` or
        `descriptors` say of `*` and of the endpoint, the platform's first and the year's last.
        Raises UndeclaredPair.
        """
        year = self._year(pair)
        extract = year.extract
        own = self.extract.selection(kind).layers(namespace, name)
        of_year = extract.selection(kind).layers(namespace, name)
        return merge_options(
            self.extract.endpoint_defaults,
            [OptionOverrides(profile=year.profile), extract.endpoint_defaults, *own, *of_year],
        )

    def _year(self, pair: TenantYear) -> OdsYear:
        tenant = self.tenants.get(pair.tenant)
        if tenant is None or pair.year not in tenant.years:
            declared = ", ".join(map(str, self.pairs()))
            raise UndeclaredPair(
                f"{self._source}: tenants.{pair.tenant}.years.{pair.year} is not declared; declared are"
                f" {declared}. Choose one of these or add the year under tenants."
            )
        return tenant.years[pair.year]

    def _pair_extract(self, year: OdsYear) -> PairExtract:
        names = list(PairExtract.__dataclass_fields__)
        values: dict[str, Any] = {name: getattr(self.extract, name) for name in names}
        values |= {name: value for name in names if (value := getattr(year.extract, name)) is not None}
        if year.api_version is not None and year.api_version.split(".")[0] == "2":
            values["use_change_version"] = False
        return PairExtract(**values)


def _undeclared_bundle_pairs(platform: Platform) -> Iterator[Problem]:
    declared = set(platform.pairs())
    for name, bundle in platform.earthbeam.bundles.items():
        for code in bundle.applies_to or {}:
            missing = [
                pair for pair in platform.bundle_pairs(name) if pair.tenant == code and pair not in declared
            ]
            if missing:
                path = ("earthbeam", "bundles", name, "applies_to", code)
                yield (
                    path,
                    f"names {', '.join(map(str, missing))}, which tenants does not declare; add it there",
                )


def _endpoints_added_by_years(platform: Platform) -> Iterator[Problem]:
    for pair in platform.pairs():
        extract = platform.tenants[pair.tenant].years[pair.year].extract
        for kind in ENDPOINT_KINDS:
            selected = platform.extract.selection(kind)
            for key, endpoint in extract.selection(kind).overrides.items():
                if not selected.all and key not in selected.overrides:
                    path = ("tenants", pair.tenant, "years", pair.year, "extract", kind, endpoint.written)
                    yield path, f"is not pulled by the platform; add it under extract.{kind} or take it out"


def _taken_prefix(platform: Platform) -> Iterator[Problem]:
    prefix = platform.tables.asset_prefix
    for kind in (platform.extract.resources, platform.extract.descriptors):
        for endpoint in kind.overrides.values():
            if normalise_endpoint(prefix, "") == normalise_endpoint(endpoint.namespace, ""):
                yield (
                    ("tables", "asset_prefix"),
                    f"{prefix!r} is also the namespace of {endpoint.written}; choose another name",
                )
                return
