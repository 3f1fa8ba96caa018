"""The invariant of the lake: what is read back is what was written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard

from edfi_dagster.extract import EndpointResult
from edfi_dagster.lake.manifest import Manifest
from edfi_dagster.lake.paths import manifest_path, run_folder
from edfi_dagster.lake.store import LakeError
from edfi_dagster.ods.pages import RECORDS
from edfi_dagster.warehouse.duckdb import DuckDBConnection
from edfi_dagster.warehouse.lease import Lease
from edfi_dagster.warehouse.snowflake import SnowflakeConnection
from edfi_dagster_tests.bench import PAIR, Bench, failures

MakeBench = Callable[..., Bench]
Damage = Callable[[Bench, Manifest], None]

pytestmark = pytest.mark.both_storages


def lines(bench: Bench, path: str) -> list[bytes]:
    with zstandard.ZstdDecompressor().stream_reader(bench.lake.read(path)) as content:
        return content.read().splitlines(keepends=True)


def put(bench: Bench, path: str, content: bytes) -> None:
    with bench.lake.writing(path) as stream:
        stream.write(content)


def one_line_twice(bench: Bench, manifest: Manifest) -> None:
    """The same number of rows, compressed anew: one student in the place of another."""
    path = manifest.files[0].path
    found = lines(bench, path)
    put(bench, path, zstandard.compress(b"".join([*found[:-1], found[0]])))


def other_endpoints_file(bench: Bench, manifest: Manifest) -> None:
    put(bench, manifest.files[0].path, bench.lake.read(bench.manifest("sessions").files[0].path))


def cut_off(bench: Bench, manifest: Manifest) -> None:
    path = manifest.files[0].path
    put(bench, path, bench.lake.read(path)[:-3])


def other_compression(bench: Bench, manifest: Manifest) -> None:
    path = manifest.files[0].path
    put(bench, path, gzip.compress(b"".join(lines(bench, path))))


def missing(bench: Bench, manifest: Manifest) -> None:
    bench.lake.delete(manifest.files[0].path)


DAMAGES = [one_line_twice, other_endpoints_file, cut_off, other_compression, missing]


def assert_refused(result: EndpointResult, manifest: Manifest) -> None:
    """Tenant, year, endpoint, file and what to do."""
    cause = result.failures[RECORDS]
    assert cause.startswith("grand_bend/2025 ed-fi/students: ")
    assert manifest.files[0].path in cause
    assert "run this endpoint again with full_refresh" in cause


@pytest.mark.parametrize("damage", DAMAGES)
def test_16_a_damaged_file_is_not_replayed_and_stops_no_other_endpoint(
    make_bench: MakeBench, damage: Damage
) -> None:
    bench = make_bench("students", "sessions", descriptors=("termDescriptors",))
    bench.materialize()
    manifest = bench.manifest("students")
    damage(bench, manifest)
    results = bench.rebuild()
    assert failures(results).keys() == {"students"}
    assert_refused(results["students"], manifest)
    assert bench.raw("students") == []
    assert "students" not in {name for name, _ in bench.watermarks()}
    bench.verify(["sessions", "termDescriptors"])
    bench.materialize()
    bench.verify()


@pytest.mark.parametrize("damage", DAMAGES[:2])
def test_16_a_stored_delta_that_was_damaged_commits_nothing(make_bench: MakeBench, damage: Damage) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", gone)
    bench.add_student(2)
    bench.materialize(load=False)
    before, manifest = bench.state(), bench.manifest("students")
    damage(bench, manifest)
    assert_refused(bench.load_stored(["students"])["students"], manifest)
    assert bench.state() == before
    bench.materialize()
    bench.verify()


def test_16_a_file_damaged_between_its_upload_and_its_load_fails_its_endpoint_alone(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students", "sessions", descriptors=("termDescriptors", "sexDescriptors"))
    with monkeypatch.context() as patched:
        damage_when_published(bench, patched, "students", "term_descriptors")
        results = bench.materialize(may_fail=True)
    assert failures(results).keys() == {"students", "termDescriptors"}
    assert_refused(results["students"], bench.manifest("students"))
    assert bench.raw("students") == bench.raw("_descriptors", "term_descriptors") == []
    bench.verify(["sessions", "sexDescriptors"])
    bench.materialize()
    bench.verify()


def damage_when_published(bench: Bench, patched: pytest.MonkeyPatch, *names: str) -> None:
    """Have an endpoint's file replaced just before its manifest is written."""
    writing = bench.lake.writing

    def replacing(path: str) -> Any:
        folder, _, file = path.rpartition("/")
        if (name := file.removesuffix(".manifest.json")) in names and name != file:
            found = lines(bench, data := f"{folder}/{name}.jsonl.zst")
            put(bench, data, zstandard.compress(b"".join([*found[:-1], found[0]])))
        return writing(path)

    patched.setattr(bench.lake, "writing", replacing)


