"""What results become: severities, what is left out, and what must not be in any of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from edfi_dagster.assets.bundle_events import BundleEvents, failed
from edfi_dagster.assets.bundle_specs import bundles_of
from edfi_dagster.assets.keys import AssetKeys
from edfi_dagster.earthbeam import BundleResult, MatchOutcome, Refusal, ResourceOutcome, WrittenOutput
from edfi_dagster.lake.store import open_lake
from edfi_dagster_tests.automation.platforms import GRAND_BEND, platform_of
from edfi_dagster_tests.earthbeam.conftest import DEMO

RESULT = BundleResult(
    "riverbend", GRAND_BEND, "SAT", {"INPUT_FILE": "/in/sat.csv"}, datetime(2025, 11, 3, tzinfo=UTC)
)
REFUSED = ResourceOutcome(
    "studentAssessments", 100, accepted=98, failed=2, refusals=(Refusal("400", "bad score", 2, 17),)
)


def events(folder: Path, result: BundleResult, **settings: Any) -> BundleEvents:
    bundle = {"path": str(DEMO), "parameters": {"API_YEAR": "2025"}, **settings}
    platform = platform_of(folder, {GRAND_BEND: {}}, earthbeam={"bundles": {"riverbend": bundle}})
    keys = AssetKeys(platform)
    (assets,) = bundles_of(platform, keys)
    return BundleEvents(assets, keys, result, open_lake(platform.lake, None))


def materialized(of: BundleEvents) -> dict[str, dict[str, Any]]:
    return {
        event.asset_key.to_user_string().removeprefix("earthbeam/riverbend/"): {
            name: value.value for name, value in event.metadata.items()
        }
        for event in of.materializations()
    }


@pytest.mark.parametrize(
    ("allowed", "severity"), [(0.01, dg.AssetCheckSeverity.ERROR), (0.02, dg.AssetCheckSeverity.WARN)]
)
def test_as_many_refusals_as_are_allowed_are_a_warning_and_more_an_error_and_neither_passes(
    tmp_path: Path, allowed: float, severity: dg.AssetCheckSeverity
) -> None:
    result = replace(RESULT, validated=(REFUSED,), sent=(REFUSED,))
    valid, sent = events(tmp_path, result, lightbeam={"max_failed_share": allowed}).checks()
    assert (valid.check_name, sent.check_name) == ("records_valid", "sent_without_failures")
    for check in (valid, sent):
        assert not check.passed and check.severity is severity
        assert check.metadata["edfi/rejected_by_status"] == dg.MetadataValue.json({"400": 2})
    assert valid.description == "2 of 100 invalid; first: 400: bad score"
    assert sent.description == "98 of 100 taken, 0 there already, 2 failed; first: 400: bad score"


def test_records_for_which_the_ods_has_no_endpoint_are_a_warning_and_none_a_pass(tmp_path: Path) -> None:
    lost = ResourceOutcome("studentAssessments", 3, offered=False)
    none = ResourceOutcome("assessments", 0, offered=False)
    first, second = events(tmp_path, replace(RESULT, sent=(lost, none))).checks()
    assert not first.passed and first.severity is dg.AssetCheckSeverity.WARN
    assert first.description == "the ODS has no such endpoint, so 3 records were not sent"
    assert second.passed


def test_what_the_ods_had_already_is_no_materialization_and_its_check_passes(tmp_path: Path) -> None:
    had = ResourceOutcome("studentAssessments", 10, skipped=10)
    of = events(tmp_path, replace(RESULT, sent=(had, replace(REFUSED, resource="assessments"))))
    assert set(materialized(of)) == {"sent/assessments"}
    assert [check.passed for check in of.checks()] == [True, False]


def test_a_deletion_tells_how_many_were_deleted(tmp_path: Path) -> None:
    result = replace(RESULT, deleted=(REFUSED,), seconds={"delete": 2.5})
    told = materialized(events(tmp_path, result, lightbeam={"command": "delete"}))
    assert told["sent/student_assessments"]["edfi/deleted"] == 98
    assert told["sent/student_assessments"]["edfi/seconds"] == 2.5
    assert "edfi/sent" not in told["sent/student_assessments"]


def test_an_output_knows_its_own_file_in_the_lake_also_where_the_file_that_was_read_has_its_name(
    tmp_path: Path,
) -> None:
    archived = ("a/raw/studentAssessments.jsonl.zst", "a/transformed/studentAssessments.jsonl.zst")
    output = WrittenOutput("studentAssessments", "studentAssessments.jsonl", "studentAssessments", 5)
    result = replace(
        RESULT, outputs=(output,), archived=archived, commit="c0ffee", encodings={"INPUT_FILE": "cp1252"}
    )
    told = materialized(events(tmp_path, result))["student_assessments"]
    assert told["dagster/uri"].endswith("a/transformed/studentAssessments.jsonl.zst")
    assert (told["edfi/commit"], told["edfi/encodings"]) == ("c0ffee", {"INPUT_FILE": "cp1252"})
    assert (told["edfi/grain"], told["edfi/files"]) == ("SAT", {"INPUT_FILE": "/in/sat.csv"})


def test_a_match_by_an_earlier_files_columns_is_checked_by_this_files_own_share(tmp_path: Path) -> None:
    match = MatchOutcome(0.9, 0.5, 10, 5, (("state_id", "State", 99, 100, 0.99),), stored=True)
    (check,) = events(
        tmp_path, replace(RESULT, match=match), student_ids={"wrapper": str(DEMO)}, destination="none"
    ).checks()
    assert not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
    assert check.description == "50.0% of 10 rows found their student; 90.0% are required"
    assert check.metadata["edfi/by_an_earlier_file"] == dg.MetadataValue.bool(True)


def test_the_failure_names_tenant_year_bundle_grain_step_and_cause() -> None:
    told = failed(replace(RESULT, failed_step="send", failure="the ODS is down"))
    assert told.description == "grand_bend/2025: bundle riverbend (SAT), step send: the ODS is down"
    assert (told.metadata["edfi/bundle"].value, told.metadata["edfi/step"].value) == (
        "riverbend (SAT)",
        "send",
    )
    assert not told.allow_retries
