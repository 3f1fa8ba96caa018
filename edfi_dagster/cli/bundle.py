"""``edfi-dagster bundle run``: one bundle for one tenant and year, in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from edfi_dagster.cli.app import FAILED, platform_and_pair, told
from edfi_dagster.config import ConfigError, Platform, TenantYear


@click.group(short_help="Assessment files through Earthmover and Lightbeam.")
def bundle() -> None:
    """Bundles: files → Earthmover → Ed-Fi records → Lightbeam → ODS, or straight into the raw tables."""


@bundle.command(short_help="Run a bundle for one tenant and year.")
@click.argument("name")
@click.option("--tenant", required=True, help="Tenant code, as in the configuration.")
@click.option("--year", required=True, type=int, help="School year, named by its spring.")
@click.option("--grain", help="Which of the bundle's grains, if it has any.")
@click.option("--input", "inputs", multiple=True, metavar="VAR=FILE", help="A file to run over; repeatable.")
@click.option("--param", "parameters", multiple=True, metavar="K=V", help="A parameter; repeatable.")
@click.option("--force", is_flag=True, help="Run, and send, also what was done before.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_context
@told
def run(
    context: click.Context,
    name: str,
    tenant: str,
    year: int,
    grain: str | None,
    inputs: tuple[str, ...],
    parameters: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Run a bundle for one tenant and year in this process: the Dagster run that the UI would start.

    Example: edfi-dagster bundle run psat_sat --tenant grand_bend --year 2025 --grain SAT --input INPUT_FILE=sat.csv
    """
    platform, pair = platform_and_pair(context, tenant, year)
    _check_names(platform, pair, name, grain)
    files = {variable: _file(variable, given) for variable, given in _named(inputs, "--input")}
    from edfi_dagster.assets.bundles import BundleRun
    from edfi_dagster.cli.bundle_runs import print_report, run_bundle_assets

    config = BundleRun(grain=grain, files=files, parameters=dict(_named(parameters, "--param")), force=force)
    report = run_bundle_assets(platform, pair, name, config)
    if as_json:
        click.echo(json.dumps(report.document(), indent=2, default=str))
    else:
        print_report(report)
    if not report.success:
        sys.exit(FAILED)


def _check_names(platform: Platform, pair: TenantYear, name: str, grain: str | None) -> None:
    """Raises ConfigError for a bundle, pair or grain that the configuration does not have; it tells those it has."""
    bundles = platform.earthbeam.bundles
    if name not in bundles:
        raise ConfigError(
            f"{platform.source}: there is no bundle {name!r}; bundles are: {', '.join(bundles) or 'none'}"
        )
    pairs = platform.bundle_pairs(name)
    if pair not in pairs:
        raise ConfigError(f"{name} does not apply to {pair}; it applies to {', '.join(map(str, pairs))}")
    grains = bundles[name].grains
    if grain is None and grains:
        raise ConfigError(f"{name} has grains; give --grain, one of {', '.join(grains)}")
    if grain is not None and grain not in grains:
        known = f"they are: {', '.join(grains)}" if grains else "it has none; leave --grain out"
        raise ConfigError(f"{name} has no grain {grain!r}; {known}")


def _named(given: Iterable[str], option: str) -> list[tuple[str, str]]:
    """``NAME=value`` → (name, value)."""
    found = []
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{option} {text!r} has no =; write {option} NAME=value.")
        found.append((name.strip(), value))
    return found


def _file(variable: str, given: str) -> str:
    path = Path(given).expanduser().absolute()
    if not path.is_file():
        raise click.UsageError(f"--input {variable}: there is no file {path}.")
    return str(path)