def test_16_a_file_replaced_while_the_warehouse_reads_it_commits_nothing(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    bench.materialize(load=False)
    manifest = bench.manifest("students")
    reader, name = (
        (DuckDBConnection, "_execute")
        if bench.platform.warehouse.kind == "duckdb"
        else (SnowflakeConnection, "run")
    )
    execute = getattr(reader, name)

    def replacing(connection: object, sql: str, *more: Any) -> Any:
        found = execute(connection, sql, *more)
        if "read_json_objects" in sql or sql.startswith("COPY INTO"):
            one_line_twice(bench, manifest)
        return found

    monkeypatch.setattr(reader, name, replacing)
    assert_refused(bench.load_stored(["students"])["students"], manifest)
    assert bench.raw("students") == []
    assert bench.watermarks() == {}


@pytest.mark.parametrize(
    "edit",
    [
        {"files": []},
        {"newest": 10_000_000},
        {"full": False},
        {"rows": 3},
    ],
)
def test_16_an_edited_manifest_is_refused_and_stops_no_other_endpoint(
    make_bench: MakeBench, edit: dict[str, Any]
) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    manifest = bench.manifest("students")
    path = manifest_path(f"{run_folder(PAIR, manifest.pull_timestamp)}/resources", "students")
    put(bench, path, json.dumps({**json.loads(bench.lake.read(path)), **edit}).encode())
    results = bench.rebuild()
    assert failures(results).keys() == {"students"}
    assert path in results["students"].failures[RECORDS]
    assert "was edited" in results["students"].failures[RECORDS]
    assert bench.raw("students") == []
    bench.verify(["sessions"])
    bench.materialize()
    bench.verify()


def test_16_an_edited_run_json_moves_no_watermark(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", change_version_overlap=0)
    bench.materialize()
    bench.add_student(1)
    bench.materialize()
    path = f"{run_folder(PAIR, bench.manifest('students').pull_timestamp)}/run.json"
    put(bench, path, json.dumps({**json.loads(bench.lake.read(path)), "newest": 10_000_000}).encode())
    with pytest.raises(LakeError, match="was edited"):
        bench.rebuild()
    bench.lake.delete(path)
    assert not failures(bench.rebuild("again"))
    assert max(bench.watermarks().values()) <= bench.store.newest
    bench.materialize()
    bench.verify()


def test_16_a_manifest_that_was_taken_away_moves_no_watermark(make_bench: MakeBench) -> None:
    """run.json still tells that rows were read then; without their manifest they are not in the lake."""
    bench = make_bench("students", "sessions", change_version_overlap=0)
    bench.materialize()
    low = bench.watermarks()["students", "records"]
    bench.add_student(1)
    bench.materialize()
    manifest = bench.manifest("students")
    bench.lake.delete(manifest_path(f"{run_folder(PAIR, manifest.pull_timestamp)}/resources", "students"))
    bench.rebuild()
    assert bench.watermarks()["students", "records"] == low
    bench.materialize()
    bench.verify()


def test_16_two_deployments_that_take_one_stamp_mix_no_rows(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a lease of its own, so two runs on one lake may begin in the same second and write the same files."""
    bench = make_bench("students", "sessions")
    other = Bench(bench.config, bench.server)
    other.move_to_warehouse("other")
    stamp, writing = datetime.now(UTC).replace(microsecond=0), bench.lake.writing

    def beside(path: str) -> Any:
        if path.endswith("/students.manifest.json") and not other.stamps():
            bench.add_student(1)
            other.materialize()
        return writing(path)

    with monkeypatch.context() as patched:
        patched.setattr(Lease, "next_stamp", lambda *_, **__: stamp)
        patched.setattr(bench.lake, "writing", beside)
        results = bench.materialize(may_fail=True)
    assert failures(results).keys() == {"students"}
    other.verify()
    for one, name in ((bench, "a"), (other, "b")):
        one.materialize()
        one.verify()
        rebuilt = one.rebuild(name)
        assert failures(rebuilt).keys() <= {"students", "sessions"}
        one.materialize()
        one.verify()
