from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from edfi_dagster_tests.bench import KEY_VARIABLE, SECRET_VARIABLE
from edfi_dagster_tests.ods import platforms

KEY, SECRET, TOKEN = "planted-key-1f2e3d", "planted-secret-9a8b7c", "planted-token-5e4f3a2b"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Planted ones, and a folder for temporary files that nobody else has."""
    for key, secret in [
        (KEY_VARIABLE, SECRET_VARIABLE),
        (platforms.KEY_VARIABLE, platforms.SECRET_VARIABLE),
    ]:
        monkeypatch.setenv(key, KEY)
        monkeypatch.setenv(secret, SECRET)
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
