"""Whatever stands in the configuration's file: a platform, or ConfigError with what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edfi_dagster.config import ConfigError, Platform, parse_platform
from edfi_dagster.config.secrets import PublicValue
from edfi_dagster_tests.config.documents import EVERYTHING, TENANTS
from edfi_dagster_tests.fuzz.inputs import fuzzed, spoiled, tried

FULL = yaml.safe_load(EVERYTHING)
LOCAL = yaml.safe_load(
    "lake: {kind: local, root: lake}\nwarehouse: {kind: duckdb, path: a.duckdb}\n" + TENANTS
)
YAML_PIECES = st.sampled_from(
    ["a", ":", ": ", "- ", "\n", "\n  ", "[", "]", "{", "}", "&a ", "*a", "!!bool ", "!!timestamp ", "!!int ", "!!python/name:os.system ",
     "!!set ", "!!omap ", "!!pairs ", "!!binary ", "!!merge ", "!!null ", "!!float ", "<<: ", "? ", "| ", "> ", "'", '"', "\\ud800", "\\UFFFFFFFF",
     "\\x1b", "tenants", "2025", "no", "~", "=", "#", "%YAML 9.9\n", "---\n", "...\n", "\t", "\x00", "\ufeff", "0b", "0x", "1:60:60", ".nan",
     "2001-99-99", "1_", "🎒", "\x85", "\ud800"]
)  # fmt: skip


def parsed(text: str) -> Platform | None:
    tried["configurations"] += 1
    try:
        platform = parse_platform(text, "agency.yaml", Path("/nowhere"))
    except ConfigError as error:
        said = str(error)
        assert said.startswith("agency.yaml")
        assert len(said) > 20
        said.encode()
        assert not set(said) & {"\x1b", "\r", "\x00"}
        return None
    for pair in platform.pairs():
        ods = platform.ods(pair)
        assert "/" not in pair.tenant and ".." not in pair.tenant and "|" not in pair.tenant
        assert not isinstance(ods.client_id, PublicValue)
    return platform


@fuzzed(40)
@given(st.lists(YAML_PIECES, max_size=40).map("".join))
def test_any_text_is_a_configuration_or_told_not_to_be_one(text: str) -> None:
    parsed(text)


@fuzzed(40)
@given(document=st.one_of(spoiled(FULL), spoiled(LOCAL)))
def test_any_value_in_any_place_is_taken_or_told_to_be_wrong(document: Any) -> None:
    try:
        text = yaml.safe_dump(document)
    except (UnicodeEncodeError, yaml.YAMLError):
        return
    parsed(text)


@fuzzed(40)
@given(at=st.integers(0, len(EVERYTHING)), piece=YAML_PIECES, length=st.integers(0, 20))
def test_any_slip_of_the_hand_is_harmless_or_told(at: int, piece: str, length: int) -> None:
    text = EVERYTHING
    parsed(text[:at] + piece + text[at + length :])


def test_the_configuration_is_right_before_it_is_spoilt() -> None:
    assert parsed(EVERYTHING)
    assert parsed(yaml.safe_dump(LOCAL))


@pytest.mark.parametrize(
    "text",
    [
        "!!set a: 1",
        "a: !!bool perhaps",
        "a: !!timestamp tomorrow",
        'a: !!int ""',
        "? !!bool x\n: 1",
        "<<: !!bool x",
        'a: "\\UFFFFFFFF"',
        "a: !!python/object/apply:os.system [true]",
        "a: !!python/name:os.system",
    ],
)
def test_a_value_that_is_not_of_its_tag_is_told_with_its_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^agency.yaml: .*not YAML .*; check indentation"):
        parse_platform(f"{text}\n", "agency.yaml", Path("/nowhere"))


@pytest.mark.parametrize("repeat", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_aliases_of_aliases_cannot_fill_the_memory(repeat: str) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {repeat.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="an alias repeats too much"):
        parse_platform("\n".join(lines), "agency.yaml", Path("/nowhere"))


@pytest.mark.parametrize("nested", ["[" * 5000, "{a: " * 5000, "a: &a {b: *a}"])
def test_what_is_nested_without_end_is_told(nested: str) -> None:
    with pytest.raises(ConfigError, match="nested without end; write it out"):
        parse_platform(nested, "agency.yaml", Path("/nowhere"))


@pytest.mark.parametrize("host", ["*.example.org", ".example.org", "a..b", "a" * 64, "a b", "a\\b", "a\x7fb"])
def test_a_base_url_without_a_host_that_can_be_asked_is_a_mistake_of_the_file(host: str) -> None:
    document = yaml.safe_load(TENANTS)
    document["tenants"]["grand_bend"]["years"][2025]["base_url"] = f"https://{host}/api"
    with pytest.raises(ConfigError, match=r"base_url \(line \d+\): is not a URL"):
        parse_platform(yaml.safe_dump(document), "agency.yaml", Path("/nowhere"))
