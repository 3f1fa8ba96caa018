"""``check``: is everything that a run needs there, and if not, what to do."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.text import Text

from edfi_dagster.cli.app import FAILED, platform_and_pairs, told
from edfi_dagster.cli.screen import Screen
from edfi_dagster.deploy import check_stores

if TYPE_CHECKING:
    from edfi_dagster.health.findings import Block, Finding

# Of more tenant-years, those where all is well are told in one line each.
_SHOWN_WHOLE = 4
_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}


@click.command(short_help="Would a run work? What to do if not.")
@click.option("--tenant", help="Only this tenant.")
@click.option("--year", type=int, help="Only this school year.")
@click.option("--ask-slack", is_flag=True, help="Have Slack look at the token; no message is sent.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_context
@told
def check(
    context: click.Context, tenant: str | None, year: int | None, ask_slack: bool, as_json: bool
) -> None:
    """Ask every ODS, the lake, the warehouse and Slack whether a run would work; nothing is changed.

    ✓ passed. ! is a warning. ✗ would stop a run: then the exit code is 1.

    Example: edfi-dagster check --tenant grand_bend
    """
    from edfi_dagster.health.everything import examine_all

    platform, pairs = platform_and_pairs(context, tenant, year)
    check_stores(platform)
    console, waiting = Screen(), Screen(stderr=True)
    blocks: list[Block] = []
    with waiting.status(f"asking {len(pairs)} ODSs") as status:
        for block in examine_all(platform, pairs, ask_slack=ask_slack, tell=waiting.print):
            blocks.append(block)
            asked = sum(found.subject == "ods" for found in blocks)
            status.update(f"asking {len(pairs)} ODSs, {asked} have answered")
            if not as_json:
                show(console, block, whole=len(pairs) <= _SHOWN_WHOLE)
    has_failed = any(block.state == "failed" for block in blocks)
    if as_json:
        document = {"ok": not has_failed, "checked": [block.document() for block in blocks]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        console.print(_verdict(blocks))
    if has_failed:
        sys.exit(FAILED)


def show(console: Screen, block: Block, *, whole: bool) -> None:
    """A block's title and lines; unless ``whole``, of an ODS only what is not well."""
    mark, colour = _MARKS[block.state]
    name = str(block.pair) if block.pair else block.subject
    if not whole and block.pair and block.state == "ok":
        console.print(Text.assemble((mark, colour), " ", (name, "bold"), f"  {block.findings[0].found}"))
        return
    console.print(Text.assemble((name, "bold"), f"  {block.title}"))
    for finding in block.findings:
        if whole or not block.pair or finding.state != "ok":
            _print_finding(console, finding)


def _print_finding(console: Screen, finding: Finding) -> None:
    """One line for what was found, and one for the remedy."""
    mark, colour = _MARKS[finding.state]
    console.print(Text.assemble("  ", (mark, colour), f" {finding.question:<14} {finding.found}"))
    if finding.remedy:
        console.print(Text(f"{'':19}→ {finding.remedy}", colour))


def _verdict(blocks: Sequence[Block]) -> Text:
    """The last line: how many lines of each sort there were."""
    count = Counter(str(finding.state) for block in blocks for finding in block.findings)
    warnings = f"{count['warning']} warning{'' if count['warning'] == 1 else 's'}"
    if count["failed"]:
        return Text(f"{count['failed']} failed, {warnings}, {count['ok']} passed", "red")
    if count["warning"]:
        return Text(f"a run will work; {warnings}, {count['ok']} passed", "yellow")
    return Text(f"a run will work; all {count['ok']} checks passed", "green")
