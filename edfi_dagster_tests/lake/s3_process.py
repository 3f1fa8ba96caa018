"""The S3 server's process: ``python -m edfi_dagster_tests.lake.s3_process <port>``.

Bucket ``many`` is there from the start, for one by one its objects would take longer than all the tests.
"""

from __future__ import annotations

import sys

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import main

MANY = "many"
MANY_FILES = 2_500
MANY_FOLDERS = 1_100


def fill() -> None:
    store = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    store.create_bucket(MANY, "us-east-1")
    for number in range(MANY_FILES):
        store.put_object(MANY, f"lake/files/{number:04d}.jsonl.zst", b"")
    for number in range(MANY_FOLDERS):
        store.put_object(MANY, f"lake/folders/{number:04d}/deep.jsonl.zst", b"")


if __name__ == "__main__":
    fill()
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
