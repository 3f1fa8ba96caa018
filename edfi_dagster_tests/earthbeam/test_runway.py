"""Files sent to Runway: what it is asked, what is tried again, what is told, and what nobody may see."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edfi_dagster.config import ConfigError
from edfi_dagster.earthbeam.runway import RunwayJob
from edfi_dagster.earthbeam.runway_client import RunwayClient, service_of
from edfi_dagster.earthbeam.runway_errors import (
    RunwayError,
    RunwayTimedOut,
    RunwayUnreachable,
    WrongRunwayCredentials,
)
from edfi_dagster_tests.earthbeam.runway_sender import AWAY, BROKEN, BUSY, GATEWAY, Sender
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
        ("sets", [Reply(b"[" * 10_000 + b"]" * 10_000), Reply(b" " * (65 * 2**20))]),
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
    caplog.set_level(logging.DEBUG, logger="urllib3")  # which the client of Kubernetes has made silent
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


# -- answers that are none ------------------------------------------------------------------------------------

TOKEN = f"eyJhbGciOi-1234567.{'Ab3-2026-' * 60}.{{}}"


@pytest.mark.parametrize("words", ["{}", "'{}'", "no {} known", "x" * 290 + " {}", "y" * 1990 + " {}"])
def test_a_token_as_long_as_real_ones_are_is_not_repeated_in_part(
    words: str, runway: RunwayStandIn, sender: Sender
) -> None:
    runway.token_form = TOKEN
    runway.faults["create"] = [Reply({"message": words.format(TOKEN.format(0))}, 400)]
    said = str(sender.failure(sender.job(sender.file())))
    assert "HTTP 400" in said
    assert not any(piece in said for piece in ("eyJh", "Ab3", "1234567"))


@pytest.mark.parametrize("value", ["{}%2FINPUT_FILE", "{}/INPUT_FILE"])
def test_what_permits_an_upload_is_repeated_by_no_refusal(
    value: str, runway: RunwayStandIn, sender: Sender
) -> None:
    said = {"message": f"the signature {value.format(SIGNATURE)} is not X-Amz-Signature={SIGNATURE}"}
    for step in ("upload", "start"):
        runway.faults[step] = [Reply(said, 409)]
        failure = sender.failure(sender.job(sender.file(content=step)))
        assert failure.step == step
        assert SIGNATURE not in str(failure)


def test_a_long_message_is_not_searched_for_addresses_for_hours(
    runway: RunwayStandIn, sender: Sender
) -> None:
    runway.faults["create"] = [Reply({"message": "x" * 900_000}, 400)]
    begun = time.monotonic()
    assert len(str(sender.failure(sender.job(sender.file())))) < 500
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("address", ["http://[::1", "\xff\xfe", "http://127.0.0.1:99999/"])
def test_a_redirection_to_what_is_no_address_is_a_redirection(
    address: str, runway: RunwayStandIn, sender: Sender
) -> None:
    runway.faults["create"] = [Reply(status=302, headers={"Location": address})]
    failure = sender.failure(sender.job(sender.file()))
    assert "HTTP 302 - it redirects elsewhere; write the final address" in str(failure)


@pytest.mark.parametrize(
    "address", ["http://[::1", "file:///etc/passwd", "http://127.0.0.1:0/", "x", "http://\u2100/"]
)
def test_an_upload_address_that_is_none_is_told_with_what_to_do(
    address: str, runway: RunwayStandIn, sender: Sender
) -> None:
    said = {"uid": "job-1", "uploadUrls": {"INPUT_FILE": f"{address}?X-Amz-Signature={SIGNATURE}"}}
    runway.faults["create"] = [Reply(said, 201)]
    failure = sender.failure(sender.job(sender.file()))
    assert str(failure).startswith("grand_bend/2026 sat.csv, upload: an address that Runway gave is none; ")
    assert "force: true" in str(failure)
    assert SIGNATURE not in str(failure)


def test_a_file_does_not_go_in_the_clear_where_runway_is_asked_by_https(
    runway: RunwayStandIn, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = runway.config(monkeypatch, base_url="https://127.0.0.1:9/api/v1")
    client = RunwayClient(service_of(config, "agency.yaml"))
    with pytest.raises(RunwayError, match="the upload address is not https"):
        client.upload(f"{runway.url}/bucket/x/y?X-Amz-Signature={SIGNATURE}", sender.file(), "")
    assert runway.asked == []


def test_a_file_whose_name_is_no_text_is_refused_before_anything_is_asked(
    runway: RunwayStandIn, sender: Sender
) -> None:
    failure = sender.failure(sender.job(sender.file("se\udcf1or.csv")))
    assert "rename it" in str(failure)
    assert str(failure).isprintable()
    assert (runway.asked, sender.lake_files()) == ([], [])
