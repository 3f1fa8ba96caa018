"""The token's lease when things go wrong around it: clocks, locks, folders, failures, and too many refusals."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edfi_dagster.ods import shelf
from edfi_dagster.ods.answers import Transient
from edfi_dagster.ods.errors import OdsUnreachable, UnusableBody, WrongCredentials
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.ods.shelf import FileShelf, Locked, MemoryShelf
from edfi_dagster.ods.token import (
    DEFAULT_SECONDS,
    FREE_TOKENS,
    LONGEST_SECONDS,
    Token,
    TokenLease,
    read_token,
)
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.ods.platforms import PAIR, Naps, session_at

REPOSITORY = Path(__file__).parents[2]
CAP = 15
MANY_THREADS = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from edfi_dagster_tests.ods.platforms import session_at

def rows(session):
    url = session.url("dataManagementApi") + "/ed-fi/students"
    return session.get(url, {"limit": "3"}, lambda answer: len(json.loads(answer.body)), retries=20)

with session_at(sys.argv[1], max_concurrent_requests=40) as session, ThreadPoolExecutor(40) as threads:
    print(set(threads.map(rows, [session] * 120)))
"""


class Issuer:
    """Stands for the ODS that gives tokens, numbered."""

    def __init__(self, seconds: float = DEFAULT_SECONDS) -> None:
        self.issued = 0
        self.seconds = seconds

    def __call__(self) -> Token:
        self.issued += 1
        return Token(f"token-{self.issued}", time.time(), self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of this machine forward or back by so many seconds."""
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])

    def turn(seconds: float) -> None:
        offset[0] += seconds

    return turn


def file_of(folder: Path, suffix: str = "json") -> Path:
    (found,) = folder.glob(f"edfi-dagster-*/*.{suffix}")
    return found


# -- how long it is good -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (1800, 1800.0),
        ("1800", 1800.0),
        (" 900.5 ", 900.5),
        (1e12, LONGEST_SECONDS),
        ("inf", LONGEST_SECONDS),
        *((text, DEFAULT_SECONDS) for text in ("", "soon", "nan", "-5", "1e999x")),
        *((number, DEFAULT_SECONDS) for number in (0, -1, True)),
        (None, DEFAULT_SECONDS),
        ([], DEFAULT_SECONDS),
        ({}, DEFAULT_SECONDS),
    ],
)
def test_a_lifetime_is_read_from_numbers_and_texts_and_never_believed_blindly(
    told: object, seconds: float
) -> None:
    assert read_token({"access_token": "a", "expires_in": told}, 1000.0).seconds == seconds


@pytest.mark.parametrize("value", ["", "a\r\nX: y", "ü", "a\x00"])
def test_a_token_that_is_no_header_is_no_token(value: str) -> None:
    with pytest.raises(UnusableBody):
        read_token({"access_token": value}, 0.0)


def test_a_clock_that_goes_forward_makes_one_new_token(clock: Callable[[float], None]) -> None:
    issuer = Issuer()
    lease = TokenLease("key", issuer)
    assert lease.get().value == "token-1"
    clock(2 * 3600)
    assert [lease.get().value for _ in range(3)] == ["token-2"] * 3


def test_a_token_of_the_future_is_not_trusted(clock: Callable[[float], None]) -> None:
    """Written before the clock was set back, it would else be taken for good until its year has come."""
    issuer = Issuer()
    clock(365 * 86_400)
    TokenLease("key", issuer).get()
    clock(-365 * 86_400)
    lease = TokenLease("key", issuer)
    assert [lease.get().value for _ in range(3)] == ["token-2"] * 3
    assert TokenLease("key", issuer).get().value == "token-2"


def test_a_held_token_of_the_future_is_not_trusted_either(clock: Callable[[float], None]) -> None:
    lease = TokenLease("key", Issuer())
    lease.get()
    clock(-3600)
    assert [lease.get().value for _ in range(3)] == ["token-2"] * 3


def test_a_clock_that_is_kept_right_by_small_steps_costs_no_token(clock: Callable[[float], None]) -> None:
    lease = TokenLease("key", Issuer())
    for step in (-2.0, 1.0, -1.5, 3.0):
        lease.get()
        clock(step)
    assert lease.get().value == "token-1"


def test_a_file_that_promises_a_token_for_ever_is_not_believed(tmp_of_this_test: Path) -> None:
    issuer = Issuer()
    TokenLease("key", issuer).get()
    file = file_of(tmp_of_this_test)
    for wrong in ({"seconds": 1e300}, {"seconds": "inf"}, {"asked": 1e300}, {"ends": None}, {"asked": "nan"}):
        file.write_text(json.dumps({**json.loads(file.read_text()), "value": "planted", **wrong}))
        assert TokenLease("key", issuer).get().value != "planted"


# -- who else has it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["no folder", "a file", "unreadable lock"])
def test_where_no_file_can_be_written_the_sessions_of_a_process_share_the_token(
    server: SandboxServer, base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    place = tmp_path / "place"
    if kind == "a file":
        place.write_text("")
    if kind == "unreadable lock":
        # Also a superuser cannot open a folder to write in it.
        monkeypatch.setattr(shelf, "_private_folder", lambda: place)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(shelf, "_IN_MEMORY", {})
    with session_at(base_url) as one, session_at(base_url) as other, ThreadPoolExecutor(8) as threads:
        list(threads.map(OdsSession.newest_change_version, [one, other] * 8))
    assert len(server.requests.matching("/oauth/token", "POST")) == 1


def test_a_folder_that_is_swept_away_meanwhile_is_made_again(tmp_of_this_test: Path) -> None:
    lease = TokenLease("key", Issuer())
    first = lease.get()
    for path in file_of(tmp_of_this_test).parent.iterdir():
        path.unlink()
    file_of_folder = next(tmp_of_this_test.iterdir())
    file_of_folder.rmdir()
    assert lease.get(refused=first).value == "token-2"
    assert file_of(tmp_of_this_test).exists()


def test_a_full_disk_leaves_the_token_to_this_session(
    tmp_of_this_test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edfi_dagster.ods.shelf.json.dump", full)
    lease = TokenLease("key", Issuer())
    assert [lease.get().value for _ in range(3)] == ["token-1"] * 3


def test_a_lock_that_another_process_keeps_is_waited_for_with_an_end(tmp_path: Path) -> None:
    naps = Naps()
    held = FileShelf(tmp_path / "key", patience=0.0, sleep=naps)
    with (tmp_path / "key.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(Locked, match=r"key\.lock locked for 0 seconds; end the process that hangs"),
            held.locked(),
        ):
            pass
    assert len(naps.seconds) <= 1
    with held.locked():
        pass


def test_a_lock_that_is_let_go_is_taken(tmp_path: Path) -> None:
    with (tmp_path / "key.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        naps = Naps(then=lambda: fcntl.flock(other, fcntl.LOCK_UN))
        with FileShelf(tmp_path / "key", sleep=naps).locked():
            pass
    assert len(naps.seconds) == 1


def test_a_lease_that_cannot_have_the_lock_names_tenant_and_year(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileShelf.__init__, "__kwdefaults__", {"patience": 0.0, "sleep": time.sleep})
    issuer = Issuer()
    lease = TokenLease("key", issuer, pair=PAIR)
    lease.get()
    folder = Path(tempfile.gettempdir())
    with file_of(folder, "lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(
            OdsUnreachable, match=r"^grand_bend/2025: no token: another process has kept .*locked"
        ):
            TokenLease("key", issuer, pair=PAIR).get()
        assert lease.get().value == "token-1"


def test_in_memory_threads_exclude_each_other() -> None:
    place, inside = MemoryShelf(), 0
    highest = []

    def enter(_: int) -> None:
        nonlocal inside
        with place.locked():
            inside += 1
            highest.append(inside)
            time.sleep(0.001)
            inside -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(enter, range(16)))
    assert set(highest) == {1}


# -- failures ------------------------------------------------------------------------------------------------


def test_threads_that_wait_for_a_token_share_the_failure_to_get_it() -> None:
    waiting, asked = threading.Barrier(9), []

    def refuse() -> Token:
        asked.append(1)
        waiting.wait(5)
        time.sleep(0.05)  # the others have passed the barrier and wait for the lease
        raise WrongCredentials("the ODS refused the key", pair=PAIR)

    lease = TokenLease("key", refuse, pair=PAIR)

    def first(_: int) -> str:
        with pytest.raises(WrongCredentials) as caught:
            lease.get()
        return str(caught.value)

    def late(n: int) -> str:
        with pytest.raises(WrongCredentials) as caught:
            threading.Timer(0.0, waiting.wait, args=(5,)).start()
            lease.get()
        return str(caught.value)

    with ThreadPoolExecutor(9) as threads:
        told = [threads.submit(first, 0)]
        while not asked:
            time.sleep(0.001)
        told += [threads.submit(late, n) for n in range(8)]
        assert {each.result(10) for each in told} == {"grand_bend/2025: the ODS refused the key"}
    assert len(asked) == 1


def test_after_a_failure_the_next_one_asks_again() -> None:
    outcomes: list[Token | Exception] = [OdsUnreachable("down"), Token("a", time.time())]

    def ask() -> Token:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    lease = TokenLease("key", ask)
    with pytest.raises(OdsUnreachable):
        lease.get()
    assert lease.get().value == "a"


# -- too many refusals ---------------------------------------------------------------------------------------


def test_the_more_tokens_there_are_the_more_refusals_in_a_row_it_takes_for_another() -> None:
    issuer = Issuer()
    lease = TokenLease("key", issuer)
    token, refusals = lease.get(), []
    while issuer.issued < CAP:
        count = 0
        before = issuer.issued
        while issuer.issued == before:
            count += 1
            try:
                token = lease.get(refused=token)
            except Transient as error:
                assert "many tokens" in error.reason
        refusals.append(count)
    assert refusals == [1] * FREE_TOKENS + [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_token_that_is_accepted_in_between_is_not_replaced() -> None:
    issuer = Issuer()
    lease = TokenLease("key", issuer)
    token = lease.get()
    for _ in range(FREE_TOKENS):
        token = lease.get(refused=token)
    for _ in range(200):
        with pytest.raises(Transient):
            lease.get(refused=token)
        assert lease.get() == token
        lease.accept()
    assert issuer.issued == FREE_TOKENS + 1


def test_tokens_that_have_expired_are_counted_no_more(clock: Callable[[float], None]) -> None:
    issuer = Issuer(seconds=100)
    lease = TokenLease("key", issuer)
    for _ in range(5):
        token = lease.get()
        for _ in range(FREE_TOKENS):
            token = lease.get(refused=token)
        clock(101)
    assert issuer.issued == 5 * (FREE_TOKENS + 1)


@pytest.mark.slow
def test_forty_threads_in_six_processes_never_come_near_the_cap_whatever_is_refused(
    server: SandboxServer, base_url: str
) -> None:
    """One 401 in forty answers means nothing; the tokens also die twice."""
    server.faults.add("/students", status=401, rate=0.025, times=60)
    asked = iter(range(10_000))
    server.before_request.append(lambda info: server.expire_tokens() if next(asked) in (200, 400) else None)
    command = [sys.executable, "-c", MANY_THREADS, base_url]

    def run(_: int) -> tuple[int, str, str]:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout.strip(), done.stderr

    with ThreadPoolExecutor(6) as processes:
        assert set(processes.map(run, range(6))) == {(0, "{3}", "")}
    tokens = server.requests.matching("/oauth/token", "POST")
    assert {request.status for request in tokens} == {200}
    assert 3 <= len(tokens) < CAP
    assert server.faults.hits >= 10
