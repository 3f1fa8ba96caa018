"""What a run is given: how it shall run, and the ODS, lake and warehouse of its tenant and year."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field, PrivateAttr

from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.extract import Job, SharedExtract
from edfi_dagster.lake.store import open_lake
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox.embedded import base_urls
from edfi_dagster.warehouse.opening import open_warehouse, tables_of

T = TypeVar("T")


class EdfiRun(dg.ConfigurableResource):  # type: ignore[type-arg]
    """How one run behaves: ``resources.edfi_run.config`` in the launchpad."""

    full_refresh: bool = Field(
        default=False,
        description="Pull everything that is selected again and replace it in the warehouse, deletes included.",
    )
    _shared: Any = PrivateAttr(default=None)

    def shared(self, start: Callable[[], tuple[T, SharedExtract]]) -> tuple[T, SharedExtract]:
        """The extract that the steps of this run share; the first of them starts it."""
        if self._shared is None:
            self._shared = start()
        found: tuple[T, SharedExtract] = self._shared
        return found

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._shared is not None:
            self._shared[1].stop()


@contextmanager
def open_session(
    platform: Platform, pair: TenantYear, *, max_concurrent_requests: int | None = None
) -> Iterator[OdsSession]:
    """The pair's ODS; a ``sandbox://`` one is started when nobody runs it, and ends with its last user."""
    settings = platform.ods(pair)
    if max_concurrent_requests is not None:
        extract = replace(settings.extract, max_concurrent_requests=max_concurrent_requests)
        settings = replace(settings, extract=extract)
    with (
        base_urls(platform, [pair]) as urls,
        closing(OdsSession(settings, pair, base_url=urls[pair])) as session,
    ):
        yield session


@contextmanager
def open_job(
    platform: Platform,
    pair: TenantYear,
    endpoints: tuple[Endpoint, ...],
    *,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
    run_id: str = "",
) -> Iterator[Job]:
    """Everything a run of one pair works with, its raw tables in place."""
    lake = open_lake(platform.lake, platform.extract.tmp_dir)
    tag = {"tenant": pair.tenant, "year": pair.year, "run": run_id}
    warehouse = open_warehouse(platform, lake, tell, tag=tag)
    with closing(warehouse), open_session(platform, pair) as session:
        warehouse.prepare(tables_of(endpoints))
        yield Job(platform, pair, session, lake, warehouse, tell, warn)


def store_resources(platform: Platform) -> dict[str, dg.ResourceDefinition]:
    """The libraries' own resources on the platform's lake and warehouse, for assets downstream of the raw tables.

    ``s3`` (dagster_aws.s3.S3Resource) and ``snowflake`` (dagster_snowflake.SnowflakeResource), where the configuration
    has these; secrets are read when a run asks for them, so nothing is configured twice.
    """
    found = {}
    if platform.lake.kind == "s3":
        found["s3"] = dg.ResourceDefinition(lambda _: _s3(platform), description="The lake's S3.")
    if platform.warehouse.kind == "snowflake":
        found["snowflake"] = dg.ResourceDefinition(
            lambda _: _snowflake(platform), description="The warehouse."
        )
    return found


def _s3(platform: Platform) -> dg.ConfigurableResource[Any]:
    from dagster_aws.s3 import S3Resource

    lake = platform.lake
    assert lake.kind == "s3"
    return S3Resource(
        region_name=lake.region,
        endpoint_url=lake.endpoint_url,
        aws_access_key_id=lake.access_key_id.read() if lake.access_key_id else None,
        aws_secret_access_key=lake.secret_access_key.read() if lake.secret_access_key else None,
    )


def _snowflake(platform: Platform) -> dg.ConfigurableResource[Any]:
    from dagster_snowflake import SnowflakeResource

    from edfi_dagster.warehouse.snowflake_sign_in import connection_options

    config = platform.warehouse
    assert config.kind == "snowflake"
    options = connection_options(config, {"run": "downstream assets"})
    named = {"authenticator": options.pop("authenticator")} if "authenticator" in options else {}
    named |= {name: options.pop(name) for name in ("account", "user", "password") if name in options}
    return SnowflakeResource(**named, additional_snowflake_connection_args=options)
