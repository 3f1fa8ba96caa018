"""Reading the configuration: which file, and what is wrong with it. Nothing is contacted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edfi_dagster.config.document import Path as Keys
from edfi_dagster.config.document import read_document
from edfi_dagster.config.embedded import embedded_platform
from edfi_dagster.config.errors import ConfigError
from edfi_dagster.config.messages import explain, mistakes
from edfi_dagster.config.models import Platform

CONFIG_VARIABLE = "EDFI_DAGSTER_CONFIG"
CONFIG_FILE = "edfi_dagster.yaml"


def find_config(path: Path | None = None) -> Path | None:
    """Return the file to read: `path`, else `$EDFI_DAGSTER_CONFIG`, else `edfi_dagster.yaml` here, else None.

    Raises ConfigError when a file was named that does not exist.
    """
    if path is not None:
        return _existing(path, "the file given as --config")
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return _existing(Path(named), f"the file that ${CONFIG_VARIABLE} names")
    here = Path.cwd() / CONFIG_FILE
    # A link that leads nowhere is a mistake, not a wish for the embedded default.
    return _existing(here, "the configuration of this folder") if os.path.lexists(here) else None


def load_platform(path: Path | None = None) -> Platform:
    """Return the configuration of `find_config(path)`, or the embedded default where there is none.

    Secrets are not read and nothing is contacted. Raises ConfigError with one line per mistake: file, place,
    what is wrong and what would be right.
    """
    found = find_config(path)
    if found is None:
        return embedded_platform(Path.cwd())
    return parse_platform(_read_text(found), str(found), found.parent)


def parse_platform(text: str, source: str, folder: Path) -> Platform:
    """Return the configuration in the YAML `text`; `source` is what errors call it.

    Relative paths start from `folder`. Raises ConfigError as `load_platform` does.
    """
    document = read_document(text, source)
    try:
        return Platform.model_validate(document.values, context={"folder": folder, "source": source})
    except ValidationError as error:
        explained = explain(error, document, _schema())
        raise explained from None


def mistakes_in(values: Mapping[str, Any], folder: Path) -> list[tuple[Keys, str]]:
    """Return what is wrong with a configuration that is given as plain values: the path of each mistake, and a text
    that says what would be right. Empty if it is right."""
    try:
        Platform.model_validate(values, context={"folder": folder, "source": "the configuration"})
    except ValidationError as error:
        return list(mistakes(error, values, _schema()))
    return []


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file."""
    return deepcopy(_schema())


@cache
def _schema() -> dict[str, Any]:
    schema = Platform.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "edfi-dagster"}


def _existing(path: Path, words: str) -> Path:
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise ConfigError(
            f"{path}: {words} {state}; correct the path, or name none to use {CONFIG_FILE} of this folder or"
            " the embedded default"
        )
    return path.absolute()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); correct its rights") from None
