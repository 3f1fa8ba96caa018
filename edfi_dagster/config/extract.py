"""What is pulled from every ODS, and how: limits, endpoints and their options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    field_validator,
    model_validator,
)

from edfi_dagster.config.errors import Problems
from edfi_dagster.config.values import (
    ConfigPath,
    Count,
    CountOrZero,
    Duration,
    Flag,
    Model,
    Profile,
    ScalarText,
    Text,
)

DataStandard = Literal["3.3", "4.0", "5.0", "5.1", "5.2", "6.0"]
RunType = Literal["bulk", "default", "dynamic"]
VerifyCounts = Annotated[
    Literal["off", "report", "repair"],
    # YAML reads off as false.
    BeforeValidator(lambda value: "off" if value is False else value),
]
EndpointKind = Literal["resources", "descriptors"]
ENDPOINT_KINDS: tuple[EndpointKind, ...] = ("resources", "descriptors")

DEFAULT_NAMESPACE = "ed-fi"
EVERY = "*"

_NAMESPACE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_ENDPOINT = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]")
_OWN_PARAMETERS = frozenset(
    {
        "limit",
        "offset",
        "totalcount",
        "minchangeversion",
        "maxchangeversion",
        "pagetoken",
        "pagesize",
        "number",
    }
)


def normalise_endpoint(namespace: str, name: str) -> str:
    """Return the key under which every spelling of an endpoint is the same: `edfi/studentparents`."""
    return "/".join(_NOT_ALPHANUMERIC.sub("", part.lower()) for part in (namespace, name))


def _leave_paging_alone(parameters: Mapping[str, str]) -> Mapping[str, str]:
    taken = [name for name in parameters if name.lower() in _OWN_PARAMETERS]
    if taken:
        raise Problems(((name,), "is set by the pull itself; take it out") for name in taken)
    return parameters


QueryParameters = Annotated[Mapping[str, ScalarText], AfterValidator(_leave_paging_alone)]


class OptionOverrides(Model):
    """Options of pulling an endpoint; one that is left out is inherited."""

    page_size: Count | None = None
    """Records per request; lowered where the ODS allows less."""
    num_retries: CountOrZero | None = None
    """Retries of a request that failed for a passing reason."""
    change_version_step_size: Count | None = None
    """Change versions per window, where an ODS is read by windows."""
    fetch_deletes: Flag | None = None
    """Whether deletes are pulled."""
    query_parameters: QueryParameters = Field(default={})
    """Parameters of every request; joined by name with what is inherited."""
    profile: Profile | None = None
    """Profile by which the records are read, for a key that has several."""


class EndpointOptions(OptionOverrides):
    """An endpoint's entry under `resources` or `descriptors`."""

    enabled: Flag | None = None
    """Whether it is pulled at all."""
    namespace: Text | None = None
    """Namespace, where the name does not say it: tpdm; else ed-fi."""
    in_catalogue: Flag | None = None
    """false: of the ODS, beyond the catalogue; `discover --yaml` writes it."""


class EndpointDefaults(Model):
    """Options of every endpoint that does not say otherwise."""

    page_size: Count = 500
    """Records per request; lowered where the ODS allows less."""
    num_retries: CountOrZero = 5
    """Retries of a request that failed for a passing reason."""
    change_version_step_size: Count = 50_000
    """Change versions per window, where an ODS is read by windows."""
    fetch_deletes: Flag = True
    """Whether deletes are pulled."""
    query_parameters: QueryParameters = Field(default={})
    """Parameters of every request."""
    profile: Profile | None = None
    """Profile by which records are read, where it covers them."""


@dataclass(frozen=True)
class ResolvedOptions:
    """The options that hold for one endpoint of one (tenant, year). Page and step are in records and versions."""

    enabled: bool
    page_size: int
    num_retries: int
    change_version_step_size: int
    fetch_deletes: bool
    query_parameters: Mapping[str, str]
    profile: str | None


class SelectedEndpoint(NamedTuple):
    """An endpoint named in the configuration; `name` in the spelling used there."""

    written: str
    namespace: str
    name: str
    options: EndpointOptions


