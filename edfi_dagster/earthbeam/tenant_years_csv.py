"""The rows of a CSV file, some at a time: whatever its encoding, and never another number of cells than the header has."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

from edfi_dagster.earthbeam.errors import EarthbeamError

# Rows are read until they are so many cells, or so many bytes of the file.
_MOST_CELLS = 200_000
_MOST_BYTES = 16_000_000
_ROWS_AT_ONCE = 500
_CHUNK = 1 << 20
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class PartitionError(EarthbeamError):
    """A file cannot be parted; the message names it, and holds no value but tenants and years."""

    def __str__(self) -> str:
        return str(self.args[0])


class UnusableCsv(PartitionError, ValueError):
    """The path leads to no CSV file, or the file is none."""


class CsvRows:
    """The rows of an open CSV file, each as wide as the header: short ones are filled with empty cells, empty lines left out."""

    def __init__(self, file: Path, stream: TextIO) -> None:
        self._file = file
        self._buffer = stream.buffer
        self._reader = csv.reader(stream, strict=True)
        names = next((row for row in self._reader if row), [])
        if not names:
            raise UnusableCsv(f"{file} is empty; it has no header")
        self.header = _header([name.removeprefix("\ufeff") for name in names])

    @property
    def line(self) -> int:
        """The last line that was read, from 1."""
        return self._reader.line_num

    def batches(self) -> Iterator[list[list[str]]]:
        """As many rows at a time as memory shall hold. Raises UnusableCsv, csv.Error."""
        width = len(self.header)
        batch: list[list[str]] = []
        begun = self._buffer.tell()
        while True:
            line = self.line
            rows = list(islice(self._reader, _ROWS_AT_ONCE))
            fit = set(map(len, rows)) <= {width}
            batch += rows if fit else self._fitted(rows, width, line)
            is_full = len(batch) * width >= _MOST_CELLS or self._buffer.tell() - begun >= _MOST_BYTES
            if batch and (is_full or not rows):
                yield batch
                batch, begun = [], self._buffer.tell()
            if not rows:
                return

    def _fitted(self, rows: Iterable[list[str]], width: int, line: int) -> Iterator[list[str]]:
        for row in rows:
            line += 1 + sum(cell.count("\n") for cell in row)
            if any(row[width:]):
                raise UnusableCsv(
                    f"{self._file}, line {line}: a row has {len(row)} cells, the header {width}; correct the line"
                )
            if row:
                yield [*row[:width], *[""] * (width - len(row))]


def encoding_of(file: Path) -> str:
    """What a byte order mark says, else UTF-8, or Latin-1 for what is no UTF-8."""
    with file.open("rb") as stream:
        piece = stream.read(_CHUNK)
        for mark, name in _BYTE_ORDER_MARKS.items():
            if piece.startswith(mark):
                return name
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while piece:
                decoder.decode(piece)
                piece = stream.read(_CHUNK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8"


def _header(names: Sequence[str]) -> list[str]:
    """Column names, each once: a second ``score`` is ``score.1``, one without a name ``Unnamed: 3``."""
    found: list[str] = []
    for number, name in enumerate(names):
        wanted = name if name.strip() else f"Unnamed: {number}"
        unique, times = wanted, 0
        while unique in found:
            times += 1
            unique = f"{wanted}.{times}"
        found.append(unique)
    return found
