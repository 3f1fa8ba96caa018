"""A running sandbox: in a thread of this process (``SandboxServer``) or as a process (``serve``)."""

from __future__ import annotations

import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import uvicorn

from edfi_dagster.sandbox.addresses import AddressBook
from edfi_dagster.sandbox.app import App
from edfi_dagster.sandbox.database import connect
from edfi_dagster.sandbox.faults import Faults
from edfi_dagster.sandbox.generate import populate
from edfi_dagster.sandbox.generations import NEWEST, generation
from edfi_dagster.sandbox.site import Hook, Requests, Settings, Site
from edfi_dagster.sandbox.store import Store

DEFAULT_ODS = ("grand_bend/2025", "grand_bend/2026", "lakeview/2025", "lakeview/2026")
# Generated districts kept by this process: test suites start the same small ones over and over.
_TEMPLATES: dict[tuple[str, str, int, tuple[tuple[str, int], ...]], sqlite3.Connection] = {}
MOST_TEMPLATES = 16
LARGEST_TEMPLATE = 20_000


class SandboxServer:
    """A sandbox on 127.0.0.1, as a context manager.

    ``ods`` lists the ODSs served: ``tenant/year`` each, or ``""`` for one without prefix. ``rows`` sets
    numbers of rows by endpoint; ``students`` scales most others. With ``data_dir`` each ODS is a
    SQLite file there that survives restarts (and is generated only once); else it lives in memory.
    ``ods_version`` is one of ``generations.GENERATIONS``; ``mode`` the API mode of a version before 7.0,
    which says where tenant and year stand in the paths (see ``addresses.AddressBook``). ``max_page`` is
    the host's limit of rows per page. Hooks in ``before_request``, ``after_response`` and ``between_reads`` (between
    the choice of a page's rows and their reading) run in the server's thread, in the order of requests;
    they may use the stores but must not send requests to this server.
    Raises ``ValueError`` for an unknown version, or a mode that version or names do not fit.
    """

    def __init__(
        self,
        ods: Sequence[str] = DEFAULT_ODS,
        *,
        seed: int = 1,
        rows: Mapping[str, int] | None = None,
        data_dir: Path | str | None = None,
        port: int = 0,
        token_seconds: int = 1800,
        max_page: int | None = None,
        latency: float = 0.0,
        ods_version: str = NEWEST.version,
        mode: str | None = None,
    ) -> None:
        spoken = generation(ods_version)
        AddressBook(ods, spoken, mode)  # refuses a wrong mode before anything is generated
        settings = Settings(max_page or spoken.page_limit, token_seconds, latency=latency)
        stores = [open_store(name, seed, rows, data_dir, ods_version) for name in ods]
        self.site = Site(stores, settings, seed, spoken, mode)
        self._port = port
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    # what tests look at ---------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The root of the site; ``url_of`` tells where an ODS is."""
        return f"http://127.0.0.1:{self.port}"

    def url_of(self, ods: str) -> str:
        """The base URL that a client of an ODS is configured with. Raises ``KeyError`` for an unknown ODS."""
        return "/".join((self.url, *self.site.book.addresses[ods].base))

    @property
    def port(self) -> int:
        if self._socket is None:
            raise RuntimeError("the sandbox is not running")
        return int(self._socket.getsockname()[1])

    @property
    def credentials(self) -> tuple[str, str]:
        """Key and secret, the same for every ODS."""
        return self.site.settings.key, self.site.settings.secret

    def store(self, ods: str | None = None) -> Store:
        """The store of an ODS; of the only one without a name. Raises ``KeyError``."""
        if ods is None:
            (ods,) = self.site.stores
        return self.site.stores[ods]

    @property
    def faults(self) -> Faults:
        return self.site.faults

    @property
    def requests(self) -> Requests:
        return self.site.requests

    @property
    def before_request(self) -> list[Hook]:
        return self.site.before_request

    @property
    def after_response(self) -> list[Hook]:
        return self.site.after_response

    @property
    def between_reads(self) -> list[Hook]:
        return self.site.between_reads

    @property
    def latency(self) -> float:
        """Seconds added to each request."""
        return self.site.settings.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self.site.settings.latency = seconds

    def route(self, key: str, ods: str, to: str) -> None:
        """Let ``key``, with the usual secret, open ``to`` at the address of ``ods``, as a host's routing by key does."""
        self.site.tokens(self.site.stores[ods]).routes[key] = to

    def expire_tokens(self) -> None:
        """End every token now."""
        self.site.expire_tokens()

    # running --------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Serve. Raises ``OSError`` if the port is taken."""
        self._socket = _listen(self._port)
        self._server = uvicorn.Server(_config(self.site))
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="sandbox", daemon=True
        )
        self._thread.start()
        _wait_until_started(self._server, self._thread)
        return self

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=10)
        if self._socket is not None:
            self._socket.close()
        for store in self.site.stores.values():
            store.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def open_store(
    name: str,
    seed: int,
    rows: Mapping[str, int] | None,
    data_dir: Path | str | None,
    ods_version: str = NEWEST.version,
) -> Store:
    """The store of one ODS, filled if it is new. Raises ``KeyError`` for an unknown endpoint in ``rows``."""
    path = None
    if data_dir is not None:
        Path(data_dir).mkdir(parents=True, exist_ok=True)
        version = "" if ods_version == NEWEST.version else f"-{ods_version}"
        path = Path(data_dir) / f"{name.replace('/', '__') or 'default'}{version}.sqlite"
    store = Store(name, path=path, ods_version=ods_version)
    if store.is_complete:
        return store
    if path is not None and store.counts():
        store.close()
        for part in path.parent.glob(f"{path.name}*"):
            part.unlink()
        store = Store(name, path=path, ods_version=ods_version)
    template = (ods_version, name, seed, tuple(sorted((rows or {}).items())))
    if template in _TEMPLATES:
        store.copy_from(_TEMPLATES[template])
        return store
    populate(store, seed=seed, rows=rows or {})
    store.mark_complete()
    if len(_TEMPLATES) < MOST_TEMPLATES and store.newest < LARGEST_TEMPLATE:
        _TEMPLATES[template] = connect(None)
        store.connection.backup(_TEMPLATES[template])
    return store


