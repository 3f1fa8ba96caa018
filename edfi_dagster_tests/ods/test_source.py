"""Sources: what of an address, a key and a filter decides which rows come, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from edfi_dagster.ods.discovery import read_discovery
from edfi_dagster.ods.source import (
    Configured,
    Ods,
    Source,
    digests,
    normal_address,
    ods_changes,
    ods_of,
    same_endpoint,
)
from edfi_dagster_tests.ods.platforms import KEY_VARIABLE, PAIR, platform_at

HOST = "https://ods.example.org"

SOURCE = Source(Ods("ods.example.org/api/2025", "1f2e"), "ed-fi/students", digests({"schoolId": "255901"}))


@pytest.mark.parametrize(
    "url",
    [
        "https://ods.example.org/v6.1/api/data/v3/2025",
        "https://ODS.example.org:443/v7.3/api/2025/data/v3/",
        "http://ods.example.org/api//2025/data",
        "http://ods.example.org:80/v7.3.1/api/2025/data",
        "https://ods.example.org./API/data/v3/2025",
    ],
)
def test_an_upgrade_of_the_api_or_another_spelling_is_the_same_address(url: str) -> None:
    assert normal_address(url) == "ods.example.org/api/2025"


@pytest.mark.parametrize(
    "url",
    [
        "https://ods.example.org:8443/api/data/v3/2025",
        "https://ods.example.org/api/data/v3/2026",
        "https://ods2.example.org/api/data/v3/2025",
        "https://ods.example.org/api/lakeview/2025/data/v3",
        "https://ods.example.org/v2026/api/2025",
        "https://ods.example.org/api/data/v3",
    ],
)
def test_another_host_port_instance_or_year_is_another_address(url: str) -> None:
    assert normal_address(url) != "ods.example.org/api/2025"


def test_a_source_is_text_that_holds_no_key_and_no_value_and_reads_back() -> None:
    text = SOURCE.encode()
    assert "255901" not in text
    assert Source.decode(text) == SOURCE
    for other in ("", "x", "[]", '{"endpoint": 1}'):
        assert Source.decode(other) is None


def test_order_and_casing_of_filters_do_not_count_and_values_do() -> None:
    assert digests({"b": "1", "A": "2"}) == digests({"a": "2", "B": "1"})
    assert list(digests({"b": "1", "A": "2"})) == ["a", "b"]
    changed = Source(SOURCE.ods, "ed-fi/Students", digests({"SCHOOLID": "255902", "x": "1"}))
    assert changed.changes_since(SOURCE) == [
        "query parameter `schoolid` was changed",
        "query parameter `x` was added",
    ]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "key")


def ods(base_url: str, version: str, told: str = "", of_year: str = "", **document: Any) -> Ods:
    """The source that a run reads from an ODS whose root document names ``told`` as the address of its data."""
    settings = platform_at(base_url, of_year=of_year).ods(PAIR)
    urls: Mapping[str, str] = {"dataManagementApi": told} if told else {}
    models = [{"name": "Ed-Fi", "version": "5.0.0"}]
    return ods_of(
        settings,
        read_discovery({"version": version, "dataModels": models, "urls": urls, **document}, settings),
    )


@pytest.mark.parametrize(
    "now",
    [
        f"{HOST}/webapi/data/v3",
        f"{HOST}/v7.3/api/data/v3/",
        "http://10.0.0.1/data/v3",
        f"{HOST}/{{tenantIdentifier}}/data/v3",
    ],
)
def test_host_that_names_another_path_after_an_upgrade_is_the_same(now: str) -> None:
    before = ods(HOST, "6.1", f"{HOST}/data/v3", apiMode="Shared Instance")
    assert ods_changes(before, ods(HOST, "7.3", now)) == []
    assert ods_changes(before, ods(HOST, "8.0", f"{HOST}/data")) == []


def test_year_goes_from_behind_the_data_into_the_base_url_with_an_upgrade() -> None:
    before = ods(f"{HOST}/v6.1/api", "6.1", apiMode="Year Specific")
    after = ods(f"{HOST}/v7.3/api/2025", "7.3", f"{HOST}/v7.3/api/2025/data/v3")
    assert ods_changes(before, after) == []


def test_year_and_instance_of_an_address_count_whoever_names_them() -> None:
    told = [f"{HOST}/{district}/2025/data/v3" for district in ("grand_bend", "lakeview")]
    assert ods_changes(ods(HOST, "7.3", told[0]), ods(HOST, "7.3", told[1]))
    mode = "Instance Year Specific"
    one, other = (ods(HOST, "6.1", of_year=f"instance_code: {code}", apiMode=mode) for code in "ab")
    assert ods_changes(one, other)
    assert ods_changes(ods(HOST, "6.1", apiMode="Shared Instance"), ods(HOST, "6.1", apiMode="Year Specific"))


@pytest.mark.parametrize(
    ("behind", "may_be"),
    [
        ("", True),
        ("/2025", True),
        ("/grand_bend/2025", True),
        ("/lakeview", False),
        ("/2024", False),
        ("/grand_bend/2024", False),
        ("/a/b/2025", False),
        ("2", False),
    ],
)
def test_configured_address_may_only_be_followed_by_instance_and_year(behind: str, may_be: bool) -> None:
    configured = Configured(platform_at(f"{HOST}/api").ods(PAIR))
    earlier = Ods(f"ods.example.org/api{behind}", ods(HOST, "7.3").key)
    assert (configured.ods_changes_since(earlier) == []) == may_be


def test_ledger_that_holds_no_path_of_an_endpoint_is_compared_all_the_same() -> None:
    noted = Source.decode('{"ods":{"address":"x"},"endpoint":"students"}')
    assert noted and not same_endpoint(noted.endpoint, "ed-fi/students")
    assert Source.decode("not ours") is None
