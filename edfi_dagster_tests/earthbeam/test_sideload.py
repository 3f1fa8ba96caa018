"""Records straight into the raw tables: as pulls of an ODS are, under a name of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.earthbeam import EarthbeamError, LoadOutcome
from edfi_dagster.earthbeam.archive import Archive
from edfi_dagster.earthbeam.result import WrittenOutput
from edfi_dagster.earthbeam.sideload import Versions, replay_sideloads, sideload
from edfi_dagster.earthbeam.workspace import Workspace, workspace
from edfi_dagster.lake.manifest import manifests, stamps
from edfi_dagster.lake.store import LakeError
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster_tests.bench import PAIR
from edfi_dagster_tests.earthbeam.conftest import BundleBench, MakeBundleBench
from edfi_dagster_tests.earthbeam.sending import result, write_lines

NAME = "student_assessments__brook"


class Loading:
    """Outputs of a workspace → the bench's raw tables."""

    def __init__(self, bench: BundleBench, space: Workspace) -> None:
        self.bench, self.space = bench, space

    def load(
        self, *records: dict[str, Any], resource: str = "studentAssessments", full: bool = False, **about: Any
    ) -> LoadOutcome:
        file = self.space.outputs / f"{resource}.jsonl"
        write_lines(file, records)
        return self.load_file(file, full=full, **about)

    def load_file(self, file: Path, *, full: bool = False, grain: str | None = None) -> LoadOutcome:
        bench = self.bench
        archive = Archive(bench.lake, PAIR, "brook", grain, "zstd")
        output = WrittenOutput(file.stem, file.name, file.stem, 1)
        versions = Versions("7.3.1", "5.2.0")
        (found,) = sideload(
            bench.platform,
            archive,
            bench.warehouse,
            self.space,
            [output],
            versions,
            full_refresh=full,
            tell=bench.told.append,
        )
        return found

    def scores(self, name: str = NAME) -> list[tuple[str, str]]:
        """(student, score) of the raw rows of a name, oldest first."""
        rows = self.bench.query(
            "SELECT v FROM edfi3.student_assessments WHERE name = ? ORDER BY pull_timestamp, file_row_number",
            [name],
        )
        records = [json.loads(v) for (v,) in rows]
        return [(r["studentReference"]["studentUniqueId"], r["scoreResults"][0]["result"]) for r in records]


@pytest.fixture
def loading(bundles: MakeBundleBench, tmp_path: Path) -> Iterator[Loading]:
    with workspace(tmp_path / "tmp") as space:
        yield Loading(bundles(), space)


def test_rows_carry_the_ten_columns_and_leave_the_ods_rows_alone(loading: Loading) -> None:
    bench = loading.bench
    bench.materialize(["studentAssessments"])
    before = bench.raw("student_assessments", "student_assessments")
    found = loading.load(result(600052), result(600053))
    assert (found.table, found.name, found.rows, found.inserted) == ("student_assessments", NAME, 2, 2)
    rows = bench.query(
        "SELECT tenant_code, api_year, pull_date, pull_timestamp, file_row_number, filename, ods_version, "
        "data_model_version FROM edfi3.student_assessments WHERE name = ? ORDER BY file_row_number",
        [NAME],
    )
    stamp = found.pull_timestamp.replace(tzinfo=None)
    folder = f"grand_bend/2025/{stamp:%Y%m%d}/{stamp:%Y%m%dT%H%M%S}/sideload"
    path = f"{folder}/{NAME}.jsonl.zst"
    assert rows == [(*PAIR, stamp.date(), stamp, n, path, "7.3.1", "5.2.0") for n in (1, 2)]
    assert bench.raw("student_assessments", "student_assessments") == before
    # A full refresh of the ODS's records leaves the sideloaded ones, and the other way round.
    bench.materialize(["studentAssessments"], full_refresh=True)
    assert len(loading.scores()) == 2
    loading.load(result(600052), full=True)
    assert {row[0] for row in bench.raw("student_assessments", "student_assessments")} == {
        row[0] for row in before
    }


@pytest.mark.both_storages
def test_appending_loads_what_is_new_or_changed_and_a_change_back_counts_as_one(loading: Loading) -> None:
    a, b = "600052", "600053"
    assert loading.load(result(a, 5), result(b, 6)).inserted == 2
    assert loading.load(result(a, 5), result(b, 6)).inserted == 0
    assert loading.load(result(a, 9), result(b, 6)).inserted == 1
    assert loading.load(result(a, 5)).inserted == 1
    assert loading.scores() == [(a, "5"), (b, "6"), (a, "9"), (a, "5")]


