"""The path law of the lake."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.lake import paths
from edfi_dagster.ods.catalogue import find_endpoints, standard_endpoints
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.warehouse.snowflake_sql import stage_place

PAIR = TenantYear("grand_bend", 2025)
STAMP = datetime(2026, 3, 8, 2, 3, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("endpoint", "kind", "part", "expected"),
    [
        ("students", RECORDS, 0, "resources/students.jsonl.zst"),
        ("students", RECORDS, 12, "resources/students.12.jsonl.zst"),
        ("tpdm/candidates", DELETES, 0, "resource_deletes/candidates.jsonl.zst"),
        ("classPeriods", KEY_CHANGES, 0, "resource_key_changes/class_periods.jsonl.zst"),
        ("gradeLevelDescriptors", RECORDS, 0, "descriptors/grade_level_descriptors.jsonl.zst"),
    ],
)
def test_part_lies_where_the_law_says(endpoint: str, kind: RecordKind, part: int, expected: str) -> None:
    (found,) = find_endpoints([endpoint], standard_endpoints("5.2"))
    folder = paths.pull_folder(PAIR, STAMP, found, kind)
    path = paths.part_path(folder, found.snake, part, "zstd")
    assert path == f"grand_bend/2025/20260308/20260308T020304/{expected}"
    # How the loaders of edu_edfi_airflow take date, stamp and name from a path.
    first_date, first_stamp = re.search(r"\d{8}", path), re.search(r"\d{8}T\d{6}", path)
    assert first_date is not None
    assert first_stamp is not None
    assert (first_date[0], first_stamp[0]) == ("20260308", "20260308T020304")


def test_gzip_and_manifest_have_their_own_endings() -> None:
    assert paths.part_path("f", "students", 0, "gzip") == "f/students.jsonl.gz"
    assert paths.manifest_path("f", "students") == "f/students.manifest.json"


def test_stamp_is_read_back_from_its_folder_and_other_folders_are_none() -> None:
    assert paths.parse_stamp(paths.stamp_text(STAMP)) == STAMP
    assert [paths.parse_stamp(name) for name in ("20260308", "run.json", "20260308T0203045")] == [None] * 3


def test_no_two_endpoints_of_the_standard_share_a_path() -> None:
    endpoints = standard_endpoints("5.2")
    found = {
        paths.part_path(paths.pull_folder(PAIR, STAMP, e, RECORDS), e.snake, 0, "zstd") for e in endpoints
    }
    assert len(found) == len(endpoints)


FOLDERS = {
    "grand_bend": "grand_bend",
    "A-1.b": "A-1.b",
    "48227901": "48227901",
    "Grand Bend": "Grand=20Bend",
    "Grand=20Bend": "Grand=3D20Bend",
    "St. Mary's": "St.=20Mary=27s",
    "Cañon City": "Ca=C3=B1on=20City",
    "A&M (255901)": "A=26M=20=28255901=29",
}


def test_a_tenants_folder_needs_no_quotes_and_is_its_own() -> None:
    assert {code: paths.pair_folder(TenantYear(code, 2025)) for code in FOLDERS} == {
        code: f"{folder}/2025" for code, folder in FOLDERS.items()
    }
    assert all(stage_place("S", f"{folder}/").startswith("@S/") for folder in FOLDERS.values())
