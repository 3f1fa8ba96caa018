"""Sandboxes for all tests that pull, put back to their first state before each; a platform on one for each test.

``@pytest.mark.ods("6.1", mode="year_specific")`` chooses what the sandbox of a test speaks; 7.3 without it.
``@pytest.mark.both_storages`` runs a test on the embedded lake and warehouse, and (slow) on S3 and Snowflake;
``@pytest.mark.storage("production")`` on those alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import dagster as dg
import pytest
from botocore.loaders import create_loader

from edfi_dagster.lake.store import LocalLake
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import KEY_VARIABLE, ODS, SECRET_VARIABLE, Bench, write_config
from edfi_dagster_tests.lake.s3_server import KEY as S3_KEY
from edfi_dagster_tests.lake.s3_server import KEY_VARIABLE as S3_KEY_VARIABLE
from edfi_dagster_tests.lake.s3_server import SECRET as S3_SECRET
from edfi_dagster_tests.lake.s3_server import SECRET_VARIABLE as S3_SECRET_VARIABLE
from edfi_dagster_tests.lake.s3_server import Bucket, running_s3
from edfi_dagster_tests.warehouse.snowflake_stand_in import SnowflakeStandIn, serving_snowflake

OpenSandbox = Callable[[str, str | None], SandboxServer]


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[OpenSandbox]:
    """One server for each version and API mode, started when a test first asks for it."""
    with ExitStack() as running:

        @cache
        def of(version: str, mode: str | None) -> SandboxServer:
            server = SandboxServer([ODS], rows={"students": 16}, ods_version=version, mode=mode)
            running.enter_context(server)
            server.store(ODS).save("first")
            return server

        yield of


@pytest.fixture
def sandbox(
    request: pytest.FixtureRequest, running_sandbox: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SandboxServer]:
    wanted = request.node.get_closest_marker("ods")
    version = wanted.args[0] if wanted else "7.3"
    server = running_sandbox(version, wanted.kwargs.get("mode") if wanted else None)
    monkeypatch.setenv(KEY_VARIABLE, server.credentials[0])
    monkeypatch.setenv(SECRET_VARIABLE, server.credentials[1])
    store = server.store(ODS)
    store.restore("first")
    server.requests.clear()
    yield server
    server.faults.clear()
    for hooks in (server.before_request, server.after_response, server.between_reads):
        hooks.clear()
    server.latency = 0.0
    store.drop_snapshot()
    store.oddities.clear()
    store.cascade_bumps = store.generation.cascades_bump
    for refused in (store.denied_reads, store.denied_changes, store.withdrawn):
        refused.clear()
    store.hidden.clear()


@pytest.fixture
def make_bench(sandbox: SandboxServer, tmp_path: Path, storage: dict[str, Any]) -> Callable[..., Bench]:
    """``make_bench(*endpoints, descriptors=(), year={}, **extract options)``."""

    def make(*endpoints: str, descriptors: tuple[str, ...] = (), **options: Any) -> Bench:
        return Bench(
            write_config(tmp_path, sandbox, endpoints, descriptors, **{**storage, **options}), sandbox
        )

    return make


# -- Dagster --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """One for the module: making its tables takes longer than most tests."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("instance"))) as instance:
        yield instance


@pytest.fixture
def instance(shared_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """An instance of Dagster without a run or tick."""
    shared_instance.wipe()
    assert shared_instance.schedule_storage
    shared_instance.schedule_storage.wipe()
    return shared_instance


# -- lake and warehouse ---------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("both_storages"):
        production = pytest.param("production", marks=pytest.mark.slow)
        metafunc.parametrize("storage", ["embedded", production], indirect=True)


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The ``lake`` and ``warehouse`` blocks of a platform, where they are not a folder and a DuckDB file."""
    marked = request.node.get_closest_marker("storage")
    kind = getattr(request, "param", marked.args[0] if marked else "embedded")
    return {} if kind == "embedded" else request.getfixturevalue("production")


@pytest.fixture
def production(bucket: Bucket, snowflake: SnowflakeStandIn, database: str) -> dict[str, Any]:
    """A bucket of a real S3 server, and the real connector on the stand-in for Snowflake, whose stage is the bucket."""
    root = f"s3://{bucket.name}/edfi"
    snowflake.external_stage("RAW.UTIL.AIRFLOW_STAGE", root, **bucket.access())
    return {"lake": bucket.document(prefix="edfi"), "warehouse": snowflake.block(database)}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    with running_s3() as url, pytest.MonkeyPatch.context() as patch:
        # Every new client would parse botocore's description of S3 again, which is most of the time of these tests.
        patch.setattr(botocore.session, "create_loader", cache(create_loader))
        yield url


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket; its keys are in the environment, and none that this machine may have."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv(S3_KEY_VARIABLE, S3_KEY)
    monkeypatch.setenv(S3_SECRET_VARIABLE, S3_SECRET)
    return Bucket(s3_server)


@pytest.fixture(scope="session")
def snowflake() -> Iterator[SnowflakeStandIn]:
    with serving_snowflake() as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def used_database(snowflake: SnowflakeStandIn, tmp_path_factory: pytest.TempPathFactory) -> str:
    database = snowflake.new_database()
    with closing(snowflake.warehouse(database, LocalLake(tmp_path_factory.mktemp("lake")))) as warehouse:
        warehouse.setup([])  # the stage of a local lake too, whichever lake the first test has
    return database


@pytest.fixture
def database(snowflake: SnowflakeStandIn, used_database: str) -> Iterator[str]:
    """A database of the stand-in whose tables, made by earlier tests, are empty."""
    snowflake.forget()
    snowflake.empty(used_database)
    yield used_database
    snowflake.check()
