"""Every page of the documentation: its links lead somewhere, its commands are commands, its YAML and Python run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

import edfi_dagster
from edfi_dagster.cli.app import cli
from edfi_dagster.cli.commands import register
from edfi_dagster.cli.docs import topics
from edfi_dagster.config import parse_platform

register(cli)
ROOT = Path(edfi_dagster.__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "edfi_dagster" / "docs").glob("*.md"))]
PARTS = {
    "tenants": {
        "grand_bend": {
            "years": {
                2025: {
                    "base_url": "https://ods.example.org",
                    "client_id": {"env": "K"},
                    "client_secret": {"env": "S"},
                }
            }
        }
    }
}
"""What a page's YAML needs beside itself to be a whole configuration."""


def blocks(page: Path, language: str) -> Iterator[str]:
    yield from re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def commands(page: Path) -> Iterator[tuple[list[str], bool]]:
    """The arguments of every ``edfi-dagster`` command on a page, and whether it is a whole one, as in a code block.

    Running text may name a command without what it needs.
    """
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`(edfi-dagster [^`]*)`", page.read_text(encoding="utf-8"))
    for written, is_whole in [*((line, True) for line in lines), *((span, False) for span in spans)]:
        words = shlex.split(re.split(r"[|>]|&& ", written)[0], comments=True)
        if words and words[0] == "edfi-dagster" and "…" not in written:
            yield words[1:], is_whole


def parse(group: click.Group, words: list[str]) -> None:
    """Parse a command line as the command itself does, without running it."""
    with group.make_context("edfi-dagster", list(words)) as context:
        rest = [*context._protected_args, *context.args]
        if rest:
            _, command, arguments = group.resolve_command(context, rest)
            assert command is not None
            if isinstance(command, click.Group):
                parse(command, arguments)
            else:
                command.make_context("edfi-dagster", arguments, parent=context, resilient_parsing=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path) if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist_with_their_options(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("connections.json", "airflow/configs/airflow_config_prod.yml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for words, is_whole in commands(page):
        try:
            parse(cli, words)
        except click.exceptions.Exit as done:  # an option that answers by itself
            assert done.exit_code == 0
        except click.MissingParameter as error:
            assert not is_whole, f"edfi-dagster {' '.join(words)}: {error.format_message()}"
        except click.UsageError as error:
            pytest.fail(f"edfi-dagster {' '.join(words)}: {error.format_message()}")
    for module in re.findall(r"python -m (edfi_dagster[\w.]*)", page.read_text(encoding="utf-8")):
        assert find_spec(module), module
    for path in re.findall(r"\bedfi_dagster(?:_tests)?/[\w/]+(?:\.py)?", page.read_text(encoding="utf-8")):
        assert list(ROOT.glob(f"{path}*")), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_init_writes_a_configuration(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (words, is_whole) in enumerate(commands(page)):
        if words[0] == "init" and is_whole:
            (folder := tmp_path / str(number)).mkdir()
            monkeypatch.chdir(folder)
            done = CliRunner().invoke(cli, [*words, "--offline"])
            assert done.exit_code == 0, done.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_yaml_is_a_configuration(page: Path, tmp_path: Path) -> None:
    (tmp_path / "bundles" / "assessments" / "PSAT_SAT").mkdir(parents=True)
    for block in blocks(page, "yaml"):
        document = {**PARTS, **yaml.safe_load(block)}
        assert parse_platform(yaml.safe_dump(document), page.name, tmp_path).tenants


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(blocks(page, "python"))], ids=lambda page: page.stem
)
def test_python_runs(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "python"):
        ran = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 0, ran.stderr


def test_docs_command_lists_and_shows_every_page() -> None:
    listed = CliRunner().invoke(cli, ["docs"]).stdout
    for name, title in topics().items():
        assert re.search(rf"^{name} +{re.escape(title)}$", listed, re.MULTILINE)
        shown = CliRunner().invoke(cli, ["docs", name])
        assert shown.stdout == (ROOT / "edfi_dagster" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    wrong = CliRunner().invoke(cli, ["docs", "no-such-page"])
    assert wrong.exit_code == 2
    assert "Choose one of getting-started" in wrong.output


def test_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 12 * 1024
