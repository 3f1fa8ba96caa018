"""Configurations changed after they were written, and findings by their question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from edfi_dagster.config import Platform, parse_platform
from edfi_dagster.health.findings import Block, Finding
from edfi_dagster.health.ods import examine
from edfi_dagster_tests.bench import PAIR, Bench

MakeBench = Callable[..., Bench]
Document = dict[str, Any]


def rewritten(bench: Bench, change: Callable[[Document], None]) -> Platform:
    """The bench's configuration, changed in place on the disk too."""
    document = yaml.safe_load(bench.config.read_text())
    change(document)
    bench.config.write_text(yaml.safe_dump(document))
    return parse_platform(bench.config.read_text(), str(bench.config), bench.folder)


def of_tenant(**values: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document["tenants"][PAIR.tenant] |= values

    return change


def at(url: str) -> Callable[[Document], None]:
    """The pair's ODS is at ``url``."""

    def change(document: Document) -> None:
        document["tenants"][PAIR.tenant]["years"][PAIR.year]["base_url"] = url

    return change


def asked(platform: Platform) -> dict[str, Finding]:
    """question → what was found at the pair's ODS."""
    return by_question(examine(platform, PAIR, platform.ods(PAIR).base_url))


def by_question(block: Block) -> dict[str, Finding]:
    found = {finding.question: finding for finding in block.findings}
    assert len(found) == len(block.findings)
    return found
