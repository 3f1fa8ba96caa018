"""The sandbox as a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from edfi_dagster.sandbox import SandboxServer, serve
from edfi_dagster.sandbox.__main__ import row_counts


@pytest.fixture(
    params=[["--ods-version", "7.3"], ["--ods-version", "6.1", "--mode", "instance_year_specific"]]
)
def process(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[subprocess.Popen[str], Path, str]]:
    arguments = ["--port", "0", "--port-file", str(tmp_path / "port"), "--ods", "grand_bend/2025"]
    arguments += [
        "--rows",
        "students=26",
        "--seed",
        "3",
        "--data",
        str(tmp_path / "data"),
        *request.param,
    ]
    command = [sys.executable, "-m", "edfi_dagster.sandbox", *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield child, tmp_path, request.param[1]
    if child.poll() is None:
        child.kill()
    child.communicate()


def test_it_prints_url_and_key_writes_its_port_and_ends_on_sigterm(
    process: tuple[subprocess.Popen[str], Path, str],
) -> None:
    child, folder, version = process
    deadline = time.monotonic() + 30
    while not (folder / "port").exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    port = (folder / "port").read_text()
    summary = requests.get(f"http://127.0.0.1:{port}/grand_bend/2025/_control/summary", timeout=10).json()
    assert summary["counts"]["ed-fi/students"] == 26
    child.terminate()
    printed, errors = child.communicate(timeout=15)
    assert (child.returncode, errors) == (0, "")
    assert printed.splitlines()[0].startswith(
        f"sandbox ODS/API {version} at http://127.0.0.1:{port} key=sandbox secret="
    )
    assert len(printed.splitlines()) == 1
    suffix = "" if version == "7.3" else f"-{version}"
    assert (folder / "data" / f"grand_bend__2025{suffix}.sqlite").exists()


def test_row_counts_are_read_from_text() -> None:
    assert row_counts("students=20000, sections=9") == {"students": 20000, "sections": 9}
    assert row_counts("") == {}
    with pytest.raises(ValueError, match="endpoint=number"):
        row_counts("students")


def test_an_unknown_version_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"2, 5\.3, 6\.1, 7\.0, 7\.1, 7\.2, 7\.3, not 6\.2"):
        serve(["grand_bend/2025"], ods_version="6.2")


def test_a_taken_port_is_an_error() -> None:
    with SandboxServer(["grand_bend/2025"]) as first, pytest.raises(OSError, match="in use"):
        SandboxServer(["grand_bend/2025"], port=first.port).start()