class EndpointSelection(RootModel[Mapping[str, EndpointOptions]]):
    """`all`, `none`, or a mapping of endpoint → options in which `*` stands for all of the data standard.

    Names may be in any casing, camel or snake, with or without a namespace (`ed-fi` when left out).
    """

    model_config = ConfigDict(
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra=lambda schema: _allow_words(schema),
    )

    @model_validator(mode="before")
    @classmethod
    def _words_and_empty_options(cls, value: object) -> object:
        if isinstance(value, EndpointSelection):
            return value
        if value == "all":
            return {EVERY: {}}
        if value is None or value == "none":
            return {}
        if not isinstance(value, Mapping):
            raise ValueError('must be all, none, or a mapping such as {"*": {}, students: {page_size: 250}}')
        return {name: {} if options is None else options for name, options in value.items()}

    @model_validator(mode="after")
    def _names_are_endpoints(self) -> Self:
        problems = list(_selection_problems(self.root))
        if problems:
            raise Problems(problems)
        return self

    @property
    def all(self) -> bool:
        """Whether every endpoint of the data standard belongs to the selection."""
        return EVERY in self.root

    @property
    def every(self) -> EndpointOptions:
        """The options written beside `*`, which hold for every endpoint."""
        return self.root.get(EVERY, EndpointOptions())

    @cached_property
    def overrides(self) -> Mapping[str, SelectedEndpoint]:
        """The endpoints named one by one, by `normalise_endpoint`."""
        named = (_selected(written, options) for written, options in self.root.items() if written != EVERY)
        return {normalise_endpoint(endpoint.namespace, endpoint.name): endpoint for endpoint in named}

    def layers(self, namespace: str, name: str) -> Iterator[EndpointOptions]:
        """Yield what this selection says about an endpoint, the more specific last."""
        yield self.every
        endpoint = self.overrides.get(normalise_endpoint(namespace, name))
        if endpoint is not None:
            yield endpoint.options


def _allow_words(schema: dict[str, Any]) -> None:
    options = {"anyOf": [schema.pop("additionalProperties"), {"type": "null"}]}
    mapping = {"type": schema.pop("type"), "additionalProperties": options}
    schema["anyOf"] = [{"enum": ["all", "none"]}, {"type": "null"}, mapping]


def _selected(written: str, options: EndpointOptions) -> SelectedEndpoint:
    namespace, slash, name = written.rpartition("/")
    return SelectedEndpoint(
        written, namespace if slash else options.namespace or DEFAULT_NAMESPACE, name, options
    )


def _selection_problems(entries: Mapping[str, EndpointOptions]) -> Iterator[tuple[tuple[str], str]]:
    seen: dict[str, str] = {}
    for written, options in entries.items():
        if written == EVERY:
            if options.enabled is not None or options.namespace is not None:
                yield (
                    (written,),
                    "takes neither enabled nor namespace; name the endpoints these are meant for",
                )
            continue
        problem = _name_problem(written, options)
        if problem is not None:
            yield (written,), problem
            continue
        endpoint = _selected(written, options)
        first = seen.setdefault(normalise_endpoint(endpoint.namespace, endpoint.name), written)
        if first != written:
            yield (written,), f"is the same endpoint as {first!r}; keep one of them"


def _name_problem(written: str, options: EndpointOptions) -> str | None:
    namespace, slash, name = written.rpartition("/")
    if name.lower().replace("_", "") in {"deletes", "keychanges"}:
        return "is no endpoint of its own; deletes follow fetch_deletes, key changes get_key_changes"
    if not _ENDPOINT.fullmatch(name) or (slash and not _NAMESPACE.fullmatch(namespace)):
        return "is not an endpoint's name; write studentSchoolAssociations or tpdm/candidates"
    if options.namespace is None:
        return None
    if not _NAMESPACE.fullmatch(options.namespace):
        return "has a namespace that is none; write for example namespace: tpdm"
    if slash and normalise_endpoint(namespace, "") != normalise_endpoint(options.namespace, ""):
        return f"has the namespace {namespace!r} in its name and another in its options; keep one"
    return None


class _Endpoints(Model):
    resources: EndpointSelection
    descriptors: EndpointSelection

    def selection(self, kind: EndpointKind) -> EndpointSelection:
        """Return what is said of resources or of descriptors."""
        return self.resources if kind == "resources" else self.descriptors

    @model_validator(mode="after")
    def _endpoints_stand_in_their_kind(self) -> Self:
        problems = []
        for kind in ENDPOINT_KINDS:
            for endpoint in self.selection(kind).overrides.values():
                is_descriptor = endpoint.name.lower().replace("_", "").endswith("descriptors")
                if is_descriptor != (kind == "descriptors"):
                    place = "descriptors" if is_descriptor else "resources"
                    problems.append(((kind, endpoint.written), f"belongs to {place}; move it there"))
        if problems:
            raise Problems(problems)
        return self


