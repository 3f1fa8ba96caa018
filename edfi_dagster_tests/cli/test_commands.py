"""The commands that acceptance scripts call, as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from edfi_dagster.cli.app import cli
from edfi_dagster.cli.commands import register
from edfi_dagster_tests.bench import PAIR, SECRET_VARIABLE, Bench

MakeBench = Callable[..., Bench]


def command(
    bench: Bench, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "edfi_dagster.cli", *arguments],
        cwd=bench.folder,
        env={**os.environ, "EDFI_DAGSTER_CONFIG": str(bench.config), **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def of_pair(*arguments: str) -> list[str]:
    return [*arguments, "--tenant", PAIR.tenant, "--year", str(PAIR.year)]


def test_materialize_loads_tells_and_shares_the_instance_of_the_folder(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    first = command(bench, *of_pair("materialize"), "--json")
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    assert document["success"] is True
    assert document["materialized"]["raw_edfi_3/students"]["edfi/rows_loaded"] == bench.store.count(
        "students"
    )
    bench.verify(["students", "sessions"])

    subset = command(bench, *of_pair("materialize"), "--endpoints", "STUDENTS", "--full-refresh", "--json")
    assert set(json.loads(subset.stdout)["materialized"]) == {"ed_fi/students", "raw_edfi_3/students"}
    assert (bench.folder / ".dagster").is_dir()


def test_materialize_fails_with_1_and_says_why(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    done = command(bench, *of_pair("materialize"), environment={SECRET_VARIABLE: "wrong"})
    assert done.returncode == 1
    assert "refused the key and secret" in " ".join(done.stderr.split())
    assert "wrong" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("materialize", "--tenant", "nowhere", "--year", "2025"),
            "is not declared; declared are grand_bend/2025",
        ),
        ((*of_pair("materialize"), "--endpoints", "studnets"), "studnets"),
        ((*of_pair("materialize"), "--select", "raw_edfi_3/nothing"), "raw_edfi_3/nothing"),
        ((*of_pair("pull"), "--endpoints", "students,sessions", "--out", "-"), "--out - takes one endpoint"),
        ((*of_pair("pull"), "--endpoints", "", "--out", "-"), "--endpoints names none"),
        ((*of_pair("pull"), "--endpoints", "students", "--out", "lake"), "is the lake of"),
        (
            (
                *of_pair("pull"),
                *("--endpoints", "students", "--out", "x"),
                *("--min-change-version", "9", "--max-change-version", "1"),
            ),
            "is above --max-change-version",
        ),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_what_to_write(
    make_bench: MakeBench, arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students", "sessions")
    monkeypatch.chdir(bench.folder)
    register(cli)
    done = CliRunner().invoke(cli, arguments, env={"EDFI_DAGSTER_CONFIG": str(bench.config)})
    assert done.exit_code == 2
    assert told in done.stderr


def test_pull_writes_a_lake_without_warehouse_or_instance(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    done = command(bench, *of_pair("pull"), "--endpoints", "students,sessions", "--out", "pulled", "--json")
    assert done.returncode == 0, done.stderr
    manifests = {m["endpoint"]: m for m in json.loads(done.stdout)["pulled"]}
    assert manifests["students"]["rows"] == bench.store.count("students")
    stored = [
        (bench.folder / "pulled" / file["path"]).read_bytes() for file in manifests["students"]["files"]
    ]
    lines = b"".join(zstandard.ZstdDecompressor().decompressobj().decompress(part) for part in stored)
    assert {json.loads(line)["id"] for line in lines.splitlines()} == set(bench.store.ids("students"))
    assert manifests["students"]["files"][0]["path"].startswith(f"{PAIR.tenant}/{PAIR.year}/2")
    assert not (bench.folder / ".dagster").exists()


def test_pull_prints_json_lines_of_a_window(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    before = bench.store.newest
    student = bench.store.rows("students")[0]
    bench.store.put("students", student["id"], {**student, "lastSurname": "Changed"})
    arguments = ["--endpoints", "students", "--out", "-", "--min-change-version", str(before + 1)]
    done = command(bench, *of_pair("pull"), *arguments)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line) == bench.store.rows("students")[0]


def test_pull_gives_deletes(make_bench: MakeBench) -> None:
    bench = make_bench("studentSchoolAttendanceEvents")
    gone = bench.store.ids("studentSchoolAttendanceEvents")[0]
    bench.store.delete("studentSchoolAttendanceEvents", gone)
    arguments = ["--endpoints", "studentSchoolAttendanceEvents", "--kind", "deletes", "--out", "-"]
    done = command(bench, *of_pair("pull"), *arguments)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [gone]


def test_rebuild_fills_another_warehouse_from_the_lake(make_bench: MakeBench) -> None:
    bench = make_bench("students", descriptors=("sexDescriptors",))
    bench.materialize()
    Path(bench.folder / "warehouse.duckdb").unlink()
    done = command(bench, *of_pair("rebuild"), "--json")
    assert done.returncode == 0, done.stderr
    bench.verify(["students", "sexDescriptors"])


def test_pull_goes_on_after_an_endpoint_that_is_not_permitted(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.store.deny("students")
    done = command(bench, *of_pair("pull"), "--endpoints", "students,sessions", "--out", "pulled")
    assert done.returncode == 1
    assert f"ed-fi/sessions: {bench.store.count('sessions')} rows" in done.stdout
    assert f"Error: {PAIR} ed-fi/students: HTTP 403" in done.stderr


def test_pull_prints_gzip_lakes_too(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.config.write_text(
        bench.config.read_text().replace("kind: local", "kind: local\n  compression: gzip")
    )
    done = command(bench, *of_pair("pull"), "--endpoints", "students", "--out", "-")
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["id"] for line in done.stdout.splitlines()} == set(bench.store.ids("students"))


@pytest.mark.slow
def test_what_was_skipped_is_said_on_standard_error_and_in_json(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.store.deny("students")
    bench.store.deny("sessions", read=False)
    done = command(bench, *of_pair("materialize"), "--json")
    assert done.returncode == 0, done.stderr
    (warning,) = json.loads(done.stdout)["warnings"]
    assert warning.startswith(f"{PAIR}: not permitted to this key, skipped: ")
    assert "ed-fi/students" in warning
    assert "ed-fi/sessions/deletes" in warning
    assert f"Warning: {warning}" in done.stderr
    assert "DEBUG" not in done.stderr


def test_rebuild_of_an_empty_lake_says_so(make_bench: MakeBench) -> None:
    done = command(make_bench("students"), *of_pair("rebuild"))
    assert done.returncode == 1
    assert f"{PAIR}: the lake at" in done.stderr
    assert "holds nothing of this tenant and year" in done.stderr
