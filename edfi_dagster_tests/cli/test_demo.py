"""The demo, as a newcomer runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_demo_ends_with_every_partition_verified(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in {"DAGSTER_HOME", "EDFI_DAGSTER_CONFIG"}}
    done = subprocess.run(
        [sys.executable, "-m", "edfi_dagster.cli", "demo", "--no-ui"],
        cwd=tmp_path,
        env={**environment, "COLUMNS": "140"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" yes ") == 4
    assert "riverbend_reading: 20 of 20 results of sandbox.csv in the warehouse" in done.stdout
