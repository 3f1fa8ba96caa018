"""The lake, whatever kind it is: files appear whole or not at all, below its root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.config.lake import LocalLake as LocalSettings
from edfi_dagster.lake import s3_upload
from edfi_dagster.lake.manifest import latest_stamp, read_manifest, stamps
from edfi_dagster.lake.store import LakeError, LakeStore, LocalLake, open_lake
from edfi_dagster_tests.lake.s3_server import LEAST_PART, Bucket

PART = LEAST_PART


@dataclass(frozen=True)
class Kind:
    """A lake, and everything that lies in it, half-written files as well."""

    lake: LakeStore
    everything: Callable[[], list[str]]


@pytest.fixture(params=["local", "s3"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    if request.param == "local":
        root = tmp_path / "lake"
        local = open_lake(LocalSettings(kind="local", root=root))
        return Kind(local, lambda: sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()))
    monkeypatch.setattr(s3_upload, "PART_BYTES", PART)
    bucket: Bucket = request.getfixturevalue("bucket")
    return Kind(
        open_lake(bucket.settings(prefix="p"), tmp_path),
        lambda: sorted(key.removeprefix("p/") for key in bucket.objects() + bucket.incomplete()),
    )


@pytest.fixture
def lake(kind: Kind) -> LakeStore:
    return kind.lake


def test_file_is_what_was_written(kind: Kind) -> None:
    sizes, steps = (0, 1, PART - 1, PART, PART + 1, 5 * PART + 7), (10, 3 * PART + 11)
    contents = {f"{step}/{size}": bytes(n * n % 251 for n in range(size)) for size in sizes for step in steps}
    for path, content in contents.items():
        step = int(path.split("/")[0])
        with kind.lake.writing(path) as stream:
            for start in range(0, len(content), step):
                written = content[start : start + step]
                assert stream.write(written) == len(written)
    assert {path: kind.lake.read(path) for path in contents} == contents
    with kind.lake.local_files(list(contents)) as copies:
        assert [copy.read_bytes() for copy in copies] == list(contents.values())
    assert kind.everything() == sorted(contents)


@pytest.mark.parametrize("size", [4, 3 * PART])
def test_file_is_not_there_until_it_is_whole(kind: Kind, size: int) -> None:
    with kind.lake.writing("a/b/c.jsonl") as stream:
        stream.write(b"1" * size)
        stream.flush()
        assert not kind.lake.exists("a/b/c.jsonl")
        assert kind.lake.children("a/b") == []
        stream.write(b"2" * size)
    assert kind.lake.read("a/b/c.jsonl") == b"1" * size + b"2" * size
    assert kind.everything() == ["a/b/c.jsonl"]


@pytest.mark.parametrize("size", [4, 3 * PART])
def test_file_that_fails_leaves_the_old_one_and_no_rest(kind: Kind, size: int) -> None:
    with kind.lake.writing("f") as stream:
        stream.write(b"old")
    with pytest.raises(KeyboardInterrupt), kind.lake.writing("f") as stream:
        stream.write(b"n" * size)
        raise KeyboardInterrupt
    assert kind.lake.read("f") == b"old"
    assert kind.everything() == ["f"]


@pytest.mark.parametrize("size", [1, 3 * PART])
def test_two_writers_of_one_file_do_not_mix(lake: LakeStore, size: int) -> None:
    with lake.writing("f") as one:
        one.write(b"1" * size)
        with lake.writing("f") as other:
            other.write(b"22" * size)
        assert lake.read("f") == b"22" * size
    assert lake.read("f") == b"1" * size


def test_path_outside_of_the_lake_is_refused(lake: LakeStore) -> None:
    for path in ("../outside", "/etc/passwd", "a/../../b"):
        with pytest.raises(LakeError, match="outside the lake"), lake.writing(path):
            pass
        with pytest.raises(LakeError, match="outside the lake"), lake.local_files([path]):
            pass
        for use in (lake.read, lake.exists, lake.children, lake.delete, lake.uri):
            with pytest.raises(LakeError, match="outside the lake"):
                use(path)


def test_one_file_has_one_path_however_it_is_spelled(lake: LakeStore) -> None:
    with lake.writing("./a//b") as stream:
        stream.write(b"1")
    assert lake.read("a/b") == lake.read("a/./b") == b"1"
    assert lake.uri("a//b") == lake.uri("a/b")
    assert lake.uri("a/b") == f"{lake.uri('')}/a/b"


def test_names_of_any_letters_come_back(lake: LakeStore) -> None:
    names = ["a b", "a+b", "a%2Fb", "ünï☃", "a&b=c?d#e"]
    for name in names:
        with lake.writing(f"odd/{name}") as stream:
            stream.write(name.encode())
    assert lake.children("odd") == sorted(names)
    assert [lake.read(f"odd/{name}").decode() for name in names] == names
    with lake.local_files([f"odd/{name}" for name in names]) as copies:
        assert [copy.read_text() for copy in copies] == names


def test_children_are_the_names_directly_below_and_nothing_deeper(lake: LakeStore) -> None:
    for path in ("t/2025/x/run.json", "t/2025/y", "t/2026/z", "t/20", "u/v", "t/2025/.hidden", ".check/a"):
        with lake.writing(path):
            pass
    assert lake.children("") == ["t", "u"]
    assert lake.children("t") == ["20", "2025", "2026"]
    assert lake.children("t/2025") == ["x", "y"]
    assert lake.children("t/20") == lake.children("t/2") == []
    assert (lake.exists("t/20"), lake.exists("t/2025"), lake.exists("t/2")) == (True, False, False)


def test_deleting_and_listing_what_is_not_there_is_no_error(lake: LakeStore) -> None:
    lake.delete("nowhere/f")
    assert lake.children("nowhere") == []
    assert not lake.exists("nowhere/f")


def test_deleted_file_is_gone(kind: Kind) -> None:
    with kind.lake.writing("a/f") as stream:
        stream.write(b"1")
    kind.lake.delete("a/f")
    assert (kind.lake.exists("a/f"), kind.everything()) == (False, [])


def test_reading_what_is_not_there_names_it(lake: LakeStore) -> None:
    with pytest.raises(LakeError, match="nowhere/f"):
        lake.read("nowhere/f")


def test_check_leaves_nothing_behind(kind: Kind) -> None:
    kind.lake.check_writable()
    assert kind.everything() == []


def test_local_lake_that_cannot_be_written_says_where_and_what_to_check(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file, not a folder")
    with pytest.raises(LakeError) as caught:
        LocalLake(tmp_path / "lake").check_writable()
    assert str(caught.value) == (
        f"lake {tmp_path}/lake: File exists at .check; check that the folder is writable and has room"
    )


def test_files_of_a_local_lake_are_not_copied(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path)
    with lake.writing("a/f") as stream:
        stream.write(b"1")
    with lake.local_files(["a/f"]) as files:
        assert files == [tmp_path / "a/f"]
    assert lake.exists("a/f")


def test_stamps_come_oldest_first_and_strangers_are_passed_over(lake: LakeStore) -> None:
    pair = TenantYear("t", 2025)
    for folder in ("20260102/20260102T000000", "20251231/20251231T235959", "20260102/20260102T000001"):
        with lake.writing(f"t/2025/{folder}/run.json") as stream:
            stream.write(b"{}")
    with lake.writing("t/2025/notes/readme.txt") as stream:
        stream.write(b"")
    expected = [
        datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 1, 2, tzinfo=UTC),
        datetime(2026, 1, 2, 0, 0, 1, tzinfo=UTC),
    ]
    assert stamps(lake, pair) == expected
    assert latest_stamp(lake, pair) == expected[-1]
    assert (stamps(lake, TenantYear("t", 2026)), latest_stamp(lake, TenantYear("t", 2026))) == ([], None)


def test_what_is_no_manifest_is_named(lake: LakeStore) -> None:
    for content in (b"", b"{", b"{}", b'{"tenant": 1}'):
        with lake.writing("students.manifest.json") as stream:
            stream.write(content)
        with pytest.raises(LakeError, match=r"students\.manifest\.json is no manifest of this version"):
            read_manifest(lake, "students.manifest.json")
