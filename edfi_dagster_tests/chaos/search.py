"""Looking for student values and secrets in everything that runs have written beside the data itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from edfi_dagster_tests.extract.district import PLANTED

# What holds the data: the lake's rows, the warehouse, and the ODS's own database.
_DATA_SUFFIXES = (".jsonl.zst", ".jsonl.gz")
_DATA_PARTS = ("warehouse.duckdb", "ods")
_OF_STUDENTS = (PLANTED, "Ämne", "bench-")
# What the sandbox's tokens are. A run of minutes has thousands, each to be looked for in thousands of files.
_TOKEN = re.compile("[0-9a-f]{32}")
_HEX = re.compile(rb"[0-9a-f]{32,}")


def leaks(folder: Path, secrets: Collection[str], elsewhere: Iterable[tuple[str, bytes]] = ()) -> list[str]:
    """Where a planted value or a secret stands, as ``place: kind``; never the secret itself."""
    tokens = {secret for secret in secrets if _TOKEN.fullmatch(secret)}
    words = dict.fromkeys(_OF_STUDENTS, "a student's value")
    words |= dict.fromkeys(set(secrets) - tokens, "a secret or token")
    found = []
    for place, content in (*_written(folder), *elsewhere):
        found += [f"{place}: {kind}" for word, kind in words.items() if _holds(content, word)]
        if not tokens.isdisjoint(_hex_words(content)):
            found.append(f"{place}: a secret or token")
    return sorted(set(found))


def _hex_words(content: bytes) -> Iterator[str]:
    """Whatever may be a token in it, wherever it begins."""
    for run in _HEX.findall(content):
        yield from (run[start : start + 32].decode() for start in range(len(run) - 31))


def _holds(content: bytes, word: str) -> bool:
    escaped = word.encode("ascii", "backslashreplace").replace(b"\\x", b"\\u00")
    return word.encode() in content or escaped in content


def _written(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        is_data = relative.parts[0].startswith(_DATA_PARTS[0]) or relative.parts[0] == _DATA_PARTS[1]
        is_rows = any(suffix in path.name for suffix in _DATA_SUFFIXES)
        if path.is_file() and not is_data and not is_rows:
            yield str(relative), path.read_bytes()
