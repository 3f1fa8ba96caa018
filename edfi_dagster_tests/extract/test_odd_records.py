"""Records that are not strict JSON, and answers with a byte order mark: read, stored as sent, loaded, and told."""

from __future__ import annotations

import json
from typing import Any

import pytest
import zstandard

from edfi_dagster.ods.pages import KEY_CHANGES
from edfi_dagster_tests.bench import PAIR, Bench, MakeBench

# Where the ODS writes "@odd@": what stands there, and how a warehouse holds it.
SPELLINGS: dict[str, tuple[str, Any]] = {
    "high half": ('"Ol\\ud83dson"', "Ol\ufffdson"),
    "low half": ('"\\uDE00"', "\ufffd"),
    "halves the wrong way round": ('"\\ude00\\ud83d"', "\ufffd\ufffd"),
    "a half before a pair": ('"\\ud83d\\ud83d\\ude00"', "\ufffd\U0001f600"),
    "an escaped backslash before u": ('"\\\\ud83d\\ud83d"', "\\ud83d\ufffd"),
    "Latin-1": ('"Ol\udce9"', "Ol\ufffd"),
    "a surrogate as bytes": ('"\udced\udca0\udcbd"', "\ufffd\ufffd\ufffd"),
    "a control character": ('"a\x01b"', "a\x01b"),
    "a NUL": ('"a\x00b"', "a\x00b"),
    "a NUL escape": ('"a\\u0000b"', "a\x00b"),
    "a raw line break": ('"a\r\nb"', "a\r\nb"),
    "NaN": ("NaN", None),
    "-Infinity": ("-Infinity", None),
    "NaN in a string": ('"NaN [1, {"', "NaN [1, {"),
    "twenty digits": ("12345678901234567890", 12345678901234567890),
    "a repeated name": ('1, "middleName": 1', 1),
}
STRICT = {"a NUL escape", "NaN in a string", "twenty digits", "a repeated name"}


def lake_lines(bench: Bench, name: str = "students") -> bytes:
    """The lines of the newest pull, as stored."""
    found = b""
    for file in bench.manifest(name).files:
        found += zstandard.ZstdDecompressor().stream_reader(bench.lake.read(file.path)).read()
    return found


def check_equal(bench: Bench, name: str, expected: dict[str, dict[str, Any]]) -> None:
    """Raw rows, our view and what dbt stages are what the ODS has, odd values as they are repaired."""
    table = bench.endpoint(name).snake
    assert {record_id: row for record_id, _, row in bench.raw(table)} == expected
    assert bench.current(name) == expected
    views = bench.query(f"SELECT v FROM edfi3.{table}_current WHERE tenant_code = ? AND api_year = ?", PAIR)
    assert {row["id"]: row for row in (json.loads(v) for (v,) in views)} == expected


@pytest.mark.both_storages
@pytest.mark.parametrize("kind", SPELLINGS)
def test_one_odd_record_is_stored_as_sent_and_loaded_repaired(make_bench: MakeBench, kind: str) -> None:
    bench = make_bench("students")
    odd = bench.add_student(1, middleName="@odd@")
    spelled, held = SPELLINGS[kind]
    bench.store.oddities.spellings['"@odd@"'] = spelled
    bench.materialize()
    expected = bench.ods_rows("students")
    expected[odd]["middleName"] = held
    check_equal(bench, "students", expected)
    as_sent = spelled.encode("utf-8", "surrogateescape").replace(b"\r", b"\\r").replace(b"\n", b"\\n")
    assert as_sent.replace(b", ", b",").replace(b": ", b":") in lake_lines(bench) or "[" in spelled
    manifest = bench.manifest("students")
    assert manifest.rows == manifest.expected_rows == len(expected)
    warned = [sentence for sentence in bench.told if "not strict JSON" in sentence]
    if kind in STRICT:
        assert not warned and not manifest.odd_rows
    else:
        assert len(warned) == 1
        assert odd in warned[0] and "grand_bend/2025 ed-fi/students" in warned[0]
        assert (manifest.odd_rows, manifest.odd) == (1, (odd,))
    result = bench.materialize()["students"]
    assert not result.table_changed, "an odd record that is read again is not new"


def test_odd_keys_of_changes_and_odd_descriptors_are_read(make_bench: MakeBench) -> None:
    descriptor = "graduationPlanTypeDescriptors"
    bench = make_bench("locations", "students", descriptors=(descriptor,))
    namespace = "uri://ed-fi.org/GraduationPlanTypeDescriptor"
    bench.store.post(descriptor, {"namespace": namespace, "codeValue": "Odd", "shortDescription": "@odd@"})
    gone = bench.add_student(1, studentUniqueId="@odd@")
    moved = bench.store.ids("locations")[0]
    bench.store.oddities.spellings["@odd@"] = "x\\ud83d"
    bench.materialize()
    bench.change("locations", moved, classroomIdentificationCode="@odd@")
    bench.store.delete("students", gone)
    bench.materialize()
    held = {
        row["id"]: json.loads(json.dumps(row).replace("@odd@", "x\ufffd"))
        for row in bench.store.rows("locations")
    }
    assert bench.current("locations") == held
    assert bench.current("students") == bench.ods_rows("students")
    assert set(bench.deletes("students")) == {gone}
    assert bench.manifest("locations", KEY_CHANGES).odd == (moved,)
    assert "x\ufffd" in {row["shortDescription"] for row in bench.current(descriptor).values()}


def test_every_record_of_an_endpoint_may_be_odd(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.store.oddities.spellings['"birthDate":'] = '"note": "\udcff\\udfff", "birthDate":'
    bench.materialize()
    expected = {i: {**row, "note": "\ufffd\ufffd"} for i, row in bench.ods_rows("students").items()}
    check_equal(bench, "students", expected)
    (warned,) = [sentence for sentence in bench.told if "not strict JSON" in sentence]
    assert f"{len(expected)} records" in warned and warned.count("…") == 1


def test_a_rebuild_loads_odd_records_without_the_ods(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    odd = bench.add_student(1, middleName="@odd@")
    bench.store.oddities.spellings["@odd@"] = "\\ud83d"
    bench.materialize()
    bench.rebuild()
    expected = bench.ods_rows("students")
    expected[odd]["middleName"] = "\ufffd"
    check_equal(bench, "students", expected)


def test_a_record_that_is_no_json_at_all_fails_by_its_id(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    broken = bench.add_student(1, middleName="@odd@")
    bench.store.oddities.spellings['"@odd@"'] = "01"
    (cause,) = bench.materialize(may_fail=True)["students"].failures.values()
    assert f"not JSON (record {broken})" in cause and "Ada" not in cause


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    "version", [pytest.param(v, marks=pytest.mark.ods(v)) for v in ("7.3", "6.1", "5.3")]
)
def test_a_byte_order_mark_before_every_answer_changes_nothing(
    make_bench: MakeBench, version: str, mark: bytes
) -> None:
    bench = make_bench("students", "locations")
    bench.store.oddities.mark = mark
    bench.materialize()
    bench.verify()
    bench.change("students", bench.store.ids("students")[0], firstName="Ada")
    bench.materialize()
    bench.verify()
