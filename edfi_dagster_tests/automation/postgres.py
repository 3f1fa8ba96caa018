"""A Postgres of the test's own, from the server binaries of this machine, on a port of 127.0.0.1."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 30.0
USER, PASSWORD, DATABASE = "dagster", "of-this-test", "postgres"


def find_binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``; Debian keeps it out of PATH."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "postgres").exists()), None)


def unprivileged() -> dict[str, Any]:
    """Postgres refuses to run as root; this is who it runs as, as arguments of ``Popen``."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return {"user": entry.pw_uid, "group": entry.pw_gid}


@contextmanager
def running_postgres(binaries: Path) -> Iterator[dict[str, str]]:
    """The server, gone at the end; gives the environment that leads a deployed dagster.yaml to it."""
    who = unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if who:
            for path in (folder, folder / "password"):
                os.chown(path, who["user"], who["group"])
        options = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"]
        run = {
            "cwd": folder,
            "check": True,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            **who,
        }
        subprocess.run([binaries / "initdb", "-D", folder / "data", *options], **run)
        with _serving(binaries, folder, who) as port:
            yield {
                "DAGSTER_PG_HOST": "127.0.0.1",
                "DAGSTER_PG_PORT": str(port),
                "DAGSTER_PG_USERNAME": USER,
                "DAGSTER_PG_PASSWORD": PASSWORD,
                "DAGSTER_PG_DB": DATABASE,
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _serving(binaries: Path, folder: Path, who: dict[str, Any]) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["-D", str(folder / "data"), "-k", str(folder), "-h", "127.0.0.1", "-p", str(port), "-F"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(binaries / "postgres"), *options], cwd=folder, stdout=log, stderr=log, **who
        )
    try:
        _wait_until_open(port, server)
        yield port
    finally:
        server.send_signal(signal.SIGINT)  # ends sessions instead of waiting for them
        server.wait(timeout=START_SECONDS)


def _wait_until_open(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"postgres did not open port {port} in {START_SECONDS:.0f} s")
