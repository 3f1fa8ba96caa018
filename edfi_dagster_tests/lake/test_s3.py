"""The lake in a bucket: how its objects are sent, listed and copied."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import md5, sha256
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import pytest
import zstandard

from edfi_dagster.config import ConfigError
from edfi_dagster.lake import s3_upload
from edfi_dagster.lake.manifest import manifests, stamps
from edfi_dagster.lake.s3 import S3Lake
from edfi_dagster.lake.s3_client import S3Client
from edfi_dagster.lake.s3_upload import PART_BYTES, part_size
from edfi_dagster.lake.store import LakeError
from edfi_dagster_tests.bench import PAIR, Bench
from edfi_dagster_tests.lake.s3_process import MANY, MANY_FILES, MANY_FOLDERS
from edfi_dagster_tests.lake.s3_server import KEY_VARIABLE, LEAST_PART, Bucket, Gate

MIB = 1024 * 1024


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", LEAST_PART)


# -- writing ----------------------------------------------------------------------------------------------


def test_nothing_is_contacted_nor_a_secret_read_before_the_first_use(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    lake = S3Lake(bucket.settings(endpoint_url="http://127.0.0.1:1", prefix="a/b"))
    assert lake.uri("t/f.jsonl.zst") == f"s3://{bucket.name}/a/b/t/f.jsonl.zst"
    assert lake.uri("") == f"s3://{bucket.name}/a/b"
    assert S3Lake(bucket.settings()).uri("") == f"s3://{bucket.name}"
    with pytest.raises(ConfigError, match=KEY_VARIABLE):
        lake.check_writable()


def test_small_object_is_one_request(s3_lake: S3Lake, gate: Gate, bucket: Bucket) -> None:
    content = b"x" * (PART_BYTES - 1)
    with s3_lake.writing("t/f") as stream:
        for start in range(0, len(content), 70_000):
            stream.write(content[start : start + 70_000])
        assert gate.seen == []
    (put,) = gate.seen
    assert (put.kind, put.size) == ("PUT", len(content))
    assert put.headers["Content-MD5"] == b64encode(md5(content).digest()).decode()
    assert bucket.objects() == ["edfi/lake/t/f"]


@pytest.mark.usefixtures("small_parts")
def test_large_object_goes_in_equal_parts_while_it_is_written(s3_lake: S3Lake, gate: Gate) -> None:
    with s3_lake.writing("t/f") as stream:
        stream.write(b"1" * LEAST_PART)
        stream.write(b"2" * LEAST_PART)
        # The second part is on its way only after the first has arrived.
        assert gate.kinds()[:2] == ["begin", "part"]
        stream.write(b"3" * 7)
    parts = gate.of_kind("part")
    assert [part.size for part in parts] == [LEAST_PART, LEAST_PART, 7]
    assert all(part.headers["Content-MD5"] for part in parts)
    assert gate.kinds() == ["begin", "part", "part", "part", "complete"]


def test_ten_thousand_parts_reach_the_largest_object_of_s3_and_no_part_is_too_large() -> None:
    sent = parts = largest = 0
    while sent < 5 * 2**40:
        largest = part_size(sent)
        sent += largest
        parts += 1
    assert parts <= 10_000
    assert largest <= 5 * 2**30
    assert {part_size(n) for n in range(0, 10**10, 10**8)} == {PART_BYTES}
    assert part_size(100 * 2**30) < 90 * MIB


@pytest.mark.slow
def test_memory_stays_within_two_parts_however_large_the_object_is(bucket: Bucket) -> None:
    """300 MiB in a process of its own; what the machine reads and signs with comes on top."""
    child = subprocess.run(
        [sys.executable, "-m", "edfi_dagster_tests.lake.s3_child", "measure", "300"],
        env={**os.environ, "LAKE": json.dumps(bucket.document())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(child.stdout) < 2 * PART_BYTES / MIB + 16
    assert bucket.client.head_object(Bucket=bucket.name, Key="large")["ContentLength"] == 300 * MIB
    bucket.client.delete_object(Bucket=bucket.name, Key="large")


def test_a_hundred_small_streams_hold_little_and_send_nothing(s3_lake: S3Lake, gate: Gate) -> None:
    s3_lake.exists("f")  # the client is there
    tracemalloc.start()
    with pytest.raises(KeyboardInterrupt), ExitStack() as open_streams:
        for number in range(100):
            stream = open_streams.enter_context(s3_lake.writing(str(number)))
            for _ in range(10):
                stream.write(b"x" * 1_000)
        held, _ = tracemalloc.get_traced_memory()
        raise KeyboardInterrupt
    tracemalloc.stop()
    assert held < 100 * 10_000 * 1.5
    assert gate.kinds() == ["GET"]


@pytest.mark.usefixtures("small_parts")
def test_many_threads_write_at_once_and_none_gets_the_parts_of_another(
    s3_lake: S3Lake, bucket: Bucket
) -> None:
    contents = {f"t/{n:02d}": bytes([n]) * LEAST_PART * (n % 4) + bytes([n]) for n in range(40)}

    def write(path: str) -> None:
        with s3_lake.writing(path) as stream:
            for start in range(0, len(contents[path]), 100):
                stream.write(contents[path][start : start + 100])

    with ThreadPoolExecutor(40) as threads:
        list(threads.map(write, contents))
    with s3_lake.local_files(list(contents)) as copies:
        assert {path: copy.read_bytes() for path, copy in zip(contents, copies, strict=True)} == contents
    assert bucket.incomplete() == []


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {}),
        ({"encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"encryption": "aws:kms", "kms_key_id": "alias/lake"},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "alias/lake",
            },
        ),
    ],
)
def test_every_write_asks_for_the_encryption(
    bucket: Bucket, gate: Gate, asked: dict[str, str], sent: dict[str, str]
) -> None:
    lake = S3Lake(bucket.settings(endpoint_url=gate.url, **asked))
    for size in (1, 3 * LEAST_PART):
        with lake.writing(f"f{size}") as stream:
            stream.write(b"x" * size)
    lake.check_writable()
    creating = [*gate.of_kind("PUT"), *gate.of_kind("begin")]
    assert len(creating) == 3
    for request in creating:
        found = {name.lower(): value for name, value in request.headers.items()}
        assert {name: value for name, value in found.items() if "encryption" in name} == sent
    for key in bucket.objects():
        held = bucket.client.head_object(Bucket=bucket.name, Key=key).get("ServerSideEncryption", "AES256")
        assert held == asked.get("encryption", "AES256")


def test_digest_reads_only_what_this_process_did_not_send_or_read(
    s3_lake: S3Lake, gate: Gate, bucket: Bucket
) -> None:
    with s3_lake.writing("t/f") as stream:
        stream.write(b"one")
    assert s3_lake.digest("t/f") == sha256(b"one").hexdigest()
    assert gate.kinds() == ["PUT", "HEAD"]
    bucket.client.put_object(Bucket=bucket.name, Key="edfi/lake/t/f", Body=b"two")
    for _ in range(2):
        assert s3_lake.digest("t/f") == sha256(b"two").hexdigest()
    assert gate.kinds()[2:] == ["HEAD", "GET", "HEAD"]
    with pytest.raises(LakeError, match="no such file"):
        s3_lake.digest("t/g")


# -- listing ----------------------------------------------------------------------------------------------


def test_thousands_of_names_are_listed_and_what_lies_deeper_is_not_walked(bucket: Bucket, gate: Gate) -> None:
    lake = S3Lake(bucket.settings(bucket=MANY, prefix="lake", endpoint_url=gate.url))
    assert lake.children("files") == [f"{number:04d}.jsonl.zst" for number in range(MANY_FILES)]
    assert lake.children("folders") == [f"{number:04d}" for number in range(MANY_FOLDERS)]
    assert len(gate.seen) == 3 + 2
    gate.seen.clear()
    assert lake.children("") == ["files", "folders"]
    assert lake.children("folders/0007") == ["deep.jsonl.zst"]
    assert lake.exists("files/2499.jsonl.zst")
    assert not lake.exists("files/2")
    assert len(gate.seen) == 4


# -- reading ----------------------------------------------------------------------------------------------


def test_local_files_come_in_order_are_whole_and_go_again(
    s3_lake: S3Lake, tmp_path: Path, gate: Gate
) -> None:
    contents = {f"{name}/students.jsonl.zst": name.encode() * 1_000_000 for name in "xyz"}
    for path, content in contents.items():
        with s3_lake.writing(path) as stream:
            stream.write(content)
    paths = [*reversed(contents), next(iter(contents))]
    with pytest.raises(KeyboardInterrupt), s3_lake.local_files(paths) as copies:
        assert [copy.read_bytes() for copy in copies] == [contents[path] for path in paths]
        assert all(copy.is_relative_to(tmp_path) and copy.name.endswith(".jsonl.zst") for copy in copies)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    gate.seen.clear()
    with s3_lake.local_files([]) as copies:
        assert (copies, gate.seen) == ([], [])


def test_duckdb_reads_the_copies(s3_lake: S3Lake) -> None:
    paths = [f"t/students{part}.jsonl.zst" for part in ("", ".1")]
    for number, path in enumerate(paths):
        with s3_lake.writing(path) as stream:
            stream.write(zstandard.compress(b'{"id": %d}\n' % number * 500))
    with s3_lake.local_files(paths) as copies, duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT filename, count(*), any_value(json->>'id') FROM read_json_objects(?, "
            "format='newline_delimited', compression='zstd', filename=true) GROUP BY 1 ORDER BY 3",
            [list(map(str, copies))],
        ).fetchall()
    assert rows == [(str(copies[0]), 500, "0"), (str(copies[1]), 500, "1")]


def test_copies_that_find_no_room_say_where(s3_lake: S3Lake, bucket: Bucket, tmp_path: Path) -> None:
    with s3_lake.writing("f") as stream:
        stream.write(b"1")
    lake = S3Lake(bucket.settings(prefix="edfi/lake"), tmp_path / "nowhere")
    with pytest.raises(LakeError) as caught, lake.local_files(["f"]):
        pass
    assert str(caught.value) == (
        f"lake s3://{bucket.name}/edfi/lake: No such file or directory while its files are copied to "
        f"{tmp_path}/nowhere; make room there, or set extract.tmp_dir"
    )


# -- a pull -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_parts")
def test_pull_into_a_bucket_is_proven_by_its_manifest(
    make_bench: Callable[..., Bench], bucket: Bucket
) -> None:
    bench = make_bench("students", "studentSectionAssociations", lake=bucket.document(prefix="edfi"))
    bench.materialize(load=False)
    (stamp,) = stamps(bench.lake, PAIR)
    found = {manifest.endpoint: manifest for manifest in manifests(bench.lake, PAIR, stamp)}
    assert found.keys() == {"students", "studentSectionAssociations"}
    files = [file for manifest in found.values() for file in manifest.files]
    assert any(file.bytes > 2 * LEAST_PART for file in files)
    for file in files:
        content = bench.lake.read(file.path)
        assert (len(content), sha256(content).hexdigest()) == (file.bytes, file.sha256)
    written = {key.removeprefix("edfi/") for key in bucket.objects() if key.endswith(".zst")}
    assert written == {file.path for file in files}
    assert bucket.incomplete() == []


@pytest.mark.usefixtures("small_parts")
def test_nights_and_a_rebuild_on_a_bucket(make_bench: Callable[..., Bench], bucket: Bucket) -> None:
    bench = make_bench(
        "students", "sessions", descriptors=("termDescriptors",), lake=bucket.document(prefix="edfi")
    )
    gone = bench.add_student(1)
    bench.materialize()
    bench.verify()
    bench.store.delete("students", gone)
    bench.change("sessions", bench.store.ids("sessions")[0], sessionName="Autumn")
    bench.materialize()
    bench.verify()
    rows, deleted, _ = bench.state()
    files = {name for (name,) in bench.query("SELECT DISTINCT filename FROM edfi3.students")}
    assert all(bench.lake.exists(name) for name in files)
    bench.rebuild()
    bench.verify()
    assert bench.state()[:2] == (rows, deleted)


@pytest.mark.parametrize("name", ["Stadium_Lake", "edu.stadium.lake", "under_score", "A" * 255])
def test_bucket_with_a_name_of_before_2018_is_addressed_by_path(bucket: Bucket, name: str) -> None:
    """A host name holds neither capitals nor underscores, and no more than 63 characters."""
    settings = bucket.settings(bucket=name, endpoint_url=None, region="us-east-1")
    client = S3Client(settings).at_once
    url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": name, "Key": "t=20x/2025"}))
    assert str(url.hostname).startswith("s3.")
    assert url.path == f"/{name}/t%3D20x/2025"
