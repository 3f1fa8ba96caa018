"""Signing in to Snowflake: the way in, and a session in which our SQL means what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import snowflake.connector
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from snowflake.connector import SnowflakeConnection, errors

from edfi_dagster.config.warehouse import STATEMENT_TIMEOUT
from edfi_dagster.config.warehouse import SnowflakeWarehouse as SnowflakeConfig
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.snowflake_sql import identifier

STATEMENT_SECONDS = 600
_LOGIN_SECONDS = 60


def statement_seconds(config: SnowflakeConfig) -> int:
    """How long a statement may take, and a transaction until its commit."""
    return int(config.session_parameters.get(STATEMENT_TIMEOUT, STATEMENT_SECONDS))


def sign_in(config: SnowflakeConfig, tag: Mapping[str, object]) -> SnowflakeConnection:
    """A new session, whose statements carry ``tag``. Secrets are read now.

    Raises WarehouseError; ConfigError where a secret cannot be read.
    """
    try:
        return snowflake.connector.connect(**connection_options(config, tag))
    except errors.Error as error:
        raise WarehouseError(
            f"Snowflake account {config.account} does not let {config.user} in: {' '.join(str(error).split())}"
        ) from None


def connection_options(config: SnowflakeConfig, tag: Mapping[str, object]) -> dict[str, Any]:
    """What snowflake.connector.connect is given."""
    place = {"role": config.role, "warehouse": config.warehouse, "host": config.host, "port": config.port}
    return {
        "account": config.account,
        "user": config.user,
        **_credentials(config),
        **{name: value for name, value in place.items() if value is not None},
        "protocol": config.protocol,
        "database": identifier(config.database),
        "schema": identifier(config.schema_name),
        "paramstyle": "qmark",
        "application": "edfi_dagster",
        "login_timeout": _LOGIN_SECONDS,
        "session_parameters": {
            STATEMENT_TIMEOUT: STATEMENT_SECONDS,
            # The locks of a run that was killed are let go after five minutes, once somebody waits for them.
            "LOCK_TIMEOUT": statement_seconds(config),
            # A statement that is turned away is asked again in its transaction.
            "TRANSACTION_ABORT_ON_ERROR": False,
            "CLIENT_TELEMETRY_ENABLED": False,
            **config.session_parameters,
            "TIMEZONE": "UTC",
            "TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_NTZ",
            "TIMESTAMP_INPUT_FORMAT": "AUTO",
            "AUTOCOMMIT": True,
            "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
            "QUERY_TAG": _query_tag(config, tag),
        },
    }


def _query_tag(config: SnowflakeConfig, tag: Mapping[str, object]) -> str:
    """What QUERY_HISTORY shows of each statement: whose it is, and what the configuration says beside."""
    own = config.session_parameters.get("QUERY_TAG")
    return json.dumps({"application": "edfi_dagster", **tag, **({} if own is None else {"query_tag": own})})


def _credentials(config: SnowflakeConfig) -> dict[str, Any]:
    if config.password is not None:
        return {"password": config.password.read()}
    if config.oauth_token is not None:
        return {"authenticator": "oauth", "token": config.oauth_token.read()}
    passphrase = config.private_key_passphrase.read() if config.private_key_passphrase else None
    return {"authenticator": "SNOWFLAKE_JWT", "private_key": _private_key(config, passphrase)}


def _private_key(config: SnowflakeConfig, passphrase: str | None) -> bytes:
    """The key as DER, unencrypted, from PEM text. An environment variable may hold that in one line."""
    if config.private_key is not None:
        where, text = "private_key", config.private_key.read()
    else:
        assert config.private_key_path is not None
        where, text = "private_key_path", _file_text(config.private_key_path)
    if "-----BEGIN" not in text:
        kind = "ENCRYPTED PRIVATE KEY" if passphrase else "PRIVATE KEY"
        text = f"-----BEGIN {kind}-----\n{text.strip()}\n-----END {kind}-----\n"
    try:
        key = serialization.load_pem_private_key(
            text.replace("\\n", "\n").encode(), passphrase.encode() if passphrase else None
        )
    except TypeError:
        state = "is not encrypted" if passphrase else "is encrypted"
        remedy = "take private_key_passphrase out" if passphrase else "give private_key_passphrase"
        raise WarehouseError(f"warehouse.{where}: the key {state}; {remedy}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise WarehouseError(
            f"warehouse.{where}: no private key can be read from it: it must be PEM (PKCS #8), and the passphrase its "
            "own; openssl pkcs8 -topk8 writes one"
        ) from None
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no PEM text"
        raise WarehouseError(
            f"warehouse.private_key_path: {path} cannot be read ({reason}); put the key there or correct the path"
        ) from None
