"""One run of a bundle: what is done before is not done again, what fails is told and cleaned up, nothing is half reported.

Earthmover is stood in for by a copy of prepared outputs, as its seconds prove nothing here; Lightbeam is the real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard

from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster_tests.bench import KEY_VARIABLE, ODS
from edfi_dagster_tests.earthbeam.conftest import BundleBench, Prepare
from edfi_dagster_tests.earthbeam.prepared import (
    STUDENTS,
    sent,
    write_results,
)
from edfi_dagster_tests.earthbeam.sending import NAMESPACE, result, write_lines

# -- nothing to do ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_again_is_nothing_to_do_until_something_of_it_is_another(prepare: Prepare) -> None:
    bench = prepare()
    first = bench.run()
    assert sent(first) == {"assessments": (1, 0, 0), "studentAssessments": (2, 0, 0)}
    again = bench.run()
    assert (again.unchanged, again.outputs, again.sent, again.fingerprint) == (
        True,
        (),
        (),
        first.fingerprint,
    )
    assert [row["unchanged"] for row in bench.run_log()] == [False, True]
    # An edited file of the bundle, whichever it is; Earthmover's own state would not see it.
    (bench.folder / "bundle" / "notes.jsont").write_text("{}")
    edited = bench.run()
    assert not edited.unchanged and edited.fingerprint != first.fingerprint
    assert sent(edited) == {"assessments": (0, 1, 0), "studentAssessments": (0, 2, 0)}


@pytest.mark.slow
def test_force_reaches_both_tools(prepare: Prepare) -> None:
    bench = prepare()
    bench.run()
    forced = bench.run(force=True)
    assert sent(forced) == {"assessments": (1, 0, 0), "studentAssessments": (2, 0, 0)}


def test_what_was_kept_of_the_last_run_must_still_be_there(prepare: Prepare) -> None:
    bench = prepare(destination="none")
    first = bench.run()
    assert bench.run().unchanged
    bench.lake.delete(first.archived[-1])
    again = bench.run()
    assert not again.unchanged and len(again.archived) == len(first.archived) == 3


def test_an_ods_that_was_restored_is_sent_to_again_though_nothing_else_changed(prepare: Prepare) -> None:
    bench = prepare()
    bench.run()
    bench.store.restore("first")
    again = bench.run()
    assert sent(again) == {"assessments": (1, 0, 0), "studentAssessments": (2, 0, 0)}
    assert any("it was restored" in told for told in bench.told)


def reads(bench: BundleBench, since: int) -> int:
    """Reads of records by our own session; Lightbeam only posts."""
    found = list(bench.server.requests)[since:]
    return sum(r.method == "GET" and r.path.endswith(("/studentAssessments", "/assessments")) for r in found)


def results_of(bench: BundleBench) -> list[dict[str, Any]]:
    rows = bench.store.rows("studentAssessments")
    return [row for row in rows if row["assessmentReference"]["namespace"] == NAMESPACE]


def grow(bench: BundleBench) -> None:
    """Have the ODS count far beyond what it had counted."""
    bench.store.take_numbers(bench.store.endpoint("locations"), 5_000)


@pytest.mark.parametrize("edited", [False, True])
def test_15_an_ods_restored_and_grown_beyond_what_it_was_sent_is_sent_to_again(
    prepare: Prepare, edited: bool
) -> None:
    """Neither as a whole, where nothing else changed, nor record by record, where the bundle was edited."""
    bench = prepare()
    bench.run()
    bench.store.restore("first")
    grow(bench)
    if edited:
        (bench.folder / "bundle" / "notes.jsont").write_text("{}")
    before = len(bench.server.requests)
    again = bench.run()
    assert sent(again) == {"assessments": (1, 0, 0), "studentAssessments": (2, 0, 0)}
    assert any("none of 2 records that it accepted last" in told for told in bench.told)
    assert reads(bench, before) <= 4
    assert bench.run().unchanged


def test_15_what_was_sent_is_looked_for_by_one_read_and_remembered_without_its_values(
    prepare: Prepare,
) -> None:
    bench = prepare()
    before = len(bench.server.requests)
    bench.run()
    assert reads(bench, before) == 1
    grow(bench)
    before = len(bench.server.requests)
    assert bench.run().unchanged
    assert reads(bench, before) == 1
    (state,) = (bench.folder / "lake" / "_earthbeam").rglob("sent_*.json.zst")
    text = zstandard.ZstdDecompressor().decompress(state.read_bytes()).decode()
    assert not any(str(value) in text for value in (*STUDENTS, "BROOK", "brook"))
    ids = {row["id"] for row in bench.store.rows("studentAssessments")}
    witnesses = json.loads(text)["witnesses"]
    assert len(witnesses) == 2 and {witness["id"] for witness in witnesses} <= ids


def test_15_records_that_were_there_before_tell_of_a_restore_by_their_version(prepare: Prepare) -> None:
    """An update leaves no new id: after the restore the records are there, with the score of before."""
    bench = prepare()
    bench.run()
    bench.store.save("first scores")
    write_results(bench.folder, *STUDENTS, score=9)
    edit = bench.folder / "in.csv"
    edit.write_text("a,b\n5,6\n")
    assert sent(bench.run())["studentAssessments"] == (2, 0, 0)
    bench.store.restore("first scores")
    grow(bench)
    assert sent(bench.run())["studentAssessments"] == (2, 0, 0)
    scores = {row["scoreResults"][0]["result"] for row in results_of(bench)}
    assert scores == {"9"}


def test_15_what_one_of_them_lost_in_the_ods_is_no_restore(prepare: Prepare) -> None:
    bench = prepare()
    bench.run()
    gone = results_of(bench)[0]
    bench.store.delete("studentAssessments", gone["id"])
    assert bench.run().unchanged


def test_15_a_key_that_may_not_read_is_told_of_restores_by_change_versions_alone(prepare: Prepare) -> None:
    bench = prepare()
    for endpoint in ("assessments", "studentAssessments"):
        bench.store.deny(endpoint)
    assert bench.run().failure is None
    grow(bench)
    assert bench.run().unchanged


def test_15_a_key_that_leads_to_another_ods_at_the_same_address_is_sent_everything(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither key may read, so that nothing that was sent can be looked for; the other ODS is further in its versions."""
    bench = prepare()
    for endpoint in ("assessments", "studentAssessments"):
        bench.store.deny(endpoint)
    bench.run()
    bench.store.restore("first")
    grow(bench)
    bench.server.route("another key", ODS, ODS)
    monkeypatch.setenv(KEY_VARIABLE, "another key")
    assert sent(bench.run()) == {"assessments": (1, 0, 0), "studentAssessments": (2, 0, 0)}
    assert any("its address or the key was changed" in told for told in bench.told)
    assert bench.run().unchanged


