"""CSV files of several tenants and school years, parted by both into Parquet.

A file's rows are read once, as text, and go to <output_dir>/<file>/tenant_code=<code>/api_year=<year>/part.0.parquet; an
outcome is whole or not there at all. Memory is bounded by how many rows are read and held at once, not by the file.
"""

from __future__ import annotations

import csv
import logging
import re
import resource
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from edfi_dagster.config import TenantYear
from edfi_dagster.config.errors import is_unicode, printable
from edfi_dagster.config.values import check_tenant_code
from edfi_dagster.earthbeam.encodings import EncodingError, encoding_of, is_unicode_text
from edfi_dagster.earthbeam.tenant_years_csv import CsvRows, PartitionError, UnusableCsv

TENANT, YEAR = "tenant_code", "api_year"

ValueMap = Mapping[str, str | int] | Callable[[str], str | int | None]
"""From what stands in a column to a tenant code or school year; None, or nothing, for what it does not know."""

# Rows wait for others of their part until all that wait are so many bytes.
_MOST_WAITING_BYTES = 32_000_000
_MOST_OPEN_FILES = min(4_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
_MOST_VALUES = 50_000
_MOST_NAMED, _LONGEST_NAMED = 20, 40
_LEFT_OVER_SECONDS = 86_400.0
_LOG = logging.getLogger(__name__)
_SEVERAL = re.compile(r"[\r\n,;\t\"]")
_YEAR = re.compile(r"(19|20)\d\d|2100")


class MissingColumn(PartitionError, KeyError):
    """The column that should tell tenant or school year is not there."""


class UnknownTenantYear(PartitionError, ValueError):
    """Some rows are of a tenant or school year that nobody knows. Nothing is written rather than lose them."""


@dataclass(frozen=True)
class TenantYearPart:
    """The rows of one file that are of one (tenant, year). ``paths`` are their Parquet files: one, unless there are hundreds
    of parts. ``encoding`` is the one the file was read in.
    """

    csv_path: Path
    pair: TenantYear
    paths: tuple[Path, ...]
    rows: int
    encoding: str = "utf-8"


def partition_on_tenant_and_year(
    csv_paths: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    tenant_col: str | None = TENANT,
    tenant_map: ValueMap | None = None,
    year_col: str | None = YEAR,
    year_map: ValueMap | None = None,
    *,
    tenant_default: str | None = None,
    year_default: str | int | None = None,
    pairs: Collection[TenantYear] | None = None,
    encoding: str | None = None,
) -> list[TenantYearPart]:
    """Part each file by the tenant and school year that its rows name; earlier parts of the same files are replaced.

    ``tenant_map`` and ``year_map`` (mappings or functions) translate what stands in the columns; ``tenant_default`` and
    ``year_default`` stand where it is empty, or for all rows where the column is None. Only ``pairs`` may come, if given. Every column stays as text, except columns of the files named ``tenant_code`` or ``api_year``: those names are the
    folders'. The bytes of a file tell its encoding, see `encodings`; ``encoding`` is for those that do not. A guess is logged.

    Raises MissingColumn (a KeyError), UnusableCsv (a ValueError: no .csv file, or unreadable as one) or UnknownTenantYear
    (a ValueError) with each unknown value and its rows; nothing is changed then.
    """
    files = [Path(path) for path in ([csv_paths] if isinstance(csv_paths, str | Path) else csv_paths)]
    _check_files(files)
    encodings = {file: _encoding(file, encoding) for file in files}
    columns = _Columns(
        _Column("tenant_code", tenant_col, tenant_map, tenant_default, _tenant),
        _Column("api_year", year_col, year_map, year_default, _year),
        frozenset(pairs) if pairs is not None else None,
    )
    output = Path(output_dir)
    _make_ready(output)
    with ExitStack() as temporary:
        made = []
        for file in files:
            folder = output / f".{file.stem}.{uuid.uuid4().hex[:8]}.part"
            temporary.callback(shutil.rmtree, folder, ignore_errors=True)
            made.append((file, folder, _part(file, folder, columns, encodings[file])))
        # Only when every file could be parted does any of them change.
        return [
            TenantYearPart(file, pair, paths, count, encodings[file])
            for file, folder, rows in made
            for pair, paths, count in _put_in_place(file, folder, output, rows)
        ]


def _encoding(file: Path, declared: str | None) -> str:
    try:
        found = encoding_of(file, declared)
    except EncodingError as error:
        raise UnusableCsv(str(error)) from None
    except OSError as error:
        raise UnusableCsv(f"{file}: cannot be read ({error.strerror or type(error).__name__})") from None
    if declared is None and not is_unicode_text(found):
        _LOG.warning("%s is not UTF-8 and was read as %s", printable(str(file)), found)
    return found


def _check_files(files: Sequence[Path]) -> None:
    stems: dict[str, Path] = {}
    for file in files:
        if not file.is_file() or file.suffix.lower() != ".csv":
            raise UnusableCsv(f"Input path '{file}' is not a path to a file whose name ends with '.csv'")
        if file.name.startswith(".") or not is_unicode(file.name):
            raise UnusableCsv(
                f"{file}: its name begins with a dot or is not UTF-8, as no folder of parts may; rename it"
            )
        first = stems.setdefault(file.stem, file)
        if first is not file:
            raise UnusableCsv(f"{first} and {file} would be written to the same folder; rename one")


def _make_ready(output: Path) -> None:
    """The folder, without what a killed run left in it, unless somebody may still be writing that."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableCsv(f"{output}: no files can be written there ({error.strerror})") from None
    for folder in output.glob(".*.part"):
        with suppress(OSError):
            if folder.stat().st_mtime < time.time() - _LEFT_OVER_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(
    file: Path, folder: Path, output: Path, rows: Mapping[TenantYear, int]
) -> Iterator[tuple[TenantYear, tuple[Path, ...], int]]:
    """Pair, Parquet files and rows of each part."""
    final = output / file.stem
    if final.exists():
        final.rename(folder.with_suffix(".old.part"))
    folder.rename(final)
    shutil.rmtree(folder.with_suffix(".old.part"), ignore_errors=True)
    for pair, count in sorted(rows.items()):
        yield pair, tuple(sorted(_folder_of(final, pair).iterdir())), count


def _folder_of(folder: Path, pair: TenantYear) -> Path:
    return folder / f"{TENANT}={pair.tenant}" / f"{YEAR}={pair.year}"


# -- tenants and years ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """Where tenant or school year is found, and how it is read: ``parse`` gives None for what is none."""

    what: str
    name: str | None
    map: ValueMap | None
    default: str | int | None
    parse: Callable[[str], str | None]

    def index(self, header: Sequence[str], file: Path) -> int | None:
        """Raises MissingColumn."""
        if self.name is None:
            if self.default is None:
                raise MissingColumn(f"{file}: neither a column nor a default is given for {self.what}")
            return None
        if self.name not in header:
            raise MissingColumn(f"{file}: provided {self.what} column '{self.name}' not present in data")
        return list(header).index(self.name)

    def value(self, found: str) -> str | None:
        """What ``found`` stands for; None where nobody knows."""
        if self.default is not None and not found.strip():
            return self.parse(str(self.default))
        if self.map is None:
            return self.parse(found)
        try:
            text = self.map(found) if callable(self.map) else self.map.get(found)
        except (LookupError, ValueError):
            return None
        return None if text is None else self.parse(str(text))


@dataclass(frozen=True)
class _Columns:
    tenant: _Column
    year: _Column
    pairs: frozenset[TenantYear] | None

    def pair(self, tenant: str, year: str) -> TenantYear | None:
        """The pair that two values stand for; None where it is not known."""
        code, number = self.tenant.value(tenant), self.year.value(year)
        if code is None or number is None:
            return None
        pair = TenantYear(code, int(number))
        return pair if self.pairs is None or pair in self.pairs else None

    def unknown(self, file: Path, rows: Mapping[tuple[str, str], int]) -> UnknownTenantYear:
        lines = [
            f"{self.tenant.what} {_shown(tenant)}, {self.year.what} {_shown(year)}: {count} rows"
            for (tenant, year), count in sorted(rows.items())
        ]
        more = [f"and {len(lines) - _MOST_NAMED} more"] if len(lines) > _MOST_NAMED else []
        listed = "; ".join([*lines[:_MOST_NAMED], *more])
        return UnknownTenantYear(
            f"{file}: {sum(rows.values())} rows are of tenants or years that are not known, and nothing was written: "
            f"{listed}. Add them to the maps, or correct the columns"
        )


def _shown(value: str) -> str:
    """A value that nobody knows, unless quotes that are not closed made it one of several cells: a student may be among them."""
    return f"(a text of {len(value)} characters)" if _SEVERAL.search(value) else repr(value[:_LONGEST_NAMED])


def _tenant(text: str) -> str | None:
    try:
        return check_tenant_code(text)
    except ValueError:
        return None


def _year(text: str) -> str | None:
    return text if _YEAR.fullmatch(text) else None


# -- one file -------------------------------------------------------------------------------------------------


def _part(file: Path, folder: Path, columns: _Columns, encoding: str) -> dict[TenantYear, int]:
    """Write a file's parts below ``folder``; pair → rows. Raises PartitionError."""
    try:
        folder.mkdir()
        with file.open(encoding=encoding, newline="") as stream:
            rows = None
            try:
                rows = CsvRows(file, stream)
                return _part_rows(file, folder, columns, rows)
            except csv.Error as error:
                line = rows.line if rows else 1
                raise UnusableCsv(f"{file}, line {line}: {error}; correct the line") from None
            except UnicodeError:
                line = rows.line if rows else 0
                raise UnusableCsv(f"{file}, after line {line}: is not {stream.encoding}") from None
    except OSError as error:
        raise UnusableCsv(f"{file}: cannot be parted ({error.strerror or type(error).__name__})") from None


def _part_rows(file: Path, folder: Path, columns: _Columns, rows: CsvRows) -> dict[TenantYear, int]:
    tenant_at, year_at = columns.tenant.index(rows.header, file), columns.year.index(rows.header, file)
    known: dict[tuple[str, str], TenantYear | None] = {}
    unknown: Counter[tuple[str, str]] = Counter()
    with _Parts(folder, rows.header) as parts:
        for batch in rows.batches():
            cells = list(zip(*batch, strict=True))
            nothing = ("",) * len(batch)
            values = list(
                zip(
                    nothing if tenant_at is None else cells[tenant_at],
                    nothing if year_at is None else cells[year_at],
                    strict=True,
                )
            )
            for value, count in Counter(values).items():
                if value not in known:
                    known[value] = columns.pair(*value)
                if known[value] is None:
                    unknown[value] += count
            pairs = [known[value] for value in values]
            _check_short(file, rows.short, pairs)
            if not unknown:
                parts.add(cells, pairs)
            if len(unknown) >= _MOST_VALUES:
                break
            if len(known) >= _MOST_VALUES:
                known.clear()
    if unknown:
        raise columns.unknown(file, unknown)
    return dict(parts.rows)


def _check_short(file: Path, short: Mapping[int, int], pairs: Sequence[TenantYear | None]) -> None:
    """Raises UnusableCsv where a row is short and of nobody: it may lack a cell that is not the last, and then another
    stands where the tenant should, which nobody must be told.
    """
    for place, line in short.items():
        if pairs[place] is None:
            raise UnusableCsv(
                f"{file}, line {line}: a row has fewer cells than the header, and no tenant or year that is known; "
                "correct the line"
            )


# -- writing --------------------------------------------------------------------------------------------------


class _Parts:
    """The Parquet files of one CSV file, each open until the end; rows wait here until there are enough of them."""

    def __init__(self, folder: Path, header: Sequence[str]) -> None:
        self.rows: Counter[TenantYear] = Counter()
        self._folder = folder
        # The folders' names are these two columns for whoever reads them.
        self._kept = [at for at, name in enumerate(header) if name not in {TENANT, YEAR}]
        self._schema = pa.schema([(header[at], pa.string()) for at in self._kept])
        self._waiting: dict[TenantYear, list[pa.Table]] = {}
        self._waiting_bytes = 0
        self._files: Counter[TenantYear] = Counter()
        self._writers: dict[TenantYear, pq.ParquetWriter] = {}
        self._open = ExitStack()

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open:
            if kind is None:
                self._write()

    def add(self, cells: Sequence[Sequence[str]], pairs: Sequence[TenantYear | None]) -> None:
        """Columns of some rows, and the pair of each row."""
        arrays = [pa.array(cells[at], pa.string()) for at in self._kept]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        counts = Counter(pairs)
        if len(counts) > 1:
            number = {pair: at for at, pair in enumerate(counts)}
            numbers = np.fromiter(map(number.__getitem__, pairs), np.int32, len(pairs))
            table = table.take(np.argsort(numbers, kind="stable"))
        begin = 0
        for pair, count in counts.items():
            assert pair is not None
            self._waiting.setdefault(pair, []).append(table.slice(begin, count))
            self.rows[pair] += count
            begin += count
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes >= _MOST_WAITING_BYTES:
            self._write()

    def _write(self) -> None:
        for pair, tables in self._waiting.items():
            self._writer(pair).write_table(pa.concat_tables(tables))
        self._waiting.clear()
        self._waiting_bytes = 0
        if len(self._writers) > _MOST_OPEN_FILES:
            self._open.close()
            self._writers.clear()

    def _writer(self, pair: TenantYear) -> pq.ParquetWriter:
        if pair not in self._writers:
            folder = _folder_of(self._folder, pair)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"part.{self._files[pair]}.parquet"
            self._files[pair] += 1
            self._writers[pair] = self._open.enter_context(pq.ParquetWriter(path, self._schema))
        return self._writers[pair]
