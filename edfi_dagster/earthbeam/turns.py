"""Turns of the tools on one machine, over all the processes that run bundles; a lock ends with its process, however that ends.

Over several machines it is the pool of the orchestrator that bounds them.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0


@contextmanager
def turn(folder: Path, tool: str, concurrency: int, *, tell: Callable[[str], None]) -> Iterator[None]:
    """Wait until one of ``concurrency`` places of ``tool`` is free, and hold it for the block.

    Where ``folder`` cannot be written, nobody waits.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = _waited_for([folder / f"{tool}.{number}" for number in range(concurrency)], tool, tell)
    except OSError as error:
        tell(f"{tool} runs without waiting for its turn: {error.strerror} ({folder})")
        yield
        return
    with held:
        yield


def _waited_for(places: list[Path], tool: str, tell: Callable[[str], None]) -> IO[bytes]:
    pause = _FIRST_LOOK
    while True:
        for place in places:
            if (held := _taken(place)) is not None:
                return held
        if pause == _FIRST_LOOK:
            tell(f"waiting for {tool}: {len(places)} of them run at once on this machine")
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_LOOK)


def _taken(place: Path) -> IO[bytes] | None:
    file = place.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    return file