@pytest.mark.slow
def test_a_file_is_sent_again_after_another_one_changed_its_students(prepare: Prepare) -> None:
    bench = prepare()
    other = bench.folder / "other.csv"
    other.write_text("a,b\n3,4\n")
    bench.run()
    write_results(bench.folder, *STUDENTS, score=9)
    bench.run(file=other)
    write_results(bench.folder, *STUDENTS)
    assert sent(bench.run())["studentAssessments"] == (2, 0, 0)


# -- failures ---------------------------------------------------------------------------------------------


def test_a_refused_record_fails_the_run_and_it_is_tried_again(prepare: Prepare) -> None:
    bench = prepare()
    write_results(bench.folder, *STUDENTS, "bench-1")
    found = bench.run()
    assert found.failed_step == "send" and found.failure is not None
    assert (
        found.failure.startswith("1 of 3 studentAssessments refused (409: ")
        and "bench-1" not in found.failure
    )
    assert sent(found)["studentAssessments"] == (2, 0, 1)
    assert [(row["is_done"], row["failed_step"]) for row in bench.run_log()] == [(False, "send")]
    bench.add_student(1)
    again = bench.run()
    assert (again.unchanged, again.failure) == (False, None)
    assert sent(again)["studentAssessments"] == (1, 2, 0)


