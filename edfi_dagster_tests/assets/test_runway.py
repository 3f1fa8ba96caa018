"""``earthbeam/send_to_runway`` as a run of Dagster sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from edfi_dagster.assets.keys import partition_key, partitions_of
from edfi_dagster.assets.runway import ASSET_KEY, SendToRunway, build_send_to_runway, jobs_of
from edfi_dagster.config import Platform, TenantYear, parse_platform
from edfi_dagster.earthbeam.errors import EarthbeamError
from edfi_dagster_tests.assets.runs import failure
from edfi_dagster_tests.earthbeam.runway_stand_in import BUNDLE, PAIR, SIGNATURE, RunwayStandIn

Send = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def runway() -> Iterator[RunwayStandIn]:
    with RunwayStandIn() as running:
        yield running


@pytest.fixture
def platform(runway: RunwayStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    config = runway.config(monkeypatch)
    year = {"base_url": "https://ods.example.org", "client_id": {"env": "K"}, "client_secret": {"env": "S"}}
    document: dict[str, Any] = {
        "tenants": {PAIR.tenant: {"years": {PAIR.year: year}}, "south": {"years": {2025: year}}},
        "owners": ["team:data"],
        "earthbeam": {
            "runway": {
                **config.model_dump(exclude={"client_id", "client_secret"}),
                "client_id": {"env": "RUNWAY_ID"},
                "client_secret": {"env": "RUNWAY_SECRET"},
            }
        },
    }
    return parse_platform(yaml.safe_dump(document), "agency.yaml", tmp_path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def send(platform: Platform, instance: dg.DagsterInstance) -> Send:
    def run(*, pair: TenantYear = PAIR, **options: Any) -> dg.ExecuteInProcessResult:
        config = {
            "bundle": BUNDLE,
            "files": {"INPUT_FILE": "incoming/{tenant}/{year}/*.csv"},
            "wait_minutes": 1.0,
            "poll_seconds": 0.01,
            **options,
        }
        return dg.materialize(
            build_send_to_runway(platform, partitions_of(platform)),
            instance=instance,
            partition_key=partition_key(pair),
            run_config={"ops": {"send_to_runway": {"config": config}}},
            raise_on_error=False,
        )

    return run


def drop(platform: Platform, name: str, content: str = "id\n1\n") -> Path:
    path = platform.folder / "incoming" / PAIR.tenant / str(PAIR.year) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def metadata(instance: dg.DagsterInstance) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(ASSET_KEY)
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.partition == partition_key(PAIR)
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def test_each_file_that_matches_is_a_job_and_the_materialization_tells_what_came_of_it(
    platform: Platform, runway: RunwayStandIn, instance: dg.DagsterInstance, send: Send
) -> None:
    for name in ("a.csv", "b.csv", "notes.txt", ".hidden.csv"):
        drop(platform, name, content=name)
    assert send(params={"TEST_TYPE": "SAT", "LABEL": "{tenant} {year}"}).success
    assert [job.asked["files"] for job in runway.jobs] == [{"INPUT_FILE": "a.csv"}, {"INPUT_FILE": "b.csv"}]
    assert runway.jobs[0].asked["params"] == {"TEST_TYPE": "SAT", "LABEL": "grand_bend 2026"}
    told = metadata(instance)
    assert (told["edfi/files_sent"], told["edfi/files_sent_before"]) == (2, 0)
    assert [job["job"] for job in told["edfi/runway_jobs"]] == [job.uid for job in runway.jobs]
    assert told["edfi/runway_jobs"][0]["files"] == ["a.csv"]
    assert told["edfi/runway_jobs"][0]["outputs"] == ["studentAssessments.jsonl"]
    assert told["edfi/runway_jobs"][0]["sent_to_ods"] is True


def test_a_run_without_new_files_materializes_nothing_and_asks_nothing(
    platform: Platform, runway: RunwayStandIn, send: Send
) -> None:
    drop(platform, "a.csv")
    send()
    runway.asked.clear()
    again = send()
    assert again.success
    assert again.get_asset_materialization_events() == []
    assert runway.asked == []
    assert len(send(force=True).get_asset_materialization_events()) == 1
    assert runway.starts == [1, 1]


def test_one_file_that_is_refused_fails_the_run_and_the_others_are_kept(
    platform: Platform, runway: RunwayStandIn, instance: dg.DagsterInstance, send: Send
) -> None:
    drop(platform, "a.csv", "a")
    drop(platform, "empty.csv", "")
    result = send()
    assert not result.success
    assert "1 not sent or not done, 1 done; a new run does only what is left." in failure(result)
    assert "grand_bend/2026 empty.csv, read:" in failure(result)
    assert metadata(instance)["edfi/files_sent"] == 1
    drop(platform, "empty.csv", "no longer")
    assert send().success
    assert runway.starts == [1, 1]
    assert metadata(instance)["edfi/files_sent_before"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"pair": TenantYear("south", 2026)},
            "south/2026: agency.yaml: tenants.south.years.2026 is not declared",
        ),
        ({}, "INPUT_FILE: no file matches"),
        ({"files": {"A": "x/*.csv", "B": "y/*.csv"}}, "A, B are patterns"),
        ({"files": {"INPUT_FILE": "{grain}.csv"}}, "nothing fills in {grain}"),
        ({"files": {}}, "the job has no files"),
    ],
)
def test_what_is_wrong_with_a_run_is_said_before_any_request(
    options: dict[str, Any], said: str, runway: RunwayStandIn, send: Send
) -> None:
    result = send(**options)
    assert said in failure(result)
    assert runway.asked == []


def test_events_of_a_run_hold_no_upload_address(
    platform: Platform, runway: RunwayStandIn, instance: dg.DagsterInstance, send: Send
) -> None:
    drop(platform, "a.csv")
    runway.has_expired_addresses = True
    result = send()
    assert not result.success
    assert "upload: HTTP 403" in failure(result)
    logged = "\n".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert "upload" in logged
    for secret in (SIGNATURE, *runway.tokens, "hunter2"):
        assert secret not in logged


def test_a_pattern_takes_the_named_files_along_with_each_of_its_own(platform: Platform) -> None:
    drop(platform, "a.csv")
    drop(platform, "b.csv")
    config = SendToRunway(
        bundle=BUNDLE,
        files={"INPUT_FILE": "incoming/{tenant}/{year}/*.csv", "INPUT_FILE_2": "/maps/{year}.csv"},
    )
    jobs = jobs_of(platform, PAIR, config)
    assert [job.files["INPUT_FILE"].name for job in jobs] == ["a.csv", "b.csv"]
    assert {job.files["INPUT_FILE_2"] for job in jobs} == {Path("/maps/2026.csv")}


def test_a_file_whose_name_looks_like_a_pattern_is_itself(platform: Platform) -> None:
    file = drop(platform, "scores[1].csv")
    config = SendToRunway(bundle=BUNDLE, files={"INPUT_FILE": str(file)})
    assert [dict(job.files) for job in jobs_of(platform, PAIR, config)] == [{"INPUT_FILE": file}]
    file.unlink()
    with pytest.raises(EarthbeamError, match="no file matches"):
        jobs_of(platform, PAIR, config)


def test_a_platform_without_runway_has_no_such_asset(platform: Platform) -> None:
    without = platform.model_copy(
        update={"earthbeam": platform.earthbeam.model_copy(update={"runway": None})}
    )
    assert build_send_to_runway(without, partitions_of(without)) == []