def serve(
    ods: Sequence[str] = DEFAULT_ODS,
    *,
    port: int = 0,
    port_file: Path | None = None,
    rows: Mapping[str, int] | None = None,
    seed: int = 1,
    data: Path | None = None,
    ods_version: str = NEWEST.version,
    mode: str | None = None,
    latency_ms: float = 0.0,
    max_page: int | None = None,
    token_seconds: int = 1800,
) -> None:
    """Serve until SIGTERM or SIGINT; the command behind ``python -m edfi_dagster.sandbox``.

    Prints one line with URL, key and secret. ``port_file`` receives the port, written whole once the
    server answers. Raises ``OSError`` if the port is taken, ``ValueError`` for an unknown version.
    """
    server = SandboxServer(
        ods,
        seed=seed,
        rows=rows,
        data_dir=data,
        port=port,
        token_seconds=token_seconds,
        max_page=max_page,
        latency=latency_ms / 1000,
        ods_version=ods_version,
        mode=mode,
    )
    stopped = _stop_signal()
    with server:
        key, secret = server.credentials
        roots = " ".join(server.url_of(name) for name in server.site.stores)
        print(f"sandbox ODS/API {ods_version} at {server.url} key={key} secret={secret} base_url: {roots}")
        sys.stdout.flush()
        if port_file is not None:
            _write_whole(port_file, str(server.port))
        while not stopped.wait(0.5):
            pass


def _stop_signal() -> threading.Event:
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopped


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener


def _config(site: Site) -> uvicorn.Config:
    return uvicorn.Config(
        App(site),
        lifespan="off",
        ws="none",
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
        backlog=512,
    )


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the sandbox could not start")
        time.sleep(0.002)
