"""What a bundle's sources read, told by its rendered YAML: which variables nothing has filled in, and what must be read again."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edfi_dagster.earthbeam.errors import BundleError
from edfi_dagster.earthbeam.rendering import Composed
from edfi_dagster.earthbeam.workspace import file_digest

_LEFT = re.compile(r"\$\{(\w+)\}")
_BLOCKS = ("sources", "transformations", "destinations")


def absent_inputs(composed: Composed) -> dict[str, str]:
    """Variable → nothing, for files of optional sources that nobody gives: Earthmover takes a literal ``${NAME}`` for a file."""
    files = (str(s.get("file") or "") for s in composed.block("sources").values() if s.get("optional"))
    return {name: "" for file in files for name in _LEFT.findall(file)}


def check_filled(composed: Composed, secrets: Collection[str] = ()) -> None:
    """Raises BundleError for a variable that nothing fills in: Earthmover would write ``${NAME}`` into the records.

    ``secrets`` are filled in only when Earthmover runs.
    """
    for block in _BLOCKS:
        for node, settings in composed.block(block).items():
            for name in _LEFT.findall(" ".join(texts_of(settings))):
                if name in secrets:
                    continue
                reads = block == "sources" and f"${{{name}}}" in str(settings.get("file"))
                place = "inputs" if reads else "parameters"
                raise BundleError(f"{node} needs {name}, which nothing gives; write it under {place}")


def outside_files(composed: Composed, known: Iterable[Path]) -> dict[str, str] | None:
    """Source → SHA-256 of its file, where that is neither of the bundle nor ``known``.

    None where a source reads a database, a URL or a folder, of which nobody can tell cheaply whether it is still the same.
    """
    looked_at = set(map(str, known))
    found = {}
    for source, settings in composed.block("sources").items():
        file = str(settings.get("file") or "")
        if settings.get("connection") or "://" in file:
            return None
        path = Path(file)
        if not path.is_absolute() or file in looked_at:
            continue
        if path.is_dir():
            return None
        if path.is_file():
            found[source] = file_digest(path)
    return found


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a node's settings, names of keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)
