"""Files sent to Runway: a job each, made once and started once, whatever fails or is killed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from edfi_dagster.config import ConfigError
from edfi_dagster.config.earthbeam import Runway
from edfi_dagster.earthbeam.runway import RunwayJob, RunwayOutcome, RunwaySending, RunwaySent, send_to_runway
from edfi_dagster.earthbeam.runway_client import service_of
from edfi_dagster.earthbeam.runway_errors import (
    RunwayError,
    RunwayRefused,
    RunwayTimedOut,
    RunwayUnreachable,
    RunwayUnsure,
    WrongRunwayCredentials,
)
from edfi_dagster.lake.store import LakeStore, LocalLake
from edfi_dagster_tests.earthbeam.runway_stand_in import (
    BUNDLE,
    CLIENT_SECRET,
    PAIR,
    RESET,
    SIGNATURE,
    Lost,
    RunwayStandIn,
    Step,
)
from edfi_dagster_tests.ods.stand_in import Reply

BUSY, BROKEN, GATEWAY = Reply(status=429), Reply(status=500), Reply(status=502)
AWAY = Reply(status=503, headers={"Retry-After": "0"})


class Sender:
    """Sends files of one folder to one stand-in, and keeps what it was told."""

    def __init__(self, runway: RunwayStandIn, folder: Path, config: Runway) -> None:
        self.runway = runway
        self.folder = folder
        self.config = config
        self.lake: LakeStore = LocalLake(folder / "lake")
        self.told: list[str] = []

    def file(self, name: str = "sat.csv", content: str = "id,score\n1,400\n") -> Path:
        path = self.folder / name
        path.write_text(content)
        return path

    def job(self, *files: Path, **options: Any) -> RunwayJob:
        variables = ("INPUT_FILE", "INPUT_FILE_2")
        return RunwayJob(PAIR, BUNDLE, dict(zip(variables, files, strict=False)), **options)

    def send(self, *jobs: RunwayJob, lake: LakeStore | None = None, **options: Any) -> RunwaySent:
        sending = RunwaySending(
            **{"wait_minutes": 1.0, "poll_seconds": 0.002, **options},
            tell=self.told.append,
            warn=self.told.append,
            sleep=lambda seconds: time.sleep(min(seconds, 0.002)),
        )
        service = service_of(self.config, "agency.yaml")
        return send_to_runway(service, lake or self.lake, jobs, sending)

    def sent(self, *jobs: RunwayJob, **options: Any) -> RunwayOutcome:
        """What came of one job that went well."""
        sent = self.send(*jobs, **options)
        assert sent.failures == ()
        (outcome,) = sent.outcomes
        return outcome

    def failure(self, *jobs: RunwayJob, **options: Any) -> RunwayError:
        sent = self.send(*jobs, **options)
        assert sent.outcomes == ()
        (failure,) = sent.failures
        return failure

    def lake_files(self) -> list[Path]:
        return [path for path in (self.folder / "lake").rglob("*") if path.is_file()]


@pytest.fixture
def runway() -> Iterator[RunwayStandIn]:
    with RunwayStandIn() as running:
        yield running


@pytest.fixture
def sender(runway: RunwayStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sender:
    return Sender(runway, tmp_path, runway.config(monkeypatch))


# -- what Runway is asked -------------------------------------------------------------------------------------


def test_a_file_becomes_a_job_that_is_filled_started_and_waited_for(
    runway: RunwayStandIn, sender: Sender
) -> None:
    runway.polls_until_done = 3
    first, second = sender.file(), sender.file("roster.csv", "id\n1\n")

    outcome = sender.sent(sender.job(first, second, params={"TEST_TYPE": "SAT"}))

    (job,) = runway.jobs
    assert job.asked == {
        "partner": "acme",
        "tenant": "grand_bend",
        "bundle": "assessments/PSAT_SAT",
        "schoolYear": "2026",
        "files": {"INPUT_FILE": "sat.csv", "INPUT_FILE_2": "roster.csv"},
        "params": {"TEST_TYPE": "SAT"},
    }
    assert job.files == {"INPUT_FILE": first.read_bytes(), "INPUT_FILE_2": second.read_bytes()}
    assert job.starts == 1
    assert len(runway.tokens) == 1
    assert len(runway.of("sets")) == 4
    assert outcome.uid == job.uid
    assert outcome.output_set is not None
    assert outcome.output_set.uid == f"set-of-{job.uid}"
    assert outcome.output_set.sent_to_ods
    assert not outcome.was_sent_before


def test_params_are_left_out_where_there_are_none(runway: RunwayStandIn, sender: Sender) -> None:
    sender.sent(sender.job(sender.file()))
    assert "params" not in runway.jobs[0].asked


def test_issuers_that_take_only_forms_and_lists_that_are_wrapped_are_understood(
    runway: RunwayStandIn, sender: Sender
) -> None:
    runway.takes_only_forms = runway.wraps_lists = True
    assert sender.sent(sender.job(sender.file())).output_set is not None


def test_jobs_that_are_not_waited_for_are_started_and_left(runway: RunwayStandIn, sender: Sender) -> None:
    outcome = sender.sent(sender.job(sender.file()), wait_minutes=0)
    assert (outcome.output_set, runway.starts, runway.of("sets")) == (None, [1], [])
    assert sender.sent(sender.job(sender.file())).output_set is not None
    assert runway.starts == [1]


def test_a_large_file_is_sent_in_pieces(runway: RunwayStandIn, sender: Sender) -> None:
    content = "".join(f"{number},{number % 800}\n" for number in range(200_000))
    sender.sent(sender.job(sender.file(content=content)))
    (asked,) = runway.of("upload")
    assert asked.body == content.encode()
    assert asked.headers["content-length"] == str(len(content))
    assert "transfer-encoding" not in asked.headers


@pytest.mark.parametrize(
    ("base_url", "api", "audience"),
    [
        ("https://api.example.org", "https://api.example.org/api/v1", "https://api.example.org"),
        ("https://api.example.org/api/v1", "https://api.example.org/api/v1", "https://api.example.org"),
        ("https://example.org/runway", "https://example.org/runway", "https://example.org/runway"),
    ],
)
def test_audience_and_api_follow_from_the_base_url(
    base_url: str, api: str, audience: str, runway: RunwayStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of(
        runway.config(monkeypatch, base_url=base_url, audience=None), "agency.yaml", partner="north"
    )
    assert (service.base_url, service.audience, service.partner) == (api, audience, "north")


def test_what_is_not_configured_is_named(runway: RunwayStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    config = runway.config(monkeypatch, partner=None, token_url=None)
    with pytest.raises(
        ConfigError, match=r"earthbeam\.runway\.token_url, earthbeam\.runway\.partner not given"
    ):
        service_of(config, "agency.yaml")
    with pytest.raises(ConfigError, match=r"there is no earthbeam\.runway"):
        service_of(None, "agency.yaml")


# -- what may pass is tried again -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "faults"),
    [
        ("token", [BUSY, BROKEN, RESET]),
        ("create", [BUSY, AWAY, BUSY]),
        ("upload", [BUSY, AWAY, RESET, BROKEN, Lost(RESET)]),
        ("start", [BUSY, AWAY, RESET, BROKEN]),
        ("start", [Lost(RESET)]),
        ("start", [Lost(GATEWAY), RESET]),
        ("sets", [RESET, BUSY, BROKEN, Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n[{")]),
        ("sets", [Reply(b"<html>maintenance</html>"), *[AWAY] * 20]),
    ],
)
def test_what_may_pass_is_tried_again_and_nothing_is_done_twice(
    step: Step, faults: list[Reply | Lost], runway: RunwayStandIn, sender: Sender
) -> None:
    runway.faults[step] = list(faults)
    outcome = sender.sent(sender.job(sender.file()))
    assert outcome.output_set is not None
    assert runway.faults[step] == []
    assert runway.starts == [1]


def test_a_job_that_was_done_before_its_start_was_answered_is_not_started_again(
    runway: RunwayStandIn, sender: Sender
) -> None:
    runway.polls_until_done = 0
    runway.faults["start"] = [Lost(RESET)]
    assert sender.sent(sender.job(sender.file())).output_set is not None
    assert runway.starts == [1]
    assert len(runway.of("start")) == 1


def test_what_does_not_pass_is_an_error_that_names_place_and_step(
    runway: RunwayStandIn, sender: Sender
) -> None:
    runway.faults["upload"] = [BROKEN] * 20
    failure = sender.failure(sender.job(sender.file()))
    assert isinstance(failure, RunwayUnreachable)
    assert (failure.pair, failure.file, failure.step) == (PAIR, "sat.csv", "upload")
    assert str(failure).startswith("grand_bend/2026 sat.csv, upload: HTTP 500 from 127.0.0.1:")
    runway.faults.clear()
    sender.sent(sender.job(sender.file()))
    assert runway.starts == [1]


def test_nobody_at_the_address(
    runway: RunwayStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender.config = runway.config(monkeypatch, base_url="http://127.0.0.1:9/api/v1")
    failure = sender.failure(sender.job(sender.file()))
    assert str(failure) == "grand_bend/2026 sat.csv, create: no connection from 127.0.0.1:9, 6 attempts"
    assert sender.lake_files() == []


# -- token ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["create", "start", "sets"])
def test_a_token_that_is_refused_is_replaced_once(step: Step, runway: RunwayStandIn, sender: Sender) -> None:
    runway.faults[step] = [Reply(status=401)]
    sender.sent(sender.job(sender.file()))
    assert len(runway.tokens) == 2
    assert runway.starts == [1]


def test_tokens_that_are_all_refused_end_the_run_with_two(runway: RunwayStandIn, sender: Sender) -> None:
    runway.refuses_tokens = True
    failure = sender.failure(sender.job(sender.file()), sender.job(sender.file("act.csv", "other")))
    assert isinstance(failure, WrongRunwayCredentials)
    assert "audience" in str(failure)
    assert (len(runway.tokens), runway.jobs) == (2, [])


def test_a_wrong_secret_says_where_it_is_configured(
    runway: RunwayStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNWAY_SECRET", "mistyped-secret")
    failure = sender.failure(sender.job(sender.file()))
    assert isinstance(failure, WrongRunwayCredentials)
    assert (failure.step, failure.status) == ("token", 401)
    assert "check client_id, client_secret, audience and partner of earthbeam.runway" in str(failure)
    assert "mistyped-secret" not in repr(failure) + str(failure)


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


# -- deadline -------------------------------------------------------------------------------------------------


def test_a_job_without_output_set_fails_at_the_deadline_and_the_next_run_waits_on(
    runway: RunwayStandIn, sender: Sender
) -> None:
    runway.polls_until_done = 10**6
    job = sender.job(sender.file())
    failure = sender.failure(job, wait_minutes=0.001)
    assert isinstance(failure, RunwayTimedOut)
    assert runway.jobs[0].uid in str(failure)
    assert "it failed or is slow" in str(failure)
    runway.polls_until_done = 0
    outcome = sender.sent(job)
    assert not outcome.was_sent_before
    assert runway.starts == [1]


def test_of_many_files_one_that_fails_does_not_hold_up_the_others(
    runway: RunwayStandIn, sender: Sender
) -> None:
    runway.failing = {"broken.csv"}
    names = ("a.csv", "b.csv", "broken.csv")
    jobs = [sender.job(sender.file(name, name)) for name in names]
    wrong = RunwayJob(PAIR, BUNDLE, {"OTHER": sender.file("d.csv", "d")})
    sent = sender.send(
        *jobs[:1], wrong, *jobs[1:], sender.job(sender.folder / "gone.csv"), wait_minutes=0.002
    )
    assert [outcome.job.label for outcome in sent.outcomes] == ["a.csv", "b.csv"]
    refused, gone, late = sent.failures
    assert str(refused) == "grand_bend/2026 d.csv, create: HTTP 400 (Unexpected file input: OTHER)"
    assert "gone.csv cannot be read (No such file or directory)" in str(gone)
    assert isinstance(late, RunwayTimedOut)
    assert late.file == "broken.csv"
    assert len(runway.tokens) == 1


# -- files ----------------------------------------------------------------------------------------------------


def test_an_empty_file_is_not_sent(runway: RunwayStandIn, sender: Sender) -> None:
    failure = sender.failure(sender.job(sender.file(content="")))
    assert failure.step == "read"
    assert "sat.csv is empty" in str(failure)
    assert runway.asked == []


@pytest.mark.parametrize("content", ["id,score\n1,400\n2,4", "id"])
def test_a_file_that_is_still_written_is_not_started(
    content: str, runway: RunwayStandIn, sender: Sender
) -> None:
    file = sender.file()

    def change(step: Step) -> None:
        if step == "create":
            file.write_text(content)

    runway.before = change
    failure = sender.failure(sender.job(file))
    assert failure.step == "upload"
    assert "changed while it was sent" in str(failure)
    assert runway.starts == [0]


# -- secrets --------------------------------------------------------------------------------------------------


def test_no_secret_token_or_upload_address_is_logged_told_raised_or_left_in_the_lake(
    runway: RunwayStandIn, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    faults: list[tuple[Step, Reply | None]] = [
        ("upload", RESET),
        ("upload", BROKEN),
        ("start", None),
        ("create", None),
    ]
    for number, (step, fault) in enumerate(faults):
        said = f"see {runway.url}/x?X-Amz-Signature={SIGNATURE} with t0ken-{number}"
        runway.faults = {step: [fault or Reply({"message": said}, 400)] * 6}
        for failure in sender.send(sender.job(sender.file(content=f"number {number}"))).failures:
            seen += [str(failure), repr(failure), repr(failure.__context__), repr(failure.__cause__)]
    runway.faults = {}
    sender.sent(sender.job(sender.file()))
    assert "api/v1/jobs" in caplog.text  # requests are logged at this level, all but uploads
    text = "\n".join([caplog.text, *sender.told, *seen, repr(service_of(sender.config, "agency.yaml"))])
    left = "\n".join(path.read_text() for path in sender.lake_files() if "_restricted" not in path.parts)
    for secret in (CLIENT_SECRET, SIGNATURE, *runway.tokens):
        assert secret not in text + left


def test_upload_addresses_leave_the_lake_with_the_upload(runway: RunwayStandIn, sender: Sender) -> None:
    kept: Sequence[Path] = []

    def look(step: Step) -> None:
        nonlocal kept
        if step == "upload":
            kept = [path for path in sender.lake_files() if "_restricted" in path.parts]

    runway.before = look
    sender.sent(sender.job(sender.file()))
    assert len(kept) == 1
    assert [path for path in sender.lake_files() if "_restricted" in path.parts] == []


def test_a_redirection_is_not_followed_with_the_token(runway: RunwayStandIn, sender: Sender) -> None:
    runway.faults["create"] = [Reply(status=307, headers={"Location": f"{runway.url}/api/v1/jobs/x/start"})]
    failure = sender.failure(sender.job(sender.file()))
    assert "write the final address as earthbeam.runway.base_url" in str(failure)
    assert runway.of("start") == []
