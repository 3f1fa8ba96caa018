"""The rows of a CSV file, some at a time: whatever its encoding, and never another number of cells than the header has."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

from edfi_dagster.config.errors import printable
from edfi_dagster.earthbeam.errors import EarthbeamError

# Rows are read until they are so many cells, or so many bytes of the file.
_MOST_CELLS = 200_000
_MOST_BYTES = 16_000_000
_ROWS_AT_ONCE = 500
_LINE_END = re.compile(r"\r\n|\r|\n")


class PartitionError(EarthbeamError):
    """A file cannot be parted; the message names it, and holds no value but tenants and years."""

    def __str__(self) -> str:
        return printable(str(self.args[0]))


class UnusableCsv(PartitionError, ValueError):
    """The path leads to no CSV file, or the file is none."""


class CsvRows:
    """The rows of an open CSV file, each as wide as the header: short ones are filled with empty cells, empty lines left out."""

    def __init__(self, file: Path, stream: TextIO) -> None:
        self._file = file
        self._buffer = stream.buffer
        # Before the reader sees it: a quote is one only at the begin of a cell.
        first = stream.readline().removeprefix("\ufeff")
        self._reader = csv.reader(chain([first] if first else [], stream), strict=True)
        self.short: dict[int, int] = {}
        """Rows of the latest batch that were shorter than the header: place in it → line."""
        names = next((row for row in self._reader if row), [])
        if not names:
            raise UnusableCsv(f"{file} is empty; it has no header")
        self.header = _header(names)

    @property
    def line(self) -> int:
        """The last line that was read, from 1."""
        return self._reader.line_num

    def batches(self) -> Iterator[list[list[str]]]:
        """As many rows at a time as memory shall hold. Raises UnusableCsv, csv.Error."""
        width = len(self.header)
        at_once = max(1, min(_ROWS_AT_ONCE, _MOST_CELLS // width))
        batch: list[list[str]] = []
        begun = self._buffer.tell()
        while True:
            line = self.line
            rows = list(islice(self._reader, at_once))
            fit = set(map(len, rows)) <= {width}
            batch += rows if fit else self._fitted(rows, width, line, len(batch))
            is_full = len(batch) * width >= _MOST_CELLS or self._buffer.tell() - begun >= _MOST_BYTES
            if batch and (is_full or not rows):
                yield batch
                batch, begun = [], self._buffer.tell()
                self.short.clear()
            if not rows:
                return

    def _fitted(self, rows: Iterable[list[str]], width: int, line: int, place: int) -> Iterator[list[str]]:
        for row in rows:
            line += 1 + sum(len(_LINE_END.findall(cell)) for cell in row)
            if any(row[width:]):
                raise UnusableCsv(
                    f"{self._file}, line {line}: a row has {len(row)} cells, the header {width}; correct the line"
                )
            if row:
                if len(row) < width:
                    self.short[place] = line
                place += 1
                yield [*row[:width], *[""] * (width - len(row))]


def _header(names: Sequence[str]) -> list[str]:
    """Column names, each once: a second ``score`` is ``score.1``, one without a name ``Unnamed: 3``."""
    found: dict[str, None] = {}
    times: Counter[str] = Counter()
    for number, name in enumerate(names):
        unique = wanted = name if name.strip() else f"Unnamed: {number}"
        while unique in found:
            times[wanted] += 1
            unique = f"{wanted}.{times[wanted]}"
        found[unique] = None
    return list(found)
