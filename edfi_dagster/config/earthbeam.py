"""Earthbeam: bundles that turn files into Ed-Fi records, the tools that run them, and Runway."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    StrictStr,
    Tag,
    ValidationInfo,
    model_validator,
)

from edfi_dagster.config.errors import Problems
from edfi_dagster.config.extract import normalise_endpoint
from edfi_dagster.config.secrets import Secret
from edfi_dagster.config.values import (
    Command,
    ConfigPath,
    Count,
    Duration,
    Flag,
    Model,
    PathTemplate,
    ScalarText,
    Share,
    TenantCode,
    Text,
    Url,
    Year,
    check_path_piece,
    path_template,
    placeholders,
)
from edfi_dagster.config.warehouse import Warehouse

_FILLED_IN = frozenset({"tenant", "year", "grain", "file"})
_BUNDLE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _hook(value: object) -> object:
    if isinstance(value, str):
        if not _DOTTED.fullmatch(value):
            raise ValueError(
                "is not a function's path; write package.module:function, or a command as a list of its words"
            )
        return value
    words = isinstance(value, list | tuple) and value and all(isinstance(word, str) for word in value)
    if not words:
        raise ValueError('must be package.module:function or a list of words such as ["sh", "prepare.sh"]')
    return value


def _moment(value: object) -> object:
    """YAML reads an unquoted date as one; Lightbeam is given text."""
    return value.isoformat() if isinstance(value, date) else value


def _grain(value: str) -> str:
    check_path_piece(value, "grain")
    if "__" in value:
        raise ValueError(f"grain {value!r} holds __, which separates it from the bundle's name; use single _")
    return value


def _pattern(value: str) -> str:
    if "/" in value:
        raise ValueError("holds a /; give the folder under folder, and here the pattern of file names")
    return value


def _roster(value: object, info: ValidationInfo) -> str:
    return "warehouse" if value == "warehouse" else path_template(value, info)


def _endpoint_names(value: object) -> object:
    if value == "all":
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be all, or a list of endpoints such as [studentAssessments]")
    return tuple(value)


Hook = Annotated[
    Annotated[str, Tag("<function>")] | Annotated[tuple[str, ...], Tag("<command>")],
    Discriminator(lambda value: "<function>" if isinstance(value, str) else "<command>"),
    BeforeValidator(_hook),
]
Moment = Annotated[StrictStr, BeforeValidator(_moment)]
Grain = Annotated[StrictStr, AfterValidator(_grain)]
Parameters = Mapping[str, ScalarText]
EndpointNames = Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_endpoint_names)]
StatusCode = Annotated[int, Field(strict=True, ge=100, le=599)]


class EarthmoverTool(Model):
    """How Earthmover is run. `concurrency` is over all bundles; the time limit is per run, in minutes."""

    path: Command = "earthmover"
    concurrency: Count = 2
    timeout_minutes: Duration = 60


class LightbeamTool(Model):
    """How Lightbeam is run. `pool_size` is its number of connections to one ODS."""

    path: Command = "lightbeam"
    concurrency: Count = 1
    timeout_minutes: Duration = 120
    pool_size: Count = 8


class InputFolder(Model):
    """Where a bundle's files are dropped. `{tenant}`, `{year}` and `{grain}` are filled in."""

    folder: PathTemplate
    pattern: Annotated[Text, AfterValidator(_pattern)] = "*"


BundleInput = Annotated[
    Annotated[PathTemplate, Tag("<path>")] | Annotated[InputFolder, Tag("<folder>")],
    Discriminator(lambda value: "<folder>" if isinstance(value, Mapping | InputFolder) else "<path>"),
]


class StudentIds(Model):
    """How the students in a file are matched with the roster, and how many must match."""

    roster: Annotated[str, BeforeValidator(_roster)] = "warehouse"
    roster_warehouse: Warehouse | None = None
    required_match_rate: Share = 0.5
    id_types: tuple[Text, ...] = ()
    columns: tuple[Text, ...] = ()
    wrapper: ConfigPath | None = None

    @model_validator(mode="after")
    def _one_roster(self) -> Self:
        if self.roster_warehouse is not None and self.roster != "warehouse":
            raise ValueError("roster_warehouse is read only with roster: warehouse; take one of them out")
        return self


class EarthmoverOptions(Model):
    """Options of a bundle's Earthmover run."""

    selector: Text | None = None
    force: Flag = False
    skip_hashing: Flag = True
    show_graph: Flag = False
    show_stacktrace: Flag = False
    results_file: Flag = False


