"""Airflow's connections as ``airflow connections export`` and ``airflow connections list -o json`` write them.

A password is never kept, nor a login beyond what Snowflake calls its user: only that there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from edfi_dagster.airflow.documents import read_text
from edfi_dagster.config import ConfigError

_ENVIRONMENT_PREFIX = "AIRFLOW_CONN_"
_WHOLE_EXTRA = "__extra__"
_SECRET_WORDS = (
    "password",
    "secret",
    "token",
    "passphrase",
    "private_key_content",
    "access_key",
    "credential",
)


@dataclass(frozen=True)
class Connection:
    """One connection; ``extra`` without anything that is secret by its name, ``hidden`` are those names."""

    id: str
    type: str
    host: str
    schema: str
    has_login: bool
    has_password: bool
    login: str = field(repr=False)
    port: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()

    def option(self, *names: str) -> str:
        """The first extra of these names that is given, also under its long name (``extra__snowflake__account``)."""
        for name in names:
            for key, value in self.extra.items():
                is_given = isinstance(value, str | int | float) and value != ""
                if is_given and (key == name or key.endswith(f"__{name}")):
                    return str(value)
        return ""

    def says(self, name: str) -> bool | None:
        """An extra that is yes or no, also as text; None if it is not given."""
        value = self.option(name).lower()
        return None if not value else value in {"true", "1", "yes", "on"}


def find(connections: Mapping[str, Connection], name: str) -> Connection | None:
    """The connection of that id. Names of environment variables have no case: those of ``.env`` are in small letters."""
    return connections.get(name) or connections.get(name.lower())


def read_connections(path: Path) -> dict[str, Connection]:
    """Return the connections of an export (JSON, YAML or ``.env``) by id. Raises ConfigError, never with a value."""
    text = read_text(path)
    try:
        found = _raw(path, text)
        return {name: _connection(name, value) for name, value in found}
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        raise ConfigError(
            f"{path}: is no export of connections; write one with: airflow connections export {path.stem}.json"
        ) from None


def _raw(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".env" or path.name == ".env":
        for line in text.splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith("#"):
                is_variable = name.startswith(_ENVIRONMENT_PREFIX)
                yield (
                    (name.removeprefix(_ENVIRONMENT_PREFIX).lower() if is_variable else name),
                    value.strip("'\""),
                )
        return
    document = yaml.safe_load(text) if path.suffix in {".yml", ".yaml"} else json.loads(text)
    if isinstance(document, list):
        yield from ((str(row["conn_id"]), row) for row in document)
    else:
        yield from ((str(name), value) for name, value in document.items())


def _connection(name: str, value: Any) -> Connection:
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("{") else _from_uri(value)
    extra = _extra(value.get("extra_dejson") or value.get("extra"))
    login = str(value.get("login") or "")
    shown = {key: item for key, item in extra.items() if not _is_secret(key)}
    return Connection(
        id=name,
        type=str(value.get("conn_type") or "").lower().replace("-", "_"),
        host=str(value.get("host") or ""),
        schema=str(value.get("schema") or ""),
        has_login=bool(login),
        has_password=bool(value.get("password")),
        login=login,
        port=int(port) if (port := str(value.get("port") or "")).isdecimal() else None,
        extra=shown,
        hidden=frozenset(key for key, item in extra.items() if item and _is_secret(key)),
    )


def _extra(given: object) -> Mapping[str, Any]:
    """The extras; none if they are a text that is not JSON."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return {}
    return given if isinstance(given, Mapping) else {}


def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in _SECRET_WORDS)


def _from_uri(uri: str) -> dict[str, Any]:
    """``type://login:password@host:port/schema?extra``, a host with its own scheme before the login."""
    kind, _, rest = uri.partition("://")
    scheme, separator, behind = rest.partition("://")
    if not separator or "@" in scheme or "/" in scheme:
        scheme, behind = "", rest
    parts = urlsplit(f"//{behind}")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    host = unquote(parts.hostname or "") if "%" not in parts.netloc else unquote(_host(parts.netloc))
    return {
        "conn_type": kind,
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "host": f"{scheme}://{host}" if scheme and host else host,
        "port": parts.port,
        "schema": unquote(parts.path.strip("/")),
        "extra": json.loads(query[_WHOLE_EXTRA]) if _WHOLE_EXTRA in query else query,
    }


def _host(netloc: str) -> str:
    """The host as it was written: ``urlsplit`` would lower the letters of a path in it."""
    host = netloc.rpartition("@")[2]
    return host.rpartition(":")[0] if ":" in host else host
