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
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster_tests.assets.runs import run as run_in_dagster
from edfi_dagster_tests.bench import (
    KEY_VARIABLE,
    ODS,
    PAIR,
    SECRET_VARIABLE,
    Bench,
    failures,
    write_config,
)
from edfi_dagster_tests.chaos.campaign import check_contract
from edfi_dagster_tests.chaos.ods import OTHER_ODS
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

    @rule(run=st.sampled_from(["delta", "dynamic_delta"]))
    def restore(self, run: str) -> None:
        """The ODS's database is put back, which the next run must notice, whatever its run type."""
        self.store.restore("backup")
        self.district.open.clear()
        getattr(self, run)()

    # -- runs ---------------------------------------------------------------------------------------------

    @rule()
    def delta(self) -> None:
        self._commit_in_time()
        self.bench.materialize()
        self.stored = False
        self._verify()

    @rule()
    def dynamic_delta(self) -> None:
        """Only the endpoints that the ODS counts news of, as ``run_type: dynamic`` selects them."""
        self._commit_in_time()
        if changed := self.bench.forecast():
            self.bench.materialize(changed)
        self._verify([endpoint.path for endpoint in self.bench.endpoints])

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

    # -- mistakes that are put right ------------------------------------------------------------------------

    @rule()
    def other_ods(self) -> None:
        """The address of another ODS: its rows come, and leave when the address is right again."""
        self._commit_in_time()
        self._configure_year(base_url=self.server.url_of(OTHER_ODS))
        self.bench.ods = OTHER_ODS
        self.bench.materialize()
        self.bench.verify()
        self._configure_year(base_url=self.server.url_of(ODS))
        self.bench.ods = ODS
        self.delta()

    @rule(
        option=st.sampled_from(
            [{"query_parameters": {"maximumNumberOfSeats": "1"}}, {"fetch_deletes": False}]
        )
    )
    def other_options(self, option: dict[str, Any]) -> None:
        """A filter, or no deletes, for a while in which records are changed and deleted."""
        self._commit_in_time()
        self._configure_endpoint("locations", option)
        self.bench.materialize()
        for deed in ("add", "remove", "rekey", "remove"):
            self.district.attempt(deed)
        self._commit_in_time()
        self.bench.materialize()
        self.bench.verify(["locations"] if "fetch_deletes" in option else ["students"])
        self._configure_endpoint("locations", {})
        self.delta()

    @rule(status=st.sampled_from([403, 404]), page=st.sampled_from(["", "gateway", "firewall", "kong"]))
    def id_unreadable_once(self, status: int, page: str) -> None:
        self._commit_in_time()
        self.server.faults.add("/[0-9a-f]{32}$", times=1, **({"page": page} if page else {"status": status}))
        self.bench.materialize(may_fail=True)
        self.server.faults.clear()
        self.delta()

    @rule()
    def rename_deletes(self) -> None:
        """A shared table gets another name in the configuration: refused until the table has it too."""
        names = {"_deletes": "_tombstones", "_tombstones": "_deletes"}
        was = self.bench.platform.tables.deletes
        has_rows = bool(self.bench.query(f"SELECT 1 FROM edfi3.{was} LIMIT 1"))
        with self._let_go():
            try:
                self.bench.configure(lambda document: document.update(tables={"deletes": names[was]}))
                assert not has_rows
            except WarehouseError as error:
                assert has_rows, error
                with self.bench.warehouse.connected() as connection:
                    new = connection.table(names[was])
                    connection.run(f"DROP TABLE IF EXISTS {new}")
                    connection.run(connection.renaming(was, names[was]))
                self.bench.configure(lambda document: None)
        self.delta()

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

    def _configure_year(self, **values: Any) -> None:
        with self._let_go():
            self.bench.configure_year(**values)

    def _configure_endpoint(self, name: str, options: dict[str, Any]) -> None:
        with self._let_go():
            self.bench.configure(lambda document: document["extract"]["resources"].update({name: options}))

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


@pytest.fixture
def districts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """Two ODSs on one host; people work in the first, and the second is what a wrong address leads to."""
    version = request.node.get_closest_marker("ods").args[0]
    with SandboxServer([ODS, OTHER_ODS], rows={"students": 16}, ods_version=version) as server:
        monkeypatch.setenv(KEY_VARIABLE, server.credentials[0])
        monkeypatch.setenv(SECRET_VARIABLE, server.credentials[1])
        server.store(ODS).save("first")
        yield server


@pytest.mark.parametrize("version", QUICK)
def test_any_order_of_operations_ends_with_what_the_ods_holds(districts: SandboxServer, version: str) -> None:
    explore(districts, examples=2, steps=10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", VERSIONS)
def test_many_orders_of_operations_end_with_what_the_ods_holds(
    districts: SandboxServer, version: str
) -> None:
    explore(districts, examples=60, steps=30, seed=True, dagster=True)
