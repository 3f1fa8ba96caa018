"""A few rounds of a chaos campaign; ``python -m edfi_dagster_tests.chaos`` goes on for as long as it is asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edfi_dagster_tests.bench import KEY_VARIABLE, SECRET_VARIABLE
from edfi_dagster_tests.chaos.campaign import MISTAKES, Campaign, Report
from edfi_dagster_tests.chaos.gate import FAULTS, running_gate
from edfi_dagster_tests.chaos.search import leaks
from edfi_dagster_tests.chaos.storage import opened
from edfi_dagster_tests.extract.district import PLANTED
from edfi_dagster_tests.lake import s3_server
from edfi_dagster_tests.warehouse import snowflake_stand_in

Live = Callable[[str, str, int, int], Report]


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """``live(storage, version, seed, rounds)``; what a campaign puts into the environment is gone after the test."""
    for name in (
        KEY_VARIABLE,
        SECRET_VARIABLE,
        s3_server.KEY_VARIABLE,
        s3_server.SECRET_VARIABLE,
        snowflake_stand_in.SECRET_VARIABLE,
        "DAGSTER_HOME",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
    ):
        monkeypatch.setenv(name, "")

    def living(storage: str, version: str, seed: int, rounds: int) -> Report:
        with (
            running_gate() as gate,
            opened(storage) as opened_storage,
            closing(Campaign(tmp_path, seed, version, gate, opened_storage)) as campaign,
        ):
            campaign.live(lambda number: number < rounds)
            campaign.settle()
            return campaign.report

    yield living


def test_few_rounds_of_chaos_leave_what_the_ods_holds(live: Live) -> None:
    """By this seed: a run whose ODS dies, one in Dagster, one with a wrong configuration, and one that may be killed at a load."""
    report = live("embedded", "7.3", 2667, 5)
    assert sum(report.runs.values()) == 5
    assert report.faults.keys() & MISTAKES
    assert report.faults.keys() <= FAULTS.keys() | MISTAKES
    assert sum(report.faults.values()) > 20
    assert report.compared > 100


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("version", ["7.3", "6.1", "5.3"])
@pytest.mark.parametrize("storage", ["embedded", "production"])
def test_many_rounds_of_chaos_leave_what_the_ods_holds(live: Live, storage: str, version: str) -> None:
    report = live(storage, version, 3, 25)
    assert sum(report.kills.values()) >= 5
    assert sum(report.faults.values()) > 200


def test_search_finds_a_value_and_a_token_wherever_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "instance").mkdir()
    (tmp_path / "instance" / "events.db").write_bytes(b"\x00" + f"student {PLANTED}7".encode() + b"\x00")
    (tmp_path / "run.log").write_text('{"lastSurname": "\\u00c4mne 3"}')
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "students.jsonl.zst").write_text(PLANTED)
    (tmp_path / "lake" / "students.manifest.json").write_text("Bearer abc123")
    (tmp_path / "warehouse.duckdb").write_text(PLANTED)
    assert leaks(tmp_path, {"abc123"}) == [
        "instance/events.db: a student's value",
        "lake/students.manifest.json: a secret or token",
        "run.log: a student's value",
    ]
