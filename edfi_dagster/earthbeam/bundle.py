"""What a bundle makes and what it needs, known from its YAML alone.

A bundle is a folder with ``earthmover.yaml``; with student ids, its wrapper's folder composed with it. Which outputs
there are may hang on parameters, so it is rendered once for each (tenant, year) and grain it applies to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2
import msgspec
import yaml

from edfi_dagster.config import TenantYear
from edfi_dagster.config.earthbeam import Bundle, InputFolder
from edfi_dagster.config.secrets import Secret
from edfi_dagster.earthbeam.checkout import commit_of
from edfi_dagster.earthbeam.errors import BundleError
from edfi_dagster.earthbeam.filling import Lenient, fill
from edfi_dagster.earthbeam.rendering import Composed, Parsed, compose

DATA_EXTENSIONS = ("jsonl", "json", "ndjson")
NO_MATCH, MATCH_RATES = "input_no_student_id_match", "student_id_match_rates"
_FORMAT = "2"
_INPUT = re.compile(r"^\$\{(\w+)\}$|^/inputs/(\w+)/")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(?!sources\b|transformations\b|destinations\b)(\w+))")
_FILE_OF_SOURCE = re.compile(r"""^\s+file:\s*["']?\$\{(\w+)\}""", re.MULTILINE)
_OUTPUT = re.compile(r"\w[\w.-]*")
_OWN_PARAMETERS = frozenset({"OUTPUT_DIR", "STATE_FILE", "TMP_DIR", "TEMPORARY_DIRECTORY"})


class Output(msgspec.Struct, frozen=True):
    """A file that a bundle writes. ``resource`` is the Ed-Fi endpoint its records are for, None for any other file.

    ``always`` is False where parameters, or stored match rates, decide whether it is written.
    """

    name: str
    file: str
    resource: str | None
    always: bool = True

    @property
    def is_restricted(self) -> bool:
        """Whether it holds rows of students who were not recognised."""
        return self.name == NO_MATCH


class BundleInput(msgspec.Struct, frozen=True):
    """A file that a bundle reads, and the Earthmover sources that read it. ``file_types`` is empty where any will do."""

    variable: str
    sources: tuple[str, ...]
    required: bool = True
    file_types: tuple[str, ...] = ()


class BundleParameter(msgspec.Struct, frozen=True):
    """A parameter of a bundle; ``allowed`` is empty where any value will do."""

    name: str
    required: bool = False
    allowed: tuple[str, ...] = ()
    default: str | None = None
    title: str | None = None


class BundleOutline(msgspec.Struct, frozen=True):
    """What a bundle makes and needs. ``commit`` is that of the checkout its folder lies in, if it does."""

    folder: str
    outputs: tuple[Output, ...]
    inputs: tuple[BundleInput, ...]
    parameters: tuple[BundleParameter, ...]
    title: str | None = None
    commit: str | None = None

    def unknown(self, parameters: Iterable[str]) -> list[str]:
        """Of these names, those that nothing in the bundle's YAML asks for."""
        known = {p.name for p in self.parameters} | {i.variable for i in self.inputs}
        return sorted(set(parameters) - known)

    def check(
        self, parameters: Mapping[str, str], inputs: Iterable[str], *, asked: Iterable[str] = ()
    ) -> None:
        """Raises BundleError for a value the bundle does not know, a parameter it asks for, or an input that is missing.

        ``asked`` are the parameters that were given for this one run, of which it has to know every one.
        """
        problems = [
            f"there is no parameter {name}; known are {', '.join(p.name for p in self.parameters)}"
            for name in self.unknown(asked)
        ]
        problems += [
            f"{p.name} is {parameters[p.name]!r}; write one of {', '.join(p.allowed)}"
            for p in self.parameters
            if p.allowed and p.name in parameters and parameters[p.name] not in p.allowed
        ]
        missing = [
            p.name for p in self.parameters if p.required and p.default is None and p.name not in parameters
        ]
        problems += [f"{name} is not given; write it under parameters" for name in missing]
        lacking = {i.variable for i in self.inputs if i.required} - set(inputs) - set(parameters)
        problems += [f"{name} is not given; write its file under inputs" for name in sorted(lacking)]
        if problems:
            raise BundleError(f"{self.folder}: {'; '.join(problems)}")


