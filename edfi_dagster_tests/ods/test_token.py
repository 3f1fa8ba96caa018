from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from edfi_dagster.ods.errors import OdsUnreachable, UnusableBody, WrongCredentials
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.ods.token import Token, TokenLease, read_token
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.ods.conftest import ODS
from edfi_dagster_tests.ods.platforms import SECRET_VARIABLE, Naps, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

REPOSITORY = Path(__file__).parents[2]
ANOTHER_PROCESS = """
import sys
from edfi_dagster_tests.ods.platforms import session_at
with session_at(sys.argv[1]) as session:
    print(session.newest_change_version())
"""


def token_requests(server: SandboxServer) -> int:
    return len(server.requests.matching("/oauth/token", "POST"))


def token_file(folder: Path) -> Path:
    (found,) = folder.glob("edfi-dagster-*/*.json")
    return found


# -- sharing -------------------------------------------------------------------------------------------------


def test_twenty_threads_share_one_token(server: SandboxServer, base_url: str) -> None:
    barrier = threading.Barrier(20)

    def ask(session: OdsSession) -> int:
        barrier.wait()
        return session.newest_change_version()

    with session_at(base_url) as session, ThreadPoolExecutor(20) as threads:
        newest = set(threads.map(ask, [session] * 20))
    assert newest == {server.store(ODS).newest}
    assert token_requests(server) == 1


def test_two_sessions_of_one_process_share_one_token(server: SandboxServer, base_url: str) -> None:
    with session_at(base_url) as one, session_at(base_url) as other, ThreadPoolExecutor(8) as threads:
        list(threads.map(OdsSession.newest_change_version, [one, other] * 8))
    assert token_requests(server) == 1


def test_three_processes_share_one_token(server: SandboxServer, base_url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", ANOTHER_PROCESS, base_url]
    processes = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out.strip()) == (0, str(server.store(ODS).newest)), err
    assert token_requests(server) == 1


def test_another_secret_does_not_find_the_token(
    server: SandboxServer, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session_at(base_url) as session:
        session.newest_change_version()
    monkeypatch.setenv(SECRET_VARIABLE, "stolen-key-only")
    with session_at(base_url) as session, pytest.raises(WrongCredentials):
        session.newest_change_version()
    assert token_requests(server) == 3, "the good one, and the wrong secret by Basic and in the body"


def test_the_token_lies_where_only_its_owner_may_read(session: OdsSession, tmp_of_this_test: Path) -> None:
    session.newest_change_version()
    file = token_file(tmp_of_this_test)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file.parent, file)] == [0o700, 0o600]
    for path in file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "sandbox-secret" not in path.read_text() + path.name


def test_a_folder_of_ours_that_others_could_read_is_closed_to_them(
    session: OdsSession, tmp_of_this_test: Path
) -> None:
    session.newest_change_version()
    folder = token_file(tmp_of_this_test).parent
    folder.chmod(0o755)
    TokenLease("another key", lambda: Token("t", time.time(), 9)).get()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_somebody_else_put_in_the_folders_place_is_not_used(
    session: OdsSession, tmp_of_this_test: Path, tmp_path: Path, kind: str
) -> None:
    trap = tmp_of_this_test / f"edfi-dagster-{os.getuid()}"
    planted = tmp_path / "planted"
    planted.mkdir()
    if kind == "file":
        trap.write_text("")
    else:
        trap.symlink_to(planted, target_is_directory=True)
    assert session.newest_change_version() > 0
    assert not list(planted.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"value": "x"}', '{"value": "x", "good_until": "soon"}'])
def test_a_broken_token_file_is_replaced(
    server: SandboxServer, base_url: str, tmp_of_this_test: Path, content: str
) -> None:
    with session_at(base_url) as session:
        session.newest_change_version()
    token_file(tmp_of_this_test).write_text(content)
    with session_at(base_url) as session:
        assert session.newest_change_version() > 0
    assert token_requests(server) == 2


