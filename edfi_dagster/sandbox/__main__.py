"""``python -m edfi_dagster.sandbox``: the sandbox as a process of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from edfi_dagster.sandbox.addresses import MODES
from edfi_dagster.sandbox.generations import GENERATIONS, NEWEST
from edfi_dagster.sandbox.server import DEFAULT_ODS, serve


def row_counts(text: str) -> dict[str, int]:
    """``students=20000,sections=900`` as a mapping. Raises ``ValueError``."""
    counts: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, separator, number = item.partition("=")
        if not separator or not number.strip().isdigit():
            raise ValueError(f"{item!r} is not endpoint=number")
        counts[name.strip()] = int(number)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edfi_dagster.sandbox", description=__doc__)
    parser.add_argument(
        "--ods", action="append", metavar="TENANT/YEAR", help="repeat for several; '' for no prefix"
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path, metavar="FILE")
    parser.add_argument("--rows", type=row_counts, default={}, metavar="students=20000,...")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--ods-version", default=NEWEST.version, choices=GENERATIONS)
    parser.add_argument("--mode", choices=MODES, help="API mode of a version before 7.0")
    parser.add_argument("--max-page", type=int, metavar="ROWS", help="the host's limit of rows per page")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    given = vars(parser.parse_args())
    serve(given.pop("ods") or DEFAULT_ODS, **given)


if __name__ == "__main__":
    main()