@pytest.mark.both_storages
def test_a_full_refresh_replaces_also_by_nothing(loading: Loading) -> None:
    loading.load(result(600052), result(600053))
    found = loading.load(result(600054), full=True)
    assert (found.inserted, found.removed, loading.scores()) == (1, 2, [("600054", "7")])
    found = loading.load(full=True)
    assert (found.inserted, found.removed, loading.scores()) == (0, 1, [])


@pytest.mark.both_storages
def test_of_one_key_within_a_file_the_last_line_counts(loading: Loading) -> None:
    assert loading.load(result(600052, 1), result(600053, 2), result(600052, 3)).inserted == 2
    assert sorted(loading.scores()) == [("600052", "3"), ("600053", "2")]


def test_grains_are_kept_apart(loading: Loading) -> None:
    loading.load(result(600052, 1), grain="SAT")
    loading.load(result(600052, 2), grain="PSAT", full=True)
    assert loading.scores(f"{NAME}__SAT") == [("600052", "1")]
    assert loading.scores(f"{NAME}__PSAT") == [("600052", "2")]


@pytest.mark.both_storages
def test_descriptors_go_to_their_shared_table(loading: Loading) -> None:
    descriptor = {
        "namespace": "uri://x/PerformanceLevelDescriptor",
        "codeValue": "A",
        "shortDescription": "A",
    }
    found = loading.load(descriptor, resource="performanceLevelDescriptors")
    assert (found.table, found.name) == ("_descriptors", "performance_level_descriptors__brook")
    ((count,),) = loading.bench.query("SELECT count(*) FROM edfi3._descriptors WHERE name = ?", [found.name])
    assert count == 1


def test_blanks_around_records_are_left_out_and_what_is_no_record_is_told_by_line(loading: Loading) -> None:
    file = loading.space.outputs / "studentAssessments.jsonl"
    file.write_text(f"  {json.dumps(result(600052))} \n\n")
    assert loading.load_file(file).rows == 1
    file.write_text(f"{json.dumps(result(600053))}\n{{broken\n")
    with pytest.raises(EarthbeamError, match=r"studentAssessments\.jsonl, line 2: is no JSON object"):
        loading.load_file(file)
    assert loading.scores() == [("600052", "7")]


def test_a_load_that_fails_leaves_nothing_and_is_loaded_once_afterwards(
    loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise WarehouseError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("edfi_dagster.warehouse.ledger.record", fail)
        with pytest.raises(WarehouseError):
            loading.load(result(600052))
    assert loading.scores() == []
    bench = loading.bench
    for _ in range(2):
        list(replay_sideloads(bench.lake, bench.warehouse, PAIR, tell=bench.told.append))
    assert loading.scores() == [("600052", "7")]


@pytest.mark.both_storages
def test_a_damaged_file_is_not_replayed_and_stops_no_other_name(loading: Loading) -> None:
    bench = loading.bench
    loading.load(result(600052))
    loading.load(result(600053), resource="studentAssessments")
    kept = loading.load_file(loading.space.outputs / "studentAssessments.jsonl", grain="PSAT")
    damaged = sorted(
        path for stamp in stamps(bench.lake, PAIR) for m in manifests(bench.lake, PAIR, stamp) for path in m.paths
        if m.name == NAME
    )[0]  # fmt: skip
    with bench.lake.writing(damaged) as stream:
        stream.write(b"other")
    bench.move_to_warehouse("rebuilt")
    with pytest.raises(
        LakeError, match=f"grand_bend/2025 {NAME}: .* is not the file that its manifest lists"
    ):
        list(replay_sideloads(bench.lake, bench.warehouse, PAIR, tell=bench.told.append))
    assert (loading.scores(), len(loading.scores(kept.name))) == ([], 1)


def test_a_rebuild_replays_sideloads_from_the_last_full_refresh_on(loading: Loading) -> None:
    bench = loading.bench
    loading.load(result(600052, 1), result(600053, 1))
    loading.load(result(600053, 2), full=True)
    loading.load(result(600053, 3), result(600054, 3))
    expected = loading.scores()
    kept = [m for stamp in stamps(bench.lake, PAIR) for m in manifests(bench.lake, PAIR, stamp)]
    assert [(m.name, m.full, m.rows) for m in kept] == [(NAME, False, 2), (NAME, True, 1), (NAME, False, 2)]
    bench.move_to_warehouse("rebuilt")
    list(replay_sideloads(bench.lake, bench.warehouse, PAIR, tell=bench.told.append))
    assert loading.scores() == expected
