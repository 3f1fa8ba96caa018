"""Whatever a person does with a deployment, in whatever order: after a delta of an endpoint the warehouse holds what the ODS does.

What cannot be known is not done: a restore is followed by a run before the ODS has counted beyond where it was (a
restore that nobody sees is what the drift check is for), and no backup is taken while work is open.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edfi_dagster.checks.counts import counted_and_compared
from edfi_dagster.checks.resync import resync
from edfi_dagster.extract.comparison import Comparison
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.assets.runs import run as run_in_dagster
from edfi_dagster_tests.bench import ODS, PAIR, Bench, failures, write_config
from edfi_dagster_tests.chaos.campaign import check_contract
from edfi_dagster_tests.extract.district import DESCRIPTORS, ENDPOINTS, District

DEEDS = (
    "add",
    "update",
    "remove",
    "recreate",
    "rekey",
    "rename_session",
    "rename_room",
    "swap_keys",
    "recreate_plan_type",
    "begin",
    "end",
)
SOME = st.lists(st.sampled_from([*ENDPOINTS, *DESCRIPTORS]), min_size=1, max_size=4, unique=True)
VERSIONS = [pytest.param(version, marks=pytest.mark.ods(version)) for version in ("7.3", "6.1", "5.3")]
QUICK = VERSIONS[:1]


class Deployment(RuleBasedStateMachine):
    """One tenant and year, its ODS, its lake and its warehouse; nothing else is going on while it is looked at."""

    def __init__(self, server: SandboxServer, *, dagster: bool = False) -> None:
        super().__init__()
        self.server, self.store, self.dagster = server, server.store(ODS), dagster
        self.stack = ExitStack()
        self.rebuilds = 0
        self.stored = False

    @initialize(overlap=st.sampled_from([1_000, 0]), page_size=st.sampled_from([5, 50]))
    def set_up(self, overlap: int, page_size: int) -> None:
        self.store.restore("first")
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        options: dict[str, Any] = {"page_size": page_size, "num_retries": 1, "change_version_step_size": 10}
        config = write_config(
            folder,
            self.server,
            ENDPOINTS,
            DESCRIPTORS,
            endpoint_defaults=options,
            change_version_overlap=overlap,
            max_concurrent_requests=4,
        )
        self.overlap = overlap
        self.bench = Bench(config, self.server)
        self.connected = self.stack.enter_context(ExitStack())
        self.connected.enter_context(self.bench.warehouse.connected())
        self.district = District(self.store, 1, overlap=overlap)
        self.store.save("backup")

    def teardown(self) -> None:
        self.stack.close()

    # -- in the ODS ---------------------------------------------------------------------------------------

    @rule(
        deeds=st.lists(st.sampled_from(DEEDS), min_size=3, max_size=12),
        count_far_ahead=st.booleans(),
        back_up=st.booleans(),
    )
    def work(self, deeds: Sequence[str], count_far_ahead: bool, back_up: bool) -> None:
        """Write; with nothing open the sequence may run ahead, so that no later window mends what was lost before."""
        for deed in deeds:
            self.district.attempt(deed)
        if count_far_ahead and not self.district.open:
            self.store.take_numbers(self.store.endpoint("students"), self.overlap + 1)
        if back_up and not self.district.open:
            self.store.save("backup")

    @rule()
    def restore(self) -> None:
        """The ODS's database is put back, which the next run must notice."""
        self.store.restore("backup")
        self.district.open.clear()
        self.delta()

    # -- runs ---------------------------------------------------------------------------------------------

    @rule()
    def delta(self) -> None:
        self._commit_in_time()
        self.bench.materialize()
        self.stored = False
        self._verify()

    @rule()
    def full_refresh(self) -> None:
        self._commit_in_time()
        self.bench.materialize(full_refresh=True)
        self.stored = False
        self._verify()

    @rule(names=SOME, full_refresh=st.booleans())
    def some_endpoints(self, names: Sequence[str], full_refresh: bool) -> None:
        self._commit_in_time()
        self.bench.materialize(names, full_refresh=full_refresh)
        self._verify(names)

    @rule(names=SOME, full_refresh=st.booleans())
    def store_without_loading(self, names: Sequence[str], full_refresh: bool) -> None:
        self._commit_in_time()
        before = self.bench.state()
        self.bench.materialize(names, load=False, full_refresh=full_refresh)
        assert self.bench.state() == before
        self.stored = True

    @precondition(lambda self: self.stored)
    @rule(names=SOME)
    def load_what_is_stored(self, names: Sequence[str]) -> None:
        """Tables alone: what they hold then is as old as what was stored; the delta after it mends that."""
        found = self.bench.load_stored(names)
        assert not any(result.table_changed for name, result in found.items() if name not in names)

    @rule()
    def rebuild(self) -> None:
        """Another warehouse from the lake: the same rows, unless more was stored than loaded."""
        before = self.bench.state()[0]
        self.rebuilds += 1
        with self._let_go():
            results = self.bench.rebuild(f"rebuilt{self.rebuilds}")
        assert not failures(results)
        if not self.stored:
            assert self.bench.state()[0] == before
        self.delta()

    @rule()
    def resync(self) -> None:
        self._commit_in_time()

        def pull(endpoints: Sequence[Endpoint], full_refresh: bool) -> Sequence[str]:
            found = self.bench.materialize(endpoints, full_refresh=full_refresh, may_fail=True).values()
            return [cause for result in found for cause in result.failures.values()]

        def compare(endpoints: Sequence[Endpoint]) -> Sequence[Comparison]:
            told = self.bench.told.append
            return counted_and_compared(self.bench.platform, PAIR, endpoints, tell=told, warn=told)

        with self._let_go():
            done = resync(PAIR, self.bench.endpoints, pull, compare)
        assert done.is_equal, done.sentence
        assert not done.refreshed
        self.stored = False
        self._verify()

    @precondition(lambda self: self.dagster)
    @rule(full_refresh=st.booleans())
    def run_on_a_new_instance(self, full_refresh: bool) -> None:
        """As after the instance was wiped: nothing of the data depends on it."""
        self._commit_in_time()
        with self._let_go(), dg.DagsterInstance.ephemeral() as instance:
            assert run_in_dagster(self.bench, instance, full_refresh=full_refresh).success
        self.stored = False
        self._verify()

    # -- what must hold -----------------------------------------------------------------------------------

    @invariant()
    def watermarks_are_committed(self) -> None:
        """No watermark is beyond the ODS, nor is there one of an endpoint without a committed pull."""
        if hasattr(self, "bench"):
            assert all(version <= self.store.newest for version in self.bench.watermarks().values())

    @contextmanager
    def _let_go(self) -> Iterator[None]:
        """Close the warehouse, which is else held open through all rules, for whoever opens it by itself."""
        self.connected.close()
        yield
        self.connected.enter_context(self.bench.warehouse.connected())

    def _commit_in_time(self) -> None:
        """What is open is committed before the windows have left it behind."""
        self.district.end_all(until=self.store.newest - self.overlap)

    def _verify(self, names: Iterable[str] | None = None) -> None:
        self.bench.verify(names)
        if names is None:
            check_contract(self.bench)
            kinds = (
                {"records", "deletes", "key_changes"}
                if self.store.generation.key_changes
                else {"records", "deletes"}
            )
            marks = self.bench.watermarks()
            assert {kind for name, kind in marks if name == "students"} == kinds
            assert set(marks.values()) == {self.store.newest}


def explore(
    server: SandboxServer, examples: int, steps: int, *, seed: bool = False, dagster: bool = False
) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Deployment(server, dagster=dagster),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=not seed,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink) if seed else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("version", QUICK)
def test_any_order_of_operations_ends_with_what_the_ods_holds(sandbox: SandboxServer, version: str) -> None:
    explore(sandbox, examples=2, steps=10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", VERSIONS)
def test_many_orders_of_operations_end_with_what_the_ods_holds(sandbox: SandboxServer, version: str) -> None:
    explore(sandbox, examples=60, steps=30, seed=True, dagster=True)
