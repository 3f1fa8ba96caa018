"""Ways into Snowflake, and what a session there is told. The connector is the real one and talks to the stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from edfi_dagster.config.secrets import PublicValue
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.snowflake_sign_in import connection_options
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey, passphrase: str = "") -> str:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    ).decode()


def log_in(snowflake: SnowflakeStandIn, lake: LocalLake, **options: Any) -> dict[str, Any]:
    """What the server is told by a login with these options."""
    options.setdefault("password", None)
    warehouse = snowflake.warehouse(snowflake.new_database(), lake, **options)
    snowflake.forget()
    with warehouse.connected() as connection:
        assert connection.rows("SELECT 1") == [(1,)]
    warehouse.close()
    (login,) = snowflake.noted()["logins"]
    told: dict[str, Any] = login
    return told


@pytest.mark.parametrize("form", ["text", "one line", "bare", "encrypted text", "file", "encrypted file"])
def test_key_pair_signs_a_token_for_the_account_and_user(
    snowflake: SnowflakeStandIn, lake: LocalLake, tmp_path: Path, key: rsa.RSAPrivateKey, form: str
) -> None:
    passphrase = "open sesame" if "encrypted" in form else ""
    text = pem(key, passphrase)
    options: dict[str, Any] = {}
    if passphrase:
        options["private_key_passphrase"] = PublicValue(passphrase)
    if "file" in form:
        options["private_key_path"] = tmp_path / "key.p8"
        (tmp_path / "key.p8").write_text(text)
    elif form == "bare":
        options["private_key"] = PublicValue("".join(text.splitlines()[1:-1]))
    else:
        options["private_key"] = PublicValue(text.replace("\n", "\\n") if form == "one line" else text)
    told = log_in(snowflake, lake, **options)
    assert told["AUTHENTICATOR"] == "SNOWFLAKE_JWT"
    claims = jwt.decode(told["TOKEN"], key.public_key(), algorithms=["RS256"])
    assert claims["sub"] == "STAND-IN.LOADER"
    assert "PASSWORD" not in told


def test_password_and_oauth_token_sign_in(snowflake: SnowflakeStandIn, lake: LocalLake) -> None:
    told = log_in(snowflake, lake, password=PublicValue("pass word"))
    assert (told["LOGIN_NAME"], told["PASSWORD"]) == ("loader", "pass word")
    told = log_in(snowflake, lake, oauth_token=PublicValue("ey.token"))
    assert (told["AUTHENTICATOR"], told["TOKEN"]) == ("OAUTH", "ey.token")


def test_keys_that_cannot_be_used_say_why_and_stay_secret(
    snowflake: SnowflakeStandIn, tmp_path: Path, key: rsa.RSAPrivateKey
) -> None:
    def message(**options: Any) -> str:
        given = {"private_key_passphrase": None, "password": None, **options}
        with pytest.raises(WarehouseError) as caught:
            connection_options(snowflake.config("RAW", **given), {})
        return str(caught.value)

    encrypted, plain = PublicValue(pem(key, "right")), PublicValue(pem(key))
    assert "is encrypted; give private_key_passphrase" in message(private_key=encrypted)
    assert "is not encrypted; take private_key_passphrase out" in message(
        private_key=plain, private_key_passphrase=PublicValue("x")
    )
    wrong = message(private_key=encrypted, private_key_passphrase=PublicValue("wrong one"))
    assert "the passphrase its own" in wrong
    assert "wrong one" not in wrong
    assert "warehouse.private_key: no private key can be read" in message(
        private_key=PublicValue("MII nonsense")
    )
    missing = tmp_path / "none.p8"
    assert f"private_key_path: {missing} cannot be read (No such file" in message(private_key_path=missing)


def test_session_is_told_where_it_is_and_what_the_sql_relies_on(
    snowflake: SnowflakeStandIn, lake: LocalLake
) -> None:
    config = snowflake.config(
        "raw", role="LOADER", warehouse="wh", session_parameters={"query_tag": "edfi", "WEEK_START": 1}
    )
    options = connection_options(config, {"tenant": "t", "year": 2025, "run": "abc"})
    found = {
        name: options[name] for name in ("account", "role", "warehouse", "database", "schema", "protocol")
    }
    assert found == {
        "account": "stand-in",
        "role": "LOADER",
        "warehouse": "wh",
        "database": "RAW",
        "schema": "EDFI3",
        "protocol": "http",
    }
    parameters = options["session_parameters"]
    tag = {"application": "edfi_dagster", "tenant": "t", "year": 2025, "run": "abc", "query_tag": "edfi"}
    assert json.loads(parameters["QUERY_TAG"]) == tag
    assert parameters | {"QUERY_TAG": ""} == {
        "STATEMENT_TIMEOUT_IN_SECONDS": 600,
        "LOCK_TIMEOUT": 600,
        "TRANSACTION_ABORT_ON_ERROR": False,
        "CLIENT_TELEMETRY_ENABLED": False,
        "WEEK_START": 1,
        "TIMEZONE": "UTC",
        "TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_NTZ",
        "TIMESTAMP_INPUT_FORMAT": "AUTO",
        "AUTOCOMMIT": True,
        "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
        "QUERY_TAG": "",
    }
    told = log_in(snowflake, lake, password=PublicValue("x"))
    assert told["SESSION_PARAMETERS"]["TIMEZONE"] == "UTC"
    assert json.loads(told["SESSION_PARAMETERS"]["QUERY_TAG"]) == {"application": "edfi_dagster"}


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"timezone": "America/Chicago"}, "is set by every session itself"),
        ({"STATEMENT_TIMEOUT_IN_SECONDS": 0}, "must be a number of seconds"),
        ({"STATEMENT_TIMEOUT_IN_SECONDS": "long"}, "must be a number of seconds"),
    ],
)
def test_session_parameters_that_would_break_loading_are_refused(
    snowflake: SnowflakeStandIn, parameters: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        snowflake.config("RAW", session_parameters=parameters)


def test_account_that_cannot_be_reached_is_a_clear_error(
    snowflake: SnowflakeStandIn, lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edfi_dagster.warehouse.snowflake_sign_in._LOGIN_SECONDS", 1)
    warehouse = snowflake.warehouse("RAW", lake, port=9)
    with (
        pytest.raises(WarehouseError, match="Snowflake account stand-in does not let loader in: 250001"),
        warehouse.connected() as connection,
    ):
        connection.rows("SELECT 1")
