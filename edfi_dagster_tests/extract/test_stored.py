"""Loading what lies in the lake, and rebuilding a warehouse from it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from edfi_dagster.lake.manifest import stamps
from edfi_dagster.lake.paths import run_folder
from edfi_dagster.ods.pages import RECORDS
from edfi_dagster_tests.bench import PAIR, Bench, failures

MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.both_storages


def test_stored_delta_is_loaded_later_with_its_deletes(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    gone = bench.add_student(1)
    bench.materialize()
    low = bench.watermarks()
    bench.store.delete("students", gone)
    bench.add_student(2)
    bench.materialize(load=False)
    assert bench.watermarks() == low
    results = bench.load_stored(["students"])
    assert results["students"].rows_inserted == 1
    assert bench.deletes().keys() == {gone}
    bench.verify()


def test_rebuild_replays_deltas_that_begin_far_above_the_last_one_that_left_rows(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("students", "sessions", "locations", change_version_overlap=2)
    gone = bench.add_student(1)
    bench.materialize()
    for round_ in range(3):
        for number in range(6):  # of students alone, so that the others' windows are empty
            bench.add_student(100 * round_ + number)
        bench.materialize()
    bench.store.delete("students", gone)
    bench.rename_session("Autumn")
    bench.materialize()
    bench.verify()
    before = bench.state()
    assert not failures(bench.rebuild())
    assert bench.state() == before  # watermarks included, also of kinds whose pulls left no manifest
    bench.verify()
    bench.materialize()
    bench.verify()


def test_rebuild_refuses_a_chain_with_a_gap(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", change_version_overlap=0)
    bench.materialize()
    for number in range(2):
        bench.add_student(number)
        bench.materialize()
    lost = stamps(bench.lake, PAIR)[1]
    bench.lose(run_folder(PAIR, lost))
    results = bench.rebuild()
    assert "the lake has no pull between change versions" in results["students"].failures[RECORDS]
    bench.materialize(full_refresh=True)
    bench.verify()


def test_window_that_a_command_pulled_into_the_lake_moves_no_watermark(make_bench: MakeBench) -> None:
    bench = make_bench("students", change_version_overlap=0)
    bench.materialize()
    for number in range(6):
        bench.add_student(number)
    bench.materialize(load=False)
    manifest = bench.manifest("students")
    stray = msgspec.structs.replace(manifest, low=None, min_change_version=bench.store.newest - 1)
    path = f"grand_bend/2025/{manifest.pull_timestamp:%Y%m%d/%Y%m%dT%H%M%S}/resources/students.manifest.json"
    with bench.lake.writing(path) as stream:
        stream.write(msgspec.json.encode(stray))
    before = bench.watermarks()
    assert "the lake has no pull between" in bench.load_stored(["students"])["students"].failures[RECORDS]
    assert bench.watermarks() == before
    bench.materialize()
    bench.verify()


def test_rebuild_refuses_a_chain_that_does_not_begin_with_a_full_pull(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    first = stamps(bench.lake, PAIR)[0]
    bench.add_student(1)
    bench.change("sessions", bench.store.ids("sessions")[0], totalInstructionalDays=91)
    bench.materialize()
    bench.lake.delete(f"{run_folder(PAIR, first)}/resources/sessions.manifest.json")
    results = bench.rebuild()
    assert "the lake's chain begins with a delta" in results["sessions"].failures[RECORDS]
    assert "ed-fi/sessions" in results["sessions"].failures[RECORDS]
    assert bench.raw("sessions") == []
    bench.verify(["students"])


def test_lake_file_that_lost_rows_is_not_loaded(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    bench.add_student(1)
    bench.materialize(load=False)
    manifest = bench.manifest("students")
    path = f"grand_bend/2025/{manifest.pull_timestamp:%Y%m%d/%Y%m%dT%H%M%S}/resources/students.manifest.json"
    (file,) = manifest.files
    tampered = msgspec.structs.replace(manifest, files=(msgspec.structs.replace(file, rows=file.rows + 1),))
    with bench.lake.writing(path) as stream:
        stream.write(msgspec.json.encode(tampered))
    results = bench.load_stored(["students"])
    assert "its manifest says" in results["students"].failures[RECORDS]
    bench.materialize()
    bench.verify()
