"""No secret and no student's value in anything that a run says or leaves, though the ODS repeats both in its errors."""

from __future__ import annotations

import json
import logging
import os
import stat
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
import zstandard

from edfi_dagster.config import TenantYear, parse_platform
from edfi_dagster.lake.ids import DistinctIds
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster_tests.bench import Bench
from edfi_dagster_tests.cli.in_process import invoke
from edfi_dagster_tests.fuzz.honest import Honest, students
from edfi_dagster_tests.fuzz.inputs import encoded
from edfi_dagster_tests.ods.platforms import PAIR, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn
from edfi_dagster_tests.security.conftest import KEY, SECRET, TOKEN

NAME, NUMBER, BIRTHDAY = "Zaphodia-Planted", "PLANTED-604-11", "2011-11-29"
VALUES = (NAME, NUMBER, BIRTHDAY)
SECRETS = (SECRET, TOKEN)
STUDENT = {"studentUniqueId": NUMBER, "firstName": NAME, "lastSurname": NAME, "birthDate": BIRTHDAY}
ROWS = [{**row, **STUDENT, "studentUniqueId": f"{NUMBER}-{n}"} for n, row in enumerate(students(6))]
# Endpoint → what its collection answers; every fault that may repeat what was sent or read.
ENDPOINTS = (
    "students",
    "staffs",
    "schools",
    "sessions",
    "courses",
    "locations",
    "grades",
    "contacts",
)


def echo(asked: Asked) -> str:
    """What an ODS with too much to say adds to an error."""
    sent = json.dumps([asked.path, dict(asked.query), dict(asked.headers), asked.body.decode()])
    return f"{sent} {json.dumps(STUDENT)} client_secret={SECRET} Bearer {TOKEN} Student {NAME} ({NUMBER}), born {BIRTHDAY}"


def complaint(asked: Asked, status: int, **headers: str) -> Reply:
    said = echo(asked)
    document = {
        "type": f"urn:ed-fi:api:{NAME}",
        "title": said,
        "detail": said,
        "message": said,
        "errors": [said],
        "error": said,
        "error_description": said,
        "correlationId": NUMBER,
        "validationErrors": {NAME: [NUMBER]},
    }
    return Reply(document, status=status, headers=headers)


BROKEN = {
    "staffs": lambda asked: complaint(asked, 400),
    "schools": lambda asked: complaint(asked, 500, **{"Retry-After": NAME}),
    "sessions": lambda asked: Reply(encoded(ROWS)[:-40], headers={"Total-Count": "6"}),
    "courses": lambda asked: complaint(asked, 302, Location=f"/{NAME}?token={TOKEN}&id={NUMBER}"),
    "locations": lambda asked: complaint(asked, 403),
    "grades": lambda asked: complaint(asked, 409),
    "contacts": lambda asked: Reply(ROWS, headers={"Total-Count": "60"}),
    "programs": lambda asked: Reply(encoded([{**ROWS[0], "id": None}]), headers={"Total-Count": "1"}),
    "swagger.json": lambda asked: complaint(asked, 200),
    "token": lambda asked: Reply({"access_token": TOKEN, "expires_in": 1800}),
}


def faulty(asked: Asked) -> Reply | None:
    *_, owner, last = asked.path.split("/")
    if last in BROKEN:
        return BROKEN[last](asked)
    if last in {"deletes", "keyChanges"} and owner != "students":
        return complaint(asked, 500)
    return Honest("7.3", ROWS)(asked)


@pytest.fixture
def ods() -> Iterator[StandIn]:
    with StandIn(faulty) as running:
        yield running


def platform(folder: Path, url: str) -> Path:
    document = {
        "lake": {"kind": "local", "root": "lake"},
        "warehouse": {"kind": "duckdb", "path": "warehouse.duckdb"},
        "extract": {
            "resources": {name: {} for name in ENDPOINTS},
            "descriptors": "none",
            "pull_total_counts": True,
            "endpoint_defaults": {"num_retries": 0, "page_size": 25},
        },
        "tenants": {
            PAIR.tenant: {
                "years": {
                    PAIR.year: {
                        "base_url": url,
                        "client_id": {"env": "BENCH_CLIENT_ID"},
                        "client_secret": {"env": "BENCH_CLIENT_SECRET"},
                    }
                }
            }
        },
    }
    config = folder / "platform.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder; those of the lake unpacked."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".zst":
                content = zstandard.ZstdDecompressor().stream_reader(content).read()
            yield path, content


def holding(folder: Path, words: tuple[str, ...]) -> list[tuple[str, str]]:
    """(file, word) of every file that holds one of the words."""
    return [
        (str(p.relative_to(folder)), word)
        for p, c in contents(folder)
        for word in words
        if word.encode() in c
    ]


def is_data(name: str) -> bool:
    """Whether a file is there to hold records: the lake's files and the warehouse."""
    return (name.startswith("lake/") and name.endswith(".jsonl.zst")) or name.startswith("warehouse.duckdb")


