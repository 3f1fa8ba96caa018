"""YAML as the Airflow project writes it: anchors, merge keys, and tags such as ``!timedelta SECONDS``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from edfi_dagster.config import ConfigError

_CLOCK = re.compile(r"(?:(\d+) days?,? *)?(\d+):(\d\d)(?::(\d\d))?")
# Jinja of Airflow, and variables of a shell.
_FILLED_IN = re.compile(r"\{\{|\{%|\$\{|\$\(|\$[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True)
class Interval:
    """An interval of time, in seconds."""

    seconds: float


@dataclass(frozen=True)
class Foreign:
    """A value behind a tag that only the project's own code understands."""

    tag: str


class _Loader(yaml.SafeLoader):
    """Reads every tag with one ``!``; others, such as ``!!python/object``, are refused, as they are there."""


def _interval(loader: yaml.SafeLoader, node: yaml.Node) -> Interval | Foreign:
    """``!timedelta``: seconds as Python writes numbers, ``H:MM:SS``, or the arguments of ``datetime.timedelta``."""
    try:
        if isinstance(node, yaml.MappingNode):
            seconds = timedelta(
                **{str(k): v for k, v in loader.construct_mapping(node).items()}
            ).total_seconds()
        else:
            text = str(node.value).strip()
            clock = _CLOCK.fullmatch(text)
            seconds = _clock_seconds(clock) if clock else timedelta(seconds=float(text)).total_seconds()
    except (TypeError, ValueError, OverflowError, yaml.YAMLError):
        return Foreign("!timedelta")
    return Interval(int(seconds) if seconds.is_integer() else seconds)


def _clock_seconds(found: re.Match[str]) -> float:
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()


def _cron(loader: yaml.SafeLoader, node: yaml.Node) -> str | Foreign:
    return node.value if isinstance(node, yaml.ScalarNode) else Foreign("!cron")


def _foreign(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> Foreign:
    return Foreign(f"!{name}")


_Loader.add_multi_constructor("!", _foreign)
for _tag in ("!timedelta", "!Timedelta"):
    _Loader.add_constructor(_tag, _interval)
_Loader.add_constructor("!cron", _cron)


def read_yaml(path: Path) -> dict[Any, Any]:
    """Return the mapping in a file; an empty file is an empty one. Raises ConfigError with file and line."""
    text = read_text(path)
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  (a safe loader with tags of its own)
        _check_end(document)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), str(getattr(error, "problem", None) or "")
        line = f"line {mark.line + 1}: " if mark is not None else ""
        # What stands in quotes is from the file, and may be a password.
        what = re.split("['\"]", problem)[0].strip() or "not understood"
        raise ConfigError(f"{path}: {line}cannot be read as YAML ({what})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({type(error).__name__})") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: is not a mapping of keys and values")
    return document


def _check_end(value: object) -> None:
    """Raises RecursionError if a block holds itself."""
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _check_end(item)


def settled(value: object, leave: Callable[[tuple[str, ...], str], None], path: tuple[str, ...] = ()) -> Any:
    """Return ``value`` without what Airflow fills in while it runs; ``leave`` is told of each by its path and reason."""
    if isinstance(value, Mapping):
        found = {key: settled(item, leave, (*path, str(key))) for key, item in value.items()}
        return {key: item for key, item in found.items() if item is not None or value[key] is None}
    if isinstance(value, list):
        return [settled(item, leave, path) for item in value]
    if isinstance(value, Foreign):
        leave(path, f"the value behind {value.tag} is known to the Airflow project alone; write it by hand")
        return None
    if isinstance(value, str) and _FILLED_IN.search(value):
        leave(path, "a variable or template is filled in by Airflow alone; write the value by hand")
        return None
    return value


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
