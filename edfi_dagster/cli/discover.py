"""``discover``: what an ODS offers beside what is configured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import yaml
from rich.table import Table
from rich.text import Text

from edfi_dagster.cli.app import platform_and_pair, told
from edfi_dagster.cli.screen import Screen

if TYPE_CHECKING:
    from edfi_dagster.config import Platform, TenantYear
    from edfi_dagster.health.offers import Offer


@click.command(short_help="What an ODS offers, new and missing.")
@click.option("--tenant", required=True, help="Tenant code, as in the configuration.")
@click.option("--year", required=True, type=int, help="School year, named by its spring.")
@click.option("--yaml", "as_yaml", is_flag=True, help="As YAML to paste under extract.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_context
@told
def discover(context: click.Context, tenant: str, year: int, as_yaml: bool, as_json: bool) -> None:
    """Compare the endpoints of an ODS, from its OpenAPI documents, with those configured.

    New ones are offered but not configured. Missing ones are configured but not offered. It also lists what the
    key may not read.

    Example: edfi-dagster discover --tenant grand_bend --year 2025 --yaml
    """
    if as_yaml and as_json:
        raise click.UsageError("--yaml and --json are two forms of one answer; give one of them.")
    from edfi_dagster.health.offers import discover_offers
    from edfi_dagster.sandbox.embedded import base_urls

    platform, pair = platform_and_pair(context, tenant, year)
    waiting = Screen(stderr=True)
    with waiting.status(f"reading what the ODS of {pair} offers"), base_urls(platform, [pair]) as urls:
        offers = discover_offers(platform, pair, urls[pair], tell=waiting.print)
    if as_json:
        document = {"tenant": tenant, "year": year, "endpoints": [offer.document() for offer in offers]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif as_yaml:
        click.echo(_yaml(platform, pair, offers), nl=False)
    else:
        _print_offers(Screen(), pair, offers)


def _print_offers(console: Screen, pair: TenantYear, offers: Sequence[Offer]) -> None:
    """What is out of the ordinary, one by one; all that is as it should be, as a number."""
    ordinary = [o for o in offers if o.standing == "declared" and o.is_permitted is not False]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("endpoint", "what", "remark"):
        table.add_column(heading, overflow="fold")
    for offer in offers:
        if offer not in ordinary:
            table.add_row(offer.path.removeprefix("ed-fi/"), str(offer.standing), _remark(offer))
    console.print(
        Text.assemble((str(pair), "bold"), f"  {len(ordinary)} endpoints are offered and configured")
    )
    if table.row_count:
        console.print(table)
        console.print("YAML for the new ones: the same command with --yaml")
    else:
        console.print("nothing is new, missing or not permitted")
    unknown = sum(o.is_permitted is None and o.standing != "missing" for o in offers)
    if unknown:
        console.print(f"{unknown} were not asked whether the key may read them")


def _remark(offer: Offer) -> str:
    if offer.standing == "missing":
        return "skipped by runs"
    if offer.is_permitted is False:
        return "not permitted to this key"
    return "of the data standard" if offer.is_known else "an extension's, or of another data standard"


def _yaml(platform: Platform, pair: TenantYear, offers: Sequence[Offer]) -> str:
    """The two selections as they would be with the new endpoints; what is missing or not permitted as comments."""
    from edfi_dagster.health.offers import new_ones, selections

    lines = [
        f"# What {pair} offers. Under extract, in place of resources and descriptors:",
        f"# {len(new_ones(offers, 'resource'))} resources and {len(new_ones(offers, 'descriptor'))} descriptors are new.",
    ]
    for offer in offers:
        if offer.standing == "missing":
            lines.append(f"# not offered: {offer.path}")
        elif offer.is_permitted is False:
            lines.append(f"# not permitted to this key: {offer.path}")
    for kind, selected in selections(platform, offers).items():
        lines.append(f"{kind}: none" if not selected else f"{kind}:")
        lines += [f"  {_scalar(name)}: {_scalar(options)}" for name, options in selected.items()]
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    """A name or its options on one line, quoted as YAML wants it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()