COMMANDS = (["materialize", "--full-refresh"], ["status"], ["check"], ["discover"], ["resync", "--dry-run"])


@pytest.mark.parametrize("commands", [(), pytest.param(COMMANDS, marks=pytest.mark.slow)], ids=["run", "all"])
def test_a_run_and_its_commands_say_and_leave_no_secret_and_no_students_value(
    tmp_path: Path,
    ods: StandIn,
    commands: tuple[list[str], ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")  # which the client of Kubernetes has made silent
    (tmp_path / "home").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    bench = Bench(platform(tmp_path / "project", ods.url))
    said = ""
    for command in (["materialize"], *commands):
        result = invoke(bench, *command, "--tenant", PAIR.tenant, "--year", str(PAIR.year))
        assert result.exit_code in {0, 1}, result.output
        said += result.output + "".join(traceback.format_exception(result.exception))
    said += invoke(bench, "config", "show").output + caplog.text
    assert {record["id"] for _, _, record in bench.raw("students")} == {row["id"] for row in ROWS}
    assert "staffs" in said and "HTTP 400" in said and "HTTP 500" in said
    assert [word for word in (*VALUES, *SECRETS) if word in said] == []
    assert "\x1b" not in said
    _check_files(tmp_path)


def _check_files(folder: Path) -> None:
    """Records are in the lake and the warehouse alone, the token on its shelf alone, the secret nowhere."""
    leaks = holding(folder, (*VALUES, *SECRETS))
    shelf = [name for name, word in leaks if name.startswith("tmp/edfi-dagster-") and word == TOKEN]
    assert len(shelf) == 1
    data = [(name, word) for name, word in leaks if is_data(name.removeprefix("project/"))]
    assert {word for _, word in data} <= set(VALUES)
    assert [leak for leak in leaks if leak not in data and leak[0] not in shelf] == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 200])
def test_a_refused_secret_is_in_no_exception_and_no_traceback(status: int) -> None:
    def answer(asked: Asked) -> Reply | None:
        return complaint(asked, status) if asked.path.endswith("/oauth/token") else None

    with StandIn(answer) as refusing, session_at(refusing.url) as session, pytest.raises(EdFiError) as caught:
        session.newest_change_version()
    error: BaseException | None = caught.value
    shown = repr(session) + repr(session.settings) + repr(vars(session.settings)) + repr(vars(caught.value))
    while error is not None:
        shown += "".join(traceback.format_exception(error)) + repr(error.args)
        error = error.__context__
    assert [word for word in (SECRET, TOKEN, *VALUES) if word in shown] == []


def test_the_parts_of_a_session_show_neither_token_nor_secret(ods: StandIn) -> None:
    with session_at(ods.url) as session:
        assert session.bearer() == TOKEN
        lease = session._token_lease()
        shown = [
            repr(lease),
            repr(lease.get()),
            repr(lease._held),
            str(lease.get()),
            repr(session._transport),
            repr(session),
        ]
    assert [text for text in shown if TOKEN in text or SECRET in text] == []


def test_what_tokens_and_ids_are_kept_in_is_for_its_owner_alone(ods: StandIn, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with session_at(ods.url) as session:
            session.bearer()
        shelf = tmp_path / "tmp" / f"edfi-dagster-{os.getuid()}"
        assert stat.S_IMODE(shelf.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in shelf.iterdir()} == {0o600}
        ids = DistinctIds(tmp_path)
        ids.add([row["id"] for row in students(70_000)])
        assert ids._file is not None
        assert stat.S_IMODE(os.fstat(ids._file.fileno()).st_mode) == 0o600
        assert not [path for path in tmp_path.iterdir() if path.is_file()]
        ids.close()
    finally:
        os.umask(before)


def test_the_restricted_part_of_a_lake_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        lake = LocalLake(tmp_path / "lake")
        for path in ("_restricted/grand_bend/2025/x/unmatched.csv", "grand_bend/2025/x.jsonl.zst"):
            with lake.writing(path) as stream:
                stream.write(b"x")
        assert stat.S_IMODE((tmp_path / "lake" / "_restricted").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "lake" / "grand_bend").stat().st_mode) != 0o700
        assert lake.read("_restricted/grand_bend/2025/x/unmatched.csv") == b"x"
    finally:
        os.umask(before)


def test_a_secret_in_the_environment_is_in_no_dump_of_the_configuration(tmp_path: Path, ods: StandIn) -> None:
    config = platform(tmp_path, ods.url)
    found = parse_platform(config.read_text(), str(config), tmp_path)
    shown = [
        repr(found),
        found.model_dump_json(),
        str(found.ods(TenantYear(*PAIR))),
        json.dumps(found.model_dump(mode="json")),
    ]
    assert not [text for text in shown if SECRET in text or KEY in text]
