"""A configured bundle → its assets and checks, known by reading its YAML; nothing is run and nobody is contacted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys
from edfi_dagster.config import Platform
from edfi_dagster.config.earthbeam import Bundle
from edfi_dagster.earthbeam import BundleError, BundleOutline, Output, read_outline
from edfi_dagster.earthbeam.bundle import MATCH_RATES, NO_MATCH
from edfi_dagster.earthbeam.student_ids import ASSOCIATIONS
from edfi_dagster.ods.catalogue import snake_case

GROUP = PREFIX = "earthbeam"
SENT = "sent"
UNREADABLE = "unreadable"
STUDENT_IDS_MATCH = "student_ids_match"
RECORDS_VALID = "records_valid"
SENT_WITHOUT_FAILURES = "sent_without_failures"
OUTLINES = (".dagster", "earthbeam", "outlines")


@dataclass(frozen=True)
class BundleAssets:
    """The assets of one bundle; where its YAML cannot be read, one asset that tells why.

    ``name`` is the bundle's own, ``roster`` the raw table that its students are looked up in, if it is one of ours.
    """

    name: str
    settings: Bundle
    outline: BundleOutline | None
    problem: str
    roster: dg.AssetKey | None
    owners: tuple[str, ...]

    @property
    def op_name(self) -> str:
        """``earthbeam__psat_sat``: where run configuration goes in the launchpad."""
        return f"{PREFIX}__{snake_case(self.name)}"

    @property
    def title(self) -> str:
        return (self.outline.title if self.outline else None) or self.name

    def key(self, output: str) -> dg.AssetKey:
        """``earthbeam/psat_sat/student_assessments``."""
        return dg.AssetKey([PREFIX, snake_case(self.name), _key_piece(output)])

    def sent_key(self, resource: str) -> dg.AssetKey:
        """``earthbeam/psat_sat/sent/student_assessments``."""
        return dg.AssetKey([PREFIX, snake_case(self.name), SENT, _key_piece(resource)])

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """What Earthmover writes; a bundle with student ids has its match rates, however its wrapper calls them."""
        made = self.outline.outputs if self.outline else ()
        if self.settings.student_ids is None or any(output.name == MATCH_RATES for output in made):
            return made
        return (*made, Output(MATCH_RATES, f"{MATCH_RATES}.csv", None, always=False))

    @property
    def resources(self) -> dict[str, str]:
        """Resource → the output its records are in."""
        return {output.resource: output.name for output in self.outputs if output.resource}

    @property
    def validates(self) -> bool:
        return self.settings.destination == "ods" and "validate" in self.settings.lightbeam.command

    @property
    def sends(self) -> bool:
        return self.settings.destination == "ods" and self.settings.lightbeam.command != "validate"

    def specs(self) -> list[dg.AssetSpec]:
        """One for each output, and one for each resource that is sent."""
        if self.outline is None:
            return [self._spec(self.key(UNREADABLE), f"This bundle cannot be read. {self.problem}", set())]
        sent = [self._sent(resource, output) for resource, output in self.resources.items() if self.sends]
        return [*map(self._output, self.outputs), *sent]

    def check_specs(self) -> Iterator[dg.AssetCheckSpec]:
        """Students recognised, records valid, records taken by the ODS."""
        if self.outline is None:
            return
        if self.settings.student_ids is not None:
            yield dg.AssetCheckSpec(
                STUDENT_IDS_MATCH,
                asset=self.key(MATCH_RATES),
                blocking=True,
                description="Whether enough rows of the file found their student "
                f"({self.settings.student_ids.required_match_rate:.0%}); if not, nothing is sent or loaded.",
            )
        for resource, output in self.resources.items():
            if self.validates:
                yield dg.AssetCheckSpec(
                    RECORDS_VALID,
                    asset=self.key(output),
                    description="What Lightbeam found when it compared the records with the ODS's own description of "
                    f"{resource}, before anything was sent.",
                )
            if self.sends:
                yield dg.AssetCheckSpec(
                    SENT_WITHOUT_FAILURES,
                    asset=self.sent_key(resource),
                    description=f"Whether the ODS has every record of {resource} that the bundle made.",
                )

    def _output(self, output: Output) -> dg.AssetSpec:
        told = f"Made by bundle {self.name} ({self.title}). "
        if output.name == MATCH_RATES:
            told = (
                "How well each column of the file matches each kind of student id; the best pair is used. "
                + told
            )
        elif output.name == NO_MATCH:
            told = (
                "Rows whose student was not recognised. They are kept in the lake's restricted folder. "
                + told
            )
        elif output.resource:
            told = (
                f"Ed-Fi records of {output.resource} that Earthmover made of the file, one JSON object a line. "
                + told
            )
        else:
            told = f"File {output.file} that Earthmover made. " + told
        kinds = {"earthmover", "json" if output.resource else output.file.rpartition(".")[2] or "file"}
        metadata = {
            "edfi/output": output.file,
            **({"edfi/resource": output.resource} if output.resource else {}),
        }
        deps = [self.roster] if output.name == MATCH_RATES and self.roster else []
        return self._spec(self.key(output.name), told + self._next(), kinds, deps=deps, metadata=metadata)

    def _next(self) -> str:
        """Where records go from here."""
        if self.settings.destination == "ods":
            return (
                "Lightbeam sends its records to the ODS."
                if self.sends
                else "Lightbeam checks, and sends nothing."
            )
        loaded = self.settings.destination == "warehouse"
        return "Its records are loaded straight into the raw tables." if loaded else "It is kept in the lake."

    def _sent(self, resource: str, output: str) -> dg.AssetSpec:
        verb = "deleted from" if self.settings.lightbeam.command == "delete" else "sent to"
        told = (
            f"Records of {resource} as bundle {self.name} ({self.title}) {verb} the ODS by Lightbeam: how many it took, had "
            "already, or refused and why. The next delta brings them into the warehouse."
        )
        metadata = {"edfi/resource": resource}
        return self._spec(
            self.sent_key(resource), told, {"lightbeam", "edfi"}, deps=[self.key(output)], metadata=metadata
        )

    def _spec(
        self,
        key: dg.AssetKey,
        description: str,
        kinds: set[str],
        *,
        deps: list[dg.AssetKey] | None = None,
        metadata: dict[str, str] | None = None,
    ) -> dg.AssetSpec:
        return dg.AssetSpec(
            key,
            deps=deps or [],
            description=description,
            group_name=GROUP,
            kinds=kinds or {"earthmover"},
            owners=list(self.owners),
            tags={"edfi/kind": "bundle"},
            metadata={"edfi/bundle": self.name, **(metadata or {})},
            skippable=True,
        )


def bundles_of(platform: Platform, keys: AssetKeys, names: Iterable[str] | None = None) -> list[BundleAssets]:
    """The configured bundles, or those of ``names``. One whose YAML cannot be read does not keep others from loading."""
    rosters = [keys.table(endpoint) for endpoint in keys.endpoints if endpoint.name == ASSOCIATIONS]
    found = []
    for name in platform.earthbeam.bundles if names is None else names:
        settings = platform.earthbeam.bundles[name]
        outline, problem = None, ""
        try:
            cache = platform.folder.joinpath(*OUTLINES)
            outline = read_outline(settings, platform.bundle_pairs(name), cache=cache)
            _check_apart(outline)
        except (BundleError, OSError) as error:
            outline, problem = None, str(error)
        ids = settings.student_ids
        ours = ids is not None and ids.roster == "warehouse" and ids.roster_warehouse is None
        roster = rosters[0] if ours and rosters else None
        found.append(BundleAssets(name, settings, outline, problem, roster, tuple(platform.owners)))
    return found


def _check_apart(outline: BundleOutline) -> None:
    """Raises BundleError for two outputs that one asset would stand for."""
    seen: dict[str, str] = {}
    for output in outline.outputs:
        first = seen.setdefault(_key_piece(output.name), output.name)
        if first != output.name:
            raise BundleError(
                f"{outline.folder}: destinations {first} and {output.name} have one name in snake_case; rename one"
            )


def _key_piece(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", snake_case(name))
