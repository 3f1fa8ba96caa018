"""Whatever lies in the lake: what a run left there, or LakeError that says which file to look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfi_dagster.automation.change_sensor import read_cursor
from edfi_dagster.automation.dropped_files import Cursor as DropCursor
from edfi_dagster.automation.lateness import _Memory
from edfi_dagster.extract.history import Wanted, chains
from edfi_dagster.health.last_runs import last_runs
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest, latest_stamp, manifests, read_manifest, stamps
from edfi_dagster.lake.store import LakeError, LocalLake
from edfi_dagster.ods.shelf import FileShelf
from edfi_dagster.ods.source import Configured, normal_path
from edfi_dagster.ods.token import _read_record
from edfi_dagster_tests.bench import PAIR, MakeBench
from edfi_dagster_tests.fuzz.inputs import BROKEN, DEEP, ODD_TEXTS, bodies, encoded, fuzzed, tried
from edfi_dagster_tests.ods.platforms import platform_at

STAMP = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
RUN = paths.run_folder(PAIR, STAMP)
FOLDER = f"{RUN}/resources"
PATH = f"{FOLDER}/students.manifest.json"
MANIFEST = {
    "tenant": PAIR.tenant, "year": PAIR.year, "namespace": "ed-fi", "endpoint": "students", "name": "students",
    "kind": "records", "table": "students", "full": True,
    "files": [{"path": f"{FOLDER}/students.jsonl.zst", "rows": 1, "bytes": 2, "sha256": "00"}],
    "rows": 1, "expected_rows": 1, "min_change_version": 0, "max_change_version": 5, "low": None, "newest": 5,
    "ods_version": "7.3", "data_model_version": "5.2.0", "pull_timestamp": "2025-01-02T03:04:05Z",
    "started_at": "2025-01-02T03:04:05Z", "seconds": 0.1, "requests": 3, "retries": 0, "key": {"studentUniqueId": "studentUniqueId"},
}  # fmt: skip
SUMMARY = {
    "newest": 5,
    "endpoints": [
        {
            "endpoint": "ed-fi/students",
            "name": "students",
            "kind": "records",
            "result": "loaded",
            "cause": "",
            "low": None,
        },
        {
            "endpoint": "ed-fi/students",
            "name": "students",
            "kind": "deletes",
            "result": "failed",
            "cause": "HTTP 500",
            "low": 3,
        },
    ],
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> LocalLake:
    return LocalLake(tmp_path_factory.mktemp("lake"))


def put(lake: LocalLake, path: str, content: bytes) -> None:
    with lake.writing(path) as stream:
        stream.write(content)


def told(what: str, read: Callable[[], Any]) -> Any:
    tried[what] += 1
    try:
        return read()
    except LakeError as error:
        assert str(error).isprintable()
        assert RUN in str(error)
        assert "; restore the file" in str(error) or "; put the file back" in str(error)
        return None


@fuzzed(60)
@given(body=st.one_of(bodies(MANIFEST), BROKEN))
def test_a_manifest_is_of_its_place_or_refused(lake: LocalLake, body: bytes) -> None:
    put(lake, PATH, body)
    found = told("manifests", lambda: read_manifest(lake, PATH))
    if found is not None:
        assert (found.pair, found.name) == (PAIR, "students")
        assert all(file.path.startswith(f"{FOLDER}/") and ".." not in file.path for file in found.files)
        assert list(manifests(lake, PAIR, STAMP)) == [found]


@fuzzed(50)
@given(body=st.one_of(bodies(SUMMARY), BROKEN))
def test_a_run_json_is_understood_or_refused(lake: LocalLake, body: bytes) -> None:
    put(lake, PATH, encoded(MANIFEST))
    put(lake, f"{RUN}/run.json", body)
    configured = Configured(platform_at("https://ods.example.org").ods(PAIR))
    wanted = {normal_path("ed-fi/students"): Wanted("students", lambda source: "")}
    told("run.json", lambda: chains(lake, PAIR, configured, wanted))
    told("run.json", lambda: last_runs(lake, PAIR, ["students", "sessions"]))


@pytest.mark.parametrize(
    "name", ["99999999T999999", "20250230T000000", "٢٠٢٥٠١٠٢T٠٣٠٤٠٥", "20250102T030405\n", "x", "2025"]
)  # fmt: skip
def test_a_folder_that_is_named_after_no_moment_is_no_run(tmp_path: Path, name: str) -> None:
    lake = LocalLake(tmp_path)
    put(lake, PATH, encoded(MANIFEST))
    (tmp_path / PAIR.tenant / str(PAIR.year) / "99999999" / name).mkdir(parents=True)
    assert stamps(lake, PAIR) == [STAMP]
    assert latest_stamp(lake, PAIR) == STAMP


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant": "other"},
        {"year": 2024},
        {"name": "staffs"},
        {"pull_timestamp": "2025-01-02T03:04:06Z"},
        {"tenant": "../.."},
        *(
            {"files": [{"path": path, "rows": 1, "bytes": 2, "sha256": "00"}]}
            for path in [
                "other/2025/20250102/20250102T030405/resources/students.jsonl.zst",
                f"{FOLDER}/../../../../../other/students.jsonl.zst",
                f"{RUN}/descriptors/students.jsonl.zst",
                f"{FOLDER}/*.jsonl.zst",
                f"{FOLDER}/student[s].jsonl.zst",
                f"{FOLDER}/a'b.jsonl.zst",
                f"{FOLDER}/a\x00.jsonl.zst",
                f"{FOLDER}/students.manifest.json",
                "/etc/passwd",
            ]
        ),
    ],
)
def test_a_manifest_that_tells_of_another_place_is_refused_with_what_to_do(
    lake: LocalLake, wrong: dict[str, Any]
) -> None:
    put(lake, PATH, encoded({**MANIFEST, **wrong}))
    with pytest.raises(
        LakeError, match="another tenant, year, run or folder than it lies in; put the file back"
    ):
        read_manifest(lake, PATH)


def test_no_tenants_records_become_anothers_by_a_copied_folder(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize(load=False)
    stamp = bench.manifest("students").pull_timestamp
    ours = bench.folder / "lake" / paths.run_folder(PAIR, stamp)
    manifest = ours / "resources" / "students.manifest.json"
    document = json.loads(manifest.read_bytes())
    document["tenant"] = "lakeview"
    del document["sha256"]  # it would tell that the document was edited
    document["files"][0]["path"] = document["files"][0]["path"].replace(PAIR.tenant, "lakeview")
    manifest.write_text(json.dumps(document))
    assert "another tenant" in bench.load_stored(["students"])["students"].failures["records"]
    assert bench.raw("students") == []


@pytest.mark.parametrize("text", ["[" * DEEP, '{"since": {"a": 1e999}}', '{"a": {"b": [1e999, 1, "x"]}}'])
def test_no_cursor_stops_a_sensor(text: str) -> None:
    assert read_cursor(text, [PAIR]) == {}
    assert DropCursor.read(text) == DropCursor()
    assert _Memory.read(text, [PAIR], STAMP).since == {PAIR: STAMP}


@fuzzed(60)
@given(text=st.one_of(ODD_TEXTS, bodies({"grand_bend/2025": 5}).map(lambda body: body.decode("latin-1"))))
def test_a_sensors_cursor_that_is_not_understood_is_an_empty_one(text: str) -> None:
    tried["cursors"] += 2
    found = read_cursor(text, [PAIR])
    assert all(type(version) is int for version in found.values())
    assert DropCursor.read(DropCursor.read(text).text()) == DropCursor.read(text)


@fuzzed(60)
@given(body=st.one_of(BROKEN, bodies({"value": "f00d", "asked": 1.0, "seconds": 1800, "ends": [5.0]})))
def test_a_token_file_that_is_not_understood_holds_no_token(
    tmp_path_factory: pytest.TempPathFactory, body: bytes
) -> None:
    tried["token files"] += 1
    shelf = FileShelf(tmp_path_factory.getbasetemp() / "token")
    shelf._path.write_bytes(body)
    token = _read_record(shelf.read()).token
    assert token is None or (token.value.isascii() and token.value.isprintable())


def test_deep_nesting_is_deep_enough_to_be_refused() -> None:
    with pytest.raises(RecursionError):
        json.loads("[" * DEEP)


def test_the_manifest_here_is_one() -> None:
    assert set(MANIFEST) <= set(Manifest.__struct_fields__)