class LightbeamOptions(Model):
    """Options of a bundle's Lightbeam run. `max_failed_share` of the records may be refused, 0.0 to 1.0."""

    command: Literal["validate", "send", "validate+send", "delete"] = "validate+send"
    selector: Text | None = None
    wipe: Flag = False
    force: Flag = False
    older_than: Moment | None = None
    newer_than: Moment | None = None
    resend_status_codes: tuple[StatusCode, ...] = (401, 403, 404, 409, 429, 500, 502, 503, 504)
    max_failed_share: Share = 0.0


class Sideload(Model):
    """What of a bundle's output is loaded straight into the raw tables, and as which versions."""

    endpoints: EndpointNames = "all"
    ods_version: Text | None = None
    data_model_version: Text | None = None
    full_refresh: Flag = False


class Hooks(Model):
    """Functions (`package.module:function`) or commands (a list of words) before and after a bundle."""

    preprocess: Hook | None = None
    postprocess: Hook | None = None


class Archive(Model):
    """Which files of a bundle's run are kept in the lake."""

    raw: Flag = True
    transformed: Flag = True


class Bundle(Model):
    """One bundle: a folder of Earthmover and Lightbeam configuration, its files, and where its records go.

    Parameters and inputs may hold `{tenant}`, `{year}`, `{grain}`, `{file}` and the results of `preprocess`.
    """

    path: ConfigPath
    applies_to: Mapping[TenantCode, tuple[Year, ...]] | None = None
    parameters: Parameters = Field(default={})
    inputs: Mapping[str, BundleInput] = Field(default={})
    grains: tuple[Grain, ...] = ()
    grain_parameter: Text | None = None
    student_ids: StudentIds | None = None
    destination: Literal["ods", "warehouse", "none"] = "ods"
    earthmover: EarthmoverOptions = EarthmoverOptions()
    lightbeam: LightbeamOptions = LightbeamOptions()
    sideload: Sideload = Sideload()
    hooks: Hooks = Hooks()
    archive: Archive = Archive()

    @model_validator(mode="after")
    def _templates_can_be_filled(self) -> Self:
        problems = [
            *_variable_problems("parameters", self.parameters),
            *_variable_problems("inputs", self.inputs),
        ]
        for name, template in self.parameters.items():
            problems += self._unknown_placeholders(("parameters", name), template, _FILLED_IN)
        for name, place in self.inputs.items():
            folder = place.folder if isinstance(place, InputFolder) else place
            problems += self._unknown_placeholders(("inputs", name), folder, _FILLED_IN - {"file"})
        if len(set(self.grains)) != len(self.grains):
            problems.append((("grains",), "names a grain twice; name each once"))
        if problems:
            raise Problems(problems)
        return self

    def _unknown_placeholders(
        self, path: tuple[str, ...], template: str, known: frozenset[str]
    ) -> list[tuple[tuple[str, ...], str]]:
        try:
            unknown = sorted(placeholders(template) - known)
        except ValueError as wrong:
            return [(path, str(wrong))]
        # What a hook returns is known only when it has run.
        if not unknown or self.hooks.preprocess is not None:
            return []
        found = ", ".join(f"{{{name}}}" for name in unknown)
        allowed = ", ".join(f"{{{name}}}" for name in sorted(known))
        return [(path, f"holds {found}, which nothing fills in; use {allowed}")]


def _variable_problems(block: str, mapping: Mapping[str, object]) -> list[tuple[tuple[str, ...], str]]:
    return [
        ((block, name), "is not a parameter's name; use letters, digits and _")
        for name in mapping
        if not _VARIABLE.fullmatch(name)
    ]


class Runway(Model):
    """The Runway service that runs bundles elsewhere."""

    base_url: Url | None = None
    token_url: Url | None = None
    audience: Text | None = None
    partner: Text | None = None
    client_id: Secret | None = None
    client_secret: Secret | None = None


class Earthbeam(Model):
    """Bundles by name, and the tools that run them."""

    earthmover: EarthmoverTool = EarthmoverTool()
    lightbeam: LightbeamTool = LightbeamTool()
    bundles: Mapping[str, Bundle] = {}
    runway: Runway | None = None

    @model_validator(mode="after")
    def _bundle_names_are_apart(self) -> Self:
        problems = []
        seen: dict[str, str] = {}
        for name in self.bundles:
            if not _BUNDLE.fullmatch(name) or "__" in name or len(name) > 63:
                problems.append(
                    (
                        ("bundles", name),
                        "is not a bundle's name; use letters, digits and single _ (at most 63)",
                    )
                )
            first = seen.setdefault(normalise_endpoint("", name), name)
            if first != name:
                problems.append(
                    (("bundles", name), f"has the same name as {first!r} in snake_case; rename one")
                )
        if problems:
            raise Problems(problems)
        return self