class _Entry(msgspec.Struct, frozen=True):
    """An outline and the files it was read from: path → SHA-256, None for one that was looked for and not there."""

    read: dict[str, str | None]
    outline: BundleOutline


def read_outline(bundle: Bundle, pairs: Sequence[TenantYear], *, cache: Path | None = None) -> BundleOutline:
    """The outline of ``bundle`` as it applies to ``pairs``. It is kept in the folder ``cache`` until a file that it was read
    from changes; a cache that cannot be written is done without.

    Raises BundleError, with file and line, for what Earthmover could not read.
    """
    renderings = list(_renderings(bundle, pairs))
    place = cache / f"{_key(bundle, renderings)}.json" if cache else None
    outline = _kept(place) if place else None
    if outline is None:
        parsed: Parsed = {}
        composed = [composed_bundle(bundle, parameters, parsed=parsed) for parameters in renderings]
        outline, read = _outline(bundle, composed)
        if place:
            _keep(place, _Entry({str(path): _digest(path) for path in sorted(read)}, outline))
    # What is checked out changes without any file that is read here.
    return msgspec.structs.replace(outline, commit=commit_of(bundle.path))


def composed_bundle(
    bundle: Bundle, parameters: Mapping[str, str], *, parsed: Parsed | None = None
) -> Composed:
    """The bundle's YAML, within that of the student-id wrapper if it has student ids. Raises BundleError."""
    if bundle.student_ids is None:
        return compose(bundle.path, parameters, parsed=parsed)
    return compose(wrapper_folder(bundle), parameters, bundle=bundle.path, parsed=parsed)


def project_folder(bundle: Bundle) -> Path:
    """The folder whose YAML Earthmover is given."""
    return bundle.path if bundle.student_ids is None else wrapper_folder(bundle)


def wrapper_folder(bundle: Bundle) -> Path:
    """The student-id wrapper: as configured, else ``packages/student_id_wrapper`` of the checkout the bundle lies in."""
    assert bundle.student_ids is not None
    if bundle.student_ids.wrapper is not None:
        return bundle.student_ids.wrapper
    places = [parent / "packages" / "student_id_wrapper" for parent in bundle.path.parents]
    for place in places:
        if place.is_dir():
            return place
    raise BundleError(
        f"{bundle.path}: there is no packages/student_id_wrapper beside or above it; write student_ids.wrapper"
    )


def crosswalk_parameters(bundle: Bundle) -> dict[str, str]:
    """What the student-id wrapper is told, beside its roster and match rates."""
    ids = bundle.student_ids
    if ids is None:
        return {}
    return {
        "ASSESSMENT_BUNDLE": bundle.path.name,
        "EDFI_ROSTER_SOURCE_TYPE": "file",
        # The wrapper may want more than this share, where at least this share is meant.
        "REQUIRED_ID_MATCH_RATE": repr(ids.required_match_rate - 1e-9),
        **({"EDFI_STUDENT_ID_TYPES": ",".join(ids.id_types)} if ids.id_types else {}),
        **({"POSSIBLE_STUDENT_ID_COLUMNS": ",".join(ids.columns)} if ids.columns else {}),
    }


def input_variable(settings: Mapping[str, Any]) -> str | None:
    """The variable whose file a source reads, if that is how it is given."""
    found = _INPUT.match(str(settings.get("file") or ""))
    return (found.group(1) or found.group(2)) if found else None


def as_input(variable: str, pattern: str = "*") -> str:
    """A stand-in for the file of an input that is not known yet; ``input_variable`` knows it again."""
    return f"/inputs/{variable}/file{Path(pattern.rstrip('*?')).suffix or '.csv'}"


