"""A file's job at Runway is made once and started once, whatever is lost or killed, from however many machines."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from edfi_dagster.config import ConfigError
from edfi_dagster.earthbeam import runway_http
from edfi_dagster.earthbeam.runway import RunwayOutcome
from edfi_dagster.earthbeam.runway_errors import (
    RunwayError,
    RunwayRefused,
    RunwayUnsure,
)
from edfi_dagster.earthbeam.runway_memory import RunwayMemory
from edfi_dagster.lake.store import LakeStore
from edfi_dagster_tests.earthbeam.runway_sender import BROKEN, GATEWAY, Sender
from edfi_dagster_tests.earthbeam.runway_stand_in import (
    BUNDLE,
    CLIENT_SECRET,
    PAIR,
    RESET,
    Lost,
    RunwayStandIn,
    Step,
)
from edfi_dagster_tests.ods.stand_in import Reply

# -- a job is made once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [Lost(RESET), Lost(GATEWAY), Lost(BROKEN), Lost(Reply(b'{"uid": "a', 201)), Lost(Reply({}, 201))]
)
def test_a_job_whose_id_was_lost_is_not_made_twice(
    fault: Lost, runway: RunwayStandIn, sender: Sender
) -> None:
    runway.faults["create"] = [fault]
    job = sender.job(sender.file())
    for _ in range(2):
        failure = sender.failure(job)
        assert isinstance(failure, RunwayUnsure)
        assert "force: true" in str(failure)
        assert len(runway.of("create")) == 1
    sender.sent(job, force=True)
    assert runway.starts == [0, 1]


def test_a_job_whose_answer_was_too_large_to_read_is_not_made_twice(
    runway: RunwayStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runway_http, "_LARGEST_ANSWER_BYTES", 1 << 20)
    runway.faults["create"] = [Lost(Reply(b" " * (2 << 20), 201))]
    for _ in range(2):
        assert isinstance(sender.failure(sender.job(sender.file())), RunwayUnsure)
    assert len(runway.jobs) == 1


def test_a_secret_that_is_not_set_leaves_nothing_to_be_unsure_of(
    runway: RunwayStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNWAY_SECRET")
    with pytest.raises(ConfigError, match="RUNWAY_SECRET"):
        sender.send(sender.job(sender.file()))
    monkeypatch.setenv("RUNWAY_SECRET", CLIENT_SECRET)
    sender.sent(sender.job(sender.file()))
    assert runway.starts == [1]


@pytest.mark.parametrize("fault", [Reply({"message": "Bundle not enabled"}, 400), Reply(status=503)])
def test_a_job_that_was_certainly_not_made_is_asked_for_again_by_the_next_run(
    fault: Reply, runway: RunwayStandIn, sender: Sender
) -> None:
    runway.faults["create"] = [fault] * 6
    sender.failure(sender.job(sender.file()))
    runway.faults.clear()
    sender.sent(sender.job(sender.file()))
    assert runway.starts == [1]


def test_the_same_content_is_sent_once_whatever_its_name(runway: RunwayStandIn, sender: Sender) -> None:
    first = sender.sent(sender.job(sender.file()))
    again = sender.sent(sender.job(sender.file("renamed.csv")))
    assert (again.uid, again.was_sent_before, again.output_set) == (first.uid, True, first.output_set)
    twins = [sender.job(sender.file(name, "a,b\n")) for name in ("one.csv", "two.csv")]
    sender.sent(*twins)
    assert "two.csv: has the content of another file" in "".join(sender.told)
    assert runway.starts == [1, 1]


@pytest.mark.parametrize(
    "change", [{"params": {"TEST_TYPE": "PSAT"}}, {"content": "id,score\n1,401\n"}, {"force": True}]
)
def test_other_content_or_parameters_or_force_make_another_job(
    change: dict[str, Any], runway: RunwayStandIn, sender: Sender
) -> None:
    sender.sent(sender.job(sender.file()))
    changed = sender.file(content=change.get("content", "id,score\n1,400\n"))
    sender.sent(sender.job(changed, params=change.get("params", {})), force=change.get("force", False))
    assert runway.starts == [1, 1]


def test_two_runs_at_once_make_one_job(runway: RunwayStandIn, sender: Sender) -> None:
    job = sender.job(sender.file())
    outcomes: list[RunwayOutcome] = []
    runs = [threading.Thread(target=lambda: outcomes.append(sender.sent(job))) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert runway.starts == [1]
    assert {outcome.uid for outcome in outcomes} == {runway.jobs[0].uid}
    assert len(outcomes) == 3


# -- kills ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


class DyingLake:
    """A lake whose process dies at its nth change, before or after the change is there."""

    def __init__(self, lake: LakeStore, at: int, *, after: bool) -> None:
        self._lake = lake
        self._left = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lake, name)

    def writing(self, path: str) -> AbstractContextManager[BinaryIO]:
        return self._around(lambda: self._lake.writing(path))

    def delete(self, path: str) -> None:
        with self._around(lambda: _Deleting(self._lake, path)):
            pass

    def _around(self, change: Callable[[], AbstractContextManager[Any]]) -> AbstractContextManager[Any]:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        return _Dying(change(), dies=self._left == 0)


class _Dying:
    def __init__(self, change: AbstractContextManager[Any], *, dies: bool) -> None:
        self._change, self._dies = change, dies

    def __enter__(self) -> Any:
        return self._change.__enter__()

    def __exit__(self, *left: Any) -> None:
        self._change.__exit__(*left)
        if self._dies:
            raise Killed


class _Deleting:
    def __init__(self, lake: LakeStore, path: str) -> None:
        self._lake, self._path = lake, path

    def __enter__(self) -> None:
        self._lake.delete(self._path)

    def __exit__(self, *left: Any) -> None:
        """It is gone already."""


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_is_killed_at_any_change_of_the_lake_is_continued_with_the_same_job(
    after: bool, runway: RunwayStandIn, sender: Sender
) -> None:
    unsure = kills = 0
    while True:
        kills += 1
        job = sender.job(sender.file(content=f"id\n{kills}\n"))
        runway.polls_until_done = 2
        made = len(runway.jobs)
        try:
            sender.send(job, lake=DyingLake(sender.lake, kills, after=after))
        except Killed:
            sent = sender.send(job)
        else:
            break
        new = runway.jobs[made:]
        assert len(new) <= 1
        if sent.failures:
            assert isinstance(sent.failures[0], RunwayUnsure)
            assert [found.starts for found in new] in ([], [0])
            unsure += 1
        else:
            assert [found.starts for found in new] == [1]
            assert sent.outcomes[0].output_set is not None
    # Only while the id is on its way, between two changes, can it be lost.
    assert unsure == 1
    assert kills > 6


def test_a_process_that_is_killed_while_it_uploads_leaves_a_job_that_the_next_one_starts(
    runway: RunwayStandIn, sender: Sender
) -> None:
    file = sender.file()
    uploading = threading.Event()
    released = threading.Event()

    def hold(step: Step) -> None:
        if step == "upload" and not uploading.is_set():
            uploading.set()
            released.wait(60)

    runway.before = hold
    script = (
        "import sys; from pathlib import Path\n"
        "from edfi_dagster.config.earthbeam import Runway\n"
        "from edfi_dagster.earthbeam.runway import RunwayJob, send_to_runway\n"
        "from edfi_dagster.earthbeam.runway_client import service_of\n"
        "from edfi_dagster.config import TenantYear\n"
        "from edfi_dagster.lake.store import LocalLake\n"
        "service = service_of(Runway.model_validate_json(sys.argv[1]), 'agency.yaml')\n"
        f"job = RunwayJob(TenantYear(*{tuple(PAIR)!r}), {BUNDLE!r}, {{'INPUT_FILE': Path(sys.argv[2])}})\n"
        "send_to_runway(service, LocalLake(Path(sys.argv[3])), [job])\n"
    )
    config = {
        **sender.config.model_dump(),
        "client_id": {"env": "RUNWAY_ID"},
        "client_secret": {"env": "RUNWAY_SECRET"},
    }
    process = subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(config), str(file), str(sender.folder / "lake")],
        env=os.environ,
    )
    try:
        assert uploading.wait(60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        released.set()

    sender.sent(sender.job(file))
    assert runway.starts == [1]
    assert len(runway.of("create")) == 1


def test_a_job_whose_upload_addresses_have_expired_is_replaced(runway: RunwayStandIn, sender: Sender) -> None:
    job = sender.job(sender.file())
    runway.faults["upload"] = [BROKEN] * 6
    sender.failure(job)
    (note,) = [path for path in sender.lake_files() if "_restricted" not in path.parts]
    remembered = json.loads(note.read_text())
    remembered["asked_at"] = (datetime.now(UTC) - timedelta(hours=9)).isoformat()
    note.write_text(json.dumps(remembered))
    runway.has_expired_addresses = True

    def renew(step: Step) -> None:
        if step == "create":
            runway.has_expired_addresses = False

    runway.before = renew
    sender.sent(job)
    assert runway.starts == [0, 1]
    assert f"Runway's job {runway.jobs[0].uid} never got its files" in "".join(sender.told)


def test_an_address_that_is_refused_while_it_is_fresh_is_no_reason_for_another_job(
    runway: RunwayStandIn, sender: Sender
) -> None:
    runway.has_expired_addresses = True
    failure = sender.failure(sender.job(sender.file()))
    assert isinstance(failure, RunwayRefused)
    assert str(failure) == "grand_bend/2026 sat.csv, upload: HTTP 403 - the file store did not take the file"
    assert len(runway.jobs) == 1


# -- several machines that share the lake ---------------------------------------------------------------------


def claims_of(sender: Sender) -> list[Path]:
    return [path for path in sender.lake_files() if path.parent.suffix == ".sending"]


def test_a_file_that_another_machine_sends_right_now_is_left_to_it(
    runway: RunwayStandIn, sender: Sender
) -> None:
    seen: list[Path] = []
    runway.before = lambda step: seen.extend(claims_of(sender))
    sender.sent(sender.job(sender.file(content="first")))
    assert len(claims_of(sender)) == 0 and len({path.name for path in seen}) == 1
    job = sender.job(sender.file(content="second"))
    runway.faults["create"] = [BROKEN] * 6
    sender.failure(job, force=True)
    memory = [path for path in sender.lake_files() if path.suffix == ".json"]
    place = max(memory, key=lambda path: path.stat().st_mtime_ns).with_suffix(".sending")
    claim = place / f"{datetime.now(UTC) - timedelta(minutes=5):%Y%m%dT%H%M%S}_runner-7_abc"
    claim.parent.mkdir(exist_ok=True)
    claim.touch()
    asked = len(runway.asked)
    failure = sender.failure(job)
    assert "runner-7 has been sending this file since" in str(failure)
    assert failure.step == "read" and len(runway.asked) == asked
    # A machine that is gone is not waited for for ever, and a person may say that it is.
    claim.rename(claim.with_name("20250101T000000_runner-7_abc"))
    runway.faults.clear()
    sender.sent(job, force=True)
    assert runway.starts[-1] == 1


def test_of_several_machines_at_once_no_two_send_one_file(sender: Sender) -> None:
    inside = most = done = 0
    counting = threading.Lock()

    def work(machine: str) -> None:
        nonlocal inside, most, done
        memory = RunwayMemory(sender.lake, PAIR, "f" * 64, machine=machine)
        for _ in range(40):
            try:
                with memory.sending():
                    with counting:
                        inside += 1
                        most, done = max(most, inside), done + 1
                    time.sleep(0.001)
                    with counting:
                        inside -= 1
            except RunwayError:
                time.sleep(random.uniform(0, 0.004))

    machines = [threading.Thread(target=work, args=(f"runner-{number}",)) for number in range(4)]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join()
    assert (most, inside) == (1, 0) and done > 0
    assert claims_of(sender) == []
