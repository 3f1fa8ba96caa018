"""Messages are one line, however long, in a pipe and in a terminal; only tables are folded."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

import edfi_dagster.cli
from edfi_dagster.cli.screen import Screen

LONG = "a folder with spaces/" * 8 + "[red]students[/red] :warning: G ONE"


def table() -> Table:
    made = Table(box=None)
    made.add_column("endpoint", overflow="fold")
    made.add_column("remark", overflow="fold")
    made.add_row("x" * 90, LONG)
    return made


@pytest.mark.parametrize("columns", ["80", "20", ""])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_message_is_one_line_and_its_text_stays(
    columns: str, terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb" if not terminal else "xterm")
    if terminal:
        monkeypatch.setattr(Screen, "is_terminal", True)
    Screen().print(LONG)
    Screen(stderr=True).print(f"Error: {LONG}", style="red")
    found = capsys.readouterr()
    assert found.out == f"{LONG}\n"
    assert f"Error: {LONG}" in found.err.splitlines()[0]


def test_a_table_is_folded_at_the_width_that_is_set_and_nowhere_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    Screen().print(table())
    folded = capsys.readouterr().out.splitlines()
    assert len(folded) > 3 and all(len(line) <= 80 for line in folded)
    monkeypatch.delenv("COLUMNS")
    Screen().print(table())
    _, row = capsys.readouterr().out.splitlines()
    assert row.split("  ")[0].strip() == "x" * 90 and LONG in row


def test_every_command_prints_by_the_same_rules() -> None:
    """`rich.console` is imported in one place only."""
    modules = Path(edfi_dagster.cli.__file__).parent.rglob("*.py")
    assert [m.name for m in modules if "rich.console" in m.read_text()] == ["screen.py"]


def failed(folder: Path, stderr: int, **environment: str) -> int:
    """Exit code of a command that ends with an error whose text holds a long path."""
    config = folder / "edfi_dagster.yaml"
    config.write_text(
        "tenants: {grand_bend: {years: {2025: {base_url: 'http://127.0.0.1:9', "
        "client_id: {env: NONE}, client_secret: {env: NONE}}}}}\n"
        "earthbeam: {bundles: {gone: {path: bundles/G ONE}}}\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "DAGSTER_HOME"}}
    command = ["-m", "edfi_dagster.cli", "bundle", "run", "gone", "--tenant", "grand_bend", "--year", "2025"]
    return subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        cwd=folder,
        env={**kept, "EDFI_DAGSTER_CONFIG": str(config), "TERM": "xterm", **environment},
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        check=False,
    ).returncode


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["", "80"])
@pytest.mark.parametrize("terminal", [True, False])
def test_an_error_about_a_long_path_is_one_line_in_a_real_process(
    tmp_path: Path, columns: str, terminal: bool
) -> None:
    folder = tmp_path / " ".join(["a long name"] * 13)
    folder.mkdir()
    assert len(str(folder)) > 150
    environment = {"COLUMNS": columns} if columns else {}
    # What is printed here is less than either of them holds.
    own, other = pty.openpty() if terminal else os.pipe()
    assert failed(folder, other, **environment) == 1
    text = os.read(own, 65536)
    for end in (own, other):
        os.close(end)
    told = f"{folder}/bundles/G ONE: there is no such folder; check the bundle out there or correct the path"
    assert any(told in line for line in text.decode().splitlines()), text.decode()
