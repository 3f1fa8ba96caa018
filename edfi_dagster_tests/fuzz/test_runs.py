"""Runs against an ODS, one of whose answers is anything: every record arrives, or the run says what is wrong."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edfi_dagster.config import ConfigError
from edfi_dagster.extract import EndpointResult
from edfi_dagster.lake.manifest import manifests
from edfi_dagster.lake.pull import Pull, PullRun, newest_to_read
from edfi_dagster.lake.store import LakeError, LocalLake
from edfi_dagster.ods.changes import whole_window
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, Collection
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster_tests.bench import KEY_VARIABLE, PAIR, SECRET_VARIABLE, Bench
from edfi_dagster_tests.fuzz.honest import NEWEST, Honest, Spoilt, students
from edfi_dagster_tests.fuzz.inputs import BROKEN, DEEP, ODD_TEXTS, bodies, encoded, fuzzed, tried
from edfi_dagster_tests.ods import platforms
from edfi_dagster_tests.ods.platforms import endpoint, platform_at
from edfi_dagster_tests.ods.stand_in import Reply, StandIn

ROWS = students(9)
STANDARDS = {"7.3": "5.2", "6.1": "4.0", "5.3": "3.3"}
STAMP = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
OURS = (EdFiError, LakeError, WarehouseError, ConfigError)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "key")
    monkeypatch.setenv(SECRET_VARIABLE, "secret")
    monkeypatch.setenv(platforms.KEY_VARIABLE, "key")
    monkeypatch.setenv(platforms.SECRET_VARIABLE, "secret")


def bench_at(folder: Path, url: str, version: str, **options: Any) -> Bench:
    document = {
        "lake": {"kind": "local", "root": "lake"},
        "warehouse": {"kind": "duckdb", "path": "warehouse.duckdb"},
        "extract": {
            "resources": {"students": {}},
            "descriptors": "none",
            "data_standard": STANDARDS[version],
            "max_concurrent_requests": 2,
            "endpoint_defaults": {"page_size": 2, "num_retries": 1},
            **options,
        },
        "tenants": {
            PAIR.tenant: {
                "years": {
                    PAIR.year: {
                        "base_url": url,
                        "client_id": {"env": KEY_VARIABLE},
                        "client_secret": {"env": SECRET_VARIABLE},
                    }
                }
            }
        },
    }
    config = folder / "platform.yaml"
    config.write_text(yaml.safe_dump(document))
    bench = Bench(config)
    bench.pause = lambda _: None
    return bench


def ran(bench: Bench) -> EndpointResult | None:
    """What came of a run; None where it ended as a whole, with a sentence of ours."""
    try:
        return bench.materialize(may_fail=True)["students"]
    except OURS as error:
        assert str(error).isprintable() and len(str(error)) < 600
        assert not isinstance(error, EdFiError) or str(PAIR) in str(error)
        return None


def pulled(folder: Path, url: str, version: str) -> set[str] | None:
    """The ids that a first pull of everything brings into the lake; None where it ends with a sentence of ours."""
    platform = platform_at(url, "extract: {max_concurrent_requests: 2}")
    lake = LocalLake(folder / "lake")
    with closing(OdsSession(platform.ods(PAIR), PAIR, sleep=lambda _: None)) as session:
        try:
            run = PullRun(lake, PAIR, STAMP, newest_to_read(session), "7.3", "5.2.0", threads=2)
            for kind in (DELETES, KEY_CHANGES, RECORDS):
                pull = Pull(
                    run, Collection(session, endpoint("students"), kind, page_size=2, retries=1), "students"
                )
                with closing(pull):
                    pull.read_full() if kind == RECORDS else pull.read_changes(whole_window(NEWEST))
            pull.publish(None)
        except OURS as error:
            assert str(error).isprintable() and len(str(error)) < 600
            assert not isinstance(error, EdFiError) or str(PAIR) in str(error)
            return None
    (manifest,) = manifests(lake, PAIR, STAMP)
    contents = [zstandard.ZstdDecompressor().stream_reader(lake.read(f.path)).read() for f in manifest.files]
    found = {json.loads(line)["id"] for content in contents for line in content.splitlines()}
    assert manifest.rows == len({key.replace("-", "").lower() for key in found})
    return found


def change_of(kind: str, body: bytes, text: str) -> Any:
    if kind == "body":
        return lambda reply: replace(reply, body=body)
    if kind == "header":
        value = (
            text.encode("latin-1", "replace").decode("latin-1").replace("\r", "").replace("\n", "")[:60_000]
        )
        return lambda reply: replace(reply, headers={**reply.headers, "Next-Page-Token": value})
    return lambda reply: replace(reply, headers={**reply.headers, "Content-Encoding": "gzip"})


PATHS = {
    "/oauth/token": {"access_token": "f00d", "expires_in": 5},
    "/availableChangeVersions": {"newestChangeVersion": NEWEST},
    "/students": ROWS[:2],
    "/students/partitions": {"pageTokens": ["0", "4"]},
    "/deletes": [],
    "/keyChanges": [],
}  # fmt: skip


@st.composite
def spoilings(draw: st.DrawFn) -> Spoilt:
    path = draw(st.sampled_from([*PATHS, "/students", "/students"]))
    kind = draw(st.sampled_from(["body", "body", "body", "header", "encoding"]))
    body = draw(st.one_of(bodies(PATHS[path]), BROKEN)) if kind == "body" else b""
    nth, times = draw(st.integers(1, 6)), draw(st.sampled_from([1, 1, 2, 1000]))
    return Spoilt(path, nth, times, change_of(kind, body, draw(ODD_TEXTS) if kind == "header" else ""))


@fuzzed(30)
@given(version=st.sampled_from(sorted(STANDARDS)), spoilt=spoilings())
def test_one_answer_of_nonsense_loses_no_record(
    tmp_path_factory: pytest.TempPathFactory, version: str, spoilt: Spoilt
) -> None:
    tried["pulls"] += 1
    with StandIn(Honest(version, ROWS, spoilt)) as ods:
        found = pulled(tmp_path_factory.mktemp("pull"), ods.url, version)
    assert found is None or found >= {row["id"] for row in ROWS}


@pytest.mark.slow
@fuzzed(40)
@given(version=st.sampled_from(sorted(STANDARDS)), spoilt=spoilings())
def test_one_answer_of_nonsense_loses_no_record_in_the_warehouse(
    tmp_path_factory: pytest.TempPathFactory, version: str, spoilt: Spoilt
) -> None:
    tried["runs"] += 1
    with StandIn(Honest(version, ROWS, spoilt)) as ods:
        bench = bench_at(tmp_path_factory.mktemp("run"), ods.url, version)
        result = ran(bench)
    if result is None:
        return
    assert all(cause.isprintable() and str(PAIR) in cause for cause in result.failures.values())
    if RECORDS not in result.failures:
        assert {record_id for record_id, _, _ in bench.raw("students")} >= {row["id"] for row in ROWS}


# -- values that are JSON, but that somebody may not like -----------------------------------------------------

ODD_VALUES: dict[str, bytes] = {
    "number beyond floats": b"1e999",
    "large number": b"9" * 400,
    "exact decimal": b"1.50000000000000000000000000001",
    "null byte": b'"a\\u0000b"',
    "line separators": '"\u2028\u2029\u0085"'.encode(),
    "quotes": b'"\\"\\\\\'; DROP TABLE x; --"',
    "deep lists": b"[" * 400 + b"]" * 400,
    "deep objects": b'{"a":' * 400 + b"1" + b"}" * 400,
    "a megabyte": b'"' + b"x" * 2**20 + b'"',
    "repeated names": b'{"a":1,"a":2}',
    "empty name": b'{"":{"":1}}',
    "emoji": '"\U0001f600"'.encode(),
    "escaped pair": b'"\\ud83d\\ude00"',
    "control": b'"\\u001b[2J"',
}


def test_odd_values_arrive_as_they_were_sent(tmp_path: Path) -> None:
    rows = [{**row, "odd": None} for row in students(len(ODD_VALUES))]
    pieces = [
        encoded(row).replace(b'"odd": null', b'"odd":' + v)
        for row, v in zip(rows, ODD_VALUES.values(), strict=True)
    ]

    def odd(reply: Reply) -> Reply:
        return (
            replace(reply, body=b"[" + b",".join(pieces) + b"]")
            if b"studentUniqueId" in reply.body
            else reply
        )

    with StandIn(Honest("6.1", rows, Spoilt("/students", 1, 1000, odd))) as ods:
        bench = bench_at(tmp_path, ods.url, "6.1", endpoint_defaults={"page_size": 50})
        bench.materialize()
        # Again, for the comparison with what is there.
        bench.materialize()
    found = {record["id"]: text for text, record in _texts(bench)}
    assert len(found) == len(rows)
    for row, (name, value) in zip(rows, ODD_VALUES.items(), strict=True):
        assert value in found[row["id"]].encode(), name


def _texts(bench: Bench) -> list[tuple[str, dict[str, Any]]]:
    rows = bench.query("SELECT CAST(v AS VARCHAR) FROM edfi3.students")
    assert len(rows) == len(ODD_VALUES)
    return [(text, json.loads(text)) for (text,) in rows]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/availableChangeVersions", b'{"newestChangeVersion": -5}'),
        ("/availableChangeVersions", b'{"newestChangeVersion": 1e3}'),
        ("/availableChangeVersions", b'{"newestChangeVersion": 9223372036854775808}'),
        ("/availableChangeVersions", b'{"newestChangeVersion": ' + b"9" * 6000 + b"}"),
        ("/availableChangeVersions", b"[" * DEEP),
        ("/students", b"[" * DEEP),
        ("/students", b'[{"id":"\\ud800"}]'),
        ("/students", b'\xef\xbb\xbf[{"id":"a"}]'),
        ("/students", b'[{"id":"a","b":NaN}]'),
        ("/oauth/token", b"[" * DEEP),
        ("/oauth/token", b'{"access_token":"a\\nb"}'),
        ("/", b"[" * DEEP),
        ("/deletes", b"[" * DEEP),
        ("/keyChanges", b'[{"id":"a","changeVersion":99999999999999999999}]'),
    ],
)
def test_an_answer_that_is_always_nonsense_ends_with_a_sentence(
    tmp_path: Path, path: str, body: bytes
) -> None:
    spoilt = Spoilt(path, 1, 1000, lambda reply: replace(reply, body=body))
    with StandIn(Honest("7.3", ROWS, spoilt)) as ods:
        assert pulled(tmp_path, ods.url, "7.3") is None


@pytest.mark.parametrize("body", [b"[" * DEEP, b'{"pageTokens":["\xff"]}', b'{"pageTokens":[]}'])
def test_partitions_that_are_always_nonsense_cost_no_row(tmp_path: Path, body: bytes) -> None:
    spoilt = Spoilt("/students/partitions", 1, 1000, lambda reply: replace(reply, body=body))
    with StandIn(Honest("7.3", ROWS, spoilt)) as ods:
        assert pulled(tmp_path, ods.url, "7.3") == {row["id"] for row in ROWS}


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/oauth/token", "/availableChangeVersions", "/students", "/deletes"])
def test_a_run_ends_with_a_sentence_though_an_answer_is_nested_without_end(tmp_path: Path, path: str) -> None:
    spoilt = Spoilt(path, 1, 1000, lambda reply: replace(reply, body=b"[" * DEEP))
    with StandIn(Honest("7.3", ROWS, spoilt)) as ods:
        result = ran(bench_at(tmp_path, ods.url, "7.3"))
    assert result is None or result.failures


@pytest.mark.parametrize("version", sorted(STANDARDS))
@pytest.mark.parametrize(
    "told",
    [
        "9" * 5000,
        "99999999999999999",
        pytest.param("9999999999", marks=pytest.mark.slow),
        "-1",
        "²",
        "0x10",
        "1_0",
        "999",
    ],
)
def test_a_lying_count_ends_with_a_sentence(tmp_path: Path, told: str, version: str) -> None:
    def lie(reply: Reply) -> Reply:
        counted = "Total-Count" in reply.headers
        return replace(reply, headers={**reply.headers, "Total-Count": told}) if counted else reply

    with StandIn(Honest(version, ROWS, Spoilt("/students", 1, 10**6, lie))) as ods:
        assert pulled(tmp_path, ods.url, version) is None
        assert len(ods.asked) < 2500
