"""The commands in this process, in a terminal of 80 columns."""

from __future__ import annotations

import json
from typing import Any

import click
from click.testing import CliRunner, Result

from edfi_dagster.cli.app import cli
from edfi_dagster.cli.commands import register
from edfi_dagster_tests.bench import Bench

COLUMNS = 80


def invoke(bench: Bench, *arguments: str) -> Result:
    """Run a command on the bench's configuration."""
    root = click.Group(name="edfi-dagster", params=cli.params, callback=cli.callback)
    register(root)
    environment = {"COLUMNS": str(COLUMNS), "EDFI_DAGSTER_CONFIG": None, "TERM": "dumb"}
    return CliRunner().invoke(root, ["--config", str(bench.config), *arguments], env=environment)


def document(result: Result) -> Any:
    """The one JSON document on standard output."""
    return json.loads(result.stdout)


def fits(result: Result) -> bool:
    """Whether no line is wider than the terminal."""
    return all(len(line) <= COLUMNS for line in result.stdout.splitlines())
