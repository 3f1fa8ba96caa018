"""An instance of Dagster, its tables empty, for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from edfi_dagster_tests.bench import Bench

MakeBench = Callable[..., Bench]


@pytest.fixture(scope="module")
def shared_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """One for the module: making its tables takes longer than most tests."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("instance"))) as instance:
        yield instance


@pytest.fixture
def instance(shared_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    shared_instance.wipe()
    assert shared_instance.schedule_storage
    shared_instance.schedule_storage.wipe()
    return shared_instance
