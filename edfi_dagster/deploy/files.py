"""Files to deploy with, as they lie in ``templates``: to be copied, read and changed by whoever deploys."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, get_args

from edfi_dagster.config import ConfigError

Kind = Literal["kubernetes", "compose"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""``kubernetes``: values for Dagster's own Helm chart, one pod per run. ``compose``: everything on one host."""

_TEMPLATES = files("edfi_dagster.deploy") / "templates"


class FileExists(ConfigError):
    """A file to be written is there already, and may have been changed by hand."""


def write_deployment(folder: Path, kind: Kind, *, force: bool = False) -> list[Path]:
    """Write the files of a deployment into ``folder``, which is made where it is missing; the files written.

    Raises FileExists, before anything is written, for a file that is there already, unless ``force`` is set.
    """
    found = {folder / name: template for name, template in _templates(kind).items()}
    if not force and (there := [path for path in found if path.exists()]):
        raise FileExists(
            f"{there[0]} is there already; move it away, or write over it with --force"
            + (f" (and {len(there) - 1} more)" if len(there) > 1 else "")
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in found.items():
        path.write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
    return list(found)


def _templates(kind: Kind) -> dict[str, Traversable]:
    """Name → template: those of the kind, and those of both."""
    folders = (_TEMPLATES, _TEMPLATES / kind)
    return {
        file.name: file for folder in folders for file in sorted(folder.iterdir(), key=str) if file.is_file()
    }
