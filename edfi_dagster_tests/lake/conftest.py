"""A lake on S3, and what passes between it and the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edfi_dagster.lake.s3 import S3Lake
from edfi_dagster_tests.lake.s3_server import Bucket, Gate, running_gate


@pytest.fixture
def gate(bucket: Bucket) -> Iterator[Gate]:
    """What every request of ``s3_lake`` passes."""
    with running_gate(bucket.url) as gate:
        yield gate


@pytest.fixture
def s3_lake(bucket: Bucket, gate: Gate, tmp_path: Path) -> S3Lake:
    return S3Lake(bucket.settings(prefix="edfi/lake", endpoint_url=gate.url), tmp_path)
