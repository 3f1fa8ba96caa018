"""Secrets: named in the configuration, read only at the moment they are used, never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationInfo, field_validator, model_validator

from edfi_dagster.config.errors import ConfigError
from edfi_dagster.config.values import ConfigPath, Model

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REMEDY = "write {env: NAME} for an environment variable or {file: PATH} for a file that holds it"


class Secret(Model):
    """Where a secret is found: `{env: NAME}` or `{file: PATH}`. `str` and `repr` show only that."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    env: str | None = None
    """Name of an environment variable."""
    file: ConfigPath | None = None
    """File that holds the secret."""
    _place: str = PrivateAttr("the configuration")

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, Secret):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"a secret is never written into the configuration; {_REMEDY}")
        given = {key: source for key, source in value.items() if source is not None}
        if set(given) not in ({"env"}, {"file"}):
            raise ValueError(f"names no secret; {_REMEDY}, and nothing beside it")
        return given

    @field_validator("env", mode="before")
    @classmethod
    def _variable_name(cls, name: object) -> object:
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise ValueError(
                "is not the name of an environment variable (letters, digits and _); the name stands here,"
                " not the secret"
            )
        return name

    def read(self) -> str:
        """Return the secret, read now; a file's closing line break is not part of it.

        Raises ConfigError when the variable or file is missing, unreadable or empty.
        """
        return self._from_file(self.file) if self.file is not None else self._from_environment()

    def _from_environment(self) -> str:
        value = os.environ.get(self.env or "")
        if not value:
            state = "empty" if value == "" else "not set"
            raise ConfigError(
                f"{self._place}: environment variable {self.env} is {state}; set it, in .env or"
                " otherwise, where Dagster's runs and commands are started"
            )
        return value

    def _from_file(self, path: Path) -> str:
        try:
            value = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(
                f"{self._place}: secret file {path} cannot be read ({reason}); put the secret there or"
                " correct the path"
            ) from None
        if not value:
            raise ConfigError(f"{self._place}: secret file {path} is empty; put the secret there")
        return value

    def __str__(self) -> str:
        return f"{{env: {self.env}}}" if self.file is None else f"{{file: {self.file}}}"

    def __repr__(self) -> str:
        return f"Secret({self})"


class PublicValue(Secret):
    """A credential that is no secret, such as the embedded sandbox's. Built in code; YAML cannot express it."""

    _value: str = PrivateAttr()

    def __init__(self, value: str) -> None:
        super().__init__()
        self._value = value

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, value: object, info: ValidationInfo) -> object:
        return value

    def read(self) -> str:
        """Return the value."""
        return self._value

    def __str__(self) -> str:
        return "(public)"

    def __repr__(self) -> str:
        return "PublicValue()"


def place_secrets(value: Any, file: str, path: tuple[str, ...] = ()) -> None:
    """Tell every secret below `value` where it stands, so that its error can say so."""
    if isinstance(value, Secret):
        value._place = f"{file}: {'.'.join(path)}"
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            place_secrets(getattr(value, name), file, (*path, field.alias or name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            place_secrets(item, file, (*path, str(key)))
