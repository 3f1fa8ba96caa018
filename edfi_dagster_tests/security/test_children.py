"""What a program that a run starts is given, as anybody on this machine could see it in the list of processes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from edfi_dagster.earthbeam.errors import ToolFailed
from edfi_dagster.earthbeam.process import PASSED_ON
from edfi_dagster.earthbeam.token_relay import TokenRelay
from edfi_dagster_tests.bench import SECRET_VARIABLE, MakeBench
from edfi_dagster_tests.earthbeam.sending import result, sending
from edfi_dagster_tests.ods.platforms import session_at
from edfi_dagster_tests.ods.stand_in import StandIn
from edfi_dagster_tests.security.conftest import SECRET, TOKEN

OURS = {"AWS_SECRET_ACCESS_KEY": "planted-aws", "SNOWFLAKE_KEY": "planted-snowflake", "SLACK_TOKEN": "planted-slack",
        "DAGSTER_HOME": "/planted-home", "LD_PRELOAD": "", "PYTHONPATH": "/planted-path"}  # fmt: skip
NEEDED = {
    "HOME",
    "TMPDIR",
    "LANG",
    "PYTHONUTF8",
    "EDFI_API_CLIENT_ID",
    "EDFI_API_CLIENT_SECRET",
    "NO_PROXY",
    "no_proxy",
}
OF_THE_SHELL = {"PWD", "OLDPWD", "SHLVL", "_"}


def test_a_tool_is_given_neither_our_secrets_nor_our_environment(
    make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in OURS.items():
        monkeypatch.setenv(name, value)
    spy = tmp_path / "spy"
    spy.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path / "arguments"}\nenv > {tmp_path / "environment"}\nexit 3\n'
    )
    spy.chmod(0o755)
    bench = make_bench("assessments", "studentAssessments")
    with sending(bench, path=str(spy)) as lightbeam:
        lightbeam.write(result(1))
        with pytest.raises(ToolFailed):
            lightbeam.send()
        token = lightbeam.lightbeam.session.bearer()
    told = (tmp_path / "arguments").read_text() + (tmp_path / "environment").read_text()
    given = set(re.findall(r"^(\w+)=", (tmp_path / "environment").read_text(), re.MULTILINE))
    assert given <= {*PASSED_ON, *NEEDED, *OF_THE_SHELL}
    hidden = [os.environ[SECRET_VARIABLE], token, *filter(None, OURS.values())]
    assert [secret for secret in hidden if secret in told] == []


def test_what_a_tool_is_given_is_good_for_its_run_alone() -> None:
    with StandIn(lambda asked: None) as ods, session_at(ods.url) as session:
        with TokenRelay(session) as relay:
            assert urlsplit(relay.url).hostname == "127.0.0.1"
            assert requests.post(relay.url, auth=relay.credentials, timeout=5).json() == {
                "access_token": "f00dfeed"
            }
            key, secret = relay.credentials
            for wrong in [
                ("", ""),
                (key, ""),
                (key, key),
                (secret, key),
                (key, secret[:-1]),
                (key, f"{secret}x"),
                ("ä", "ö"),
            ]:
                answer = requests.post(relay.url, auth=tuple(part.encode() for part in wrong), timeout=5)  # type: ignore[arg-type]
                assert answer.status_code == 401
                assert TOKEN not in answer.text and "f00dfeed" not in answer.text
            assert (
                requests.post(relay.url, headers={"Authorization": f"Bearer {secret}"}, timeout=5).status_code
                == 401
            )
            assert requests.get(relay.url, auth=relay.credentials, timeout=5).status_code == 501
            with TokenRelay(session) as another:
                assert len({*another.credentials, *relay.credentials}) == 4
        with pytest.raises(requests.ConnectionError):
            requests.post(relay.url, auth=relay.credentials, timeout=5)
        assert SECRET not in str(vars(relay))
