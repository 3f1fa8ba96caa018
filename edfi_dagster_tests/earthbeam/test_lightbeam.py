"""Lightbeam's outcome is told truly: its exit code hides refusals, its state skips them, it retries too little and too long."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from edfi_dagster.earthbeam import EarthbeamError, Refusal, ResourceOutcome, ToolFailed, ToolTimedOut
from edfi_dagster.earthbeam.descriptors import used_descriptors
from edfi_dagster.earthbeam.lightbeam import Watcher
from edfi_dagster.earthbeam.process import find_tool
from edfi_dagster.ods.errors import OdsDown, WrongCredentials
from edfi_dagster_tests.bench import KEY_VARIABLE, SECRET_VARIABLE
from edfi_dagster_tests.earthbeam.conftest import MakeBundleBench
from edfi_dagster_tests.earthbeam.sending import METHOD, Sending, result, sending, write_lines

KNOWN, UNKNOWN = [600052, 600053, 600054], 999999


def bare(sending: Sending, *more: str) -> int:
    """The exit code of Lightbeam itself with the configuration of the last run."""
    scratch = sending.folder / "scratch"
    config = yaml.safe_load((scratch / "lightbeam.yaml").read_text())
    config["edfi_api"]["oauth_url"] = sending.lightbeam.session.url("oauth")
    (scratch / "lightbeam.yaml").write_text(yaml.safe_dump(config))
    secrets = {
        "EDFI_API_CLIENT_ID": os.environ[KEY_VARIABLE],
        "EDFI_API_CLIENT_SECRET": os.environ[SECRET_VARIABLE],
    }
    argv = [find_tool("lightbeam"), "send", "-c", str(scratch / "lightbeam.yaml"), *more]
    run = subprocess.run(argv, env={**os.environ, **secrets}, cwd=scratch, capture_output=True)
    return run.returncode


@pytest.mark.slow
def test_refused_records_are_failures_also_in_a_later_run_that_skips_them(bundles: MakeBundleBench) -> None:
    bench = bundles()
    with sending(bench, resend_status_codes=()) as lightbeam:
        lightbeam.write(*map(result, [*KNOWN, UNKNOWN]))
        first = lightbeam.send()
        assert (first.records, first.accepted, first.skipped, first.failed) == (4, 3, 0, 1)
        (refusal,) = first.refusals
        assert (refusal.status, refusal.count, refusal.line) == ("409", 1, 4)
        assert str(UNKNOWN) not in refusal.message and "Student" in refusal.message
        assert lightbeam.scores() == dict.fromkeys(map(str, KNOWN), "7")
        # Lightbeam itself: all were skipped, nothing to see.
        assert bare(lightbeam) == 99
        again = lightbeam.send()
        assert (again.accepted, again.skipped, again.failed) == (0, 3, 1)
        assert [(r.status, r.count) for r in again.refusals] == [("409", 1)]


def test_what_was_refused_is_sent_again_by_default_and_arrives_when_its_cause_is_gone(
    bundles: MakeBundleBench,
) -> None:
    bench = bundles()
    with sending(bench) as lightbeam:
        lightbeam.write(*map(result, ["bench-1", *KNOWN]))
        assert lightbeam.send().failed == 1
        bench.add_student(1)
        again = lightbeam.send()
        assert (again.accepted, again.skipped, again.failed) == (1, 3, 0)
        assert "bench-1" in lightbeam.scores()


def test_all_refused_is_told_as_all_refused(bundles: MakeBundleBench) -> None:
    with sending(bundles()) as lightbeam:
        lightbeam.write(*(result(UNKNOWN + n) for n in range(5)))
        outcome = lightbeam.send()
    assert (outcome.records, outcome.accepted, outcome.failed, outcome.failed_share) == (5, 0, 5, 1.0)
    # Five students, one cause: one message.
    assert [(r.status, r.count) for r in outcome.refusals] == [("409", 5)]


def test_a_server_that_asks_to_slow_down_is_sent_to_again(bundles: MakeBundleBench) -> None:
    bench = bundles()
    bench.server.faults.add("studentAssessments", method="POST", status=429, times=2, body=b"{}")
    with sending(bench, pool_size=4) as lightbeam:
        lightbeam.write(*map(result, KNOWN))
        outcome = lightbeam.send()
        assert (outcome.accepted, outcome.failed, outcome.refusals) == (3, 0, ())
        assert len(lightbeam.scores()) == 3


def test_an_answer_that_is_no_json_counts_as_a_failure_without_a_message(bundles: MakeBundleBench) -> None:
    bench = bundles()
    bench.server.faults.add("studentAssessments", method="POST", status=413, times=1, body=b"<html>no</html>")
    with sending(bench) as lightbeam:
        lightbeam.write(*map(result, KNOWN))
        outcome = lightbeam.send()
    assert (outcome.accepted, outcome.failed) == (2, 1)
    assert [(r.message, r.count) for r in outcome.refusals] == [("", 1)]


def test_a_token_that_ends_while_records_are_sent_loses_none(bundles: MakeBundleBench) -> None:
    bench = bundles()
    bench.at_request("studentAssessments", bench.server.expire_tokens, nth=3)
    with sending(bench) as lightbeam:
        lightbeam.write(*(result(600052 + n) for n in range(8)))
        outcome = lightbeam.send()
        assert (outcome.accepted, outcome.failed) == (8, 0)
        assert len(lightbeam.scores()) == 8


@pytest.mark.slow
def test_lightbeam_takes_no_token_of_its_own(bundles: MakeBundleBench) -> None:
    bench = bundles()
    with sending(bench) as lightbeam:
        lightbeam.write(*map(result, KNOWN))
        for command in ("validate", "send"):
            lightbeam.run(command)
    assert sum("oauth/token" in request.path for request in bench.server.requests) <= 1


@pytest.mark.slow
def test_a_token_that_is_never_accepted_ends_the_run(
    bundles: MakeBundleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edfi_dagster.earthbeam.lightbeam._TOKEN_LIMIT", 5)
    bench = bundles()
    bench.server.faults.add("/ed-fi/studentAssessments", method="POST", status=401)
    with sending(bench) as lightbeam:
        lightbeam.write(*(result(600052 + n) for n in range(8)))
        with pytest.raises(ToolTimedOut, match=r"accepts none of the tokens"):
            lightbeam.send()


@pytest.mark.slow
def test_a_later_file_that_changed_a_record_makes_the_first_one_be_sent_again(
    bundles: MakeBundleBench,
) -> None:
    with sending(bundles()) as lightbeam:
        state = lightbeam.lightbeam.state
        for score, accepted in ((5, 1), (9, 1), (5, 1), (5, 0)):
            lightbeam.write(result(KNOWN[0], score))
            assert lightbeam.send().accepted == accepted
            state.keep_only(lightbeam.folder / "outputs", lightbeam.resources)
            assert lightbeam.scores() == {str(KNOWN[0]): str(score)}


def test_an_ods_that_was_restored_is_sent_everything_again(bundles: MakeBundleBench, tmp_path: Path) -> None:
    bench = bundles()
    with sending(bench) as lightbeam:
        lightbeam.write(*map(result, KNOWN))
        lightbeam.send()
        target = lightbeam.lightbeam.target
        after = bench.store.newest
        lightbeam.lightbeam.state.save(bench.lake, "state.zst", target, after)
        other = replace(lightbeam.lightbeam.state, folder=tmp_path / "other")
        assert other.load(bench.lake, "state.zst", target, after + 5)
        assert len(other.statuses("studentAssessments")) == 3
        bench.store.restore("first")
        older = replace(lightbeam.lightbeam.state, folder=tmp_path / "older")
        assert not older.load(bench.lake, "state.zst", target, bench.store.newest)
        assert older.statuses("studentAssessments") == {}


def test_state_that_is_no_state_is_refused_instead_of_run(tmp_path: Path, bundles: MakeBundleBench) -> None:
    import pickle

    with sending(bundles()) as lightbeam:
        marker = tmp_path / "ran"
        state = lightbeam.lightbeam.state
        (state.folder / "students.dat").write_bytes(pickle.dumps(_Touches(marker)))
        with pytest.raises(ToolFailed, match="cannot be read"):
            state.statuses("students")
        assert not marker.exists()


class _Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.slow
def test_force_and_dates_send_again_what_the_ods_has(bundles: MakeBundleBench) -> None:
    bench = bundles()
    with sending(bench) as lightbeam:
        lightbeam.write(*map(result, KNOWN))
        assert lightbeam.send().accepted == 3
        assert lightbeam.send().skipped == 3
    for options, skipped in (
        ({"force": True}, 0),
        ({"older_than": "2999-01-01"}, 0),
        ({"newer_than": "2000-01-01"}, 0),
        ({"older_than": "2000-01-01", "newer_than": "2999-01-01"}, 3),
    ):
        with sending(bench, **options) as lightbeam:
            assert lightbeam.send().skipped == skipped


def test_records_of_an_endpoint_that_the_ods_does_not_have_are_told_as_not_offered(
    bundles: MakeBundleBench,
) -> None:
    with sending(bundles()) as lightbeam:
        lightbeam.resources = ("assessments", "studentAssessments", "notes")  # type: ignore[assignment]
        lightbeam.write(*map(result, KNOWN))
        lightbeam.write({"a": 1}, {"a": 2}, resource="notes")
        found = lightbeam.run("send")
    assert found["notes"] == ResourceOutcome("notes", 2, offered=False)
    assert found["studentAssessments"].accepted == 3


def test_invalid_records_are_told_by_check_although_lightbeam_ends_well(bundles: MakeBundleBench) -> None:
    bench = bundles()
    wrong = "uri://ed-fi.org/AccommodationDescriptor#None such"
    records = [
        result(KNOWN[0]),
        result(KNOWN[1], accommodations=[{"accommodationDescriptor": wrong}]),
        result(KNOWN[2], assessedMinutes="many"),
    ]
    with sending(bench) as lightbeam:
        lightbeam.write(*records)
        found = lightbeam.run("validate")["studentAssessments"]
        assert (found.records, found.accepted, found.failed) == (3, 1, 2)
        told = {r.status: r.message for r in found.refusals}
        assert told.keys() == {"descriptors", "schema"}
        assert "AccommodationDescriptor#None such" in told["descriptors"]
        assert lightbeam.scores() == {}
        # A value that comes to the ODS counts at once: none is remembered from earlier runs.
        namespace, _, code = wrong.partition("#")
        descriptor = {"namespace": namespace, "codeValue": code, "shortDescription": code}
        bench.store.post("accommodationDescriptors", descriptor)
        assert lightbeam.run("validate")["studentAssessments"].failed == 1


def test_descriptors_that_may_not_be_read_end_no_validation(bundles: MakeBundleBench) -> None:
    bench = bundles()
    bench.store.denied_reads.add("ed-fi/assessmentReportingMethodDescriptors")
    with sending(bench) as lightbeam:
        lightbeam.write(*map(result, KNOWN))
        started = time.monotonic()
        found = lightbeam.run("validate")["studentAssessments"]
        assert (found.accepted, found.failed) == (3, 0)
        assert lightbeam.lightbeam.unread == ["assessmentReportingMethodDescriptors"]
        assert time.monotonic() - started < 60
        assert len(bench.server.requests) < 40


def test_lightbeam_asking_for_ever_for_what_it_may_not_read_is_ended(bundles: MakeBundleBench) -> None:
    bench = bundles()
    bench.server.faults.add("/accommodationDescriptors.*", status=403, after=1, body=b"{}")
    with sending(bench) as lightbeam:
        lightbeam.resources = ("accommodationDescriptors",)  # type: ignore[assignment]
        (lightbeam.folder / "outputs" / "assessments.jsonl").unlink()
        namespace = "uri://ed-fi.org/AccommodationDescriptor"
        lightbeam.write({"namespace": namespace, "codeValue": "Braille"}, resource="accommodationDescriptors")
        with pytest.raises(ToolTimedOut, match="answers 403 for accommodationDescriptors"):
            lightbeam.run("delete")


@pytest.mark.slow
def test_deleted_records_are_gone_and_can_be_sent_again(bundles: MakeBundleBench) -> None:
    with sending(bundles()) as lightbeam:
        lightbeam.write(*map(result, KNOWN))
        lightbeam.send()
        lightbeam.write(*map(result, [*KNOWN, UNKNOWN]))
        found = lightbeam.run("delete")
        assert {name: (o.accepted, o.skipped, o.failed) for name, o in found.items()} == {
            "assessments": (1, 0, 0),
            # One the ODS never had.
            "studentAssessments": (3, 1, 0),
        }
        assert lightbeam.scores() == {}
        lightbeam.write(*map(result, KNOWN))
        assert lightbeam.run("send")["assessments"].accepted == 1
        assert len(lightbeam.scores()) == 3


@pytest.mark.slow
def test_a_record_that_may_not_be_deleted_is_a_failure(bundles: MakeBundleBench) -> None:
    bench = bundles()
    with sending(bench) as lightbeam:
        lightbeam.write(*map(result, KNOWN))
        lightbeam.send()
        bench.server.faults.add("/ed-fi/assessments/.+", method="DELETE", status=409, body=b"still used")
        found = lightbeam.run("delete")
    assert (found["assessments"].accepted, found["assessments"].failed) == (0, 1)
    assert [(r.status, r.count) for r in found["assessments"].refusals] == [("409", 1)]
    assert found["studentAssessments"].accepted == 3


@pytest.mark.ods("6.1", mode="year_specific")
@pytest.mark.slow
def test_mode_and_year_come_from_the_ods(bundles: MakeBundleBench) -> None:
    with sending(bundles()) as lightbeam:
        lightbeam.write(*map(result, KNOWN))
        assert lightbeam.run("validate")["studentAssessments"].failed == 0
        assert lightbeam.send().accepted == 3
        assert len(lightbeam.scores()) == 3


@pytest.mark.ods("2")
def test_an_ods_that_lightbeam_cannot_speak_with_is_told(bundles: MakeBundleBench) -> None:
    bench = bundles(year={"api_version": "2"})
    with pytest.raises(EarthbeamError, match="which Lightbeam cannot send to"), sending(bench):
        pass


def test_an_ods_that_is_down_or_refuses_the_key_is_told_before_lightbeam_starts(
    bundles: MakeBundleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bundles()
    monkeypatch.setenv(SECRET_VARIABLE, "not the secret")
    with pytest.raises(WrongCredentials), sending(bench):
        pass
    closed = bundles(year={"base_url": "http://127.0.0.1:9/api"})
    monkeypatch.setattr("edfi_dagster.ods.retries.seconds_before_retry", lambda *_: 0.0)
    with pytest.raises(OdsDown), sending(closed):
        pass


def test_an_ods_that_goes_down_in_between_is_a_failure_with_a_reason(bundles: MakeBundleBench) -> None:
    with sending(bundles()) as lightbeam:
        lightbeam.write(*map(result, KNOWN))
        addresses = {**lightbeam.lightbeam.target.addresses, "base_url": "http://127.0.0.1:9"}
        target = replace(lightbeam.lightbeam.target, addresses=addresses)
        lightbeam.lightbeam = replace(lightbeam.lightbeam, target=target)
        with pytest.raises(ToolFailed, match="Lightbeam failed: "):
            lightbeam.send()


def test_secrets_are_in_no_file_and_no_argument(bundles: MakeBundleBench, tmp_path: Path) -> None:
    secret = os.environ[SECRET_VARIABLE]
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "told"}\nexec {find_tool("lightbeam")} "$@"\n')
    spy.chmod(0o755)
    options = {"selector": "assess*,studentAssessments", "force": True, "older_than": "2030-01-01"}
    with sending(bundles(), path=str(spy), **options) as lightbeam:
        lightbeam.write(result(KNOWN[0]))
        lightbeam.send()
        told = (tmp_path / "told").read_text()
        for words in ("send -c", "-s assess*,studentAssessments", "-f", "-o 2030-01-01", "-r 401,403,404"):
            assert words in told
        files = [f for f in lightbeam.folder.rglob("*") if f.is_file()]
        assert len(files) > 4
        assert not [f for f in [*files, tmp_path / "told"] if secret.encode() in f.read_bytes()]


def test_a_refused_record_says_nothing_of_its_student(bundles: MakeBundleBench) -> None:
    bench = bundles()
    body = b'{"validationErrors": {"$.x": ["Jane Roe (600052, born 2011-04-05) has \'no such thing\'"]}}'
    bench.server.faults.add("studentAssessments", method="POST", status=400, times=1, body=body)
    with sending(bench) as lightbeam:
        lightbeam.write(result(600052, eventDescription="Jane Roe"))
        (refusal,) = lightbeam.send().refusals
    assert refusal == Refusal(
        "400", "<eventDescription> (<studentUniqueId>, born <date>) has '<value>' (at $.x)", 1, 1
    )


def test_used_descriptors_are_found_by_collection(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "a.jsonl", [result(1), {"sexDescriptor": 'uri://x/y#A"b'}, {"aDescriptor": "plain"}]
    )
    assert used_descriptors([tmp_path / "a.jsonl"]) == {
        "assessmentReportingMethodDescriptors": {tuple(METHOD.split("#"))},
        "resultDatatypeTypeDescriptors": {("uri://ed-fi.org/ResultDatatypeTypeDescriptor", "Integer")},
        "sexDescriptors": {("uri://x/y", 'A"b')},
    }


def test_token_renewals_far_apart_are_no_circle() -> None:
    now = [0.0]
    watcher = Watcher("https://ods.example.org", lambda: now[0])
    line = "2026-01-01 00:00:00.000 lightbeam DEBUG fetching new OAuth token due to a 401 response..."
    for _ in range(100):
        assert watcher(line) is None
        now[0] += 10.0
    assert any(watcher(line) for _ in range(30))