def _renderings(bundle: Bundle, pairs: Sequence[TenantYear]) -> Iterator[dict[str, str]]:
    """The sets of parameters to render with: what configuration and a run's partition and grain would give."""
    seen = set()
    inputs = {
        name: as_input(name, place.pattern if isinstance(place, InputFolder) else place)
        for name, place in bundle.inputs.items()
    }
    match_rates = ("", "file") if bundle.student_ids else ("",)
    for pair in pairs or [TenantYear("tenant", 2025)]:
        for grain in bundle.grains or (None,):
            for source in match_rates:
                given = {
                    **crosswalk_parameters(bundle),
                    **({"MATCH_RATES_SOURCE_TYPE": source} if source else {}),
                    **inputs,
                    **bundle_parameters(bundle, pair, grain, Lenient()),
                }
                key = tuple(sorted(given.items()))
                if key not in seen:
                    seen.add(key)
                    yield given


def bundle_parameters(
    bundle: Bundle, pair: TenantYear, grain: str | None, known: dict[str, str]
) -> dict[str, str]:
    """The configured parameters without the secrets, filled in; ``known`` holds the file's name and what a hook returned.

    ``API_YEAR``, which most public bundles ask for, is the pair's year unless it is configured.
    """
    values = known | {"tenant": pair.tenant, "year": str(pair.year), "grain": grain or ""}
    plain = {name: value for name, value in bundle.parameters.items() if isinstance(value, str)}
    filled = {name: fill(value, values) for name, value in plain.items()}
    if bundle.grain_parameter and grain is not None:
        filled[bundle.grain_parameter] = grain
    return {"API_YEAR": str(pair.year), **filled}


def secret_parameters(bundle: Bundle) -> dict[str, str]:
    """The configured parameters that are secrets, read now. Raises ConfigError for one that is missing."""
    return {name: value.read() for name, value in bundle.parameters.items() if isinstance(value, Secret)}


def _outline(bundle: Bundle, composed: Sequence[Composed]) -> tuple[BundleOutline, set[Path]]:
    metadata, read = _metadata(bundle.path)
    outputs: dict[str, tuple[str, int]] = {}
    sources: dict[str, dict[str, bool]] = {}
    for one in composed:
        for name, settings in one.block("destinations").items():
            file = _output_file(bundle, name, settings)
            outputs[name] = (file, outputs.get(name, (file, 0))[1] + 1)
        for name, settings in one.block("sources").items():
            if isinstance(settings, dict) and (variable := input_variable(settings)):
                sources.setdefault(variable, {})[name] = not settings.get("optional")
        # A variable with an empty default is not seen in what was rendered.
        for variable in (name for file in one.read for name in _found(_FILE_OF_SOURCE, file)):
            sources.setdefault(variable, {})
    if not outputs:
        raise BundleError(f"{bundle.path}: has no destinations, so it makes nothing; add them to its YAML")
    made = tuple(
        Output(name, file, _resource(file), always=times == len(composed))
        for name, (file, times) in outputs.items()
    )
    inputs = tuple(_inputs(metadata, sources))
    parameters = tuple(_parameters(metadata, bundle, composed, {i.variable for i in inputs}))
    outline = BundleOutline(str(bundle.path), made, inputs, parameters, metadata.get("display_name"))
    return outline, read.union(*(one.read for one in composed))


def _resource(file: str) -> str | None:
    name, _, extension = file.rpartition(".")
    return name if extension in DATA_EXTENSIONS else None


def _output_file(bundle: Bundle, name: str, settings: Mapping[str, Any]) -> str:
    if not _OUTPUT.fullmatch(name):
        raise BundleError(
            f"{bundle.path}: destination {name!r} is no name of a file; use letters, digits, _, - and ."
        )
    extension = settings.get("extension")
    return f"{name}.{extension}" if extension else name


def _inputs(metadata: Mapping[str, Any], sources: Mapping[str, Mapping[str, bool]]) -> Iterator[BundleInput]:
    """``sources`` are variable → the sources that read its file, and whether these need it."""
    told = {row["env_var"]: row for row in _rows(metadata, "input_files")}
    for variable in dict.fromkeys([*told, *sources]):
        if variable == "EDFI_ROSTER_FILE" or variable == "MATCH_RATES_FILE":
            continue
        row, reading = told.get(variable, {}), sources.get(variable, {})
        required = bool(row.get("is_required", any(reading.values())))
        yield BundleInput(variable, tuple(reading), required, tuple(row.get("file_type") or ()))


