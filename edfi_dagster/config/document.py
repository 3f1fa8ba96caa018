"""YAML as it was written: values with the line each stands on, and no key given twice."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from edfi_dagster.config.errors import ConfigError

Path = tuple[Hashable, ...]
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Document:
    """A configuration file's values, and for each path the line (from 1) and the key as it was written."""

    source: str
    values: Mapping[Any, Any]
    places: Mapping[Path, tuple[int, str]]

    def line(self, path: Path) -> int | None:
        """Return the line of a path, or of the nearest block around it that stands in the file."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path][0] if path else None

    def written(self, path: Path) -> str:
        """Return the path with dots, keys in the spelling of the file (`tenants.NO`)."""
        return ".".join(
            self.places.get(path[: end + 1], (0, str(key)))[1] or "''" for end, key in enumerate(path)
        )


def read_document(text: str, source: str) -> Document:
    """Return the YAML mapping in `text`.

    Raises ConfigError with `source` and line when it is no YAML, no mapping, empty, or gives a key twice
    (of which YAML would silently keep the last). The text itself is never repeated.
    """
    try:
        return _read(text, source)
    except RecursionError:
        raise ConfigError(
            f"{source}: holds an alias (*) of a block inside itself, or is nested without end; write it out"
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(f"{source}: {_syntax(error)}") from None


def _read(text: str, source: str) -> Document:
    loader = _Loader(text)
    node = loader.get_single_node()
    if loader.duplicates:
        raise ConfigError("\n".join([f"{source}:", *(f"  {line}" for line in loader.duplicates)]))
    if node is None:
        raise ConfigError(f"{source}: is empty; write at least a tenant under tenants")
    if not isinstance(node, MappingNode):
        raise ConfigError(f"{source}: is not a mapping; begin with keys such as tenants:")
    values = loader.construct_document(node)
    places = dict(islice(_places(loader, node, ()), loader.most + 1))
    if len(places) > loader.most:
        raise loader.too_much(node)
    return Document(source, values, places)


class _Loader(yaml.SafeLoader):
    """Finds keys given twice while composing, before merges (`<<`) are folded in.

    `most` bounds what a text may stand for: a few aliases of aliases are as much as the memory holds.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.most = 10 * len(text) + 1000
        self.duplicates: list[str] = []
        self._path: list[str] = []

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (KeyError, AttributeError, IndexError, TypeError):  # PyYAML's own, as for `!!bool perhaps`
            raise ConstructorError(None, None, "a value is not of its tag", node.start_mark) from None

    def flatten_mapping(self, node: MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > self.most:
            raise self.too_much(node)

    def too_much(self, node: Node) -> ConstructorError:
        return ConstructorError(None, None, "an alias repeats too much", node.start_mark)

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        step = index.value if isinstance(index, ScalarNode) else index
        if step is not None:
            self._path.append(str(step))
        try:
            return super().compose_node(parent, index)
        finally:
            if step is not None:
                self._path.pop()

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Hashable, int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == _MERGE:
                continue
            value, line = self.construct_object(key), key.start_mark.line + 1
            if not isinstance(value, Hashable):
                raise ConstructorError(None, None, "a key is a list or a block", key.start_mark)
            if value in lines:
                path = ".".join([*self._path, key.value])
                where = f"line {line}" if lines[value] == line else f"lines {lines[value]} and {line}"
                self.duplicates.append(
                    f"{path} ({where}): is given twice, and only the last would count; keep one of them"
                )
            lines[value] = line
        return node


def _places(loader: _Loader, node: Node, path: Path) -> Iterator[tuple[Path, tuple[int, str]]]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            below = (*path, loader.construct_object(key, deep=True))
            yield below, (key.start_mark.line + 1, str(key.value))
            yield from _places(loader, value, below)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), (item.start_mark.line + 1, str(index))
            yield from _places(loader, item, (*path, index))


def _syntax(error: yaml.YAMLError | ValueError | OverflowError) -> str:
    # The error's own text repeats the line, and names aliases and tags: `*pass` and `!word` may be passwords.
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "a value is not understood"
    if any(word in problem for word in ("alias", "tag", "anchor")):
        problem = re.split("['\"]", problem)[0].strip() + "; a value that begins with *, & or ! needs quotes"
    line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{line}is not YAML ({problem}); check indentation, quotes and braces"
