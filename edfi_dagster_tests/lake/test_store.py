"""The local lake: files appear whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.lake.manifest import latest_stamp, read_manifest, stamps
from edfi_dagster.lake.store import LakeError, LocalLake


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(tmp_path / "lake")


def test_file_is_not_there_until_it_is_whole(lake: LocalLake, tmp_path: Path) -> None:
    with lake.writing("a/b/c.jsonl") as stream:
        stream.write(b"one\n")
        stream.flush()
        assert not lake.exists("a/b/c.jsonl")
        assert lake.children("a/b") == []
        stream.write(b"two\n")
    assert lake.read("a/b/c.jsonl") == b"one\ntwo\n"
    assert [path.name for path in (tmp_path / "lake/a/b").iterdir()] == ["c.jsonl"]


def test_file_that_fails_leaves_the_old_one_and_no_rest(lake: LocalLake, tmp_path: Path) -> None:
    with lake.writing("f") as stream:
        stream.write(b"old")
    with pytest.raises(KeyboardInterrupt), lake.writing("f") as stream:
        stream.write(b"new")
        raise KeyboardInterrupt
    assert lake.read("f") == b"old"
    assert [path.name for path in (tmp_path / "lake").iterdir()] == ["f"]


def test_two_writers_of_one_file_do_not_mix(lake: LocalLake) -> None:
    with lake.writing("f") as one:
        one.write(b"1")
        with lake.writing("f") as other:
            other.write(b"22")
        assert lake.read("f") == b"22"
    assert lake.read("f") == b"1"


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b"])
def test_path_outside_of_the_lake_is_refused(lake: LocalLake, path: str) -> None:
    with pytest.raises(LakeError, match="outside the lake"):
        lake.read(path)
    with pytest.raises(LakeError, match="outside the lake"), lake.writing(path):
        pass


def test_deleting_and_listing_what_is_not_there_is_no_error(lake: LocalLake) -> None:
    lake.delete("nowhere/f")
    assert lake.children("nowhere") == []
    assert not lake.exists("nowhere/f")


def test_lake_that_cannot_be_written_says_where_and_what_to_check(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file, not a folder")
    with pytest.raises(LakeError) as caught:
        LocalLake(tmp_path / "lake").check_writable()
    assert str(caught.value) == (
        f"lake {tmp_path}/lake: File exists at .check; check that the folder is writable and has room"
    )


def test_check_leaves_nothing_behind(lake: LocalLake, tmp_path: Path) -> None:
    lake.check_writable()
    assert list((tmp_path / "lake").iterdir()) == []


def test_stamps_come_oldest_first_and_strangers_are_passed_over(lake: LocalLake) -> None:
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


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"tenant": 1}'])
def test_what_is_no_manifest_is_named(lake: LocalLake, content: bytes) -> None:
    with lake.writing("students.manifest.json") as stream:
        stream.write(content)
    with pytest.raises(LakeError, match=r"students\.manifest\.json is no manifest of this version"):
        read_manifest(lake, "students.manifest.json")
