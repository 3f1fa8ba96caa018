"""Which endpoints there are: the checked-in catalogue of each data standard, and a platform's choice of it.

An endpoint is identified by (namespace, name), the name in the API's own camelCase; snake_case names
are for tables, files and asset keys and cannot be turned back (``studentIEPs``).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
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
# Of 0 to 1. A slip of the pen is above it, another word that ends in Descriptors mostly below.
_ALIKE = 0.85
_ED_FI = normalise_endpoint("ed-fi", "").rstrip("/")
_SELECTIONS: Mapping[Kind, EndpointKind] = {RESOURCE: "resources", DESCRIPTOR: "descriptors"}


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
    """Every endpoint of a data standard (``"5.2"``: Ed-Fi and TPDM 1.1), resources before descriptors.

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


def nearest_standard(version: str) -> str:
    """The catalogue to pull a data model by: of its own standard, else the nearest older one, else the oldest.

    ``version`` is as discovery tells it, ``6.1.0`` or ``3.2.0-c``. Raises ValueError where it is no version.
    """
    wanted = _numbers(version)
    known = sorted(catalogued_standards(), key=_numbers)
    return max((name for name in known if _numbers(name) <= wanted), key=_numbers, default=known[0])


def without_catalogue(version: str) -> str:
    """What to say of a data model whose standard has no catalogue; empty where it has one, or is no version."""
    try:
        nearest = nearest_standard(version)
    except ValueError:
        return ""
    own = ".".join(map(str, _numbers(version)))
    if own == nearest:
        return ""
    side = "older" if _numbers(nearest) < _numbers(own) else "newer"
    return f"data standard {own} has no catalogue, and {nearest} is the nearest {side} one"


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


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
            yield replace(endpoint, snake=prefixed(endpoint.namespace, endpoint.snake))
        else:
            yield endpoint


def prefixed(namespace: str, snake: str) -> str:
    """The name of an endpoint where another one has the same: ``tx_certifications``."""
    return f"{namespace.replace('-', '_')}_{snake}"


def endpoints_of(platform: Platform, pair: TenantYear) -> tuple[Endpoint, ...]:
    """The endpoints chosen for one tenant-year: what ``resources`` and ``descriptors`` say, of its standard.

    They and their names depend on the pair's own standard and on what is chosen, never on what other tenants and years
    are declared. A named endpoint that another standard has is skipped, one that no catalogue has is an extension's. An
    endpoint's ``snake`` is the one it has beside all of its standard, an extension's beside all standards there are,
    whether those are chosen or not.
    Raises ConfigError where the configuration names an endpoint that no pair's standard has, in a namespace
    that the pair's own has, and where a shared table has the name of a resource's.
    """
    standard = standard_endpoints(platform.ods(pair).extract.data_standard)
    declared = _declared(_standards(platform))
    chosen = [e for kind in (RESOURCE, DESCRIPTOR) for e in _chosen(platform, pair, standard, declared, kind)]
    named_apart = {e.path: e for e in _without_collisions(dict.fromkeys([*standard, *chosen]))}
    found = tuple(named_apart[endpoint.path] for endpoint in chosen)
    _check_shared_tables(platform, found)
    return found


def _standards(platform: Platform) -> tuple[str, ...]:
    """The data standards of all declared tenant-years."""
    years = (year for tenant in platform.tenants.values() for year in tenant.years.values())
    return tuple(sorted({year.extract.data_standard or platform.extract.data_standard for year in years}))


@cache
def _declared(standards: tuple[str, ...]) -> Mapping[str, Endpoint]:
    """What any of these standards has, by normalised name."""
    return {_normal(endpoint): endpoint for name in standards for endpoint in standard_endpoints(name)}


@cache
def _catalogued() -> Mapping[str, Endpoint]:
    """What any standard at all has, by normalised name."""
    return _declared(tuple(catalogued_standards()))


@cache
def _catalogued_names() -> frozenset[str]:
    return frozenset(endpoint.snake for endpoint in _catalogued().values())


def _chosen(
    platform: Platform,
    pair: TenantYear,
    standard: Iterable[Endpoint],
    declared: Mapping[str, Endpoint],
    kind: Kind,
) -> Iterator[Endpoint]:
    known = {_normal(endpoint): endpoint for endpoint in standard if endpoint.kind == kind}
    selection = platform.extract.selection(_SELECTIONS[kind])
    _check_names(platform, pair, declared, known, kind)
    wanted = dict.fromkeys(known) if selection.all else {}
    for normal, named in selection.overrides.items():
        if named.options.enabled is False:
            wanted.pop(normal, None)
        else:
            wanted[normal] = None
    for normal in wanted:
        if normal in known:
            yield known[normal]
        elif normal not in _catalogued():
            yield _extension(selection.overrides[normal], kind)
        elif selection.overrides[normal].options.in_catalogue is False:
            yield _catalogued()[normal]


