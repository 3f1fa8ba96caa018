"""Floor 0: the configuration, read from one YAML file into frozen models. Contacts nothing."""

from edfi_dagster.config.embedded import embedded_platform
from edfi_dagster.config.errors import ConfigError, UndeclaredPair
from edfi_dagster.config.extract import (
    EndpointKind,
    EndpointSelection,
    ResolvedOptions,
    SelectedEndpoint,
    normalise_endpoint,
)
from edfi_dagster.config.load import find_config, json_schema, load_platform, parse_platform
from edfi_dagster.config.models import Platform
from edfi_dagster.config.secrets import PublicValue, Secret
from edfi_dagster.config.tenants import Credentials, OdsSettings, PairExtract, Schedules
from edfi_dagster.config.values import TenantYear

__all__ = [
    "ConfigError",
    "Credentials",
    "EndpointKind",
    "EndpointSelection",
    "OdsSettings",
    "PairExtract",
    "Platform",
    "PublicValue",
    "ResolvedOptions",
    "Schedules",
    "Secret",
    "SelectedEndpoint",
    "TenantYear",
    "UndeclaredPair",
    "embedded_platform",
    "find_config",
    "json_schema",
    "load_platform",
    "normalise_endpoint",
    "parse_platform",
]
