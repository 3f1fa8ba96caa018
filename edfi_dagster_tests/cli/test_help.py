"""The help of every command: readable at 80 columns, with an example."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from edfi_dagster.cli.app import Sections, cli
from edfi_dagster.cli.commands import register

register(cli)


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(cli))


def help_of(*path: str) -> str:
    done = CliRunner().invoke(cli, [*path, "--help"], prog_name="edfi-dagster", terminal_width=80)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_command_has_help_that_fits(path: tuple[str, ...]) -> None:
    text = help_of(*path)
    assert all(len(line) <= 80 for line in text.splitlines())
    command = ALL[path]
    if not isinstance(command, click.Group):
        assert f"Example: edfi-dagster {' '.join(path)}" in " ".join(text.split())
        assert all(p.help for p in command.params if isinstance(p, click.Option)), (
            "every option says what it is"
        )


def test_list_of_commands_is_whole_and_nothing_in_it_is_cut_off() -> None:
    text = help_of()
    assert {name for names in Sections.titles.values() for name in names} == set(cli.commands)
    assert "..." not in text.partition("Begin:")[2]
    assert "_EDFI_DAGSTER_COMPLETE=bash_source" in text


def test_commands_that_report_have_json() -> None:
    silent = {"demo", "docs", "init", "sandbox", "bundle", "config", "config reference", "config schema"}
    with_json = {" ".join(path) for path, c in ALL.items() if any(p.name == "as_json" for p in c.params)}
    assert with_json == {" ".join(path) for path in ALL} - silent
