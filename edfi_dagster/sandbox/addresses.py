"""Where each ODS of a sandbox stands in its paths: tenant, instance and year, by version and API mode."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from edfi_dagster.sandbox.generations import Generation

Mode = Literal["shared_instance", "sandbox", "district_specific", "year_specific", "instance_year_specific"]
MODES: tuple[str, ...] = get_args(Mode)
# Longest first: instance and year stand behind the whole of an area.
_AREAS = (
    ("metadata", "changequeries", "v1"),
    ("metadata", "data", "v3"),
    ("changequeries", "v1"),
    ("api", "v2.0"),
    ("data", "v3"),
    ("metadata",),
)


@dataclass(frozen=True)
class Address:
    """``base``: the segments before the API's areas; ``instance`` and ``year``: those behind them, or ``""``."""

    base: tuple[str, ...]
    instance: str = ""
    year: str = ""

    @property
    def inside(self) -> tuple[str, ...]:
        return tuple(part for part in (self.instance, self.year) if part)

    def url(self, root: str, *area: str) -> str:
        """The URL of an area, without a trailing slash."""
        return "/".join((root, *self.base, *area, *self.inside))

    def oauth_url(self, root: str, generation: Generation) -> str:
        """The folder of ``token`` and ``token_info``."""
        instance = (self.instance,) if self.instance and generation.oauth_by_instance else ()
        return "/".join((root, *self.base, *instance, "oauth"))


@dataclass(frozen=True)
class Place:
    """What a path leads to: the deployment at ``base``, an ODS of it if the path names one, and the rest of the
    path as it would be without instance and year. ``base`` is ``None`` where nothing is deployed."""

    base: tuple[str, ...] | None
    ods: str | None
    rest: list[str]


class AddressBook:
    """The addresses of a site's ODSs, by name (``tenant/year``, or ``""``).

    From 7.0 the name is the path's prefix. Before, in the modes without a year in the path, it is the folder of
    a deployment of its own; ``year_specific`` deploys each tenant in a folder, its years behind the area; and
    ``instance_year_specific`` is one deployment with the tenants as instances.
    Raises ``ValueError`` for a mode that the version or the names do not fit.
    """

    def __init__(self, names: Iterable[str], generation: Generation, mode: str | None) -> None:
        self.generation = generation
        self.names = tuple(names)
        self.mode = _mode(self.names, generation, mode)
        self.addresses = {name: self._address(name) for name in self.names}
        self._deployed: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
        self._bases: dict[tuple[str, ...], tuple[str, ...]] = {}
        for name, address in self.addresses.items():
            self._deployed.setdefault(_lower(address.base), {})[_lower(address.inside)] = name
            self._bases[_lower(address.base)] = address.base
        self._depths = sorted({len(base) for base in self._deployed}, reverse=True)

    @property
    def placeholder(self) -> Address:
        """What stands for tenant and year in discovery where a 7.x request names neither."""
        return Address(("{tenantIdentifier}", "{schoolYearFromRoute}"))

    def security_of(self, name: str) -> tuple[str, ...]:
        """What names the security store that issues an ODS's tokens: years of a tenant share one."""
        address = self.addresses[name]
        if not self.generation.modes:
            return address.base[:1]
        return (*address.base, address.instance) if self.generation.oauth_by_instance else address.base

    def locate(self, segments: list[str]) -> Place:
        for depth in self._depths:
            base = _lower(segments[:depth])
            if len(base) == depth and base in self._deployed:
                return self._within(self._bases[base], self._deployed[base], segments[depth:])
        return Place(None, None, segments)

    def control(self, segments: list[str]) -> tuple[str, list[str]] | None:
        """(ODS, the rest) of a path ``/{ods}/_control/…``."""
        if "_control" not in segments:
            return None
        position = segments.index("_control")
        by_lower = {name.lower(): name for name in self.names}
        name = by_lower.get("/".join(segments[:position]).lower())
        return None if name is None else (name, segments[position + 1 :])

    def _within(self, base: tuple[str, ...], by_inside: dict[tuple[str, ...], str], rest: list[str]) -> Place:
        depth = len(next(iter(by_inside)))
        if depth == 0:
            return Place(base, by_inside[()], rest)
        if not rest:
            return Place(base, None, rest)
        if found := self._token_issuer(by_inside, rest):
            return Place(base, *found)
        for area in _AREAS:
            if _lower(rest[: len(area)]) == area:
                name = by_inside.get(_lower(rest[len(area) : len(area) + depth]))
                return Place(base, name, [*area, *rest[len(area) + depth :]])
        return Place(base, None, rest)

    def _token_issuer(
        self, by_inside: dict[tuple[str, ...], str], rest: list[str]
    ) -> tuple[str, list[str]] | None:
        """Some ODS of those whose tokens a path issues, and the path from ``oauth`` on."""
        lower = _lower(rest)
        if lower[0] == "oauth" and not (self.generation.oauth_by_instance and self._has_instances):
            return next(iter(by_inside.values())), rest
        if len(lower) > 1 and lower[1] == "oauth" and self._has_instances:
            names = [name for inside, name in by_inside.items() if inside[0] == lower[0]]
            return (names[0], rest[1:]) if names else None
        return None

    @property
    def _has_instances(self) -> bool:
        return self.mode == "instance_year_specific"

    def _address(self, name: str) -> Address:
        parts = tuple(part for part in name.split("/") if part)
        if self.mode == "year_specific":
            return Address(parts[:-1], year=parts[-1])
        if self._has_instances:
            return Address((), instance=parts[0], year=parts[1])
        return Address(parts)


def _mode(names: tuple[str, ...], generation: Generation, mode: str | None) -> str | None:
    if not generation.modes:
        if mode is not None:
            raise ValueError(f"ODS/API {generation.version} has no API modes; leave the mode out")
        return None
    parts = [name.split("/") for name in names]
    if mode is None:
        return "year_specific" if all(_is_year(found[-1]) for found in parts) else "shared_instance"
    if mode not in MODES:
        raise ValueError(f"unknown API mode {mode!r}; one of {', '.join(MODES)}")
    if mode == "year_specific" and not all(_is_year(found[-1]) for found in parts):
        raise ValueError("year_specific needs names that end in a school year: tenant/2025")
    if mode == "instance_year_specific" and not all(
        len(found) == 2 and _is_year(found[1]) for found in parts
    ):
        raise ValueError("instance_year_specific needs names of an instance and a school year: tenant/2025")
    return mode


def mode_title(mode: str) -> str:
    """A mode as discovery writes it: ``Year Specific``."""
    return mode.replace("_", " ").title()


def _is_year(text: str) -> bool:
    return len(text) == 4 and text.isdigit()


def _lower(segments: Iterable[str]) -> tuple[str, ...]:
    return tuple(segment.lower() for segment in segments)
