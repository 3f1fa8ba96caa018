"""Which endpoints there are: the checked-in catalogue of each data standard, and a platform's choice of it.

An endpoint is identified by (namespace, name), the name in the API's own camelCase; snake_case names
are for tables, files and asset keys and cannot be turned back (``studentIEPs``).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

from edfi_dagster.config import (
    ConfigError,
    EndpointKind,
    Platform,
    SelectedEndpoint,
    TenantYear,
    normalise_endpoint,
)

RESOURCE: Literal["resource"] = "resource"
DESCRIPTOR: Literal["descriptor"] = "descriptor"
Kind = Literal["resource", "descriptor"]
_SELECTIONS: Mapping[Kind, EndpointKind] = {RESOURCE: "resources", DESCRIPTOR: "descriptors"}
_ED_FI = normalise_endpoint("ed-fi", "")


@dataclass(frozen=True, order=True)
class Endpoint:
    """One collection of an Ed-Fi API.

    ``key`` maps the flat name of each part of the natural key (as ``keyValues`` has it) to its JSON path in
    a record, e.g. ``{"schoolId": "courseOfferingReference.schoolId"}``; empty when it is not known.
    ``snake`` is the name in lake paths, tables and the ``name`` column.
    """

    namespace: str
    name: str
    kind: Kind
    domain: str
    key: Mapping[str, str]
    key_can_change: bool
    has_changes: bool
    fields: Mapping[str, str]
    snake: str

    @property
    def path(self) -> str:
        """``ed-fi/students``: how the API and people name it."""
        return f"{self.namespace}/{self.name}"

    @property
    def is_descriptor(self) -> bool:
        return self.kind == DESCRIPTOR

    def __hash__(self) -> int:
        return hash((self.namespace, self.name))

    def __str__(self) -> str:
        return self.path


def snake_case(name: str) -> str:
    """``studentCTEProgramAssociations`` → ``student_cte_program_associations``; ``studentIEPs`` → ``student_ieps``.

    The rules of edfi_api_client's ``camel_to_snake``, whose table names dbt reads: a plural s belongs to the
    acronym before it.
    """
    name = re.sub(r"(?<=[A-Z])s\b", "S", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"[_ ]+", "_", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)).lower()


@cache
def standard_endpoints(standard: str) -> tuple[Endpoint, ...]:
    """Every endpoint of a data standard (``"5.2"``: Ed-Fi and TPDM), resources before descriptors.

    Raises ConfigError for a standard without a catalogue.
    """
    source = files(__package__) / "catalogues" / f"{standard}.json"
    if not source.is_file():
        raise ConfigError(
            f"extract.data_standard: there is no catalogue of data standard {standard!r}; "
            f"write one of {', '.join(catalogued_standards())}"
        )
    catalogue = json.loads(source.read_text())
    return tuple(_without_collisions([*_read(catalogue, RESOURCE), *_read(catalogue, DESCRIPTOR)]))


def catalogued_standards() -> list[str]:
    """The data standards whose catalogue is checked in."""
    folder = files(__package__) / "catalogues"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir())


def _read(catalogue: Mapping[str, Any], kind: Kind) -> Iterator[Endpoint]:
    for row in catalogue[f"{kind}s"]:
        is_resource = kind == RESOURCE
        yield Endpoint(
            namespace=row["namespace"],
            name=row["name"],
            kind=kind,
            domain=row["domain"],
            key=MappingProxyType(
                dict(zip(row["key_names"], row["key"], strict=True))
                if is_resource
                else {"namespace": "namespace", "codeValue": "codeValue"}
            ),
            key_can_change=row.get("key_changes", False),
            # Descriptors are compared whole, and the API publishes no changes of schoolYearTypes.
            has_changes=is_resource and row["name"] != "schoolYearTypes",
            fields=MappingProxyType(row.get("fields", {})),
            snake=snake_case(row["name"]),
        )


def _without_collisions(endpoints: Iterable[Endpoint]) -> Iterator[Endpoint]:
    """Where two endpoints share a snake name, the one outside ``ed-fi`` is called ``<namespace>_<name>``."""
    known = list(endpoints)
    times = Counter(endpoint.snake for endpoint in known)
    for endpoint in known:
        if times[endpoint.snake] > 1 and endpoint.namespace != "ed-fi":
            namespace = endpoint.namespace.replace("-", "_")
            yield replace(endpoint, snake=f"{namespace}_{endpoint.snake}")
        else:
            yield endpoint


def endpoints_of(platform: Platform, pair: TenantYear) -> tuple[Endpoint, ...]:
    """The endpoints chosen for one tenant-year: what ``resources`` and ``descriptors`` say, of its standard.

    An endpoint's ``snake`` is the one it has beside all of its standard, whether those are chosen or not.
    Raises ConfigError where the configuration names an endpoint that the standard does not have in that
    list and gives no namespace of an extension, and where a shared table has the name of a resource's.
    """
    standard = standard_endpoints(platform.ods(pair).extract.data_standard)
    chosen = [e for kind in (RESOURCE, DESCRIPTOR) for e in _chosen(platform, pair, standard, kind)]
    named_apart = {e.path: e for e in _without_collisions(dict.fromkeys([*standard, *chosen]))}
    found = tuple(named_apart[endpoint.path] for endpoint in chosen)
    _check_shared_tables(platform, found)
    return found


def _chosen(
    platform: Platform, pair: TenantYear, standard: Iterable[Endpoint], kind: Kind
) -> Iterator[Endpoint]:
    known = {_normal(endpoint): endpoint for endpoint in standard if endpoint.kind == kind}
    selection = platform.extract.selection(_SELECTIONS[kind])
    _check_names(platform, pair, known.keys(), kind)
    wanted = dict.fromkeys(known) if selection.all else {}
    for normal, named in selection.overrides.items():
        if named.options.enabled is False:
            wanted.pop(normal, None)
        else:
            wanted[normal] = None
    for normal in wanted:
        yield known[normal] if normal in known else _extension(selection.overrides[normal], kind)


def _check_names(platform: Platform, pair: TenantYear, known: Collection[str], kind: Kind) -> None:
    """An endpoint switched off need not exist: one configuration may serve several standards."""
    places = f"extract.{kind}s", f"tenants.{pair.tenant}.years.{pair.year}.extract.{kind}s"
    year = platform.tenants[pair.tenant].years[pair.year].extract
    named = platform.extract.selection(_SELECTIONS[kind]).overrides
    of_year = year.selection(_SELECTIONS[kind]).overrides
    for normal, endpoint in named.items():
        is_extension = normalise_endpoint(endpoint.namespace, "") != _ED_FI
        if normal not in known and endpoint.options.enabled is not False and not is_extension:
            raise ConfigError(
                f"{platform.source}: {places[0]}.{endpoint.written}: the data standard of {pair} has no such "
                f"{kind}; check the spelling, or write <namespace>/{endpoint.name} when an extension has it"
            )
    for normal, endpoint in of_year.items():
        if normal not in known and normal not in named:
            raise ConfigError(
                f"{platform.source}: {places[1]}.{endpoint.written}: the data standard of {pair} has no such "
                f"{kind}, nor does {places[0]} name it; check the spelling"
            )


def _check_shared_tables(platform: Platform, endpoints: Iterable[Endpoint]) -> None:
    resources = {e.snake: e for e in endpoints if not e.is_descriptor}
    for field, table in platform.tables:
        if field != "asset_prefix" and (resource := resources.get(str(table).lower())):
            raise ConfigError(
                f"{platform.source}: tables.{field}: {table!r} is the table of {resource.path}; choose another name"
            )


def _normal(endpoint: Endpoint) -> str:
    return normalise_endpoint(endpoint.namespace, endpoint.name)


def _extension(named: SelectedEndpoint, kind: Kind) -> Endpoint:
    """An endpoint of an extension: what is not known of it comes from the ODS at run time.

    Written in snake_case it becomes camelCase, wrong at most in casing, which the API does not mind.
    """
    name = re.sub(r"_+(\w)", lambda match: match[1].upper(), named.name.strip("_"))
    name = name[:1].lower() + name[1:]
    return Endpoint(
        namespace=named.namespace.replace("_", "-").lower(),
        name=name,
        kind=kind,
        domain="other",
        key=MappingProxyType({}),
        key_can_change=kind == RESOURCE,
        has_changes=kind == RESOURCE,
        fields=MappingProxyType({}),
        snake=snake_case(name),
    )


def find_endpoints(names: Iterable[str], among: Iterable[Endpoint]) -> list[Endpoint]:
    """The endpoints called ``names`` in any casing, each once, with or without namespace (default ``ed-fi``).

    Without namespace, the ``snake`` of another namespace's endpoint names it as well (``candidates``).

    Raises ConfigError naming those that are not among the given ones.
    """
    known = {_normal(endpoint): endpoint for endpoint in among}
    by_snake = {endpoint.snake: endpoint for endpoint in known.values()}
    found: dict[Endpoint, None] = {}
    missing: list[str] = []
    for written in names:
        namespace, slash, name = written.strip().rpartition("/")
        normal = normalise_endpoint(namespace if slash else "ed-fi", name)
        endpoint = known.get(normal) or by_snake.get(written.strip().lower())
        if endpoint is None:
            missing.append(repr(written))
        else:
            found[endpoint] = None
    if missing:
        raise ConfigError(
            f"no endpoint called {', '.join(missing)} is configured; names are as in the API "
            "(studentSchoolAssociations, tpdm/candidates), in any casing"
        )
    return list(found)
