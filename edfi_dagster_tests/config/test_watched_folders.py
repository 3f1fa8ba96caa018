"""No folder is watched for two tenants or years: each would load the other's file."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from edfi_dagster.config import ConfigError, Platform, parse_platform
from edfi_dagster.config.watched_folders import patterns_overlap

YEAR = {"base_url": "http://127.0.0.1:9", "client_id": {"env": "A"}, "client_secret": {"env": "B"}}


def platform(home: Path, *bundles: dict[str, Any], tenants: dict[str, list[int]] | None = None) -> Platform:
    """A platform with these bundles: each is the place of its one input, and what else it says."""
    declared = tenants or {"north": [2025], "south": [2025]}
    document = {
        "tenants": {code: {"years": dict.fromkeys(years, YEAR)} for code, years in declared.items()},
        "earthbeam": {
            "bundles": {
                f"bundle_{n}": {"path": ".", **bundle.pop("settings", {}), "inputs": {"INPUT_FILE": bundle}}
                for n, bundle in enumerate(bundles)
            }
        },
    }
    # No YAML aliases: the year stands in it several times.
    text = yaml.dump(yaml.safe_load(yaml.safe_dump(document)))
    return parse_platform(text, "agency.yaml", home)


def refused(home: Path, *bundles: dict[str, Any], **options: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        platform(home, *bundles, **options)
    return str(raised.value)


def test_the_error_names_both_pairs_the_folder_and_the_remedy(tmp_path: Path) -> None:
    told = refused(tmp_path, {"folder": "incoming"})
    assert "earthbeam.bundles.bundle_0.inputs.INPUT_FILE.folder" in told
    assert "north/2025 and south/2025 would load each other's files" in told
    assert str(tmp_path / "incoming") in told
    assert "{tenant} and {year} in the path, or set split_by_tenant: true" in told


@pytest.mark.parametrize("folder", ["in/{tenant}", "in/{tenant}/{year}/../all", "in"])
def test_years_of_one_tenant_are_kept_apart_too(folder: str, tmp_path: Path) -> None:
    told = refused(tmp_path, {"folder": folder}, tenants={"north": [2024, 2025]})
    assert "north/2024 and north/2025 would load" in told


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("in/north", "in/north/"),
        ("in/north", "in/x/../north"),
        ("in/north", "./in//north"),
        ("in/north", "link"),
        ("in/north", "link/../in/north"),
        ("in/north", "In/NORTH"),
        ("in/ma\u00f1ana", "in/man\u0303ana"),
    ],
)
def test_one_folder_under_two_names_is_one_folder(one: str, other: str, tmp_path: Path) -> None:
    (tmp_path / "in" / "north").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "in" / "north")
    told = refused(
        tmp_path,
        {"folder": one, "settings": {"applies_to": {"north": [2025]}}},
        {"folder": other, "settings": {"applies_to": {"south": [2025]}}},
    )
    assert "north/2025 and south/2025 of bundle bundle_1 would load" in told


@pytest.mark.parametrize(
    "bundles",
    [
        [{"folder": "in/{tenant}/{year}"}],
        [{"folder": "in", "split_by_tenant": True}],
        [{"folder": "in", "settings": {"applies_to": {"north": [2025]}}}],
        # Two bundles of one pair may both read a file: it is nobody else's.
        [{"folder": "in/{tenant}"}, {"folder": "in/{tenant}"}],
        [
            {"folder": "in", "pattern": "north_*.csv", "settings": {"applies_to": {"north": [2025]}}},
            {"folder": "in", "pattern": "south_*.csv", "settings": {"applies_to": {"south": [2025]}}},
        ],
        [{"folder": "in/{vendor}", "settings": {"hooks": {"preprocess": "agency.files:find"}}}],
    ],
)
def test_what_keeps_pairs_apart_is_taken(bundles: list[dict[str, Any]], tmp_path: Path) -> None:
    assert platform(tmp_path, *bundles).earthbeam.bundles


def test_a_bundle_that_splits_does_not_excuse_another_that_does_not(tmp_path: Path) -> None:
    told = refused(
        tmp_path,
        {"folder": "in", "split_by_tenant": True},
        {"folder": "in", "settings": {"applies_to": {"south": [2025]}}},
    )
    assert "north/2025 and south/2025 of bundle bundle_1" in told


def test_grains_do_not_keep_tenants_apart(tmp_path: Path) -> None:
    told = refused(tmp_path, {"folder": "in/{grain}", "settings": {"grains": ["SAT", "PSAT"]}})
    assert "north/2025 and south/2025" in told


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ("*.csv", "*.csv", "a.csv"),
        ("*.csv", "fall*", "fall.csv"),
        ("*a*", "*b*", "ab"),
        ("?.csv", "[a-c].csv", "b.csv"),
        ("*", "x", "x"),
        ("[!a]*", "ab", None),
        ("[ab]*.csv", "[cd]*.csv", None),
        ("[!a]", "[a]", None),
        ("*.csv", "*.txt", None),
        ("north_*", "south_*", None),
        ("a?", "a", None),
        ("[", "[", "["),
        ("[]]", "]", "]"),
        ("", "*", ""),
        ("", "a*", None),
        ("*" * 300, "?" * 300, "a" * 300),
    ],
)
def test_patterns_overlap_if_a_name_matches_both(one: str, other: str, name: str | None) -> None:
    assert patterns_overlap(one, other) is patterns_overlap(other, one) is (name is not None)
    assert name is None or (fnmatch(name, one) and fnmatch(name, other))
