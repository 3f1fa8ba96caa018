"""Files that a command writes into a new folder: none is written over without being asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from edfi_dagster.config import ConfigError, Platform, json_schema
from edfi_dagster.config.environment import env_example
from edfi_dagster.config.load import CONFIG_FILE

ENV_EXAMPLE = ".env.example"
SCHEMA_FILE = ".dagster/edfi_dagster.schema.json"
SCHEMA_HINT = f"# yaml-language-server: $schema={SCHEMA_FILE}"
_IGNORED = ".env\n.dagster/\n.tmp_dagster_home_*/\ndata/\n"


def check_free(paths: Sequence[Path], *, force: bool) -> None:
    """Raises ConfigError, naming them, where files are there already and are not to be written over."""
    there = [path.name for path in paths if path.exists()]
    if there and not force:
        raise ConfigError(
            f"{paths[0].parent} holds {' and '.join(there)} already; take another folder, or write over it with --force"
        )


def write_start(config: Path, text: str, platform: Platform, *, force: bool) -> list[Path]:
    """Write a configuration and what belongs beside it; the files written.

    Its ``.env.example`` and, for editors, its JSON Schema; and where they are missing, an instance and a workspace for
    ``dagster dev``, and a ``.gitignore`` of secrets and data. Raises ConfigError where one would be written over.
    """
    folder = config.parent
    own = {config: text, folder / ENV_EXAMPLE: env_example(platform)}
    check_free(list(own), force=force)
    starter = files("edfi_dagster.cli") / "starter"
    missing = {
        name: (starter / name).read_text(encoding="utf-8") for name in ("dagster.yaml", "workspace.yaml")
    }
    missing[".gitignore"] = _IGNORED
    if config.name != CONFIG_FILE:
        del missing["workspace.yaml"]  # it loads the configuration of its own folder
    others = {folder / name: content for name, content in missing.items() if not (folder / name).exists()}
    schema = {folder / SCHEMA_FILE: json.dumps(json_schema(), indent=1) + "\n"}
    return _write({**own, **others, **schema})


def _write(contents: Mapping[Path, str]) -> list[Path]:
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None
    return list(contents)
