"""A run in a process of its own, which can kill itself at one place."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path
from typing import Any

from edfi_dagster_tests.bench import KEY_VARIABLE, SECRET_VARIABLE, Bench, failures
from edfi_dagster_tests.lake import s3_server
from edfi_dagster_tests.warehouse import snowflake_stand_in

# Children fork from a process that has imported everything and runs no threads.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])
_CREDENTIALS = (
    KEY_VARIABLE,
    SECRET_VARIABLE,
    s3_server.KEY_VARIABLE,
    s3_server.SECRET_VARIABLE,
    snowflake_stand_in.SECRET_VARIABLE,
)


@dataclass(frozen=True)
class Orders:
    """``kill`` names a function (``package.module:Class.method``); the process ends at its ``nth`` call,
    before it or ``after`` it. ``largest_file`` limits every file it writes, in bytes."""

    full_refresh: bool = False
    kill: str = ""
    nth: int = 1
    after: bool = False
    largest_file: int = 0
    rebuild: str = ""


class Child:
    """A started run. ``end`` waits for it: exit status (negative: the signal) and what it said."""

    def __init__(self, config: Path, orders: Orders) -> None:
        self._said, says = _processes.Pipe(duplex=False)
        credentials = {name: os.environ[name] for name in _CREDENTIALS if name in os.environ}
        self._process = _processes.Process(target=_main, args=(config, orders, credentials, says))
        self._process.start()
        says.close()

    def end(self) -> tuple[int, str]:
        try:
            said = str(self._said.recv())
        except EOFError:
            said = ""
        self._process.join(60)
        status = self._process.exitcode
        assert status is not None
        self._process.close()
        self._said.close()
        return status, said


def run(config: Path, orders: Orders) -> tuple[int, str]:
    return Child(config, orders).end()


def arm(orders: Orders) -> None:
    """Let this process end at the place its orders name."""
    module, _, path = orders.kill.partition(":")
    *owners, name = path.split(".")
    owner: Any = attrgetter(".".join(owners))(import_module(module)) if owners else import_module(module)
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @wraps(real)
    def armed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if not orders.after:
            calls += 1
            if calls == orders.nth:
                os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if orders.after:  # a call that was refused is none
            calls += 1
            if calls == orders.nth:
                os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, armed)


def _main(config: Path, orders: Orders, credentials: dict[str, str], says: Connection) -> None:
    os.environ.update(credentials)
    try:
        bench = Bench(config)
        if orders.kill:
            arm(orders)
        if orders.largest_file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (orders.largest_file, resource.RLIM_INFINITY))
        if orders.rebuild:
            results = bench.rebuild(orders.rebuild)
        else:
            results = bench.materialize(full_refresh=orders.full_refresh, may_fail=True)
        says.send(f"{failures(results)} {bench.told}")
    except BaseException:
        says.send(traceback.format_exc())
        raise
