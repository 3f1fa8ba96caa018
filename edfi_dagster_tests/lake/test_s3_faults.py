"""What goes wrong between us and S3: it is mended, or it is said what to do; never half an object."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.retries.standard import ExponentialBackoff
from botocore.utils import ContainerMetadataFetcher

from edfi_dagster.lake import s3_client, s3_upload
from edfi_dagster.lake.manifest import manifests, stamps
from edfi_dagster.lake.s3 import S3Lake
from edfi_dagster.lake.store import LakeError
from edfi_dagster_tests.bench import PAIR, Bench
from edfi_dagster_tests.lake.s3_server import KEY, LEAST_PART, SECRET, Bucket, Fault, Gate

KEY_OF_F = "edfi/lake/t/f"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few bytes; twice two attempts, and hardly a pause between them."""
    monkeypatch.setattr(s3_upload, "PART_BYTES", LEAST_PART)
    monkeypatch.setattr(s3_client, "ATTEMPTS", 2)
    monkeypatch.setattr(s3_client, "PAUSES", (0.01,))
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


def write(lake: S3Lake, size: int, path: str = "t/f") -> bytes:
    content = bytes(n % 251 for n in range(size))
    with lake.writing(path) as stream:
        stream.write(content)
    return content


# -- mended -----------------------------------------------------------------------------------------------

PASSING = {
    "SlowDown to a small object": Fault("PUT", 503, "SlowDown"),
    "InternalError to a small object": Fault("PUT", 500, "InternalError"),
    "small object cut off": Fault("PUT", cut=3),
    "answer to a small object lost": Fault("PUT", lose=True),
    "SlowDown to the beginning": Fault("begin", 503, "SlowDown"),
    "SlowDown to a part": Fault("part", 503, "SlowDown", nth=2),
    "InternalError to a part": Fault("part", 500, "InternalError"),
    "part cut off": Fault("part", cut=LEAST_PART // 2, nth=2),
    "answer to a part lost": Fault("part", lose=True, nth=3),
    "part damaged": Fault("part", 400, "BadDigest", nth=2),
    "three times refused": Fault("part", 500, "InternalError", times=3),
    "three times cut off": Fault("part", cut=1, times=3),
    "SlowDown to the completion": Fault("complete", 503, "SlowDown"),
    "InternalError as a completion": Fault("complete", 200, "InternalError"),
    "answer to the completion lost": Fault("complete", lose=True),
    "listing refused": Fault("GET", 503, "SlowDown"),
    "answer cut off": Fault("GET", shorten=True, nth=2),
}


@pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in PASSING.items()])
def test_what_passes_is_tried_again(s3_lake: S3Lake, gate: Gate, bucket: Bucket, fault: Fault) -> None:
    gate.faults.append(Fault(**vars(fault)))
    small, large = write(s3_lake, 10, "t/small"), write(s3_lake, 3 * LEAST_PART + 5)
    assert s3_lake.children("t") == ["f", "small"]
    assert (s3_lake.read("t/f"), s3_lake.read("t/small")) == (large, small)
    assert gate.faults[0].times == 0
    assert bucket.incomplete() == []


def test_copy_that_is_cut_off_goes_on(s3_lake: S3Lake, gate: Gate) -> None:
    content = write(s3_lake, 3 * LEAST_PART)
    gate.faults.append(Fault("GET", shorten=True, times=2))
    with s3_lake.local_files(["t/f"]) as (copy,):
        assert copy.read_bytes() == content


def test_completion_that_was_lost_and_is_not_there_is_an_error(
    s3_lake: S3Lake, gate: Gate, bucket: Bucket
) -> None:
    """NoSuchUpload means success only if the object is the one of this very upload."""
    write(s3_lake, 3 * LEAST_PART)
    gate.faults.append(Fault("complete", 404, "NoSuchUpload"))
    with pytest.raises(LakeError, match="PutObject failed with NoSuchUpload"):
        write(s3_lake, 3 * LEAST_PART)
    assert bucket.incomplete() == []


