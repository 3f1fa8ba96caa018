"""Who may send next, and how many at once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from edfi_dagster.ods.budget import SLOW_SECONDS, SLOW_TIMES, Budget


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end, "waited for in vain"
        time.sleep(0.001)


class Queue:
    """Threads that wait for a turn in the order they were sent, and hold it until they are told to go."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.served: list[str] = []
        self._go: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def send(self, owner: str, name: str) -> None:
        self._go[name] = threading.Event()
        waiting = self.waiting()
        thread = threading.Thread(target=self._hold, args=(owner, name), daemon=True)
        self._threads.append(thread)
        thread.start()
        until(lambda: name in self.served or self.waiting() > waiting)

    def waiting(self) -> int:
        return sum(map(len, self.budget._waiting.values()))

    def release(self, name: str) -> None:
        served = len(self.served) + (self.waiting() > 0)
        self._go[name].set()
        until(lambda: len(self.served) >= served)

    def finish(self) -> None:
        for go in self._go.values():
            go.set()
        for thread in self._threads:
            thread.join(10)

    def _hold(self, owner: str, name: str) -> None:
        with self.budget.turn(owner):
            self.served.append(name)
            self._go[name].wait(10)


@contextmanager
def queue(limit: int) -> Iterator[Queue]:
    waiting = Queue(Budget(limit))
    try:
        yield waiting
    finally:
        waiting.finish()


def good(budget: Budget, times: int = 1, *, seconds: float = 0.0, clock: Clock | None = None) -> None:
    for _ in range(times):
        with budget.turn("a"):
            if clock:
                clock.now += seconds


def suffer(budget: Budget) -> None:
    with budget.turn("a") as turn:
        turn.suffered()


# -- whose turn ----------------------------------------------------------------------------------------------


def test_a_free_place_goes_to_the_owner_with_the_fewest_in_flight() -> None:
    with queue(3) as q:
        for name in ("big 1", "big 2", "big 3"):
            q.send("big", name)
        for name in ("big 4", "big 5"):
            q.send("big", name)
        q.send("small", "small 1")
        q.send("tiny", "tiny 1")
        q.release("big 1")
        q.release("big 2")
        assert q.served[3:] == ["small 1", "tiny 1"]
        q.release("small 1")
        assert q.served[5:] == ["big 4"]


def test_equals_are_served_in_the_order_they_came() -> None:
    with queue(1) as q:
        q.send("z", "first")
        for owner in ("c", "a", "b"):
            q.send(owner, owner)
        for name in ("first", "c", "a"):
            q.release(name)
        assert q.served == ["first", "c", "a", "b"]


def test_one_owner_alone_may_use_every_place() -> None:
    with queue(4) as q:
        for n in range(4):
            q.send("big", f"{n}")
        assert len(q.served) == 4
        q.send("big", "fifth")
        assert len(q.served) == 4


def test_who_comes_while_others_wait_does_not_overtake_them() -> None:
    with queue(1) as q:
        q.send("a", "a")
        q.send("b", "b")
        q.send("c", "c")
        q.release("a")
        assert q.served == ["a", "b"]


def test_a_wait_that_is_interrupted_leaves_the_queue_and_takes_no_place() -> None:
    class Interrupted(BaseException):
        pass

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise Interrupted

    budget = Budget(1)
    with budget.turn("a"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edfi_dagster.ods.budget.threading.Event", Impatient)
            with pytest.raises(Interrupted), budget.turn("b"):
                pass
        assert not budget._waiting
    with budget.turn("b"):
        pass


def test_a_thousand_turns_of_forty_threads_keep_the_bound_and_end() -> None:
    budget, lock, now, highest = Budget(5), threading.Lock(), Counter[str](), 0
    chance = random.Random(7)
    fates = [chance.random() for _ in range(1000)]

    def work(n: int) -> None:
        nonlocal highest
        owner = f"{n % 7}"
        with budget.turn(owner) as turn:
            with lock:
                now[owner] += 1
                highest = max(highest, now.total())
            if fates[n] < 0.1:
                turn.suffered()
            with lock:
                now[owner] -= 1
            if fates[n] > 0.9:
                raise ValueError

    def attempt(n: int) -> bool:
        try:
            work(n)
        except ValueError:
            return False
        return True

    with ThreadPoolExecutor(40) as threads:
        results = list(threads.map(attempt, range(1000)))
    assert results.count(False) == sum(fate > 0.9 for fate in fates)
    assert highest <= 5
    assert not budget._waiting
    assert budget._in_flight.total() == 0
    assert 1 <= budget.allowed <= 5


# -- how many ------------------------------------------------------------------------------------------------


def test_suffering_halves_the_number_down_to_one() -> None:
    budget = Budget(8)
    seen = []
    for _ in range(5):
        suffer(budget)
        seen.append(budget.allowed)
    assert seen == [4, 2, 1, 1, 1]


def test_requests_of_the_same_round_trip_halve_it_once() -> None:
    budget = Budget(8)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(budget.turn("a")).suffered()
    assert budget.allowed == 4


def test_fewer_are_let_in_while_the_ods_suffers() -> None:
    with queue(4) as q:
        suffer(q.budget)
        for n in range(4):
            q.send("a", f"{n}")
        assert len(q.served) == 2 == q.budget.allowed


def test_as_many_good_answers_as_are_allowed_bring_one_back() -> None:
    budget = Budget(8)
    for _ in range(2):
        suffer(budget)
    seen = []
    while budget.allowed < 8:
        good(budget)
        seen.append(budget.allowed)
    assert seen == [2] + [3] * 3 + [4] * 4 + [5] * 5 + [6] * 6 + [7] * 7 + [8]
    good(budget, 50)
    assert budget.allowed == 8


def test_a_failure_of_another_kind_neither_halves_nor_restores() -> None:
    budget = Budget(8)
    suffer(budget)
    for _ in range(50):
        with pytest.raises(ConnectionResetError), budget.turn("a"):
            raise ConnectionResetError
    assert budget.allowed == 4


def test_an_answer_that_took_much_longer_than_answers_do_is_suffering() -> None:
    clock = Clock()
    budget = Budget(8, clock)
    good(budget, 40, seconds=0.05, clock=clock)
    good(budget, 1, seconds=SLOW_SECONDS * 0.9, clock=clock)
    assert budget.allowed == 8
    good(budget, 40, seconds=0.05, clock=clock)
    good(budget, 1, seconds=SLOW_SECONDS * 1.1, clock=clock)
    assert budget.allowed == 4


def test_an_ods_that_is_always_slow_does_not_suffer() -> None:
    clock = Clock()
    budget = Budget(8, clock)
    good(budget, 100, seconds=30.0, clock=clock)
    assert budget.allowed == 8
    good(budget, 1, seconds=30.0 * SLOW_TIMES * 1.1, clock=clock)
    assert budget.allowed == 4


def test_the_first_answers_say_nothing_of_what_is_usual() -> None:
    clock = Clock()
    budget = Budget(8, clock)
    good(budget, 3, seconds=0.01, clock=clock)
    good(budget, 1, seconds=20.0, clock=clock)
    assert budget.allowed == 8
