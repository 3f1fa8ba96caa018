"""Parts of a Markdown file that are written by a program: what stands between two markers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def with_part(text: str, name: str, part: str) -> str:
    """Return ``text`` with ``part`` between the markers of ``name``. Raises ValueError where it has none."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"has no lines {begin} and {end}; add them where the part belongs")
    return f"{before}{begin}\n\n{part}\n{end}{after}"


def marked_main(name: str, part: Callable[[], str], description: str) -> None:
    """Print the part, or write it into the file of ``--write``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--write", type=Path, metavar="FILE", help="A Markdown file with the two markers.")
    path = parser.parse_args().write
    if path is None:
        sys.stdout.write(part())
    else:
        path.write_text(with_part(path.read_text(encoding="utf-8"), name, part()), encoding="utf-8")
