"""The file-drop sensor, tick by tick: one run for each new file, and none for what is not complete, not new, or not meant."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from edfi_dagster.automation import dropped_files, file_drop
from edfi_dagster.automation.file_drop import BUNDLE_JOB, FILE_DROP_SENSOR
from edfi_dagster.config import TenantYear
from edfi_dagster.definitions import build
from edfi_dagster_tests.automation.daemon import Clock, Daemon, Tick
from edfi_dagster_tests.automation.platforms import GRAND_BEND, LAKEVIEW, platform_of
from edfi_dagster_tests.earthbeam.conftest import DEMO, HEADER

MakeDaemon = Callable[..., Daemon]
FOLDER = "incoming/{tenant}/{year}"


@pytest.fixture
def make_daemon(tmp_path: Path, instance: dg.DagsterInstance) -> MakeDaemon:
    """``make_daemon(*pairs, **settings of the bundle)``: files are dropped in ``incoming/<tenant>/<year>``."""

    def make(*pairs: TenantYear, **settings: Any) -> Daemon:
        bundle = {
            "path": str(DEMO),
            "parameters": {"API_YEAR": "{year}"},
            "inputs": {"INPUT_FILE": {"folder": FOLDER, "pattern": "*.csv"}},
            "destination": "none",
            **settings,
        }
        years: dict[TenantYear, Mapping[str, Any]] = {pair: {} for pair in pairs or (GRAND_BEND,)}
        for pair in years:
            (tmp_path / "incoming" / pair.tenant / str(pair.year)).mkdir(parents=True)
        platform = platform_of(tmp_path, years, earthbeam={"bundles": {"riverbend": bundle}})
        return Daemon(build(platform), instance, Clock())

    return make


def drop(folder: Path, name: str = "fall.csv", text: str = "one", pair: TenantYear = GRAND_BEND) -> Path:
    file = folder / "incoming" / pair.tenant / str(pair.year) / name
    file.write_text(text)
    return file


def age(file: Path, hours: float) -> None:
    """Let a file be so many hours old, from a fixed moment."""
    moment = int((1_700_000_000 - hours * 3600) * 1e9)
    os.utime(file, ns=(moment, moment))


def tick(daemon: Daemon) -> Tick:
    """A tick; each run it asks for is one of the instance then, as in real life."""
    found = daemon.sensor(FILE_DROP_SENSOR)
    for request in found.requests:
        tags = {"dagster/run_key": str(request.run_key)}
        daemon.note(request, dg.DagsterRunStatus.SUCCESS, BUNDLE_JOB, tags=tags)
        daemon.clock.pass_(seconds=1)
    return found


def asked(daemon: Daemon) -> list[str]:
    """The files that two ticks ask for: what is new at the first is run at the second."""
    return files(tick(daemon)) + files(tick(daemon))


def files(found: Tick) -> list[str]:
    """The files that runs were asked for, by name."""
    configs = [request.run_config["ops"]["earthbeam__riverbend"]["config"] for request in found.requests]
    return [Path(config["files"]["INPUT_FILE"]).name for config in configs]


def test_the_sensor_is_off_until_turned_on_and_is_there_only_if_a_folder_is_watched(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    sensor = make_daemon().repository.get_sensor_def(FILE_DROP_SENSOR)
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    assert sensor.job_name == BUNDLE_JOB
    bundle = {"path": str(DEMO), "inputs": {"INPUT_FILE": "fall.csv"}}
    fixed = platform_of(tmp_path, {GRAND_BEND: {}}, earthbeam={"bundles": {"riverbend": bundle}})
    repository = build(fixed).get_repository_def()
    assert not repository.has_sensor_def(FILE_DROP_SENSOR)
    assert repository.has_job(BUNDLE_JOB)


def test_a_file_is_run_once_and_only_after_it_was_the_same_at_two_ticks(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon()
    assert tick(daemon).skipped == "no new files"
    file = drop(tmp_path, text="on")
    first = tick(daemon)
    assert first.requests == [] and "fall.csv is new" in first.skipped
    with file.open("a") as more:
        more.write("e")
    assert tick(daemon).requests == []
    (request,) = tick(daemon).requests
    assert request.partition_key == "grand_bend|2025"
    assert request.run_config == {
        "ops": {
            "earthbeam__riverbend": {
                "config": {"files": {"INPUT_FILE": str(file)}, "parameters": {}, "force": False}
            }
        }
    }
    assert request.run_key is not None
    assert request.run_key.startswith("riverbend|-|grand_bend|2025|INPUT_FILE|")
    assert request.tags["edfi/trigger"] == "file_drop"
    assert (request.tags["edfi/bundle"], request.tags["edfi/file"]) == ("riverbend", "fall.csv")
    assert (request.tags["edfi/tenant"], request.tags["edfi/year"]) == ("grand_bend", "2025")
    keys = {key.to_user_string() for key in request.asset_selection or ()}
    assert "earthbeam/riverbend/student_assessments" in keys
    assert not any(key.startswith("ed_fi/") for key in keys)
    assert tick(daemon).requests == tick(daemon).requests == []


def test_the_same_content_is_never_run_twice_under_whatever_name_nor_after_the_cursor_is_lost(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon()
    drop(tmp_path, "fall.csv")
    drop(tmp_path, "fall (1).csv")
    tick(daemon)
    assert len(tick(daemon).requests) == 1
    drop(tmp_path, "again.csv")
    assert tick(daemon).requests == tick(daemon).requests == []
    daemon.cursors.clear()
    assert tick(daemon).requests == tick(daemon).requests == []
    daemon.cursors[FILE_DROP_SENSOR] = '{"riverbend|-|grand_bend|2025|INPUT_FILE": {"fall.csv": "nonsense"}}'
    assert tick(daemon).requests == tick(daemon).requests == []
    drop(tmp_path, "fall.csv", text="another")
    assert tick(daemon).requests == []
    assert files(tick(daemon)) == ["fall.csv"]


def test_dropped_files_run_oldest_first_and_those_of_one_moment_by_name(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon()
    for name, hours in {"a_correction.csv": 1, "z_original.csv": 9, "m.csv": 5, "b.csv": 5}.items():
        age(drop(tmp_path, name, text=name), hours)
    assert asked(daemon) == ["z_original.csv", "b.csv", "m.csv", "a_correction.csv"]


def test_files_for_which_a_tick_had_no_time_keep_their_order(
    make_daemon: MakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_drop, "_MOST_REQUESTS", 1)
    daemon = make_daemon()
    for name, hours in {"a.csv": 1, "b.csv": 2, "c.csv": 3}.items():
        age(drop(tmp_path, name, text=name), hours)
    assert [name for _ in range(5) for name in files(tick(daemon))] == ["c.csv", "b.csv", "a.csv"]


def test_a_correction_that_is_taken_back_runs_again_each_time(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon()
    keys = []
    for text in ("A", "B", "A", "B", "A"):
        drop(tmp_path, text=f"the content {text}")
        tick(daemon)
        (request,) = tick(daemon).requests
        keys.append(request.run_key)
    assert len(set(keys)) == 5
    assert asked(daemon) == []


def test_a_correction_is_taken_back_also_by_a_file_that_was_moved_back_or_has_another_name(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon()
    file = drop(tmp_path, text="original")
    age(file, 9)
    assert asked(daemon) == ["fall.csv"]
    kept = file.rename(tmp_path / "kept.csv")
    drop(tmp_path, text="correction")
    assert asked(daemon) == ["fall.csv"]
    kept.rename(file)  # with the time it had
    assert asked(daemon) == ["fall.csv"]
    drop(tmp_path, "fall (2).csv", text="correction")
    assert asked(daemon) == ["fall (2).csv"]
    drop(tmp_path, "fall (3).csv", text="correction")
    assert asked(daemon) == []


def test_the_last_run_is_that_of_the_same_pair_grain_and_variable(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon(GRAND_BEND, LAKEVIEW)
    drop(tmp_path, text="A")
    drop(tmp_path, text="B", pair=LAKEVIEW)
    assert asked(daemon) == ["fall.csv", "fall.csv"]
    drop(tmp_path, "again.csv", text="A")  # the last of this pair, whatever the other had since
    assert asked(daemon) == []


def test_without_its_cursor_the_sensor_knows_from_the_runs_what_was_run_last(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon()
    age(drop(tmp_path, "fall.csv", text="A"), 9)
    age(drop(tmp_path, "winter.csv", text="B"), 8)
    assert asked(daemon) == ["fall.csv", "winter.csv"]
    for cursor in (None, "nonsense", "{}"):
        daemon.cursors[FILE_DROP_SENSOR] = cursor
        assert asked(daemon) == asked(daemon) == []
    daemon.cursors[FILE_DROP_SENSOR] = None
    drop(tmp_path, "fall.csv", text="B")
    assert asked(daemon) == []
    drop(tmp_path, "fall.csv", text="A")
    assert asked(daemon) == ["fall.csv"]


def test_runs_and_cursors_of_earlier_versions_are_understood(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Their keys held no number, and their cursors no last run."""
    daemon = make_daemon()
    file = drop(tmp_path, text="A")
    tick(daemon)
    (request,) = daemon.sensor(FILE_DROP_SENSOR).requests
    old = str(request.run_key).rpartition("|")[0]
    daemon.note(request, dg.DagsterRunStatus.SUCCESS, BUNDLE_JOB, tags={"dagster/run_key": old})
    daemon.keys = {old}
    status = file.stat()
    seen = {file.name: [status.st_size, status.st_mtime_ns, "0" * 64]}
    daemon.cursors[FILE_DROP_SENSOR] = json.dumps({"riverbend|-|grand_bend|2025|INPUT_FILE": seen})
    assert asked(daemon) == []
    drop(tmp_path, "copy.csv", text="A")
    assert asked(daemon) == []
    drop(tmp_path, text="B")
    assert asked(daemon) == ["fall.csv"]
    drop(tmp_path, text="A")
    assert asked(daemon) == ["fall.csv"]


