"""Secrets are read when used, and shown nowhere."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from edfi_dagster.config import (
    ConfigError,
    Platform,
    PublicValue,
    TenantYear,
    embedded_platform,
    load_platform,
)
from edfi_dagster_tests.config.documents import TENANTS, write_config

PAIR = TenantYear("grand_bend", 2025)
PLACE = "tenants.grand_bend.years.2025"


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    text = TENANTS.replace("{env: GRAND_BEND_SECRET}", "{file: secrets/grand_bend}")
    return load_platform(write_config(tmp_path, text))


def test_environment_is_read_at_each_use(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = platform.ods(PAIR).client_id
    for value in ("first", " second "):
        monkeypatch.setenv("GRAND_BEND_KEY", value)
        assert secret.read() == value


@pytest.mark.parametrize("state", ["not set", "empty"])
def test_missing_variable_is_named_with_place_and_remedy(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.delenv("GRAND_BEND_KEY", raising=False)
    if state == "empty":
        monkeypatch.setenv("GRAND_BEND_KEY", "")
    with pytest.raises(ConfigError) as raised:
        platform.ods(PAIR).client_id.read()
    message = str(raised.value)
    assert message.startswith(f"{platform.source}: {PLACE}.client_id: ")
    assert f"environment variable GRAND_BEND_KEY is {state}; set it" in message


def test_secret_file_is_read_without_its_closing_line_break(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "grand_bend").write_text("-----BEGIN\nabc \r\n", encoding="utf-8")
    assert platform.ods(PAIR).client_secret.read() == "-----BEGIN\nabc "


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\n", "is empty"),
        (b"\xff", "cannot be read (not UTF-8 text)"),
    ],
)
def test_missing_secret_file_is_named_with_place_and_remedy(
    platform: Platform, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "secrets" / "grand_bend"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        platform.ods(PAIR).client_secret.read()
    message = str(raised.value)
    assert message.startswith(f"{platform.source}: {PLACE}.client_secret: secret file {path} {words}")
    assert "put the secret there" in message


def test_secrets_are_never_shown(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "grand_bend").write_text("hunter2", encoding="utf-8")
    monkeypatch.setenv("GRAND_BEND_KEY", "hunter2")
    ods = platform.ods(PAIR)
    assert ods.client_id.read() == ods.client_secret.read() == "hunter2"
    shown = [
        repr(platform),
        str(platform),
        repr(platform.model_dump()),
        platform.model_dump_json(),
        repr(ods),
        str(ods.client_id),
        f"{ods.client_secret}",
        repr(pickle.dumps(platform)),
    ]
    assert not [text for text in shown if "hunter2" in text]
    assert str(ods.client_id) == "{env: GRAND_BEND_KEY}"


@pytest.mark.parametrize(
    "text",
    [
        "slack: {webhook_url: https://hooks.example.org/hunter2}",
        "slack: {webhook_url: *hunter2}",
        "slack: {webhook_url: !hunter2}",
        "slack: {webhook_url: &hunter2 a, channel: &hunter2 b, x: }",
        "slack: {webhook_url: 'hunter2",
        "slack: {webhook_url: hunter2: a}",
        "slack: {webhook_url: {env: hunter2!}}",
        "slack: {webhook_url: {env: [hunter2]}}",
        "slack: {webhook_url: {value: hunter2}}",
        "slack: {webhook_url: [hunter2]}",
        "slack: hunter2",
        "warehouse: {kind: snowflake, account: a, user: b, password: hunter2}",
        "warehouse: {kind: snowflake, account: 'https://hunter2@x', user: 'hunter2 x', host: [hunter2]}",
        "lake: {kind: s3, bucket: b, endpoint_url: 'https://a:hunter2@s3.example.org'}",
        "lake: {kind: s3, bucket: b, endpoint_url: 'https://hunter2:\u2100@s3.example.org'}",
        "lake: {kind: s3, bucket: b, endpoint_url: 'https://[hunter2'}",
        "lake: {kind: hunter2}",
        "tables: {deletes: [hunter2]}",
        "timezone: \x07hunter2",
    ],
)
def test_secret_in_a_wrong_place_is_not_repeated_by_the_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_platform(write_config(tmp_path, f"{text}\n"))
    assert "agency.yaml" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_public_value_is_built_in_code_only(tmp_path: Path) -> None:
    assert PublicValue("sandbox").read() == "sandbox"
    platform = embedded_platform(tmp_path)
    assert platform.ods(PAIR).client_id.read() == "sandbox"
    assert pickle.loads(pickle.dumps(platform)).ods(PAIR).client_secret.read() == "sandbox-secret"
    for written in ("{value: sandbox}", "{_value: sandbox}", "{public: sandbox}", "{}"):
        with pytest.raises(ConfigError, match=r"client_id \(line 8\).*\{env: NAME\}"):
            load_platform(write_config(tmp_path, TENANTS.replace("{env: GRAND_BEND_KEY}", written)))