def _check_names(
    platform: Platform,
    pair: TenantYear,
    declared: Mapping[str, Endpoint],
    known: Mapping[str, Endpoint],
    kind: Kind,
) -> None:
    """An endpoint switched off may be of any standard: one configuration may serve several. Misspelt, it would be pulled."""
    places = f"extract.{kind}s", f"tenants.{pair.tenant}.years.{pair.year}.extract.{kind}s"
    year = platform.tenants[pair.tenant].years[pair.year].extract
    selection = platform.extract.selection(_SELECTIONS[kind])
    named = selection.overrides
    of_year = year.selection(_SELECTIONS[kind]).overrides
    for normal, endpoint in named.items():
        is_off = endpoint.options.enabled is False and (normal in _catalogued() or not selection.all)
        is_taken_on_trust = is_off or endpoint.options.in_catalogue is False
        if normal not in declared and not is_taken_on_trust and _is_mistaken(normal, known):
            raise ConfigError(
                f"{platform.source}: {places[0]}.{endpoint.written}: the data standard of {pair} has no such "
                f"{kind}; {_advice(normal, declared)}"
            )
    for normal, endpoint in of_year.items():
        if normal not in known and normal not in named:
            raise ConfigError(
                f"{platform.source}: {places[1]}.{endpoint.written}: the data standard of {pair} has no such "
                f"{kind}, nor does {places[0]} name it; {_advice(normal, declared)}"
            )


def off_nowhere(platform: Platform) -> list[str]:
    """Endpoints switched off beside ``"*"``, as written, that only standards have which no declared year has."""
    declared = _declared(_standards(platform))
    return [
        endpoint.written
        for kind in (RESOURCE, DESCRIPTOR)
        for selection in (platform.extract.selection(_SELECTIONS[kind]),)
        for normal, endpoint in selection.overrides.items()
        if selection.all and endpoint.options.enabled is False
        if normal in _catalogued() and normal not in declared
    ]


def _is_mistaken(normal: str, known: Mapping[str, Endpoint]) -> bool:
    """Whether a name that no declared standard has is none of an extension either; ``known`` are those of the pair's own.

    An extension has versions of its own, so an unknown name is refused in ``ed-fi``, elsewhere where it looks like a
    known one misspelt, and where it is of a standard that nobody has.
    """
    namespace = normal.partition("/")[0]
    if namespace == _ED_FI or normal in _catalogued():
        return True
    return any(name.startswith(f"{namespace}/") for name in known) and bool(
        near_names(normal, known.values())
    )


def _advice(normal: str, declared: Mapping[str, Endpoint]) -> str:
    """What to write instead of a name that no declared standard has."""
    having = [name for name in catalogued_standards() if normal in _declared((name,))]
    if having:
        return f"it is of data standard {' and '.join(having)}; check data_standard, or take it out"
    near = near_names(normal, declared.values())
    if near:
        return f"did you mean {' or '.join(near)}?"
    name = normal.rpartition("/")[2]
    return (
        f"check the spelling, write <namespace>/{name} when an extension has it, or in_catalogue: false when the ODS has "
        "it beyond the catalogue (edfi-dagster discover --yaml)"
    )


def near_names(written: str, among: Iterable[Endpoint]) -> list[str]:
    """The names most like a mistaken one, at most three; those outside ``ed-fi`` with their namespace."""
    by_name: dict[str, list[Endpoint]] = {}
    for endpoint in among:
        by_name.setdefault(normalise_endpoint("", endpoint.name), []).append(endpoint)
    name = normalise_endpoint("", written.rpartition("/")[2])
    near = [e for close in get_close_matches(name, by_name, 3, _ALIKE) for e in by_name[close]]
    return list(dict.fromkeys(e.name if e.namespace == "ed-fi" else e.path for e in near))[:3]


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

    It shares no table with an endpoint of any standard, so that it keeps its name in the next one and in other pairs.
    Written in snake_case it becomes camelCase, wrong at most in casing, which the API does not mind.
    """
    name = re.sub(r"_+(\w)", lambda match: match[1].upper(), named.name.strip("_"))
    name = name[:1].lower() + name[1:]
    namespace, snake = named.namespace.replace("_", "-").lower(), snake_case(name)
    if snake in _catalogued_names():
        snake = prefixed(namespace, snake)
    return Endpoint(
        namespace=namespace,
        name=name,
        kind=kind,
        domain="other",
        key=MappingProxyType({}),
        key_can_change=kind == RESOURCE,
        has_changes=kind == RESOURCE,
        fields=MappingProxyType({}),
        snake=snake,
    )


def find_endpoints(names: Iterable[str], among: Iterable[Endpoint]) -> list[Endpoint]:
    """The endpoints called ``names`` in any casing, each once, with or without namespace (default ``ed-fi``).

    Without namespace, the ``snake`` of another namespace's endpoint names it as well (``candidates``).

    Raises ConfigError naming those that are not among the given ones, and what is near to them.
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
            missing.append(written)
        else:
            found[endpoint] = None
    if missing:
        near = [name for written in missing for name in near_names(written, known.values())]
        advice = f"did you mean {' or '.join(near)}? N" if near else "n"
        raise ConfigError(
            f"no endpoint called {', '.join(map(repr, missing))} is configured; {advice}ames are as in the API "
            "(studentSchoolAssociations, tpdm/candidates), in any casing"
        )
    return list(found)
