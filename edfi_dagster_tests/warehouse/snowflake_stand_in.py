"""The stand-in for Snowflake as tests use it: start it, point a warehouse at it, ask what was asked of it."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from edfi_dagster.config.secrets import PublicValue
from edfi_dagster.config.warehouse import SnowflakeWarehouse as SnowflakeConfig
from edfi_dagster.config.warehouse import TableNames
from edfi_dagster.lake.store import LakeStore
from edfi_dagster.warehouse.snowflake import SnowflakeWarehouse

SECRET_VARIABLE = "STAND_IN_PASSWORD"
_START_SECONDS = 60.0
_numbers = itertools.count()


@dataclass(frozen=True)
class SnowflakeStandIn:
    """A running stand-in. Each database of it is a world of its own."""

    port: int

    def new_database(self) -> str:
        return f"RAW_{os.getpid()}_{next(_numbers)}"

    def block(self, database: str, **options: Any) -> dict[str, Any]:
        """The ``warehouse:`` block of a platform on it; its password is in ``SECRET_VARIABLE``."""
        os.environ[SECRET_VARIABLE] = "stand-in"
        return {
            "kind": "snowflake",
            "account": "stand-in",
            "user": "loader",
            "password": {"env": SECRET_VARIABLE},
            "host": "127.0.0.1",
            "port": self.port,
            "protocol": "http",
            "database": database,
            "session_parameters": {"STATEMENT_TIMEOUT_IN_SECONDS": 20},
            **options,
        }

    def config(self, database: str, **options: Any) -> SnowflakeConfig:
        given = self.block(database, **options)
        given["password"] = PublicValue("stand-in") if "password" not in options else options["password"]
        return SnowflakeConfig(**given)

    def warehouse(
        self, database: str, lake: LakeStore, names: TableNames | None = None, **options: Any
    ) -> SnowflakeWarehouse:
        return SnowflakeWarehouse(self.config(database, **options), names or TableNames(), lake)

    def statements(self, database: str) -> list[str]:
        """What was asked of a database since ``forget``, in order."""
        return [one["sql"] for one in self.noted()["statements"] if one["database"] == database]

    def noted(self) -> dict[str, Any]:
        found: dict[str, Any] = self._control("GET", "noted")
        return found

    def forget(self) -> None:
        self._control("DELETE", "noted")

    def fail(self, match: str, code: int, **fault: Any) -> None:
        """``snowflake_server.Fault``."""
        self._control("POST", "faults", {"match": match, "code": code, **fault})

    def external_stage(self, name: str, root: str, **client: Any) -> None:
        """Let stage ``name`` (in capitals) lie at a folder, or at ``s3://bucket/prefix`` with a boto3 client's options."""
        self._control("POST", "stages", {"name": name, "root": root, "client": client})

    def end_sessions(self, database: str) -> None:
        """As Snowflake does in time after a client has died: its transactions are rolled back."""
        self._control("POST", "end_sessions", {"database": database})

    def empty(self, database: str) -> None:
        """Take every row out of a database, and end its sessions."""
        self._control("POST", "empty", {"database": database})

    def check(self) -> None:
        """DDL in a transaction would have committed it; a fault that was not met has tested nothing."""
        noted = self.noted()
        assert noted["ddl_in_transactions"] == []
        assert noted["faults"] == []

    def _control(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Any:
        url = f"http://127.0.0.1:{self.port}/_stand_in/{path}"
        answer = requests.request(method, url, json=document, timeout=30)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def serving_snowflake() -> Iterator[SnowflakeStandIn]:
    """A stand-in in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        port_file, log = Path(folder) / "port", Path(folder) / "log"
        command = [sys.executable, "-W", "ignore", "-m", "edfi_dagster_tests.warehouse.snowflake_server"]
        with log.open("w") as said, subprocess.Popen([*command, str(port_file)], stderr=said) as server:
            try:
                deadline = time.monotonic() + _START_SECONDS
                while not port_file.exists() or not _listens(int(port_file.read_text())):
                    if server.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"the stand-in did not start: {log.read_text()[-2000:]}")
                    time.sleep(0.05)
                yield SnowflakeStandIn(int(port_file.read_text()))
            finally:
                server.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