# -- renewal -------------------------------------------------------------------------------------------------


def test_threads_that_are_refused_the_same_token_renew_it_once(
    server: SandboxServer, session: OdsSession
) -> None:
    session.newest_change_version()
    server.expire_tokens()
    server.latency = 0.02
    with ThreadPoolExecutor(20) as threads:
        newest = set(threads.map(lambda _: session.newest_change_version(), range(60)))
    assert len(newest) == 1
    assert token_requests(server) == 2


def test_a_refused_request_is_sent_again_and_counted_as_a_retry(
    server: SandboxServer, session: OdsSession, naps: Naps
) -> None:
    session.newest_change_version()
    server.expire_tokens()
    before = session.tally.requests
    session.newest_change_version()
    assert (session.tally.requests - before, session.tally.retries, naps.seconds) == (2, 1, [])


def test_a_token_that_another_process_renewed_is_taken_over(server: SandboxServer, base_url: str) -> None:
    with session_at(base_url) as one, session_at(base_url) as other:
        one.newest_change_version()
        other.newest_change_version()
        server.expire_tokens()
        other.newest_change_version()
        one.newest_change_version()
    assert token_requests(server) == 2


def test_two_dead_tokens_in_a_row_are_not_wrong_credentials(server: SandboxServer, base_url: str) -> None:
    with session_at(base_url) as idle, session_at(base_url) as other:
        idle.newest_change_version()
        server.expire_tokens()
        other.newest_change_version()
        server.expire_tokens()
        assert idle.newest_change_version() > 0
    assert token_requests(server) == 3


def test_a_fresh_token_that_is_refused_too_ends_with_one_renewal(
    server: SandboxServer, session: OdsSession, naps: Naps
) -> None:
    server.faults.add("availableChangeVersions", status=401)
    with pytest.raises(WrongCredentials, match=r"^grand_bend.2025: .*401 to a fresh token"):
        session.newest_change_version()
    assert token_requests(server) == 2
    assert not naps.seconds


def test_a_token_is_renewed_before_it_ends() -> None:
    assert read_token({"access_token": "a", "expires_in": 1800}, 1000.0).good_until == 1000 + 1740
    assert read_token({"access_token": "a", "expires_in": 4}, 1000.0).good_until == 1002
    assert read_token({"access_token": "a"}, 1000.0).good_until == 2740
    assert read_token({"access_token": "a", "expires_in": None}, 1000.0).good_until == 2740


def test_an_old_token_is_not_sent_at_all(
    server: SandboxServer, base_url: str, tmp_of_this_test: Path
) -> None:
    lease = TokenLease("key", lambda: Token("new", time.time(), 100))
    stale = TokenLease("key", lambda: Token("old", time.time() - 100, 50))
    assert stale.get().value == "old"
    assert lease.get().value == "new"
    assert stale.get().value == "new"


@pytest.mark.parametrize("document", [{}, {"access_token": None}, {"access_token": ""}, {"access_token": 7}])
def test_an_answer_without_a_token_is_unusable(document: dict[str, object]) -> None:
    with pytest.raises(UnusableBody, match="no access_token"):
        read_token(document, 0.0)


# -- refusals ------------------------------------------------------------------------------------------------


def test_wrong_credentials_stop_at_once(
    server: SandboxServer, session: OdsSession, naps: Naps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "wrong-secret")
    with pytest.raises(
        WrongCredentials, match=r"^grand_bend.2025: .*HTTP 401.*check client_id and client_secret"
    ):
        session.newest_change_version()
    assert (token_requests(server), naps.seconds) == (2, []), "Basic, then the body"


@pytest.mark.parametrize("status", [400, 401, 403])
def test_every_way_to_refuse_a_key_is_wrong_credentials(
    server: SandboxServer, session: OdsSession, status: int
) -> None:
    server.faults.add("/oauth/token", status=status, body=b'{"error":"invalid_client"}')
    with pytest.raises(WrongCredentials, match=f"HTTP {status}"):
        session.newest_change_version()


