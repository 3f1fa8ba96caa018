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
_NOT_IN_PATHS = re.compile(r"[^A-Za-z0-9.-]+")


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


def grain_piece(grain: str) -> str:
    """The grain in paths and names of rows, where only letters, digits, _, . and - may stand: ``PSAT 8/9`` → ``PSAT_8_9``."""
    return _NOT_IN_PATHS.sub("_", grain)


def _grain(value: str) -> str:
    if "__" in value:
        raise ValueError(f"grain {value!r} holds __, which separates it from the bundle's name; use single _")
    if "|" in value or not value.isprintable():
        raise ValueError(f"grain {value!r} holds | or a character that cannot be seen; take it out")
    check_path_piece(grain_piece(value), "grain")
    return value


def _parameter(value: object) -> str:
    return "<secret>" if isinstance(value, Mapping | Secret) else "<text>"


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
Parameter = Annotated[
    Annotated[ScalarText, Tag("<text>")] | Annotated[Secret, Tag("<secret>")],
    Discriminator(_parameter),
]
Parameters = Mapping[str, Parameter]
EndpointNames = Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_endpoint_names)]
StatusCode = Annotated[int, Field(strict=True, ge=100, le=599)]


class EarthmoverTool(Model):
    """How Earthmover is run. `concurrency` is over all bundles; the time limit is per run, in minutes."""

    path: Command = "earthmover"
    """Command, or path of the program."""
    concurrency: Count = 2
    """Runs at a time, over all bundles, on each machine."""
    timeout_minutes: Duration = 60
    """Time limit of one run."""


class LightbeamTool(Model):
    """How Lightbeam is run. `pool_size` is its number of connections to one ODS."""

    path: Command = "lightbeam"
    """Command, or path of the program."""
    concurrency: Count = 1
    """Runs at a time, over all bundles, on each machine."""
    timeout_minutes: Duration = 120
    """Time limit of one run."""
    pool_size: Count = 8
    """Connections to one ODS."""


class InputFolder(Model):
    """Where a bundle's files are dropped. `{tenant}`, `{year}` and `{grain}` are filled in."""

    folder: PathTemplate
    """Where files are dropped."""
    pattern: Annotated[Text, AfterValidator(_pattern)] = "*"
    """Which files are taken."""
    split_by_tenant: Flag = False
    """The bundle keeps only the rows of its own tenant and year, so several may watch this folder."""


BundleInput = Annotated[
    Annotated[PathTemplate, Tag("<path>")] | Annotated[InputFolder, Tag("<folder>")],
    Discriminator(lambda value: "<folder>" if isinstance(value, Mapping | InputFolder) else "<path>"),
]


class StudentIds(Model):
    """How the students in a file are matched with the roster, and how many must match."""

    roster: Annotated[str, BeforeValidator(_roster)] = "warehouse"
    """warehouse, or the path of a file."""
    roster_warehouse: Warehouse | None = None
    """Where the roster is read, if not in the platform's warehouse."""
    required_match_rate: Share = 0.5
    """Share of students that must match, or the run stops."""
    id_types: tuple[Text, ...] = ()
    """Kinds of student ids to try, such as District and State."""
    columns: tuple[Text, ...] = ()
    """Columns of the file to try."""
    wrapper: ConfigPath | None = None
    """Folder of the student-id wrapper; else packages/student_id_wrapper above the bundle."""

    @model_validator(mode="after")
    def _one_roster(self) -> Self:
        if self.roster_warehouse is not None and self.roster != "warehouse":
            raise ValueError("roster_warehouse is read only with roster: warehouse; take one of them out")
        return self


class EarthmoverOptions(Model):
    """Options of a bundle's Earthmover run."""

    selector: Text | None = None
    """Only these destinations."""
    force: Flag = False
    """Run also over what was done before."""
    skip_hashing: Flag = True
    """Leave Earthmover's own memory of files out."""
    show_graph: Flag = False
    """Draw the graph."""
    show_stacktrace: Flag = False
    """Print where an error came from."""
    results_file: Flag = False
    """Keep Earthmover's results file."""


