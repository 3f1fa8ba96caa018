"""Child processes: no shell, an environment of their own, an end in time for them and all that they start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edfi_dagster.earthbeam.errors import ToolFailed, ToolTimedOut
from edfi_dagster.ods.network import CERTIFICATES, PROXIES

# What a program needs to find its files, certificates and proxies; nothing else of our environment is passed on.
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "SSL_CERT_DIR", "TZ", *CERTIFICATES, *PROXIES)
_FIRST_LOOK, _LONGEST_LOOK = 0.02, 0.25
_GRACE_SECONDS = 3.0
# Told of each line of the standard error as it is written; a sentence ends the process.
Watch = Callable[[str], str | None]


@dataclass(frozen=True)
class Finished:
    """A process that has ended. ``log`` holds its standard error, ``said`` its standard output."""

    code: int
    seconds: float
    log: Path
    said: Path

    def lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()


def scrubbed_environment(home: Path, *, without: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child. ``without``: names that must not be in it, as they would override parameters."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = {"HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
    return {name: value for name, value in {**passed, **own}.items() if name not in (without or {})}


def find_tool(command: str) -> str:
    """The program's path. Raises ToolFailed where it is not installed."""
    beside = str(Path(sys.executable).parent)
    # A service may run this interpreter without its folder in PATH.
    found = shutil.which(command) or shutil.which(command, path=beside)
    if found is None:
        raise ToolFailed(f"{command} is not installed; install it, or write its path under earthbeam")
    return found


def run_child(
    argv: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    seconds: float,
    log: Path,
    watch: Watch | None = None,
) -> Finished:
    """Run a program in ``folder`` until it ends.

    Raises ToolTimedOut after ``seconds``, or when ``watch`` says why it should end; it and its children are then gone.
    """
    said = log.with_suffix(".out")
    started = time.monotonic()
    with log.open("wb") as errors, said.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  (no shell; the program comes from the configuration)
            list(argv),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    try:
        code = _wait(process, started + seconds, log, watch)
    finally:
        _end_group(process)
    if code is None:
        raise ToolTimedOut(
            f"{Path(argv[0]).name} did not end within {seconds / 60:.0f} minutes and was ended"
        )
    return Finished(code, time.monotonic() - started, log, said)


def _wait(process: subprocess.Popen[bytes], deadline: float, log: Path, watch: Watch | None) -> int | None:
    """The exit code; None when the deadline comes first. Raises ToolTimedOut for what ``watch`` says."""
    look = _FIRST_LOOK
    with log.open("rb") as reading:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            with suppress(subprocess.TimeoutExpired):
                return process.wait(min(look, left))
            look = min(look * 1.5, _LONGEST_LOOK)
            if watch is not None:
                for line in reading.readlines():
                    if reason := watch(line.decode("utf-8", "replace")):
                        raise ToolTimedOut(reason)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process and of all that it started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
