"""The reference of the configuration, the JSON Schema, and the configuration as it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from edfi_dagster.config import json_schema, load_platform, parse_platform
from edfi_dagster.config import reference as configuration
from edfi_dagster.config.environment import env_example, variable_names
from edfi_dagster.config.shown import resolved, resolved_yaml
from edfi_dagster_tests.config.documents import EVERYTHING

SECRETS = """
lake: {kind: s3, bucket: our-lake, access_key_id: {env: S3_KEY}, secret_access_key: {file: s3.secret}}
slack: {webhook_url: {env: HOOK}}
tenants:
  a:
    years:
      2025:
        base_url: https://ods.example.org/api
        client_id: {env: A_KEY}
        client_secret: {file: a.secret}
        extract: {resources: {students: {}, schools: {page_size: 7}}}
"""


def test_reference_can_be_asked_for_a_block_or_a_key() -> None:
    block, key = configuration.markdown("lake"), configuration.markdown("extract.endpoint_defaults.page_size")
    assert block is not None and key is not None
    assert "**`lake, kind: s3`**" in block
    assert "**`extract`**" not in block
    assert [line.split("|")[1].strip() for line in key.splitlines() if line.startswith("| `")] == [
        "`page_size`"
    ]
    assert configuration.markdown("no_such_key") is None


def test_every_block_and_key_of_the_configuration_is_in_the_reference_once() -> None:
    blocks = list(configuration.blocks())
    titles = [block.title for block in blocks]
    assert len(titles) == len(set(titles))
    definitions = json_schema()["$defs"]
    expected = {name for name, node in definitions.items() if "properties" in node} - {"Secret"}
    assert len(blocks) == len(expected) + 1, "the file itself, and each model"
    described = {
        (block.title, key)
        for block in blocks
        for key, value in block.properties.items()
        if "description" in value
    }
    silent = [
        f"{block.title}: {key}"
        for block in blocks
        for key in block.properties
        if (block.title, key) not in described
    ]
    assert silent == [], "every field has a docstring"


def test_shown_configuration_says_where_secrets_are_and_whether_they_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "the-key")
    monkeypatch.delenv("S3_KEY", raising=False)
    (tmp_path / "a.secret").write_text("the-secret")
    document = resolved(parse_platform(SECRETS, "x", tmp_path))
    year = document["tenants"]["a"]["years"][2025]
    assert (year["client_id"], document["lake"]["access_key_id"]) == (
        {"env": "A_KEY", "set": True},
        {"env": "S3_KEY", "set": False},
    )
    assert year["client_secret"] == {"file": str(tmp_path / "a.secret"), "set": True}
    text = resolved_yaml(document)
    assert "client_id: {env: A_KEY}  # set\n" in text
    assert f"secret_access_key: {{file: {tmp_path}/s3.secret}}  # not set\n" in text
    assert "the-key" not in json.dumps(document) + text and "the-secret" not in json.dumps(document) + text


def test_shown_configuration_is_one_and_means_the_same(tmp_path: Path) -> None:
    (tmp_path / "bundles" / "PSAT_SAT").mkdir(parents=True)
    everything = parse_platform(EVERYTHING, "x", tmp_path)
    for platform in (everything, parse_platform(SECRETS, "x", tmp_path)):
        text = resolved_yaml(resolved(platform))
        jsonschema.validate(_as_json(yaml.safe_load(text)), json_schema())
        again = parse_platform(text, "x", Path("/elsewhere"))
        assert resolved(again) == resolved(platform)


def _as_json(value: object) -> object:
    return json.loads(json.dumps(value))


def test_examples_of_variables_name_each_once_and_hold_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "the-key")
    lines = env_example(parse_platform(SECRETS, "x", tmp_path)).splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["S3_KEY=", "HOOK=", "A_KEY="]


def test_names_of_variables_are_never_shared() -> None:
    names = variable_names(["a-b/2025", "a_b/2025", "A.b/2025", "7/2025", "a-b/2025"])
    assert names == {
        "a-b/2025": "A_B_2025",
        "a_b/2025": "A_B_2025_2",
        "A.b/2025": "A_B_2025_3",
        "7/2025": "EDFI_7_2025",
    }


def test_embedded_default_can_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDFI_DAGSTER_CONFIG", raising=False)
    text = resolved_yaml(resolved(load_platform()))
    assert text.count("client_id: (public)") == 4 and "sandbox-secret" not in text
