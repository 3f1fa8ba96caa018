"""No more of a tool at once on one machine than configured, in whatever threads and processes, also after one was killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edfi_dagster.earthbeam.turns import turn

HOLD = (
    "import sys, time; from pathlib import Path; from edfi_dagster.earthbeam.turns import turn\n"
    "with turn(Path(sys.argv[1]), 'earthmover', 1, tell=print):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the only turn."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def test_four_at_once_are_two_at_a_time_and_all_have_their_turn(tmp_path: Path) -> None:
    now, most, lock = 0, 0, threading.Lock()
    told: list[str] = []

    def work() -> None:
        nonlocal now, most
        with turn(tmp_path / "turns", "earthmover", 2, tell=told.append):
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.2)
            with lock:
                now -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (now, most) == (0, 2)
    assert told == ["waiting for earthmover: 2 of them run at once on this machine"] * 2


def test_a_turn_that_another_process_has_is_waited_for_and_free_once_that_is_killed(tmp_path: Path) -> None:
    told: list[str] = []
    taken = threading.Event()

    def wait() -> None:
        with turn(tmp_path, "earthmover", 1, tell=told.append):
            taken.set()

    with holder(tmp_path) as child:
        waiting = threading.Thread(target=wait)
        waiting.start()
        with turn(tmp_path, "lightbeam", 1, tell=told.append):
            assert not taken.wait(0.3)
        child.kill()
        waiting.join(timeout=10)
    assert taken.is_set() and len(told) == 1


def test_a_turn_ends_with_its_block_however_that_ends(tmp_path: Path) -> None:
    for _ in range(2):
        try:
            with turn(tmp_path, "lightbeam", 1, tell=print):
                raise OSError("no space left")
        except OSError as error:
            assert str(error) == "no space left"


def test_where_no_turns_can_be_kept_nobody_waits_and_that_is_told(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    told: list[str] = []
    with (
        turn(blocked / "turns", "earthmover", 1, tell=told.append),
        turn(blocked / "turns", "earthmover", 1, tell=told.append),
    ):
        assert len(told) == 2 and "without waiting" in told[0]
