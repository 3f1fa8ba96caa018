"""How many rows a bundle's input has, and whether all of them came to nothing."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]

from edfi_dagster.earthbeam.bundle import MATCH_RATES, NO_MATCH
from edfi_dagster.earthbeam.rendering import Composed
from edfi_dagster.earthbeam.result import WrittenOutput
from edfi_dagster.earthbeam.sources import texts_of
from edfi_dagster.earthbeam.text_inputs import file_type, source_file

_NODE = re.compile(r"\$(sources|transformations)\.([\w-]+)")
_LINES = frozenset({"fixedwidth", "jsonl"})


def fruitless_input(
    composed: Composed, inputs: Mapping[str, Path], outputs: Collection[WrittenOutput]
) -> tuple[str, tuple[str, ...]] | None:
    """An input that has rows while no output made of it has a record: its variable, and the names of these outputs.

    An output is made of an input if it reads it, directly or through transformations; those of seeds do not count. None
    if there is no such input.
    """
    for variable, file in inputs.items():
        sources = {
            str(name): settings
            for name, settings in composed.block("sources").items()
            if source_file(settings, inputs) == variable
        }
        made = _records(outputs, fed_by(composed, sources))
        if made and not any(output.rows for output in made):
            # What was decided on the file is UTF-8, whatever its source declares.
            readings = ({**settings, "encoding": "utf-8"} for settings in sources.values())
            if any(has_rows(settings, file) for settings in readings):
                return variable, tuple(output.name for output in made)
    return None


def fed_by(composed: Composed, sources: Iterable[str]) -> frozenset[str]:
    """The destinations that read one of these sources, directly or through transformations."""
    reached = {("sources", name) for name in sources}
    nodes = {
        (block, str(name)): set(_NODE.findall(" ".join(texts_of(settings))))
        for block in ("transformations", "destinations")
        for name, settings in composed.block(block).items()
    }
    grown = True
    while grown:
        more = {node for node, read in nodes.items() if node not in reached and read & reached}
        reached |= more
        grown = bool(more)
    return frozenset(name for block, name in reached if block == "destinations")


def has_rows(settings: Mapping[str, Any], file: Path) -> bool:
    """Whether a file has rows below its header. A file whose rows only Earthmover can count has some unless it is empty."""
    rows = count_rows(settings, file)
    if rows is not None:
        return rows > 0
    if file_type(settings, file) in _LINES:
        with file.open("rb") as lines:
            return any(not line.isspace() for line in lines)
    if file.suffix.lower() == ".parquet":
        return bool(pq.ParquetFile(file).metadata.num_rows)
    return file.stat().st_size > 0


def count_rows(settings: Mapping[str, Any], file: Path) -> int | None:
    """How many rows Earthmover takes from a text file with columns; None for files of other kinds.

    Rows whose columns are all empty do not count, as Earthmover drops them.
    """
    kind = settings.get("type") or file.suffix.lower().lstrip(".")
    header = settings.get("header_rows", 1)
    if kind not in ("csv", "tsv") or not str(header).isdecimal():
        return None
    encoding = str(settings.get("encoding") or "utf-8")
    try:
        with file.open(encoding=encoding, errors="replace", newline="") as text:
            rows = csv.reader(text, delimiter="\t" if kind == "tsv" else ",")
            return sum(1 for row in _after(rows, int(header)) if any(row))
    except (csv.Error, LookupError, ValueError):
        # A field beyond what this reader takes, or a header or an encoding that only Earthmover knows.
        return None


def _after(rows: Iterator[list[str]], header: int) -> Iterator[list[str]]:
    """Rows after the header. pandas leaves out blank lines before it counts."""
    filled = (row for row in rows if row)
    return islice(filled, header, None)


def _records(outputs: Iterable[WrittenOutput], names: Collection[str]) -> list[WrittenOutput]:
    """Of these outputs those that hold records of Ed-Fi; all others if there are none of these."""
    made = [o for o in outputs if o.name in names and o.name not in {NO_MATCH, MATCH_RATES}]
    return [output for output in made if output.resource] or made
