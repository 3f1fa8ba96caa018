"""``config``: the configuration as it is meant, and the schema it follows."""

from __future__ import annotations

import json

import click

from edfi_dagster.cli.app import platform_and_pairs, told
from edfi_dagster.config import json_schema
from edfi_dagster.config import reference as config_reference
from edfi_dagster.config.shown import resolved, resolved_yaml


@click.group(short_help="Show the configuration, or its schema.")
def config() -> None:
    """The configuration as it is meant, and the schema it follows."""


@config.command(short_help="The JSON Schema, for editors.")
def schema() -> None:
    """Print the JSON Schema of the configuration file, with which editors complete and check it.

    In the file's first line: # yaml-language-server: $schema=FILE (init writes both).

    Example: edfi-dagster config schema > edfi_dagster.schema.json
    """
    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@config.command(short_help="Every key, its type, default and meaning.")
@click.argument("key", required=False)
def reference(key: str | None) -> None:
    """Print every key of the configuration with type, default and meaning, as Markdown tables.

    KEY is a block, such as extract.endpoint_defaults, or a single key, such as page_size.

    Example: edfi-dagster config reference extract
    """
    found = config_reference.markdown(key)
    if found is None:
        raise click.UsageError(
            f"There is no key {key!r}. Run `edfi-dagster config reference` without KEY to list all keys."
        )
    click.echo(found, nl=False)


@config.command(short_help="What is meant, defaults filled in.")
@click.option("--tenant", help="Only this tenant.")
@click.option("--year", type=int, help="Only this school year.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_context
@told
def show(context: click.Context, tenant: str | None, year: int | None, as_json: bool) -> None:
    """Print the configuration with defaults filled in and paths in full.

    No secret is shown: only where each one is read from, and whether it is set.

    Example: edfi-dagster config show --tenant grand_bend
    """
    platform, pairs = platform_and_pairs(context, tenant, year)
    document = resolved(platform, frozenset(pairs))
    if as_json:
        click.echo(
            json.dumps({"source": platform.source, "configuration": document}, indent=2, ensure_ascii=False)
        )
    else:
        click.echo(f"# {platform.source}\n{resolved_yaml(document)}", nl=False)