_PLATFORM_WIDE = ("run_type", "tmp_dir")


class YearExtract(_Endpoints):
    """What one tenant's year does differently. The set of assets and `run_type` are the platform's."""

    data_standard: DataStandard | None = None
    """Data standard of this ODS."""
    max_concurrent_requests: Count | None = None
    """Requests in flight to this ODS."""
    change_version_overlap: CountOrZero | None = None
    """Versions that a delta reads again behind its watermark."""
    use_change_version: Flag | None = None
    """Whether deltas are pulled."""
    get_key_changes: Flag | None = None
    """Whether key changes are pulled."""
    pull_total_counts: Flag | None = None
    """Whether the ODS's counts are kept after a run."""
    verify_counts: VerifyCounts | None = None
    """What is done with endpoints whose count, once a day, is not that of their current rows."""
    use_snapshot: Flag | None = None
    """Whether the ODS's newest snapshot is read."""
    late_after_hours: Duration | None = None
    """Hours after which this year is late."""
    endpoint_defaults: OptionOverrides = OptionOverrides()
    """Options of every endpoint of this ODS."""
    resources: EndpointSelection = EndpointSelection({})
    """Options of single resources; which are pulled is the platform's."""
    descriptors: EndpointSelection = EndpointSelection({})
    """Options of single descriptors."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_platform_wide(cls, value: object) -> object:
        given = [key for key in _PLATFORM_WIDE if isinstance(value, Mapping) and key in value]
        if given:
            raise Problems(
                ((key,), "is the same for all tenants and years; set it under the top-level extract")
                for key in given
            )
        return value

    @field_validator("resources", "descriptors", mode="before")
    @classmethod
    def _options_only(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(
                "selects endpoints, but a year may only give options of the platform's; write for example"
                " {students: {page_size: 100}}"
            )
        return value

    @model_validator(mode="after")
    def _same_endpoints(self) -> Self:
        problems = [
            (
                (kind, endpoint.written, "enabled"),
                "a year cannot change which endpoints are pulled; take it out",
            )
            for kind in ENDPOINT_KINDS
            for endpoint in self.selection(kind).overrides.values()
            if endpoint.options.enabled is not None
        ]
        if problems:
            raise Problems(problems)
        return self


class Extract(_Endpoints):
    """The platform's endpoints, options and limits. `max_concurrent_requests` is per ODS, over all endpoints."""

    data_standard: DataStandard = "5.2"
    """Which endpoints all means."""
    run_type: RunType = "bulk"
    """One step for everything, a step for each endpoint, or one for only what changed."""
    max_concurrent_requests: Count = 8
    """Requests in flight to one ODS, over all endpoints."""
    change_version_overlap: CountOrZero = 10_000
    """Versions that a delta reads again behind its watermark, for late commits."""
    use_change_version: Flag = True
    """Whether deltas are pulled; else every run replaces."""
    get_key_changes: Flag = True
    """Whether key changes are pulled."""
    pull_total_counts: Flag = False
    """Whether the ODS's counts are kept after a run, and compared."""
    verify_counts: VerifyCounts = "report"
    """Once a day the ODS counts each endpoint of a run: report what differs, repair it (a full refresh), or off."""
    use_snapshot: Flag = False
    """Whether the ODS's newest snapshot is read."""
    late_after_hours: Duration = 24
    """Hours after its scheduled moment, or without a pull, that make it late."""
    tmp_dir: ConfigPath | None = None
    """Folder for files on their way; else the machine's."""
    endpoint_defaults: EndpointDefaults = EndpointDefaults()
    """Options of every endpoint."""
    resources: EndpointSelection = EndpointSelection({EVERY: EndpointOptions()})
    """all, none, or options by name; * stands for all of the data standard."""
    descriptors: EndpointSelection = EndpointSelection({EVERY: EndpointOptions()})
    """The same for descriptors."""


def merge_options(defaults: EndpointDefaults, layers: Iterable[OptionOverrides]) -> ResolvedOptions:
    """Return `defaults` overlaid with `layers`, the later winning; query parameters are joined by name."""
    merged: dict[str, Any] = {"enabled": True, **dict(defaults)}
    for layer in layers:
        given = {key: value for key, value in layer if value is not None and key in merged}
        given["query_parameters"] = {**merged["query_parameters"], **layer.query_parameters}
        merged |= given
    return ResolvedOptions(**merged)