def test_files_that_match_nothing_are_told_of_and_hidden_ones_and_folders_are_not(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon()
    file = drop(tmp_path, "notes.docx")
    drop(tmp_path, ".fall.csv")
    (file.parent / "done.csv").mkdir()
    found = tick(daemon)
    assert found.requests == tick(daemon).requests == []
    assert found.skipped == f"unmatched: {file} matches none of *.csv"
    drop(tmp_path, "fall.csv")
    tick(daemon)
    assert files(tick(daemon)) == ["fall.csv"]


def test_a_folder_that_is_not_there_is_a_message_and_its_files_come_when_it_does(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon(GRAND_BEND, LAKEVIEW)
    folder = tmp_path / "incoming" / "lakeview" / "2025"
    folder.rmdir()
    drop(tmp_path)
    tick(daemon)
    assert files(tick(daemon)) == ["fall.csv"]
    found = tick(daemon)
    assert found.requests == [] and found.skipped == f"missing: there is no folder {folder}"
    folder.mkdir()
    drop(tmp_path, pair=LAKEVIEW)
    tick(daemon)
    (request,) = tick(daemon).requests
    assert request.partition_key == "lakeview|2025"


def test_each_grain_has_its_own_folder_and_the_same_content_is_run_for_each(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    folder = f"{FOLDER}/{{grain}}"
    daemon = make_daemon(
        grains=["Fall", "Winter"],
        grain_parameter="SEASON",
        inputs={"INPUT_FILE": {"folder": folder, "pattern": "*.csv"}},
    )
    for grain in ("Fall", "Winter"):
        place = tmp_path / "incoming" / "grand_bend" / "2025" / grain
        place.mkdir()
        (place / "results.csv").write_text("same")
    tick(daemon)
    found = tick(daemon).requests
    assert [request.tags["edfi/grain"] for request in found] == ["Fall", "Winter"]
    assert len({request.run_key for request in found}) == 2
    configs = [request.run_config["ops"]["earthbeam__riverbend"]["config"] for request in found]
    assert [config["grain"] for config in configs] == ["Fall", "Winter"]


def test_grains_that_share_a_folder_take_the_files_that_name_them_and_one_that_names_none_is_told_of(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon(grains=["SAT", "PSAT 10", "PSAT/NMSQT"], parameters={"API_YEAR": "{year}"})
    for name in ("SAT.csv", "psat10-2025.csv", "PSAT_NMSQT.csv", "Saturday.csv"):
        drop(tmp_path, name, text=name)
    told = tick(daemon).skipped
    assert "Saturday.csv names none of SAT, PSAT 10, PSAT/NMSQT; put one into its name" in told
    grains: dict[str, set[str]] = {}
    for request in tick(daemon).requests:
        grains.setdefault(request.tags["edfi/file"], set()).add(request.tags["edfi/grain"])
    assert grains == {"SAT.csv": {"SAT"}, "psat10-2025.csv": {"PSAT 10"}, "PSAT_NMSQT.csv": {"PSAT/NMSQT"}}


def test_files_of_a_bundle_that_cannot_be_read_wait_until_it_can(
    make_daemon: MakeDaemon, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(DEMO, broken)
    text = (broken / "earthmover.yaml").read_text()
    (broken / "earthmover.yaml").write_text("version: 2\nsources: [\n")
    daemon = make_daemon(path=str(broken))
    drop(tmp_path)
    assert tick(daemon).requests == []
    assert tick(daemon).skipped.startswith(f"not watched: riverbend cannot be read: {broken}")
    (broken / "earthmover.yaml").write_text(text)
    bundle = {"path": str(broken), "inputs": {"INPUT_FILE": {"folder": FOLDER, "pattern": "*.csv"}}}
    mended = Daemon(
        build(platform_of(tmp_path, {GRAND_BEND: {}}, earthbeam={"bundles": {"riverbend": bundle}})),
        instance,
        Clock(),
    )
    mended.cursors = daemon.cursors
    tick(mended)
    assert files(tick(mended)) == ["fall.csv"]


def test_a_bundle_that_reads_two_files_waits_until_both_are_there(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    inputs = {
        "INPUT_FILE": {"folder": FOLDER, "pattern": "results*.csv"},
        "MAP_FILE": {"folder": FOLDER, "pattern": "map*.csv"},
    }
    daemon = make_daemon(inputs=inputs)
    drop(tmp_path, "results.csv")
    tick(daemon)
    found = tick(daemon)
    assert found.requests == []
    assert "results.csv until there is a file for MAP_FILE of riverbend" in found.skipped
    assert "unmatched" not in found.skipped
    drop(tmp_path, "map.csv", text="map")
    (request,) = tick(daemon).requests
    assert request.tags["edfi/file"] == "results.csv"


def test_a_folder_that_only_a_hook_knows_is_told_of_and_not_watched(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(
        inputs={"INPUT_FILE": {"folder": "incoming/{vendor}"}}, hooks={"preprocess": "agency.files:find"}
    )
    assert tick(daemon).skipped.startswith("not watched: riverbend: nothing fills in {vendor}")


def test_what_a_tick_cannot_do_in_its_time_is_done_by_the_next_ones(
    make_daemon: MakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_drop, "_MOST_REQUESTS", 2)
    daemon = make_daemon()
    for number in range(5):
        drop(tmp_path, f"{number}.csv", text=f"file {number}")
    tick(daemon)
    found = [files(tick(daemon)) for _ in range(4)]
    assert [len(names) for names in found] == [2, 2, 1, 0]
    assert sorted(name for names in found for name in names) == [f"{number}.csv" for number in range(5)]


def test_the_cursor_holds_files_that_are_there_and_no_more_than_its_bound(
    make_daemon: MakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = make_daemon()
    dropped = [drop(tmp_path, f"{number}.csv", text=f"file {number}") for number in range(6)]
    tick(daemon)
    assert len(tick(daemon).requests) == 6
    dropped[0].unlink()
    tick(daemon)
    cursor = json.loads(daemon.cursors[FILE_DROP_SENSOR] or "")
    assert set(cursor["riverbend|-|grand_bend|2025|INPUT_FILE"]) == {file.name for file in dropped[1:]}
    for module in (file_drop, dropped_files):
        monkeypatch.setattr(module, "MOST_REMEMBERED", 3)
    tick(daemon)
    assert (
        len(json.loads(daemon.cursors[FILE_DROP_SENSOR] or "")["riverbend|-|grand_bend|2025|INPUT_FILE"]) == 3
    )
    found = tick(daemon)
    assert found.requests == [] and "full: more than 3 files lie in the folders" in found.skipped
    drop(tmp_path, "new.csv", text="new")
    assert files(tick(daemon)) + files(tick(daemon)) == ["new.csv"]


def test_the_run_that_is_asked_for_runs_the_file(
    make_daemon: MakeDaemon, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    daemon = make_daemon()
    file = drop(tmp_path, text=f"{HEADER}\n7,Doe,Jo,03,09/12/2024,100,7\n")
    tick(daemon)
    (request,) = tick(daemon).requests
    result = daemon.execute(request, BUNDLE_JOB)
    assert result.success
    (event,) = [
        e
        for e in result.get_asset_materialization_events()
        if e.asset_key and e.asset_key.path[-1] == "student_assessments"
    ]
    metadata = event.materialization.metadata
    assert metadata["edfi/rows"].value == 1
    assert metadata["edfi/files"].value == {"INPUT_FILE": str(file)}


def test_a_file_whose_name_is_not_utf_8_is_told_of_and_holds_up_no_other(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon()
    drop(tmp_path, "se\udcf1or.csv", "one")
    drop(tmp_path, "fall.csv", "two")
    assert "se or.csv: its name is not UTF-8; rename it" in tick(daemon).skipped
    assert files(tick(daemon)) == ["fall.csv"]
