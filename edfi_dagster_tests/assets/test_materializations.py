"""What people read of a run: current rows on every table, and the whole of it as one table."""

from __future__ import annotations

from collections.abc import Callable, Collection

import dagster as dg
import pytest

from edfi_dagster.assets import materializations
from edfi_dagster.assets.keys import AssetKeys
from edfi_dagster.assets.materializations import Materializations, summary_metadata
from edfi_dagster.extract import EndpointResult
from edfi_dagster_tests.bench import ALL_KINDS, PAIR, Bench

MakeBench = Callable[..., Bench]


def told(bench: Bench, results: Collection[EndpointResult]) -> dict[str, dict[str, object]]:
    """Asset key → metadata of what an extract with these results materializes."""
    keys = AssetKeys(bench.platform)
    found = Materializations(bench.platform, keys, PAIR, bench.lake, bench.warehouse)
    return {
        event.asset_key.to_user_string(): {name: value.value for name, value in event.metadata.items()}
        for result in results
        for event in found.of_endpoint(result, set(ALL_KINDS), table=True)
    }


def test_a_table_tells_its_current_rows_whatever_the_delta_brought(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "tpdm/candidates")
    first = told(bench, bench.materialize().values())
    students, sessions = bench.store.count("students"), bench.store.count("sessions")
    for name in ("dagster/row_count", "dagster/partition_row_count"):
        assert first["raw_edfi_3/students"][name] == students
        assert first["raw_edfi_3/sessions"][name] == sessions
        assert (
            name not in first["ed_fi/students"]
        )  # a pull is a delta, and no plot of its rows is one of the table's
    removed = bench.add_student(1)
    bench.change("students", bench.store.ids("students")[0], lastSurname="Changed")
    delta = told(bench, bench.materialize().values())["raw_edfi_3/students"]
    assert (delta["edfi/rows_loaded"], delta["dagster/row_count"]) == (2, students + 1)
    bench.store.delete("students", removed)
    bench.rename_session("Renamed")
    after = told(bench, bench.materialize().values())
    assert after["raw_edfi_3/sessions"]["dagster/row_count"] == sessions
    assert "raw_edfi_3/students" not in after  # its tombstone is a row of another table


def test_a_row_count_that_takes_long_is_left_out(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    monkeypatch.setattr(materializations, "_MOST_PARSED", 5)
    assert "dagster/row_count" in told(bench, bench.materialize().values())["raw_edfi_3/students"]
    bench.add_student(1)
    assert "dagster/row_count" not in told(bench, bench.materialize().values())["raw_edfi_3/students"]


def test_where_a_pull_lies_and_what_it_cost_is_told(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    (result,) = bench.materialize().values()
    found = told(bench, [result])["ed_fi/students"]
    manifest = bench.manifest("students")
    assert found["dagster/uri"] == str(bench.folder / "lake" / f"{_manifest_path(bench)}")
    assert (found["edfi/requests"], found["edfi/bytes"]) == (manifest.requests, manifest.bytes)
    assert found["edfi/seconds"] == manifest.seconds
    assert found["edfi/retries"] == 0


def _manifest_path(bench: Bench) -> str:
    (file,) = bench.manifest("students").files
    return file.path.replace(".jsonl.zst", ".manifest.json")


def test_a_run_is_summed_up_as_a_table_of_what_had_news_with_failures_first(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "schools", "grades")
    bench.store.deny("grades")
    bench.materialize()
    bench.store.deny("schools")
    bench.add_student(1)
    bench.add_student(2)
    found = summary_metadata(list(bench.materialize(may_fail=True).values()))
    table = found["edfi/summary"]
    assert isinstance(table, dg.TableMetadataValue)
    columns = [column.name for column in table.schema.columns]
    assert columns == ["endpoint", "kind", "rows", "expected", "loaded", "seconds", "result"]
    rows = [dict(record.data) for record in table.records]
    assert [list(record) for record in rows] == [columns] * len(rows)
    assert (rows[0]["endpoint"], rows[0]["result"]) == ("ed-fi/schools", "failed")
    assert rows[1]["endpoint"] == "ed-fi/students"
    assert (rows[1]["loaded"], rows[1]["result"]) == (2, "loaded")
    assert rows[1]["rows"] == rows[1]["expected"]
    assert ("ed-fi/grades", "not permitted to this key") in {(r["endpoint"], r["result"]) for r in rows}
    assert not any(row["endpoint"] == "ed-fi/sessions" for row in rows)  # nothing new
    numbers = {name: value.value for name, value in found.items() if name != "edfi/summary"}
    assert (numbers["edfi/endpoints"], numbers["edfi/failed"], numbers["edfi/loaded"]) == (4, 1, 1)
    assert numbers["edfi/rows_loaded"] == 2
