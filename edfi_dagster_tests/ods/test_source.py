"""Sources: what of an address, a key and a filter decides which rows come, and what does not."""

from __future__ import annotations

import pytest

from edfi_dagster.ods.source import Ods, Source, digests, normal_address

SOURCE = Source(Ods("ods.example.org/api/2025", "1f2e"), "ed-fi/students", digests({"schoolId": "255901"}))


@pytest.mark.parametrize(
    "url",
    [
        "https://ods.example.org/v6.1/api/data/v3/2025",
        "https://ODS.example.org:443/v7.3/api/2025/data/v3/",
        "http://ods.example.org/api//2025/data",
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
