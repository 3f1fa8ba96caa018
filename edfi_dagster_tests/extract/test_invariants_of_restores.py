"""The invariant of restores: an ODS that went back is recognised in every shape, also by a rebuild and by a bundle."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edfi_dagster.extract import run as extract_run
from edfi_dagster.lake.manifest import stamps
from edfi_dagster.lake.paths import run_folder
from edfi_dagster.ods.pages import RECORDS
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster_tests.bench import PAIR, Bench, failures

MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.both_storages


def restored(make_bench: MakeBench, *, lone: bool = True) -> Bench:
    """A bench whose ODS got five students, was restored, and has had a run of sessions alone since."""
    bench = make_bench("students", "sessions", descriptors=("termDescriptors",), change_version_overlap=0)
    bench.materialize()
    for number in range(5):
        bench.add_student(number)
    bench.materialize()
    bench.store.restore("first")
    if lone:
        bench.materialize(["sessions"])
    return bench


def grow(bench: Bench, *, by: int = 100) -> None:
    """Have the ODS count beyond all that was ever read, in an endpoint that no delta of another would see."""
    bench.store.take_numbers(bench.store.endpoint("locations"), by)


def forget_notes(bench: Bench) -> None:
    """Make the lake one of before ``restored.json``."""
    for stamp in stamps(bench.lake, PAIR):
        bench.lake.delete(f"{run_folder(PAIR, stamp)}/restored.json")


@pytest.mark.parametrize("noted", [True, False])
def test_15_rebuild_brings_back_neither_rows_nor_watermarks_of_before_a_restore(
    make_bench: MakeBench, noted: bool
) -> None:
    bench = restored(make_bench)
    if not noted:
        forget_notes(bench)
    bench.told.clear()
    assert not failures(bench.rebuild())
    assert {name for name, _ in bench.watermarks()} == {"sessions"}
    bench.verify()  # of what was there before, nothing is another
    assert any(
        "ed-fi/students: the lake tells that the ODS was restored" in told and "reads it whole" in told
        for told in bench.told
    )
    grow(bench)
    bench.change("students", bench.store.ids("students")[0], firstName="Since")
    results = bench.materialize()
    assert (results["students"].full, results["sessions"].full) == (True, False)
    bench.verify()


def test_15_rebuild_knows_a_restore_whose_run_was_killed_before_it_read_anything(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = restored(make_bench, lone=False)

    def killed(*_: object, **__: object) -> None:
        raise WarehouseError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(extract_run, "_PairRun", killed)
        with pytest.raises(WarehouseError, match="killed"):
            bench.materialize()
    assert not failures(bench.rebuild())
    assert bench.watermarks() == {}
    grow(bench)
    bench.materialize()
    bench.verify()


def test_15_rebuild_knows_a_restore_that_only_a_living_row_told_of(make_bench: MakeBench) -> None:
    """The ODS had counted beyond what was read: no version in the lake is lower than one before it."""
    bench = make_bench("students", "sessions", change_version_overlap=0)
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.save("before the mistake")
    bench.rename_session("Mistake")
    bench.store.delete("students", gone)
    bench.materialize()
    bench.store.restore("before the mistake")
    grow(bench)
    bench.change("students", gone, firstName="Lives")
    bench.materialize(["students"])
    assert {name for name, _ in bench.watermarks()} == {"students"}
    assert not failures(bench.rebuild())
    assert {name for name, _ in bench.watermarks()} == {"students"}
    bench.materialize()
    bench.verify()


def test_15_rebuild_leaves_out_what_was_stored_of_a_state_that_the_ods_took_back(
    make_bench: MakeBench,
) -> None:
    bench = make_bench("students", "sessions", change_version_overlap=0)
    bench.materialize()
    bench.store.save("loaded")
    for number in range(5):
        bench.add_student(number)
    bench.materialize(load=False)  # the watermark stays, so the next run sees nothing of a restore
    bench.store.restore("loaded")
    bench.add_student(7)
    bench.materialize()
    bench.verify()
    assert not failures(bench.rebuild())
    bench.verify()
    grow(bench)
    bench.add_student(8)
    bench.materialize()
    bench.verify()


def test_15_table_alone_does_not_load_what_was_stored_before_a_restore(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", change_version_overlap=0)
    bench.materialize()
    for number in range(5):
        bench.add_student(number)
    bench.materialize(load=False, full_refresh=True)
    bench.materialize(["sessions"])
    bench.store.restore("first")
    bench.materialize(["sessions"])
    results = bench.load_stored(["students"])
    assert not results["students"].table_changed
    assert "the ODS was restored" in results["students"].kinds[RECORDS].cause
    bench.materialize()
    bench.verify()


def test_15_two_restores_are_told_apart_by_what_was_refreshed_between_them(make_bench: MakeBench) -> None:
    bench = restored(make_bench)
    bench.materialize()
    bench.add_student(10)
    bench.materialize()
    bench.store.restore("first")
    bench.materialize(["students"])
    assert not failures(bench.rebuild())
    assert {name for name, _ in bench.watermarks()} == {"students"}
    bench.verify()
    bench.materialize()
    bench.verify()


def test_15_two_warehouses_on_one_lake_replay_each_others_runs_rightly(make_bench: MakeBench) -> None:
    """The same ODS, one lake, two deployments: stamps never meet, and either warehouse comes back right."""
    bench = make_bench("students", "sessions", descriptors=("termDescriptors",), change_version_overlap=0)
    other = Bench(bench.config, bench.server)
    other.move_to_warehouse("other")
    for round_ in range(3):
        for one in (bench, other):
            gone = bench.add_student(10 * round_)
            bench.change("sessions", bench.store.ids("sessions")[0], totalInstructionalDays=80 + round_)
            one.materialize(load=round_ != 1 or one is bench)
            bench.store.delete("students", gone)
    assert len(stamps(bench.lake, PAIR)) == 6
    for one, name in ((bench, "a"), (other, "b")):
        one.load_stored(["students", "sessions"])
        one.materialize()
        one.verify()
        assert not failures(one.rebuild(name))
        one.materialize()
        one.verify()
