"""What the configuration's own rules refuse is taken out of a translation and said, so that the rest can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edfi_dagster.airflow.report import Report
from edfi_dagster.airflow.tenants import DAGS
from edfi_dagster.config import ConfigError
from edfi_dagster.config.load import mistakes_in

# Blocks that mean another place without one of their keys: they are taken out whole.
_WHOLE = {"lake": "connections", "warehouse": "connections", "slack": "connections"}


def accepted(document: dict[str, Any], report: Report, files: Mapping[str, str]) -> dict[str, Any]:
    """Return ``document`` without what is refused; ``files``: block or kind of endpoints → the file it is from.

    Raises ConfigError if no tenant is left.
    """
    while mistakes := mistakes_in(document, Path("/")):
        gone: list[tuple[Any, ...]] = []
        for path, text in mistakes:
            # What stood in something that is gone needs no word of its own.
            is_gone = any(path[: len(place)] == place for place in gone)
            if not is_gone and (place := _take_out(document, path, text, report, files)):
                gone.append(place)
        if not document.get("tenants") or not gone:
            listed = "\n".join(f"  {line.removeprefix('# ')}" for line in report.comments())
            raise ConfigError(f"no tenant of the Airflow configuration can be imported:\n{listed}")
    return document


def _take_out(
    document: dict[str, Any], path: tuple[Any, ...], text: str, report: Report, files: Mapping[str, str]
) -> tuple[Any, ...]:
    """Take out what is wrong at ``path``, or the block around it if something is missing there; where that stood."""
    if path and path[0] in _WHOLE:
        report.leave(
            ".".join(map(str, path)),
            f"{text}. The block {path[0]} is left out; write it by hand",
            str(path[0]),
            files[path[0]],
        )
        document.pop(path[0], None)
        return path[:1]
    place = path if _has(document, path) else path[:-1]
    if not place or not _has(document, place):
        return ()
    file, where = _origin(place, files)
    left_out = "" if place == path else f"; {where} is left out"
    report.leave(str(path[-1]), f"{text}{left_out}", where, file)
    block: Any = document
    for key in place[:-1]:
        block = block[key]
    del block[place[-1]]
    return place


def _has(block: Any, path: Sequence[Any]) -> bool:
    for key in path:
        if not isinstance(block, dict) or key not in block:
            return False
        block = block[key]
    return True


def _origin(path: Sequence[Any], files: Mapping[str, str]) -> tuple[str | None, str]:
    """The file, and the path in it, that something of the configuration is from; None for Airflow's configuration."""
    match path:
        case ["tenants", tenant]:
            return None, f"{DAGS}.{tenant}"
        case ["tenants", tenant, _]:
            return None, f"{DAGS}.{tenant}"
        case ["tenants", tenant, _, *rest]:
            return None, ".".join(map(str, (DAGS, tenant, *rest)))
        case ["extract", kind, *rest] if kind in files:
            return files[kind], ".".join(map(str, rest)) or str(kind)
        case _:
            return None, ".".join(map(str, path))
