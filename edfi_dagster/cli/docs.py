"""``docs``: the pages that ship with the package."""

from __future__ import annotations

import sys
from importlib.resources import files

import click
from rich.markdown import Markdown

from edfi_dagster.cli.screen import Screen

_PAGES = files("edfi_dagster") / "docs"
_ORDER = (
    "getting-started",
    "configuration",
    "operations",
    "ods-versions",
    "earthbeam",
    "deployment",
    "switching-from-airflow",
    "python-api",
    "evidence",
)
"""The order in which a newcomer reads them."""


def topics() -> dict[str, str]:
    """Topic → title of each page, in reading order; a page that the order lacks comes last."""
    found = {page.name.removesuffix(".md"): page for page in _PAGES.iterdir() if page.name.endswith(".md")}
    names = [*_ORDER, *sorted(found.keys() - set(_ORDER))]
    return {name: found[name].read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for name in names}


@click.command(short_help="Read the documentation.")
@click.argument("topic", required=False)
def docs(topic: str | None) -> None:
    """Show a page of the documentation; without TOPIC, list the pages.

    Markdown is formatted in a terminal and printed as it is in a pipe.

    Example: edfi-dagster docs operations
    """
    known = topics()
    if topic is None:
        width = max(map(len, known))
        for name, title in known.items():
            click.echo(f"{name:<{width}}  {title}")
        return
    if topic not in known:
        raise click.UsageError(f"There is no page {topic!r}. Choose one of {', '.join(known)}.")
    text = (_PAGES / f"{topic}.md").read_text(encoding="utf-8")
    if sys.stdout.isatty():
        Screen().print(Markdown(text), soft_wrap=False)
    else:
        click.echo(text, nl=False)
