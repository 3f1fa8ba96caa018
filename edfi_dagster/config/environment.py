"""Environment variables of a configuration: what they are called, and which it needs."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any, TypeVar

from pydantic import BaseModel

from edfi_dagster.config.models import Platform
from edfi_dagster.config.secrets import Secret

_OTHER = re.compile(r"[^A-Za-z0-9]+")


T = TypeVar("T", bound=Hashable)


def variable_names(things: Iterable[T]) -> dict[T, str]:
    """Return what the variables of each thing begin with, no two alike: grand_bend/2025 → GRAND_BEND_2025."""
    found: dict[T, str] = {}
    for thing in dict.fromkeys(things):
        name = _variable_name(str(thing))
        taken = set(found.values())
        numbered = (name if n == 1 else f"{name}_{n}" for n in count(1))
        found[thing] = next(candidate for candidate in numbered if candidate not in taken)
    return found


def _variable_name(text: str) -> str:
    name = _OTHER.sub("_", text).strip("_").upper()
    return name if name[:1].isalpha() else f"EDFI_{name}"


def variables(platform: Platform) -> list[str]:
    """Return the names of all variables that hold the configuration's secrets, each once, in the order of the file."""
    return list(dict.fromkeys(_variables(platform)))


def env_example(platform: Platform) -> str:
    """Return a file of those names without values, to be copied to ``.env`` and filled in."""
    lines = [
        "# Copy this to .env and fill it in. The commands and `dagster dev` read .env of the folder they are started in;",
        "# elsewhere set the same variables for the processes of runs. Keep .env out of version control.",
        *(f"{name}=" for name in variables(platform)),
    ]
    return "\n".join(lines) + "\n"


def _variables(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        if value.env is not None:
            yield value.env
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _variables(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _variables(item)