def _parameters(
    metadata: Mapping[str, Any], bundle: Bundle, composed: Sequence[Composed], inputs: set[str]
) -> Iterator[BundleParameter]:
    told = {row["env_var"]: row for row in _rows(metadata, "input_params")}
    defaults: dict[str, str] = {}
    for one in composed:
        defaults |= one.parameters
    given = {*bundle.parameters, *crosswalk_parameters(bundle), "MATCH_RATES_SOURCE_TYPE", "API_YEAR"}
    used = {name for one in composed for file in one.read for name in _found(_VARIABLE, file)}
    # What is only configured is among the parameters of the rendering as well.
    known = {*told, *used, *(set(defaults) - set(bundle.parameters)), "API_YEAR"}
    for name in sorted(known - inputs - _OWN_PARAMETERS - {"EDFI_ROSTER_FILE", "MATCH_RATES_FILE"}):
        row = told.get(name, {})
        yield BundleParameter(
            name,
            required=bool(row.get("is_required", False)),
            allowed=tuple(map(str, row.get("allowed_values") or ())),
            default=None if name in given else defaults.get(name),
            title=row.get("display_name"),
        )


def _found(pattern: re.Pattern[str], file: Path) -> Iterator[str]:
    """The variables that ``pattern`` finds in a file of Earthmover's configuration."""
    if file.suffix in {".yaml", ".yml"} and file.name.startswith("earthmover") and file.is_file():
        for found in pattern.finditer(file.read_text(encoding="utf-8")):
            yield next(filter(None, found.groups()))


def _rows(metadata: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The rows of a registry's list; registries of before 2024 had another shape, from which nothing is taken."""
    found = metadata.get(name)
    return (
        [row for row in found if isinstance(row, dict) and "env_var" in row]
        if isinstance(found, list)
        else []
    )


def _metadata(folder: Path) -> tuple[Mapping[str, Any], set[Path]]:
    """What the bundle's own metadata file says, else the registry of the checkout; and the files looked at."""
    own = folder / "_metadata.yaml"
    read = {own}
    if own.is_file():
        try:
            found = yaml.safe_load(own.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BundleError(f"{own}: is no YAML ({type(error).__name__}); correct or remove it") from None
        return (found if isinstance(found, dict) else {}), read
    for parent in list(folder.parents)[:4]:
        registry = parent / "registry.json"
        read.add(registry)
        if registry.is_file():
            return _registered(registry, folder), read
    return {}, read


def _registered(registry: Path, folder: Path) -> Mapping[str, Any]:
    try:
        rows = json.loads(registry.read_text(encoding="utf-8")).get("assessments", [])
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise BundleError(
            f"{registry}: is no registry ({type(error).__name__}); correct or remove it"
        ) from None
    path = folder.relative_to(registry.parent).as_posix()
    return next((row for row in rows if isinstance(row, dict) and row.get("path") == path), {})


def _key(bundle: Bundle, renderings: Sequence[Mapping[str, str]]) -> str:
    parts = [
        _FORMAT,
        jinja2.__version__,
        str(project_folder(bundle)),
        str(bundle.path),
        *map(sorted_items, renderings),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def sorted_items(values: Mapping[str, str]) -> str:
    """Values as text in which equal ones look equal."""
    return json.dumps(sorted(values.items()))


def _kept(place: Path) -> BundleOutline | None:
    try:
        entry = msgspec.json.decode(place.read_bytes(), type=_Entry)
    except (OSError, msgspec.DecodeError):
        return None
    current = all(_digest(Path(path)) == digest for path, digest in entry.read.items())
    return entry.outline if current else None


def _keep(place: Path, entry: _Entry) -> None:
    part = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    # Where the disk is read-only or full, the outline is read anew each time.
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.encode(entry))
        os.replace(part, place)  # noqa: PTH105  (atomic)


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