class LightbeamOptions(Model):
    """Options of a bundle's Lightbeam run. `max_failed_share` of the records may be refused, 0.0 to 1.0."""

    command: Literal["validate", "send", "validate+send", "delete"] = "validate+send"
    """What Lightbeam does."""
    selector: Text | None = None
    """Only these endpoints."""
    wipe: Flag = False
    """Forget what was cached of the ODS."""
    force: Flag = False
    """Send also what was sent before."""
    older_than: Moment | None = None
    """Send again only what was sent before this moment."""
    newer_than: Moment | None = None
    """Send again only what was sent after this moment."""
    resend_status_codes: tuple[StatusCode, ...] = (401, 403, 404, 409, 429, 500, 502, 503, 504)
    """Records that were answered so are sent again."""
    max_failed_share: Share = 0.0
    """Share of records that may be refused."""


class Sideload(Model):
    """What of a bundle's output is loaded straight into the raw tables, and as which versions."""

    endpoints: EndpointNames = "all"
    """Which outputs are loaded."""
    ods_version: Text | None = None
    """Version told with the rows; else the ODS's."""
    data_model_version: Text | None = None
    """Data model told with the rows; else the ODS's."""
    full_refresh: Flag = False
    """Replace what was loaded before."""


class Hooks(Model):
    """Functions (`package.module:function`) or commands (a list of words) before and after a bundle."""

    preprocess: Hook | None = None
    """Before Earthmover; what it returns fills parameters."""
    postprocess: Hook | None = None
    """After everything else."""


class Archive(Model):
    """Which files of a bundle's run are kept in the lake."""

    raw: Flag = True
    """The files as they came."""
    transformed: Flag = True
    """What Earthmover made of them."""


class Bundle(Model):
    """One bundle: a folder of Earthmover and Lightbeam configuration, its files, and where its records go.

    Parameters and inputs may hold `{tenant}`, `{year}`, `{grain}`, `{file}` and the results of `preprocess`. A parameter
    that is a secret is `{env: NAME}` or `{file: PATH}`. `API_YEAR` is the school year unless it is given.
    """

    path: ConfigPath
    """Folder of the bundle."""
    applies_to: Mapping[TenantCode, tuple[Year, ...]] | None = None
    """Tenants and their years; else all."""
    parameters: Parameters = Field(default={})
    """Parameters of Earthmover."""
    inputs: Mapping[str, BundleInput] = Field(default={})
    """Files by variable: a path, or a folder that is watched."""
    grains: tuple[Grain, ...] = ()
    """Runs that a tenant and year are split into, such as SAT and PSAT."""
    grain_parameter: Text | None = None
    """The parameter that is given the grain."""
    student_ids: StudentIds | None = None
    """Matching with the roster; none without it."""
    destination: Literal["ods", "warehouse", "none"] = "ods"
    """The ODS by Lightbeam, the raw tables, or the archive alone."""
    earthmover: EarthmoverOptions = EarthmoverOptions()
    """Options of Earthmover."""
    allow_empty_output: Flag = False
    """Whether a file with rows may end in no records; else that fails the run."""
    lightbeam: LightbeamOptions = LightbeamOptions()
    """Options of Lightbeam."""
    sideload: Sideload = Sideload()
    """For destination: warehouse."""
    hooks: Hooks = Hooks()
    """What is done before and after."""
    archive: Archive = Archive()
    """Which files are kept in the lake."""

    @model_validator(mode="after")
    def _templates_can_be_filled(self) -> Self:
        problems = [
            *_variable_problems("parameters", self.parameters),
            *_variable_problems("inputs", self.inputs),
        ]
        for name, template in self.parameters.items():
            if isinstance(template, str):
                problems += self._unknown_placeholders(("parameters", name), template, _FILLED_IN)
        for name, place in self.inputs.items():
            folder = place.folder if isinstance(place, InputFolder) else place
            problems += self._unknown_placeholders(("inputs", name), folder, _FILLED_IN - {"file"})
        if len({grain_piece(grain).lower() for grain in self.grains}) != len(self.grains):
            problems.append(
                (("grains",), "names a grain twice, or two that are one in paths; name each once")
            )
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
    """Root of its API."""
    token_url: Url | None = None
    """Where its tokens are had."""
    audience: Text | None = None
    """Audience of the token."""
    partner: Text | None = None
    """Code of the partner."""
    client_id: Secret | None = None
    """Key."""
    client_secret: Secret | None = None
    """Secret."""


class Earthbeam(Model):
    """Bundles by name, and the tools that run them."""

    earthmover: EarthmoverTool = EarthmoverTool()
    """How Earthmover is run."""
    lightbeam: LightbeamTool = LightbeamTool()
    """How Lightbeam is run."""
    bundles: Mapping[str, Bundle] = {}
    """Bundles by name."""
    runway: Runway | None = None
    """The Runway service, where bundles run there."""

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