@pytest.fixture
def role(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A role's keys, which are always due for renewal, and the statuses of the next answers of the service that has them."""
    statuses: list[int] = []

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            due = (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
            keys = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": "t", "Expiration": due}
            self.send_response(statuses.pop(0) if statuses else 200)
            self.end_headers()
            self.wfile.write(json.dumps(keys).encode())

        def log_message(self, format: str, *args: object) -> None: ...

    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}")
        yield statuses
        server.shutdown()


def test_keys_of_a_role_that_cannot_be_renewed_for_a_while_are_waited_for(
    bucket: Bucket, role: list[int]
) -> None:
    lake = S3Lake(bucket.settings(access_key_id=None, secret_access_key=None))
    write(lake, 1)
    role += [500] * ContainerMetadataFetcher.RETRY_ATTEMPTS
    content = write(lake, 10)
    assert (lake.read("t/f"), role) == (content, [])
    role += [500] * 2 * ContainerMetadataFetcher.RETRY_ATTEMPTS
    with pytest.raises(LakeError, match=r"no credentials \(CredentialRetrievalError\)"):
        write(lake, 1)


@pytest.mark.parametrize(("asked", "attempts"), [(None, 3), ("7", 7)])
def test_keys_of_the_machines_role_are_asked_for_more_than_once(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, attempts: int
) -> None:
    monkeypatch.delenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", raising=False)
    if asked:
        monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", asked)
    found = s3_client._session()._session.get_config_variable("metadata_service_num_attempts")
    assert found == attempts


# -- not mended -------------------------------------------------------------------------------------------

LASTING = {
    "small object": (
        10,
        Fault("PUT", 503, "SlowDown", times=4),
        "still answers SlowDown (503) after every pause",
    ),
    "beginning": (999, Fault("begin", 500, "InternalError", times=4), "InternalError (500)"),
    "part": (
        999,
        Fault("part", 503, "SlowDown", times=4, nth=2),
        "SlowDown (503) after every pause; run again",
    ),
    "part cut off": (999, Fault("part", cut=5, times=4), "cannot be reached (ConnectionClosedError)"),
    "completion": (999, Fault("complete", 500, "InternalError", times=4), "InternalError (500)"),
    "part refused": (
        999,
        Fault("part", 400, "EntityTooLarge", nth=3),
        "PutObject failed with EntityTooLarge (400)",
    ),
}


@pytest.mark.parametrize(
    ("size", "fault", "said"), [pytest.param(*case, id=name) for name, case in LASTING.items()]
)
def test_what_lasts_leaves_nothing_and_the_old_object_as_it_was(
    s3_lake: S3Lake, gate: Gate, bucket: Bucket, size: int, fault: Fault, said: str
) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=KEY_OF_F, Body=b"old")
    gate.faults.append(Fault(**vars(fault)))
    with pytest.raises(LakeError) as caught:
        write(s3_lake, size)
    assert str(caught.value).startswith(f"lake s3://{bucket.name}/{KEY_OF_F}: ")
    assert said in str(caught.value)
    assert (s3_lake.read("t/f"), bucket.incomplete()) == (b"old", [])


def test_part_that_failed_cannot_be_left_out_by_a_writer_that_goes_on(
    s3_lake: S3Lake, gate: Gate, bucket: Bucket
) -> None:
    gate.faults.append(Fault("part", 400, "EntityTooLarge", nth=2))
    with pytest.raises(LakeError, match="EntityTooLarge"), s3_lake.writing("t/f") as stream:
        for _ in range(20):
            with suppress(Exception):
                stream.write(b"x" * LEAST_PART)
    assert (bucket.objects(), bucket.incomplete()) == ([], [])


def test_error_of_the_writer_comes_through_though_the_upload_cannot_be_aborted(
    s3_lake: S3Lake, gate: Gate, bucket: Bucket
) -> None:
    gate.faults.append(Fault("abort", 403, "AccessDenied", times=9))
    with pytest.raises(ZeroDivisionError), s3_lake.writing("t/f") as stream:
        stream.write(b"x" * 3 * LEAST_PART)
        raise ZeroDivisionError
    assert (bucket.objects(), bucket.incomplete()) == ([], [KEY_OF_F])


