"""A writer in a process of its own: measured, or killed.

``measure <MiB>`` prints by how many MiB its memory grew while it wrote so many. ``endless`` writes until it is killed.
``pull <configuration>`` pulls with parts of a few bytes and kills itself when the second one of a file has arrived.
The lake of the first two is ``LAKE``, a ``lake:`` block in JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from edfi_dagster.config.lake import S3Lake as S3Settings
from edfi_dagster.lake import s3_upload
from edfi_dagster.lake.s3 import S3Lake
from edfi_dagster.lake.s3_upload import Part, Upload
from edfi_dagster_tests.lake.s3_server import LEAST_PART

BLOCK = os.urandom(1024 * 1024)


def lake() -> S3Lake:
    return S3Lake(S3Settings.model_validate(json.loads(os.environ["LAKE"])))


def most_memory() -> float:
    """In MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(size: int) -> None:
    store = lake()
    with store.writing("small") as stream:
        stream.write(BLOCK)
    before = most_memory()
    with store.writing("large") as stream:
        for _ in range(size):
            stream.write(BLOCK)
    print(most_memory() - before)


def endless() -> None:
    with lake().writing("endless") as stream:
        while True:
            stream.write(BLOCK)


def pull(config: Path) -> None:
    from edfi_dagster_tests.bench import Bench  # takes longer to load than the others run

    real = Upload._send_part

    def send_part(upload: Upload, number: int, body: bytearray) -> Part:
        sent = real(upload, number, body)
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return sent

    patched: Any = Upload
    patched._send_part = send_part
    s3_upload.PART_BYTES = LEAST_PART
    Bench(config).materialize(load=False)


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        measure(int(sys.argv[2]))
    elif sys.argv[1] == "endless":
        endless()
    else:
        pull(Path(sys.argv[2]))
