"""Child processes end in time with all that they started, and know nothing of our secrets."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from edfi_dagster.earthbeam import ToolFailed, ToolTimedOut
from edfi_dagster.earthbeam.process import find_tool, run_child, scrubbed_environment


def child(tmp_path: Path, script: str, seconds: float = 20.0, **options: object) -> object:
    return run_child(
        ["/bin/sh", "-c", script],
        folder=tmp_path,
        environment=scrubbed_environment(tmp_path),
        seconds=seconds,
        log=tmp_path / "child.log",
        **options,  # type: ignore[arg-type]
    )


def ends(process: int) -> bool:
    """Whether a process ends within two seconds."""
    for _ in range(40):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_time_limit_ends_the_child_and_its_children(tmp_path: Path) -> None:
    started = time.monotonic()
    # The child itself does not listen to the first, gentle signal.
    with pytest.raises(ToolTimedOut, match="did not end within"):
        child(tmp_path, "trap '' TERM; sleep 60 & echo $! > grandchild; wait; sleep 60", seconds=0.5)
    assert time.monotonic() - started < 15
    grandchild = int((tmp_path / "grandchild").read_text())
    assert ends(grandchild)


def test_what_a_child_leaves_running_is_ended_too(tmp_path: Path) -> None:
    child(tmp_path, "sleep 60 & echo $! > grandchild")
    assert ends(int((tmp_path / "grandchild").read_text()))


def test_a_child_that_goes_round_in_circles_is_ended_with_a_reason(tmp_path: Path) -> None:
    lines: list[str] = []

    def watch(line: str) -> str | None:
        lines.append(line)
        return "it repeats itself" if len(lines) > 5 else None

    with pytest.raises(ToolTimedOut, match="it repeats itself"):
        child(tmp_path, "while true; do echo again >&2; sleep 0.01; done", watch=watch)
    assert lines[0] == "again\n"


def test_no_variable_of_ours_reaches_a_child_nor_overrides_a_parameter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNOWFLAKE_PASSWORD", "hidden")
    monkeypatch.setenv("STUDENT_ID_NAME", "wrong")
    found = scrubbed_environment(tmp_path, without={"TZ": "a parameter of that name"})
    assert "SNOWFLAKE_PASSWORD" not in found and "STUDENT_ID_NAME" not in found and "TZ" not in found
    assert found["HOME"] == str(tmp_path) and found["PATH"] == os.environ["PATH"]


def test_a_tool_is_found_beside_the_interpreter_and_a_missing_one_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Path(find_tool("earthmover")).parent == Path(sys.executable).parent
    with pytest.raises(ToolFailed, match="no-such-tool is not installed"):
        find_tool("no-such-tool")
