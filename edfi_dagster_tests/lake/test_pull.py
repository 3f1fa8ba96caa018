"""What a pull leaves in the lake: the API's own bytes, proven by a manifest."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from edfi_dagster.extract import Result
from edfi_dagster.lake.manifest import Manifest, manifests, stamps
from edfi_dagster.lake.odd_rows import OddRows
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS
from edfi_dagster_tests.bench import PAIR, Bench

MakeBench = Callable[..., Bench]


def unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    return zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()


def lines(bench: Bench, manifest: Manifest) -> Iterator[bytes]:
    for file in manifest.files:
        yield from unpacked(bench.folder / "lake" / file.path).splitlines()


def newest_manifests(bench: Bench) -> dict[tuple[str, str], Manifest]:
    found = manifests(bench.lake, PAIR, stamps(bench.lake, PAIR)[-1])
    return {(manifest.endpoint, manifest.kind): manifest for manifest in found}


def test_lines_are_the_records_of_the_api_to_the_letter(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.add_student(
        1,
        decimals=1.10,
        large=2**62,
        text='line\nbreak "quoted" \\ ünï ☃',
        nothing=[],
        order={"b": 1, "a": 2},
    )
    bench.materialize(load=False)
    manifest = newest_manifests(bench)["students", RECORDS]
    # The sandbox writes its JSON indented; without layout it is what must lie in the lake.
    expected = [msgspec.json.format(text, indent=-1) for text in bench.store.texts("students")]
    assert sorted(lines(bench, manifest)) == sorted(expected)


@pytest.mark.parametrize(("compression", "ending"), [("zstd", ".jsonl.zst"), ("gzip", ".jsonl.gz")])
def test_manifest_proves_every_file(make_bench: MakeBench, compression: str, ending: str) -> None:
    bench = make_bench(
        "studentSectionAssociations", lake={"kind": "local", "root": "lake", "compression": compression}
    )
    bench.materialize()
    bench.verify()
    manifest = newest_manifests(bench)["studentSectionAssociations", RECORDS]
    folder = bench.folder / "lake"
    for file in manifest.files:
        content = (folder / file.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
        assert len(unpacked(folder / file.path).splitlines()) == file.rows
        assert file.path.endswith(ending)
    assert manifest.rows == manifest.expected_rows == bench.store.count("studentSectionAssociations")
    written = {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"}
    assert {folder / file.path for file in manifest.files} <= written
    assert manifest.bytes == sum(path.stat().st_size for path in written)


def test_large_window_is_read_in_partitions_each_a_part(make_bench: MakeBench) -> None:
    bench = make_bench("students", endpoint_defaults={"page_size": 2})
    bench.server.site.settings.max_page = 2  # partitions are of five pages of the host's at least
    try:
        bench.materialize()
    finally:
        bench.server.site.settings.max_page = 500
    manifest = newest_manifests(bench)["students", RECORDS]
    assert len(bench.server.requests.matching("/students/partitions")) == 1
    assert len(manifest.files) > 1
    assert sum(file.rows for file in manifest.files) == manifest.rows == bench.store.count("students")
    bench.verify()


def test_delta_without_rows_leaves_no_manifest_but_run_json_lists_it(make_bench: MakeBench) -> None:
    bench = make_bench("students", "studentHealths")
    bench.materialize()
    bench.add_student(1)
    bench.materialize()
    assert newest_manifests(bench).keys() == {("students", RECORDS)}
    stamp = stamps(bench.lake, PAIR)[-1]
    path = bench.folder / "lake" / f"grand_bend/2025/{stamp:%Y%m%d}/{stamp:%Y%m%dT%H%M%S}/run.json"
    document: dict[str, Any] = json.loads(path.read_text())
    listed = {(row["name"], row["kind"]): row["result"] for row in document["endpoints"]}
    assert listed == {
        ("students", RECORDS): Result.LOADED,
        **dict.fromkeys(
            [
                ("students", DELETES),
                ("students", KEY_CHANGES),
                ("student_healths", RECORDS),
                ("student_healths", DELETES),
                ("student_healths", KEY_CHANGES),
            ],
            Result.UNCHANGED,
        ),
    }
    assert document["newest"] == bench.store.newest


def test_every_kind_of_a_run_carries_the_same_stamp(make_bench: MakeBench) -> None:
    bench = make_bench("locations", "students")
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", gone)
    bench.change("locations", bench.store.ids("locations")[0], classroomIdentificationCode="new")
    bench.materialize()
    found = newest_manifests(bench)
    assert {("students", DELETES), ("locations", KEY_CHANGES), ("locations", RECORDS)} <= found.keys()
    assert {manifest.pull_timestamp for manifest in found.values()} == {stamps(bench.lake, PAIR)[-1]}
    assert found["students", DELETES].table == "_deletes"
    assert found["locations", KEY_CHANGES].table == "_key_changes"
    assert found["locations", RECORDS].table == "locations"


def test_an_odd_record_that_is_read_twice_counts_once() -> None:
    odd = OddRows()
    odd.note(frozenset({"a", "b"}))
    odd.note(frozenset({"b", "c"}))
    assert (odd.count, odd.ids) == (3, ("a", "b", "c"))
    assert odd.sentence().startswith("3 records are not strict JSON")
