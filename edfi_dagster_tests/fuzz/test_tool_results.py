"""Whatever Lightbeam and the lake hold of a bundle's run: what it means, or a sentence; never a value of a student."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edfi_dagster.earthbeam.errors import ToolFailed
from edfi_dagster.earthbeam.lightbeam_results import deletions, read_results, sendings, validations
from edfi_dagster.earthbeam.scrubbing import scrubbed
from edfi_dagster.earthbeam.sent import SentState
from edfi_dagster.earthbeam.target import Target
from edfi_dagster.lake.store import LakeError, LocalLake
from edfi_dagster.ods.source import Ods
from edfi_dagster_tests.fuzz.inputs import BROKEN, DEEP, ODD_TEXTS, VALUES, bodies, encoded, fuzzed, tried

RESULTS = {
    "started_at": "2025-01-02T03:04:05",
    "resources": {
        "students": {
            "records_processed": 2,
            "records_failed": 1,
            "successes": [{"status_code": 201, "count": 1, "line_numbers": [1]}],
            "failures": [{"status_code": 400, "count": 1, "line_numbers": [2], "message": "value 'Zaphodia' is not right"}],
        },
        "schools": {"records_processed": 0, "records_skipped": 0, "records_failed": 0},
    },
}  # fmt: skip
STATE = {"ods": "x", "newest": 5, "entries": {"students": {"00ff": [1.5, 201]}}}
TARGET = Target("x", "https://ods.example.org", {}, True, "7.3", "5.2.0", None, Ods())
LOG = "deleting data from endpoint students\n(final status counts: {204: 5, 409: 1})\n(reason: [409 'Zaphodia'; instances: 1)\n"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    (folder / "students.jsonl").write_text('{"firstName": "Zaphodia"}\n{"firstName": "Zaphodia"}\n')
    return folder


@fuzzed(50)
@given(body=st.one_of(bodies(RESULTS), BROKEN))
def test_results_of_lightbeam_are_understood_or_told_not_to_be(records: Path, body: bytes) -> None:
    tried["tool results"] += 1
    file = records / "results.json"
    file.write_bytes(body)
    found = read_results(file)
    if found is None:
        return
    for read in (
        lambda: validations(found, records, ["students", "schools"]),
        lambda: sendings(found, records, ["students", "schools"], lambda _: {}),
    ):
        try:
            outcomes = read()
        except ToolFailed as error:
            assert "see which version of lightbeam is installed" in str(error)
            continue
        assert [outcome.resource for outcome in outcomes] == ["students", "schools"]
        assert all("Zaphodia" not in refusal.message for o in outcomes for refusal in o.refusals)


@fuzzed(40)
@given(piece=ODD_TEXTS, at=st.integers(0, len(LOG)))
def test_a_log_of_deletions_is_read_whatever_it_says(records: Path, piece: str, at: int) -> None:
    tried["tool results"] += 1
    log = records / "log"
    log.write_text(LOG[:at] + piece + LOG[at:], encoding="utf-8", errors="surrogatepass")
    (outcome,) = deletions(log, records, ["students"])
    assert outcome.records == 2


@fuzzed(40)
@given(body=st.one_of(bodies(STATE), BROKEN), packed=st.booleans())
def test_what_was_sent_before_is_known_or_the_file_is_named(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, packed: bool
) -> None:
    tried["sent states"] += 1
    folder = tmp_path_factory.getbasetemp() / "sent"
    lake, state = LocalLake(folder / "lake"), SentState(folder / "state" / "deep" / "er")
    with lake.writing("sent.json.zst") as stream:
        stream.write(zstandard.compress(body) if packed else body)
    try:
        state.load(lake, "sent.json.zst", TARGET, 5)
    except LakeError as error:
        assert "sent.json.zst cannot be read" in str(error) and "sent again" in str(error)
    outside = [path for path in folder.rglob("*.dat") if path.parent != state.folder]
    assert outside == []


def test_no_resource_of_a_state_is_a_path(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path / "lake")
    for name in ("../../stolen", "/tmp/stolen", "a/b", ".."):
        with lake.writing("sent.json.zst") as stream:
            stream.write(zstandard.compress(encoded({**STATE, "entries": {name: {"00ff": [1.5, 201]}}})))
        with pytest.raises(LakeError, match="cannot be read"):
            SentState(tmp_path / "state").load(lake, "sent.json.zst", TARGET, 5)
    assert list(tmp_path.rglob("*.dat")) == []


class _Calls:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("stolen"),))


@pytest.mark.parametrize(
    "content",
    [b"", b".", b"\x80\x05N.", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x04]" * 10, b"garbage", b"i1\nxx\n", b"0" * 9, b"(" * DEEP, b"\x95" + b"\xff" * 8],
)  # fmt: skip
def test_a_state_of_lightbeam_that_is_none_is_told_and_nothing_is_called(
    tmp_path: Path, content: bytes
) -> None:
    for number, pickled in enumerate(
        [content, pickle.dumps(_Calls()), pickle.dumps({"a": 1}), pickle.dumps([b"a"])]
    ):
        (tmp_path / f"r{number}.dat").write_bytes(pickled)
        with pytest.raises(ToolFailed, match="cannot be read"):
            SentState(tmp_path).entries(f"r{number}")


@fuzzed(60)
@given(pickled=st.one_of(VALUES.map(pickle.dumps), st.binary(max_size=60)))
def test_any_state_of_lightbeam_is_read_or_told(
    tmp_path_factory: pytest.TempPathFactory, pickled: bytes
) -> None:
    tried["pickles"] += 1
    folder = tmp_path_factory.getbasetemp()
    (folder / "students.dat").write_bytes(pickled)
    try:
        found = SentState(folder).entries("students")
    except ToolFailed:
        return
    assert all(isinstance(key, bytes) for key in found)


@fuzzed(40)
@given(
    message=st.one_of(ODD_TEXTS, st.text(max_size=200)),
    record=st.one_of(bodies({"firstName": "Zaphodia"}), BROKEN),
)
def test_any_message_is_scrubbed_whatever_the_record(message: str, record: bytes) -> None:
    tried["messages"] += 1
    said = scrubbed(f"{message} 'Zaphodia' 604112233 2011-11-29 {message}"[:2000], record.decode("latin-1"))
    assert len(said) <= 300
    assert said.isprintable()
