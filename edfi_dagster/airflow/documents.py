"""YAML as the Airflow project writes it: anchors, merge keys, and intervals as ``!timedelta SECONDS``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edfi_dagster.config import ConfigError


@dataclass(frozen=True)
class Interval:
    """An interval of time, in seconds."""

    seconds: int


class _Loader(yaml.SafeLoader):
    """Knows the project's one tag; every other is refused, as it is there."""


def _interval(loader: yaml.Loader | yaml.SafeLoader, node: yaml.Node) -> Interval:
    if not isinstance(node, yaml.ScalarNode) or not str(node.value).strip().isdecimal():
        raise yaml.constructor.ConstructorError(
            None, None, "timedelta takes a number of seconds", node.start_mark
        )
    return Interval(int(node.value))


for _tag in ("!timedelta", "!Timedelta"):
    _Loader.add_constructor(_tag, _interval)


def read_yaml(path: Path) -> dict[Any, Any]:
    """Return the mapping in a file; an empty file is an empty one. Raises ConfigError with file and line."""
    text = read_text(path)
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  (a safe loader with one more tag)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise ConfigError(f"{path}: {line}cannot be read as YAML ({problem or 'not understood'})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({type(error).__name__})") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: is not a mapping of keys and values")
    return document


def mapping(value: object) -> dict[Any, Any]:
    """Return a block's keys and values; none where there is something else."""
    return dict(value) if isinstance(value, Mapping) else {}


def read_text(path: Path) -> str:
    """Return a file's text. Raises ConfigError where it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
