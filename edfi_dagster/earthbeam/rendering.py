"""A bundle's YAML as Earthmover 0.4 reads it: parameters, then Jinja, then YAML, then the packages it is composed of.

Read, never run: Jinja is confined (``SandboxedEnvironment``), nothing is fetched, and no environment variable counts,
as Earthmover's own environment holds none of ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml
from jinja2 import FileSystemLoader, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from edfi_dagster.earthbeam.errors import BundleError

CONFIG_FILES = ("earthmover.yaml", "earthmover.yml")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Document = dict[str, Any]


@dataclass(frozen=True)
class Package:
    """A folder that a project is composed of. ``place`` is where it is installed below the project: ``packages/<name>``."""

    place: Path
    folder: Path


@dataclass(frozen=True)
class Composed:
    """A project with its packages merged in. ``read`` are the files that were looked at, whether or not they exist."""

    document: Document
    parameters: Mapping[str, str]
    packages: tuple[Package, ...]
    read: frozenset[Path]

    def block(self, name: str) -> Mapping[str, Document]:
        """``sources`` or ``destinations``: name → settings."""
        found = self.document.get(name)
        return found if isinstance(found, dict) else {}


Parsed = dict[tuple[Path, str, str], Document]
"""(file, text with its parameters, macros) → what it says."""


def compose(
    folder: Path,
    parameters: Mapping[str, str],
    *,
    bundle: Path | None = None,
    parsed: Parsed | None = None,
) -> Composed:
    """Render the project in ``folder``. A package that is the ``bundle`` itself is taken from there, others that the YAML
    has fetched from git from the checkout that ``folder`` or the bundle lies in.

    ``parsed`` spares a second composition what it has in common with the first. Raises BundleError, with file and line, for
    what Earthmover could not read either.
    """
    return _Composer(dict(parameters), bundle, {} if parsed is None else parsed).composed(folder)


@dataclass
class _Composer:
    """Parameters and macros as they grow while packages are read: what a root says counts before what a package says."""

    parameters: dict[str, str]
    bundle: Path | None
    documents: Parsed
    macros: str = ""
    read: set[Path] = field(default_factory=set)
    packages: list[Package] = field(default_factory=list)

    def composed(self, folder: Path) -> Composed:
        root = self._config_file(folder)
        self._take_settings(root)
        tree = self._discover(root, Path("packages"))
        document = self._merged(root, tree)
        return Composed(document, dict(self.parameters), tuple(self.packages), frozenset(self.read))

    def _config_file(self, folder: Path) -> Path:
        for name in CONFIG_FILES:
            self.read.add(folder / name)
            if (folder / name).is_file():
                return folder / name
        if not folder.is_dir():
            raise BundleError(
                f"{folder}: there is no such folder; check the bundle out there or correct the path"
            )
        raise BundleError(f"{folder}: holds no {CONFIG_FILES[0]}; give the folder that has it")

    def _take_settings(self, file: Path) -> None:
        settings = _settings(self._text(file))
        for name, value in (settings.get("parameter_defaults") or {}).items():
            self.parameters.setdefault(str(name), str(value))
        self.macros = str(settings.get("macros") or "").strip() + self.macros

    def _discover(self, file: Path, place: Path) -> list[tuple[Path, list[Any]]]:
        """The packages of a project and, below each, its own; their settings are taken on the way."""
        found = []
        for name, settings in (self._document(file).get("packages") or {}).items():
            folder = self._package_folder(str(name), settings, file)
            self.packages.append(Package(place / str(name), folder))
            config = self._config_file(folder)
            self._take_settings(config)
            found.append((config, self._discover(config, place / str(name) / "packages")))
        return found

    def _merged(self, file: Path, tree: list[tuple[Path, list[Any]]]) -> Document:
        document = self._document(file)
        for package, below in tree:
            document = merge(self._merged(package, below), document)
        return document

    def _package_folder(self, name: str, settings: Mapping[str, str], file: Path) -> Path:
        if "local" in settings:
            folder = file.parent / settings["local"]
            if folder.is_dir():
                return folder.resolve()
            raise BundleError(f"{file}: package {name}: there is no folder {folder}; correct local")
        wanted = Path(settings.get("subdirectory") or name)
        if self.bundle is not None and wanted.name == self.bundle.name:
            return self.bundle
        starts = [file.parent, *([self.bundle] if self.bundle else [])]
        for ancestor in (parent for start in starts for parent in (start, *start.parents)):
            if (ancestor / wanted).is_dir():
                return ancestor / wanted
        if (file.parent.parent / wanted.name).is_dir():
            return file.parent.parent / wanted.name
        raise BundleError(
            f"{file}: package {name} would be fetched from {settings.get('git')} in every run; check {wanted} out beside "
            "this folder, or write local: and its path instead of git:"
        )

    def _text(self, file: Path) -> str:
        self.read.add(file)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{file}: cannot be read as UTF-8 text ({type(error).__name__})") from None
        return Template(text).safe_substitute(self.parameters)

    def _document(self, file: Path) -> Document:
        text = self._text(file)
        key = (file, text, self.macros)
        if key not in self.documents:
            self.documents[key] = self._parsed(file, text)
        return self.documents[key]

    def _parsed(self, file: Path, text: str) -> Document:
        rendered = self._rendered(file, text)
        try:
            document = yaml.load(rendered, Loader=_Loader)  # noqa: S506  (a safe loader)
        except yaml.YAMLError as error:
            raise BundleError(_yaml_problem(file, rendered, text, error)) from None
        if not isinstance(document, dict) or document.get("version") != 2:
            raise BundleError(f"{file}: does not say version: 2; write that in its first line")
        return document

    def _rendered(self, file: Path, text: str) -> str:
        macros = self.macros.strip()
        environment = SandboxedEnvironment(loader=_Noting(file.parent, self.read), autoescape=False)
        environment.globals["md5"] = lambda value: hashlib.md5(
            value.encode(), usedforsecurity=False
        ).hexdigest()
        environment.globals["fromjson"] = json.loads
        try:
            return environment.from_string(macros + text).render()
        except (TemplateError, TypeError, ValueError, OverflowError, LookupError) as error:
            line = _line_of(error)
            place = f", line {line - macros.count(chr(10))}" if line else ""
            raise BundleError(
                f"{file}{place}: {str(error).splitlines()[0]}; correct the Jinja there, or give the parameter it asks for"
            ) from None


class _Noting(FileSystemLoader):
    """Notes what templates include."""

    def __init__(self, folder: Path, read: set[Path]) -> None:
        super().__init__(folder)
        self._folder, self._read = folder, read

    def get_source(self, environment: Any, template: str) -> Any:
        self._read.add(self._folder / template)
        return super().get_source(environment, template)


def merge(base: Document, above: Mapping[str, Any]) -> Document:
    """``base`` with what ``above`` says, block by block: how a project overrides its packages."""
    merged = dict(base)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = merge(merged[name], value) if both else value
    return merged


def _settings(text: str) -> Mapping[str, Any]:
    """The ``config`` block, which stands before any Jinja; empty where Earthmover would see none.

    Earthmover reads key by key until the first block, and gives up silently at what is no YAML.
    """
    loader = yaml.SafeLoader(text)
    try:
        for expected in (yaml.StreamStartEvent, yaml.DocumentStartEvent, yaml.MappingStartEvent):
            if not loader.check_event(expected):
                return {}
            loader.get_event()  # type: ignore[no-untyped-call]
        for key, value in _top_level(loader):
            if isinstance(value, dict):
                return value if key == "config" else {}
    except yaml.YAMLError:
        return {}
    finally:
        loader.dispose()
    return {}


def _top_level(loader: yaml.SafeLoader) -> Iterator[tuple[Any, Any]]:
    while not loader.check_event(yaml.MappingEndEvent):
        key, value = (loader.construct_object(loader.compose_node(None, -1), deep=True) for _ in "kv")
        yield key, value


def _yaml_problem(file: Path, rendered: str, source: str, error: yaml.YAMLError) -> str:
    """File, line and words. The mark is in the rendered text, whose lines may not be those of the file."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "is no YAML"
    if mark is None:
        return f"{file}: {problem}"
    lines = rendered.splitlines()
    text = lines[mark.line].strip() if mark.line < len(lines) else ""
    places = [n for n, line in enumerate(source.splitlines(), 1) if text and line.strip() == text]
    place = f"line {places[0]}" if len(places) == 1 else f"line {mark.line + 1} of what Jinja made of it"
    return f"{file}, {place}: {problem}, at {text[:80]!r}; correct the YAML there"


def _line_of(error: BaseException) -> int | None:
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
