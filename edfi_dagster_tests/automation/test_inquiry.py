"""Asking many ODSs within the time of a tick, and over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from edfi_dagster.automation.inquiry import Inquiry, OdsSessions
from edfi_dagster.config import ConfigError, TenantYear
from edfi_dagster.ods.errors import OdsDown
from edfi_dagster_tests.bench import PAIR, SECRET_VARIABLE, Bench

PAIRS = [TenantYear(f"tenant_{n}", 2025) for n in range(6)]


@contextmanager
def hanging(*pairs: TenantYear) -> Iterator[tuple[Callable[[TenantYear], int | None], list[TenantYear]]]:
    """An ``ask`` that gives no answer for ``pairs`` until the block ends, and whom it was asked for."""
    released, asked = threading.Event(), []

    def ask(pair: TenantYear) -> int:
        asked.append(pair)
        if pair in pairs:
            released.wait()
        return 1

    try:
        yield ask, asked
    finally:
        released.set()


def test_all_are_asked_side_by_side() -> None:
    together = threading.Barrier(len(PAIRS), timeout=5)

    def ask(pair: TenantYear) -> int:
        together.wait()
        return pair.year

    assert Inquiry(ask, seconds=5).answers(PAIRS).newest == dict.fromkeys(PAIRS, 2025)


def test_time_is_bounded_whoever_hangs() -> None:
    with hanging(PAIRS[0]) as (ask, _):
        began = time.monotonic()
        found = Inquiry(ask, seconds=0.3).answers(PAIRS)
        assert time.monotonic() - began < 3
    assert set(found.newest) == set(PAIRS[1:])
    assert found.silent == {PAIRS[0]: "tenant_0/2025: no answer in 0.3 s"}


def test_who_had_no_turn_is_first_at_the_next_tick_and_who_hangs_is_not_asked_twice() -> None:
    with hanging(PAIRS[0], PAIRS[1]) as (ask, asked):
        inquiry = Inquiry(ask, seconds=0.3, threads=2)
        first = inquiry.answers(PAIRS)
        assert first.newest == {}
        assert first.unasked == PAIRS[2:]
        asked.clear()
        second = inquiry.answers(PAIRS)
        assert set(second.newest) == set(PAIRS[2:])
        assert set(asked) == set(PAIRS[2:])
        assert set(second.silent.values()) == {
            f"{pair}: still waits for an answer of an earlier tick" for pair in PAIRS[:2]
        }
    time.sleep(0.1)
    assert set(inquiry.answers(PAIRS).newest) == set(PAIRS)


def test_what_goes_wrong_is_said_and_never_raised_nor_more_than_is_ours() -> None:
    def ask(pair: TenantYear) -> int:
        if pair == PAIRS[0]:
            raise OdsDown("no connection", pair=pair)
        if pair == PAIRS[1]:
            raise ConfigError("platform.yaml: client_id: environment variable X is not set")
        raise ValueError("Ada Lovelace, token abc")

    assert Inquiry(ask, seconds=5).answers(PAIRS[:3]).silent == {
        PAIRS[0]: "tenant_0/2025: no connection",
        PAIRS[1]: "tenant_1/2025: platform.yaml: client_id: environment variable X is not set",
        PAIRS[2]: "tenant_2/2025: ValueError",
    }


def test_a_pair_that_is_no_longer_declared_does_not_disturb_the_order() -> None:
    with hanging(PAIRS[0]) as (ask, _):
        inquiry = Inquiry(ask, seconds=0.2, threads=1)
        assert inquiry.answers(PAIRS).unasked[0] == PAIRS[1]
        assert set(inquiry.answers(PAIRS[2:]).newest) == set(PAIRS[2:])


# -- over HTTP --------------------------------------------------------------------------------------------

MakeBench = Callable[..., Bench]


@contextmanager
def sessions_of(bench: Bench) -> Iterator[OdsSessions]:
    sessions = OdsSessions(bench.platform)
    try:
        yield sessions
    finally:
        sessions.close()


def paths(bench: Bench) -> list[str]:
    return [request.path.rpartition("/")[2] for request in bench.server.requests]


def test_a_tick_costs_an_ods_one_request_once_it_is_known(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    with sessions_of(bench) as sessions:
        assert sessions.newest(PAIR) == bench.store.newest
        bench.server.requests.clear()
        bench.add_student(1)
        assert sessions.newest(PAIR) == bench.store.newest
        assert paths(bench) == ["availableChangeVersions"]


def test_an_ods_that_is_read_without_change_versions_is_not_asked(make_bench: MakeBench) -> None:
    bench = make_bench("students", use_change_version=False)
    with sessions_of(bench) as sessions:
        assert sessions.newest(PAIR) is None
    assert paths(bench) == []


def test_a_snapshot_is_asked_where_it_is_what_a_run_reads(make_bench: MakeBench) -> None:
    bench = make_bench("students", use_snapshot=True)
    bench.store.take_snapshot()
    then = bench.store.newest
    bench.add_student(1)
    with sessions_of(bench) as sessions:
        assert sessions.newest(PAIR) == then
        bench.store.take_snapshot()
        assert sessions.newest(PAIR) == bench.store.newest > then


def test_an_ods_that_fails_is_given_up_at_once_and_asked_anew_later(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    with sessions_of(bench) as sessions:
        inquiry = Inquiry(sessions.newest, seconds=20)
        assert inquiry.answers([PAIR]).newest == {PAIR: bench.store.newest}
        bench.server.faults.add(status=503)
        began = time.monotonic()
        (said,) = inquiry.answers([PAIR]).silent.values()
        assert time.monotonic() - began < 5
        assert said == f"{PAIR}: gives no usable answer now; `edfi-dagster check` says more"
        bench.server.faults.clear()
        assert inquiry.answers([PAIR]).newest == {PAIR: bench.store.newest}


def test_a_wrong_secret_is_said_without_it_and_a_new_one_is_read(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    right = bench.server.credentials[1]
    with sessions_of(bench) as sessions:
        inquiry = Inquiry(sessions.newest, seconds=20)
        monkeypatch.setenv(SECRET_VARIABLE, "not-the-secret")
        (said,) = inquiry.answers([PAIR]).silent.values()
        assert said.startswith(f"{PAIR}: the ODS refused the key and secret")
        assert "not-the-secret" not in said
        monkeypatch.setenv(SECRET_VARIABLE, right)
        assert inquiry.answers([PAIR]).newest == {PAIR: bench.store.newest}
