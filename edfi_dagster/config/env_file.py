"""The variables in ``.env``: text in single quotes stays as it is written."""

from __future__ import annotations

import os
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream
from dotenv.variables import parse_variables

from edfi_dagster.config.errors import ConfigError

_ENCODING = "utf-8-sig"


def read_env_file(path: Path) -> dict[str, str]:
    """Return name → value. ``${NAME}`` is filled in, as in a shell, but not in single quotes.

    python-dotenv fills it in everywhere, which changes secrets. A file that does not exist holds nothing.
    Raises ConfigError if the file cannot be read.
    """
    found: dict[str, str] = {}
    for binding in _bindings(path):
        if binding.key is None or binding.value is None:
            continue
        if _is_single_quoted(binding):
            found[binding.key] = binding.value
        else:
            known = {**os.environ, **found}
            found[binding.key] = "".join(atom.resolve(known) for atom in parse_variables(binding.value))
    return found


def take_env_file(path: Path) -> None:
    """Set the variables of a file that are not set yet. Raises ConfigError."""
    for name, value in read_env_file(path).items():
        if value:
            os.environ.setdefault(name, value)
    correct_env_file(path)


def correct_env_file(path: Path) -> None:
    """Set again what `dagster dev` took from the same file but read otherwise. Raises ConfigError."""
    values = read_env_file(path)
    for name, value in dotenv_values(path, encoding=_ENCODING).items() if values else ():
        if value != values.get(name) and os.environ.get(name) == value:
            os.environ[name] = values[name]


def _bindings(path: Path) -> list[Binding]:
    if not path.is_file():
        return []
    try:
        with path.open(encoding=_ENCODING) as text:
            return list(parse_stream(text))
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path} cannot be read; save it as UTF-8 text, or move it away") from None


def _is_single_quoted(binding: Binding) -> bool:
    return binding.original.string.partition("=")[2].lstrip().startswith("'")