def test_a_share_of_refusals_may_be_borne_but_is_never_taken_for_done(prepare: Prepare) -> None:
    bench = prepare(lightbeam={"command": "send", "max_failed_share": 0.4})
    write_results(bench.folder, *STUDENTS, "bench-1")
    found = bench.run()
    assert (found.failure, sent(found)["studentAssessments"]) == (None, (2, 0, 1))
    assert not bench.run().unchanged


def test_nothing_is_sent_where_the_check_before_it_fails(prepare: Prepare) -> None:
    bench = prepare(lightbeam={})
    write_lines(
        bench.folder / "prepared" / "studentAssessments.jsonl", [result(STUDENTS[0], assessedMinutes="long")]
    )
    found = bench.run()
    assert found.failed_step == "validate" and found.failure is not None
    assert found.failure.startswith("1 of 1 studentAssessments invalid (schema: ")
    assert found.sent == () and len(bench.store.rows("assessments")) == 3


def test_a_file_that_is_still_being_written_is_told(prepare: Prepare) -> None:
    bench = prepare(destination="none")
    tool = bench.folder / "earthmover"
    tool.write_text(f"{tool.read_text()}echo 5,6 >> {bench.folder / 'in.csv'}\n")
    assert bench.run().failure == "INPUT_FILE was changed while it was read; run again when it is complete"


