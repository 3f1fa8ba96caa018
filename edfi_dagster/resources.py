"""What a run is given: how it shall run, and the ODS, lake and warehouse of its tenant and year."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import dagster as dg
from pydantic import Field

from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.config.warehouse import DuckDBWarehouse as DuckDBConfig
from edfi_dagster.extract import Job
from edfi_dagster.lake.store import LakeStore, open_lake
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox.shared import shared_sandbox
from edfi_dagster.warehouse.contract import RawTable, Warehouse
from edfi_dagster.warehouse.duckdb import DuckDBWarehouse

SANDBOX_SCHEME = "sandbox://"


class EdfiRun(dg.ConfigurableResource):  # type: ignore[type-arg]
    """How one run behaves: ``resources.edfi_run.config`` in the launchpad."""

    full_refresh: bool = Field(
        default=False,
        description="Pull everything that is selected again and replace it in the warehouse, deletes included.",
    )


def open_warehouse(platform: Platform, lake: LakeStore, tell: Callable[[str], None]) -> Warehouse:
    """The platform's warehouse. Raises ConfigError for one that cannot be opened yet."""
    config = platform.warehouse
    if isinstance(config, DuckDBConfig):
        return DuckDBWarehouse(config.path, config.schema_name, platform.tables, lake, waiting=tell)
    raise ConfigError(
        f"{platform.source}: warehouse.kind: {config.kind} cannot be loaded yet; write kind: duckdb"
    )


def prepare_warehouse(warehouse: Warehouse, endpoints: tuple[Endpoint, ...]) -> list[str]:
    """Make what is missing of the raw tables of ``endpoints``; the names of the tables made."""
    tables = {e.snake: RawTable(e.snake, tuple(e.key.values())) for e in endpoints if not e.is_descriptor}
    return warehouse.prepare(list(tables.values()))


@contextmanager
def open_session(
    platform: Platform, pair: TenantYear, *, max_concurrent_requests: int | None = None
) -> Iterator[OdsSession]:
    """The pair's ODS; a ``sandbox://`` one is started when nobody runs it, and ends with its last user."""
    settings = platform.ods(pair)
    if max_concurrent_requests is not None:
        extract = replace(settings.extract, max_concurrent_requests=max_concurrent_requests)
        settings = replace(settings, extract=extract)
    _refuse_unsupported(platform, pair)
    if not settings.base_url.startswith(SANDBOX_SCHEME):
        yield from _closing(OdsSession(settings, pair))
        return
    with open_sandbox(platform) as url:
        base_url = f"{url}/{settings.base_url.removeprefix(SANDBOX_SCHEME)}"
        yield from _closing(OdsSession(settings, pair, base_url=base_url))


@contextmanager
def open_sandbox(platform: Platform) -> Iterator[str]:
    """The URL of the sandbox that serves every ``sandbox://`` ODS of the platform."""
    urls = [platform.ods(pair).base_url for pair in platform.pairs()]
    ods = [url.removeprefix(SANDBOX_SCHEME) for url in urls if url.startswith(SANDBOX_SCHEME)]
    with shared_sandbox(platform.folder / ".dagster" / "embedded" / "sandbox", ods) as url:
        yield url


@contextmanager
def open_job(
    platform: Platform,
    pair: TenantYear,
    endpoints: tuple[Endpoint, ...],
    *,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
) -> Iterator[Job]:
    """Everything a run of one pair works with, its raw tables in place."""
    with open_session(platform, pair) as session:
        lake = open_lake(platform.lake)
        warehouse = open_warehouse(platform, lake, tell)
        prepare_warehouse(warehouse, endpoints)
        if platform.extract.run_type != "bulk":
            warn(
                f"run_type {platform.extract.run_type} is not built yet; this run is a bulk one, with the same rows after it"
            )
        yield Job(platform, pair, session, lake, warehouse, tell, warn)


def _closing(session: OdsSession) -> Iterator[OdsSession]:
    try:
        yield session
    finally:
        session.close()


def _refuse_unsupported(platform: Platform, pair: TenantYear) -> None:
    """Options whose part is not built yet are refused: ignoring one would pull other data than was asked for."""
    settings = platform.ods(pair)
    for option, wanted, instead in (("pull_total_counts", settings.extract.pull_total_counts, "false"),):
        if wanted:
            raise ConfigError(
                f"{platform.source}: {option}: {'false' if instead == 'true' else 'true'} is not supported yet for "
                f"{pair}; write {option}: {instead}"
            )
