"""What a run of a bundle is given, and the files and parameters that come of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.config.earthbeam import Bundle, InputFolder, grain_piece
from edfi_dagster.earthbeam.bundle import bundle_parameters, crosswalk_parameters
from edfi_dagster.earthbeam.errors import BundleError
from edfi_dagster.earthbeam.filling import fill_path
from edfi_dagster.earthbeam.turns import turn
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.warehouse.contract import Warehouse


def _nothing(sentence: str) -> None:
    """Nobody wants to be told."""


@dataclass(frozen=True)
class BundleJob:
    """One run of the bundle ``bundle`` for a (tenant, year), and a grain if the bundle has any.

    ``inputs`` (variable → file) and ``parameters`` stand above the configured ones; ``force`` runs also what was done
    before, and reaches both tools. ``base_url`` is where the ODS is, if not where the configuration says (a sandbox).
    ``roster_warehouse`` is where ``student_ids.roster_warehouse`` points. ``cache`` is a folder that outlives runs.
    """

    platform: Platform
    pair: TenantYear
    bundle: str
    lake: LakeStore
    warehouse: Warehouse
    grain: str | None = None
    inputs: Mapping[str, Path] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    force: bool = False
    base_url: str | None = None
    roster_warehouse: Warehouse | None = None
    tell: Callable[[str], None] = _nothing
    warn: Callable[[str], None] = _nothing
    cache: Path | None = None

    @property
    def settings(self) -> Bundle:
        """Raises BundleError for a name, pair or grain that the configuration does not have."""
        bundles = self.platform.earthbeam.bundles
        if self.bundle not in bundles:
            known = ", ".join(bundles) or "none"
            raise BundleError(
                f"{self.platform.source}: there is no bundle {self.bundle!r}; bundles are: {known}"
            )
        settings = bundles[self.bundle]
        if self.pair not in self.platform.bundle_pairs(self.bundle):
            pairs = ", ".join(map(str, self.platform.bundle_pairs(self.bundle)))
            raise BundleError(f"{self.bundle} does not apply to {self.pair}; it applies to {pairs}")
        _check_grain(self.bundle, settings, self.grain)
        return settings

    @property
    def grain_piece(self) -> str:
        """The grain as it stands in paths; empty without one."""
        return grain_piece(self.grain or "")

    @property
    def folder(self) -> Path:
        """Where documents of the ODS are remembered between runs."""
        return self.cache or self.platform.folder / ".dagster" / "earthbeam"

    def turn(self, tool: Literal["earthmover", "lightbeam"]) -> AbstractContextManager[None]:
        """Held while a tool runs: no more than its ``concurrency`` of them run on this machine at once."""
        earthbeam = self.platform.earthbeam
        settings = earthbeam.earthmover if tool == "earthmover" else earthbeam.lightbeam
        return turn(self.folder / "turns", tool, settings.concurrency, tell=self.tell)

    def turn_of(self, state: str) -> AbstractContextManager[None]:
        """Held while the state of that path in the lake is read, used and written on this machine."""
        name = hashlib.sha256(state.encode()).hexdigest()[:16]
        return turn(self.folder / "turns", f"state_{name}", 1, tell=self.tell)

    def found_inputs(self, known: Mapping[str, str]) -> dict[str, Path]:
        """Variable → file, given or configured; ``known`` holds what a hook returned. Raises BundleError."""
        values = {"tenant": self.pair.tenant, "year": str(self.pair.year), "grain": self.grain_piece, **known}
        found = dict(self.inputs)
        for variable, place in self.settings.inputs.items():
            if variable in found:
                continue
            if isinstance(place, InputFolder):
                found[variable] = _only_file(variable, Path(fill_path(place.folder, values)), place.pattern)
            else:
                found[variable] = Path(fill_path(place, values))
        for variable, file in found.items():
            if not file.is_file():
                raise BundleError(f"{variable}: there is no file {file}")
        return {variable: file.resolve() for variable, file in found.items()}

    def all_parameters(self, inputs: Mapping[str, Path], known: Mapping[str, str]) -> dict[str, str]:
        """Every parameter but the files' paths. ``{file}`` is the name of the first input. Raises BundleError."""
        first = next(iter(inputs.values()), None)
        values = {"file": first.name if first else "", **known}
        settings = self.settings
        configured = bundle_parameters(settings, self.pair, self.grain, values)
        return {**crosswalk_parameters(settings), **configured, **self.parameters}


def _check_grain(name: str, settings: Bundle, grain: str | None) -> None:
    if grain is None and settings.grains:
        raise BundleError(f"{name} has grains; give one of {', '.join(settings.grains)}")
    if grain is not None and grain not in settings.grains:
        known = (
            f"write one of {', '.join(settings.grains)}" if settings.grains else "it has none; leave it out"
        )
        raise BundleError(f"{name} has no grain {grain!r}; {known}")


def _only_file(variable: str, folder: Path, pattern: str) -> Path:
    if not folder.is_dir():
        raise BundleError(f"{variable}: there is no folder {folder}")
    found = sorted(
        f for f in folder.iterdir() if f.is_file() and fnmatch(f.name, pattern) and f.name[0] != "."
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise BundleError(f"{variable}: no file in {folder} matches {pattern}")
    names = ", ".join(file.name for file in found[:5])
    raise BundleError(
        f"{variable}: {len(found)} files in {folder} match {pattern} ({names}); give the one that is meant"
    )
