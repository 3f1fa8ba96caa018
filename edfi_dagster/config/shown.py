"""A configuration as it is meant: defaults filled in, secrets by their place alone and whether they are there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, RootModel

from edfi_dagster.config.extract import ENDPOINT_KINDS, EVERY
from edfi_dagster.config.models import Platform
from edfi_dagster.config.secrets import PublicValue, Secret
from edfi_dagster.config.values import TenantYear

_VARIABLE = re.compile(r"\{env: (\w+)\}$", re.MULTILINE)
_FILE = re.compile(r"\{file: (.+)\}$", re.MULTILINE)


def resolved(platform: Platform, only: frozenset[TenantYear] | None = None) -> dict[str, Any]:
    """Return the configuration as plain values, of the tenants those of the pairs in ``only``.

    A secret is ``{env: NAME, set: true}`` or ``{file: PATH, set: true}``; none is read.
    """
    document: dict[str, Any] = _plain(platform)
    for kind in ENDPOINT_KINDS:
        document["extract"][kind] = _selection(document["extract"][kind])
    if only is not None:
        codes = {pair.tenant for pair in only}
        document["tenants"] = {
            code: {
                **tenant,
                "years": {
                    year: block for year, block in tenant["years"].items() if TenantYear(code, year) in only
                },
            }
            for code, tenant in document["tenants"].items()
            if code in codes
        }
    return document


def resolved_yaml(document: Mapping[str, Any]) -> str:
    """Return what ``resolved`` gave as a configuration file: what has no value is left out, secrets have a remark."""
    text = dump_yaml(_without_nothing(document))
    text = _VARIABLE.sub(lambda found: f"{found[0]}  # {_set(_is_set(found[1]))}", text)
    return _FILE.sub(lambda found: f"{found[0]}  # {_set(Path(found[1]).is_file())}", text)


def dump_yaml(document: Mapping[str, Any]) -> str:
    """Return YAML in the order given, the innermost blocks on one line."""
    blocks: list[str] = []
    for name, value in document.items():
        style = None if isinstance(value, Mapping | list) else False
        blocks.append(
            yaml.dump(
                {name: value},
                Dumper=_Dumper,
                sort_keys=False,
                default_flow_style=style,
                allow_unicode=True,
                width=78,
            )
        )
    return "".join(blocks)


class _Dumper(yaml.SafeDumper):
    """Without anchors: a value that stands twice is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _selection(endpoints: Mapping[str, Any]) -> object:
    """A selection by the word for it where there is one: without an entry it is none, and said to be."""
    if not endpoints:
        return "none"
    (name, options), *others = endpoints.items()
    return "all" if name == EVERY and not others and not any(options.values()) else endpoints


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return _secret(value)
    if isinstance(value, RootModel):
        return _plain(value.root)
    if isinstance(value, BaseModel):
        fields = type(value).model_fields.items()
        return {field.alias or name: _plain(getattr(value, name)) for name, field in fields}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _secret(secret: Secret) -> dict[str, Any] | str:
    if isinstance(secret, PublicValue):
        return str(secret)
    if secret.file is not None:
        return {"file": str(secret.file), "set": secret.file.is_file()}
    return {"env": secret.env, "set": _is_set(str(secret.env))}


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable))


def _set(is_set: bool) -> str:
    return "set" if is_set else "not set"


def _without_nothing(value: Any) -> Any:
    """``value`` without keys that say nothing; an endpoint that is named without options stays."""
    if not isinstance(value, Mapping):
        return value
    if set(value) in ({"env", "set"}, {"file", "set"}):
        return {key: item for key, item in value.items() if key != "set"}
    kept = {key: _without_nothing(item) for key, item in value.items()}
    return {key: item for key, item in kept.items() if item not in (None, [], {}) or _is_named(key, value)}


def _is_named(key: object, block: Mapping[Any, Any]) -> bool:
    """Whether a key without content still means something: the name of an endpoint."""
    return isinstance(block[key], Mapping) and "enabled" in block[key]