def test_service_that_is_gone_is_waited_for_by_one_and_not_by_all_after_it(
    s3_lake: S3Lake, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(s3_client, "PAUSES", (0.01, 0.01, 0.01))
    write(s3_lake, 1)
    for _ in range(2):
        gate.seen.clear()
        gate.faults.append(Fault("PUT", cut=0, times=99))
        with pytest.raises(LakeError, match="cannot be reached"):
            write(s3_lake, 1)
        asked.append(len(gate.seen))
    gate.faults.clear()
    write(s3_lake, 1)
    gate.faults.append(Fault("PUT", cut=0, times=7))
    write(s3_lake, 1)
    assert asked == [8, 2]


def test_many_requests_at_once_outlast_a_service_that_is_away(
    s3_lake: S3Lake, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when all of them together need more retries than botocore allows a client."""
    monkeypatch.setattr(s3_client, "PAUSES", (0.4,) * 5)
    write(s3_lake, 1)
    gate.faults.append(Fault("PUT", 500, "InternalError", times=10**6))
    with ThreadPoolExecutor(41) as threads:
        writing = [threads.submit(write, s3_lake, 1, f"t/{number}") for number in range(40)]
        while len(gate.of_kind("PUT")) < 100:
            time.sleep(0.01)
        gate.faults.clear()
        for one in writing:
            one.result()
    assert len(s3_lake.children("t")) == 41


# -- said -------------------------------------------------------------------------------------------------

GRANTS = "and s3:ListBucket on the bucket"
MISTAKES = {
    "denied": (
        {},
        Fault("any", 403, "AccessDenied"),
        ["access denied to s3:PutObject", "edfi/lake/*", GRANTS],
    ),
    "denied under KMS": (
        {"encryption": "aws:kms"},
        Fault("any", 403, "AccessDenied"),
        ["kms:GenerateDataKey and kms:Decrypt on the key"],
    ),
    "KMS key": ({}, Fault("any", 400, "KMS.DisabledException"), ["KMS.DisabledException", "lake.kms_key_id"]),
    "unknown key": (
        {},
        Fault("any", 403, "InvalidAccessKeyId"),
        ["refused (InvalidAccessKeyId)", "access_key_id"],
    ),
    "wrong secret": ({}, Fault("any", 403, "SignatureDoesNotMatch"), ["refused (SignatureDoesNotMatch)"]),
    "expired token": ({}, Fault("any", 400, "ExpiredToken"), ["the credentials are refused (ExpiredToken)"]),
    "clock": ({}, Fault("any", 403, "RequestTimeTooSkewed"), ["the clock of this machine is wrong"]),
    "wrong region": (
        {"region": "us-west-2"},
        Fault("any", 400, "AuthorizationHeaderMalformed", more="<Region>eu-central-1</Region>", times=9),
        ["lies in another region; write lake.region: eu-central-1"],
    ),
    "elsewhere": (
        {},
        Fault("any", 400, "IllegalLocationConstraintException", times=9),
        ["lies in another region; correct lake.region"],
    ),
    "no bucket": ({"bucket": "nobody-has-this"}, None, ["there is no bucket nobody-has-this", "lake.bucket"]),
    "unreachable": (
        {"endpoint_url": "http://127.0.0.1:1"},
        None,
        ["http://127.0.0.1:1 cannot be reached (EndpointConnectionError); check lake.endpoint_url"],
    ),
    "no credentials": (
        {"access_key_id": None, "secret_access_key": None},
        None,
        ["no credentials (NoCredentialsError); give lake.access_key_id", "a role of the machine"],
    ),
}


@pytest.mark.parametrize(
    ("changed", "fault", "said"), [pytest.param(*case, id=name) for name, case in MISTAKES.items()]
)
def test_mistake_is_said_with_what_to_do_and_no_secret(
    bucket: Bucket, gate: Gate, changed: dict[str, str | None], fault: Fault | None, said: list[str]
) -> None:
    settings = bucket.settings(**{"prefix": "edfi/lake", "endpoint_url": gate.url, **changed})
    if fault:
        gate.faults.append(Fault(**vars(fault)))
    with pytest.raises(LakeError) as caught:
        S3Lake(settings).check_writable()
    message = str(caught.value)
    assert message.startswith(f"lake s3://{settings.bucket}/edfi/lake/.check: ")
    assert [text for text in said if text not in message] == [], message
    assert not any(secret in message for secret in (KEY, SECRET))


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda lake: lake.read("t/f"), id="read"),
        pytest.param(lambda lake: lake.exists("t/f"), id="exists"),
        pytest.param(lambda lake: lake.children("t/f"), id="children"),
        pytest.param(lambda lake: lake.delete("t/f"), id="delete"),
        pytest.param(lambda lake: lake.local_files(["t/f"]).__enter__(), id="local_files"),
    ],
)
def test_every_use_names_bucket_and_key(
    s3_lake: S3Lake, gate: Gate, bucket: Bucket, use: Callable[[S3Lake], object], tmp_path: Path
) -> None:
    gate.faults.append(Fault("any", 403, "AccessDenied", times=99))
    with pytest.raises(LakeError) as caught:
        use(s3_lake)
    assert str(caught.value).startswith(f"lake s3://{bucket.name}/{KEY_OF_F}: access denied to s3:")
    assert list(tmp_path.iterdir()) == []


# -- killed -----------------------------------------------------------------------------------------------


@pytest.fixture
def child(bucket: Bucket, gate: Gate) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        document = bucket.document(endpoint_url=gate.url, prefix="edfi/lake")
        process = subprocess.Popen(
            [sys.executable, "-m", "edfi_dagster_tests.lake.s3_child", *arguments],
            env={**os.environ, "LAKE": json.dumps(document)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_writer_killed_in_the_middle_leaves_no_object(
    child: Callable[..., subprocess.Popen[bytes]], gate: Gate, bucket: Bucket, s3_lake: S3Lake
) -> None:
    writer = child("endless")
    for _ in range(600):
        if len(gate.of_kind("part")) > 2:
            break
        time.sleep(0.05)
    writer.kill()
    assert writer.wait() == -signal.SIGKILL
    assert (bucket.objects(), s3_lake.exists("endless"), s3_lake.children("")) == ([], False, [])
    assert bucket.incomplete() == ["edfi/lake/endless"]  # for the bucket's lifecycle rule
    content = write(s3_lake, 3 * LEAST_PART, "endless")
    assert s3_lake.read("endless") == content


def test_pull_killed_between_two_parts_of_a_file_does_not_exist_and_the_next_one_is_whole(
    child: Callable[..., subprocess.Popen[bytes]], make_bench: Callable[..., Bench], bucket: Bucket
) -> None:
    bench = make_bench("students", lake=bucket.document())
    killed = child("pull", str(bench.config))
    assert killed.wait(60) == -signal.SIGKILL
    assert [key for key in bucket.objects() if "students" in key] == []
    assert len(bucket.incomplete()) == 1
    bench.materialize(load=False)
    found = [m for stamp in stamps(bench.lake, PAIR) for m in manifests(bench.lake, PAIR, stamp)]
    assert [(m.endpoint, m.rows) for m in found] == [("students", bench.store.count("students"))]