def test_a_fault_of_ours_is_logged_cleaned_up_and_raised(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = prepare(destination="none")

    def stumble(*_: object, **__: object) -> None:
        raise ZeroDivisionError("600052")

    monkeypatch.setattr("edfi_dagster.earthbeam.transform.Transformation.run", stumble)
    with pytest.raises(ZeroDivisionError):
        bench.run()
    (row,) = bench.run_log()
    assert row["failure"] == "ZeroDivisionError in step earthmover"


def test_a_run_log_that_cannot_be_written_does_not_fail_the_run(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise WarehouseError("the disk is full")

    bench = prepare(destination="none")
    monkeypatch.setattr("edfi_dagster.earthbeam.run.write_run_log", full)
    assert bench.run().failure is None
    assert "the run log could not be written: the disk is full" in bench.told


def test_an_ods_that_is_down_is_told_before_earthmover_runs(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edfi_dagster.ods.retries.seconds_before_retry", lambda *_: 0.0)
    bench = prepare(year={"base_url": "http://127.0.0.1:9/api"})
    found = bench.run()
    assert found.failed_step == "sign in" and found.failure is not None
    assert not (bench.folder / "parameters").exists()


# -- what looks done and is not ---------------------------------------------------------------------------


def test_what_was_loaded_into_another_warehouse_is_not_taken_for_done(prepare: Prepare) -> None:
    bench = prepare(destination="warehouse")
    first = bench.run()
    assert (len(first.loaded), bench.run().unchanged) == (2, True)
    bench.move_to_warehouse("new")
    again = bench.run()
    assert (again.unchanged, {load.inserted for load in again.loaded}) == (False, {1, 2})
    assert bench.run().unchanged


def test_records_for_which_the_ods_has_no_endpoint_are_not_taken_for_done(prepare: Prepare) -> None:
    bench = prepare()
    destinations = bench.folder / "bundle" / "earthmover.yaml"
    destinations.write_text(
        destinations.read_text() + "  quizzes: {source: $sources.input, extension: jsonl}\n"
    )
    write_lines(bench.folder / "prepared" / "quizzes.jsonl", [{"quizIdentifier": "1"}])
    found = bench.run()
    assert (found.failure, [o.resource for o in found.sent if not o.offered]) == (None, ["quizzes"])
    assert not bench.run().unchanged


def test_a_failing_postprocess_hook_is_called_again(prepare: Prepare) -> None:
    made = prepare(destination="none").folder / "made"
    hook = ["sh", "-c", f"test -e {made} || {{ touch {made}; exit 3; }}"]
    bench = prepare(destination="none", hooks={"postprocess": hook})
    assert bench.run().failure == "hook sh ended with exit code 3"
    again = bench.run()
    assert (again.failure, again.unchanged, bench.run().unchanged) == (None, False, True)


def test_a_file_outside_the_bundle_counts_as_what_it_holds(prepare: Prepare) -> None:
    bench = prepare(destination="none", parameters={"MAPPING": str(prepare().folder / "mapping.csv")})
    mapping, config = bench.folder / "mapping.csv", bench.folder / "bundle" / "earthmover.yaml"
    mapping.write_text("a,b\n1,2\n")
    source = '  mapping: {file: "${MAPPING}"}\ndestinations:\n'
    config.write_text(config.read_text().replace("destinations:\n", source))
    assert (bench.run().failure, bench.run().unchanged) == (None, True)
    mapping.write_text("a,b\n1,3\n")
    assert not bench.run().unchanged


def test_files_of_one_name_are_both_archived(prepare: Prepare) -> None:
    bench = prepare(destination="none")
    config = bench.folder / "bundle" / "earthmover.yaml"
    config.write_text(config.read_text().replace("destinations:", '  more: {file: "${MORE}"}\ndestinations:'))
    (bench.folder / "more").mkdir()
    (bench.folder / "more" / "in.csv").write_text("c\n3\n")
    found = bench.run(inputs={"MORE": bench.folder / "more" / "in.csv"})
    raw = [path.partition("/raw/")[2] for path in found.archived if "/raw/" in path]
    assert sorted(raw) == ["INPUT_FILE/in.csv.zst", "MORE/in.csv.zst"]


def test_what_a_killed_run_left_is_gone_with_the_next_one_and_a_living_one_is_left_alone(
    prepare: Prepare,
) -> None:
    bench = prepare(destination="none")
    rooms = bench.folder / "rooms"
    script = (
        "import sys, time; from pathlib import Path; from edfi_dagster.earthbeam.workspace import workspace\n"
        "with workspace(Path(sys.argv[1])) as space:\n"
        "    (space.outputs / 'students.jsonl').write_text('{}'); print(space.root, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(rooms)], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        left = Path(running.stdout.readline().strip())
        os.utime(left / "lock", (0, 0))
        assert bench.run().failure is None
        assert left.is_dir()
        running.kill()
    assert bench.run(force=True).failure is None
    assert not left.exists()


# -- beside each other ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_waited_for_another_of_its_bundle_knows_what_that_one_sent(prepare: Prepare) -> None:
    """It asked the ODS where it stands before the other sent: the ODS has moved on since, and was not restored."""
    bench = prepare()
    other = bench.folder / "other.csv"
    other.write_text("a,b\n3,4\n")
    tool = bench.folder / "earthmover"
    waiting = bench.folder / "waiting"
    # The first Earthmover that runs over the other file waits until the whole other run is over.
    tool.write_text(
        f"{tool.read_text()}grep -q 3,4 {other} && case $words in *other.csv*)\n"
        f"  touch {waiting}; while test -e {waiting}; do sleep 0.05; done;; esac\ntrue\n"
    )
    tool.write_text(tool.read_text().replace("#!/bin/sh\n", '#!/bin/sh\nwords="$*"\n'))
    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(bench.run, file=other)
        while not waiting.exists():
            time.sleep(0.05)
        assert sent(bench.run())["studentAssessments"] == (2, 0, 0)
        waiting.unlink()
        assert sent(late.result())["studentAssessments"] == (0, 2, 0)
    assert not any("restored" in told for told in bench.told)


def test_a_bundle_with_a_file_that_cannot_be_read_says_which(prepare: Prepare) -> None:
    bench = prepare(destination="none")
    (bench.folder / "bundle" / "dangling.csv").symlink_to(bench.folder / "nowhere.csv")
    assert bench.run().failure is None
    os.mkfifo(bench.folder / "bundle" / "pipe")
    assert "bundle/pipe: cannot be copied for the run" in str(bench.run().failure)