def use_up_the_tokens(server: SandboxServer) -> None:
    for _ in range(15):
        answer = requests.post(
            f"{server.url_of(ODS)}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=server.credentials,
            timeout=5,
        )
        assert answer.status_code == 200


def test_a_key_with_fifteen_tokens_is_said_to_have_too_many(
    server: SandboxServer, session: OdsSession, naps: Naps
) -> None:
    use_up_the_tokens(server)
    with pytest.raises(OdsUnreachable, match=r"no token: HTTP 429 .*unexpired tokens.*6 attempts"):
        session.newest_change_version()
    assert len(naps.seconds) == 5


def test_once_a_token_has_expired_another_is_given(server: SandboxServer, base_url: str) -> None:
    use_up_the_tokens(server)
    with session_at(base_url, sleep=Naps(then=server.expire_tokens)) as session:
        assert session.newest_change_version() > 0


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"action": "html", "status": 200}]
    + [{"action": action} for action in ("reset", "truncate", "invalid_json")],
    ids=str,
)
def test_token_requests_are_retried_like_others(
    server: SandboxServer, session: OdsSession, naps: Naps, fault: dict[str, Any]
) -> None:
    server.faults.add("/oauth/token", times=2, **fault)
    assert session.newest_change_version() > 0
    assert len(naps.seconds) == 2


def test_a_token_that_never_comes_is_asked_for_six_times_not_six_times_six(
    server: SandboxServer, session: OdsSession, naps: Naps
) -> None:
    server.faults.add("/oauth/token", action="html", status=200)
    with pytest.raises(
        OdsUnreachable, match=r"no token: the body is cut or is not JSON: it is an HTML page .*6 attempts"
    ):
        session.newest_change_version()
    assert (token_requests(server), len(naps.seconds)) == (6, 5)


# -- silence -------------------------------------------------------------------------------------------------


def test_neither_secret_nor_token_shows_in_errors_reprs_or_logs(
    server: SandboxServer,
    base_url: str,
    tmp_of_this_test: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    with session_at(base_url) as session:
        session.newest_change_version()
        token = session._token_lease().get()
        faults: list[dict[str, Any]] = [
            {"status": 401},
            {"status": 500},
            {"action": "reset"},
            {"action": "truncate"},
        ]
        for fault in faults:
            server.faults.add("availableChangeVersions", **fault)
            with pytest.raises(Exception) as caught:
                session.newest_change_version()
            shown += traceback.format_exception(caught.value)
            server.faults.clear()
        shown += [
            repr(session),
            repr(session._token_lease()),
            repr(token),
            str(token),
            repr(session.settings),
        ]
        newer = session._token_lease().get()
    assert newer.value != token.value
    text = "".join(shown) + caplog.text
    assert not [s for s in ("sandbox-secret", token.value, newer.value) if s in text]
    assert "127.0.0.1" in text


def test_a_netrc_file_does_not_take_the_tokens_place(
    server: SandboxServer, session: OdsSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert session.newest_change_version() > 0
    sent = [request.headers.get("authorization", "") for request in server.requests]
    assert [value.partition(" ")[0] for value in sent] == ["", "Basic", "Bearer"]
    assert sent[1] == "Basic c2FuZGJveDpzYW5kYm94LXNlY3JldA=="


def test_the_token_is_asked_for_with_basic_and_a_form_without_the_secret() -> None:
    def nothing(asked: Asked) -> Reply | None:
        return None

    with StandIn(nothing) as ods, session_at(ods.url) as session:
        session.newest_change_version()
        (asked,) = ods.matching("/oauth/token")
        (used,) = ods.matching("availableChangeVersions")
    assert asked.body == b"grant_type=client_credentials"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert asked.headers["authorization"] == "Basic c2FuZGJveDpzYW5kYm94LXNlY3JldA=="
    assert used.headers["authorization"] == "Bearer f00dfeed"
