"""What a person sees of a run: what it does while it goes on, and what it did."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest

from edfi_dagster.cli.runs import Report, print_report
from edfi_dagster_tests.bench import PAIR, Bench

LONG = "student_discipline_incident_behavior_association_discipline_incident_participation_codes"


def figures(rows: int, loaded: int) -> dict[str, int]:
    return {
        "edfi/rows": rows,
        "edfi/rows_loaded": loaded,
        "edfi/min_change_version": 0,
        "edfi/max_change_version": 123_456_789,
    }


def test_endpoint_and_its_table_are_one_line_and_long_names_are_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assets = [
        ("ed_fi/students", figures(1234, 12)),
        ("raw_edfi_3/students", figures(1234, 12)),
        ("raw_edfi_3/schools", figures(7, 7)),
        ("ed_fi/schools", figures(9, 7)),
        (f"ed_fi/{LONG}", figures(1, 1)),
    ]
    print_report(Report(PAIR, "0123456789", True, assets, [], ""))
    out = capsys.readouterr().out
    assert "5 assets materialized" in out
    assert "1,234" in out and out.count("students") == 1
    assert out.count("schools") == 2, "their figures differ"
    assert all(len(line) <= 80 for line in out.splitlines())
    assert LONG in "".join(line.split("  ")[0].strip() for line in out.splitlines())


@pytest.mark.slow
def test_run_in_a_terminal_says_how_far_it_is(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("students", "schools")
    own, other = pty.openpty()
    arguments = ["materialize", "--tenant", PAIR.tenant, "--year", str(PAIR.year)]
    done = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "edfi_dagster.cli", *arguments],
        cwd=bench.folder,
        env={**os.environ, "EDFI_DAGSTER_CONFIG": str(bench.config), "TERM": "xterm", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=other,
    )
    os.close(other)
    told = b""
    while done.poll() is None:
        told += _read(own)
    os.close(own)
    assert done.returncode == 0
    text = told.decode(errors="replace")
    assert "grand_bend/2025: starting" in text
    assert "assets materialized, last raw_edfi_3/" in text
    assert done.stdout and b"4 assets materialized" in done.stdout.read()
    done.stdout.close()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side is closed
        return b""
