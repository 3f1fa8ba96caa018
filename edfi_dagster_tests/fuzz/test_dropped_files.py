"""Whatever lies in a folder for files: its rows, each where it belongs and none twice, or an error that names the file and
no student.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edfi_dagster.automation.file_drop import FILE_DROP_SENSOR
from edfi_dagster.config import TenantYear
from edfi_dagster.definitions import build
from edfi_dagster.earthbeam.bundle import MATCH_RATES
from edfi_dagster.earthbeam.earthmover import count_records, drop_blank_lines
from edfi_dagster.earthbeam.encodings import EncodingError, encoding_of
from edfi_dagster.earthbeam.errors import ToolFailed
from edfi_dagster.earthbeam.row_counts import count_rows
from edfi_dagster.earthbeam.student_ids import read_rates
from edfi_dagster.earthbeam.tenant_years import partition_on_tenant_and_year
from edfi_dagster.earthbeam.tenant_years_csv import PartitionError
from edfi_dagster_tests.automation.daemon import Clock, Daemon
from edfi_dagster_tests.automation.platforms import GRAND_BEND, platform_of
from edfi_dagster_tests.earthbeam.conftest import DEMO
from edfi_dagster_tests.fuzz.inputs import ODD_TEXTS, fuzzed, spoiled, tried

TENANTS = {"n": "north", "s": "south", "x" * 63: "x" * 63}
YEARS: dict[str, str | int] = {"24-25": 2025, "2026": "2026", "": 2024}
# What a map may say and no folder may be called.
WRONG = {
    "up": "..",
    "out": "../../out",
    "root": "/out",
    "nul": "a\x00b",
    "long": "x" * 300,
}
STUDENT = "Zaphodia"
ENCODABLE = ODD_TEXTS.filter(lambda text: text.isascii() or text.isprintable())
CELLS = st.one_of(
    st.just(STUDENT), ENCODABLE, st.text(st.characters(codec="utf-8"), max_size=5), st.sampled_from(["a\rb", "a\nb\n", '""', ","])
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A CSV file as somebody means it: tenant and year in the first two columns."""

    header: list[str]
    rows: list[list[str]]

    def encoded(self, encoding: str, end: str = "\r\n") -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([self.header, *self.rows])
        return text.getvalue().encode(encoding)

    def parts(self) -> dict[TenantYear, list[list[str]]] | None:
        """Pair → its rows without the two columns that folders are named by; None where a row is of nobody known.

        A second column of such a name is another one.
        """
        named = {"tenant_code", "api_year"}
        kept = [at for at, name in enumerate(self.header) if name not in named or name in self.header[:at]]
        found: dict[TenantYear, list[list[str]]] = {}
        for row in self.rows:
            if row[0] not in TENANTS or row[1] not in YEARS:
                return None
            pair = TenantYear(TENANTS[row[0]], int(YEARS[row[1]]))
            found.setdefault(pair, []).append([row[at] for at in kept])
        return found


@st.composite
def tables(draw: st.DrawFn) -> Table:
    more = draw(
        st.lists(st.one_of(st.sampled_from(["name", "name.1", "tenant_code", ""]), CELLS), max_size=4)
    )
    tenants = st.sampled_from([*TENANTS, *TENANTS, *WRONG, "who"] if draw(st.booleans()) else list(TENANTS))
    row = st.tuples(tenants, st.sampled_from(list(YEARS)), *[CELLS] * len(more)).map(list)
    return Table(["t", "y", *more], draw(st.lists(row, max_size=6)))


ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])
PIECES = st.sampled_from(
    [b"", b"\x00", b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x80" * 3, b"\x1a",
     b"\xed\xa0\x80", b"x" * 140_000, b",,,,,,,,", b'",\r\n"', b"\xe2\x80\xa8", b"\xc2\x85", b"\x0c"]
)  # fmt: skip


class Folder:
    """Where files are parted, with what an earlier run left there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._out = folder / "out"
        self.file = folder / "fall.csv"

    def parted(self, content: bytes, **options: Any) -> dict[TenantYear, list[list[str]]] | str:
        """Pair → rows of one file, or why it has none. Nothing is ever written beside its folder."""
        self.file.write_bytes(b"t,y,a\nn,2026,old\n")
        partition_on_tenant_and_year(self.file, self._out, "t", TENANTS, "y", YEARS)
        self.file.write_bytes(content)
        before = self._left()
        maps = {"tenant_map": {**TENANTS, **WRONG}, "year_map": YEARS}
        try:
            made = partition_on_tenant_and_year(
                self.file, self._out, "t", year_col="y", **{**maps, **options}
            )
        except PartitionError as error:
            assert self._left() == before
            said = str(error)
            assert said.startswith(str(self.file))
            assert said.isprintable()
            assert STUDENT not in said
            assert len(said) < 3000
            return said
        found = {part.pair: [row for path in part.paths for row in rows_of(path)] for part in made}
        assert {part.pair: part.rows for part in made} == {pair: len(rows) for pair, rows in found.items()}
        assert sorted(path for part in made for path in part.paths) == self._left()
        for part in made:
            folder = self._out / "fall" / f"tenant_code={part.pair.tenant}" / f"api_year={part.pair.year}"
            assert all(path.parent == folder for path in part.paths)
        return found

    def _left(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and path != self.file)


def rows_of(path: Path) -> list[list[str]]:
    table = pq.ParquetFile(path).read()
    assert len(set(table.column_names)) == table.num_columns
    return [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("dropped"))


@fuzzed(50)
@given(table=tables(), encoding=ENCODINGS, end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_every_row_of_a_file_is_in_the_part_of_its_tenant_and_year(
    folder: Folder, table: Table, encoding: str, end: str
) -> None:
    tried["dropped files"] += 1
    found = folder.parted(table.encoded(encoding, end))
    expected = table.parts()
    if isinstance(found, str):
        assert expected is None
        assert "are not known" in found
    else:
        assert found == expected


@fuzzed(60)
@given(table=tables(), encoding=ENCODINGS, piece=PIECES, data=st.data())
def test_a_damaged_file_is_parted_as_it_is_or_told_to_be_damaged(
    folder: Folder, table: Table, encoding: str, piece: bytes, data: st.DataObject
) -> None:
    tried["dropped files"] += 1
    content = table.encoded(encoding)
    at = data.draw(st.integers(0, len(content)))
    content = content[:at] + piece + content[at + data.draw(st.integers(0, 3)) :]
    found = folder.parted(content)
    if isinstance(found, str):
        return
    read = reading(content)
    assert read is not None
    width = len(read.header)
    assert all(not any(row[width:]) for row in read.rows)
    fitted = Table(read.header, [[*row, *[""] * width][:width] for row in read.rows])
    assume("t" in fitted.header[0] and fitted.header[1] == "y")
    expected = fitted.parts()
    assert expected is not None
    assert {pair: len(rows) for pair, rows in found.items()} == {
        pair: len(rows) for pair, rows in expected.items()
    }
    assert found == expected


def reading(content: bytes) -> Table | None:
    """The file as the standard library reads it."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
        (b"", "utf-8"), (b"", "cp1252"),
    ):  # fmt: skip
        if content.startswith(mark):
            try:
                text = content.decode(encoding).removeprefix("\ufeff")
            except UnicodeDecodeError:
                if mark:
                    return None
                continue
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
            return Table(rows[0], rows[1:])
    return None


@fuzzed(30)
@given(content=st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=6).map(b"".join)), encoding=st.one_of(st.none(), ODD_TEXTS, st.sampled_from(["base64", "rot13", "utf-7", "idna", "punycode", "undefined", "utf-16-le", "cp037", "raw_unicode_escape"])))  # fmt: skip
def test_any_bytes_in_any_encoding_are_parted_or_told_to_be_none(
    folder: Folder, content: bytes, encoding: str | None
) -> None:
    tried["dropped files"] += 1
    folder.file.write_bytes(b"t,y,a\nn,2026,1\n" + content)
    try:
        partition_on_tenant_and_year(
            folder.file, folder.folder / "any", "t", TENANTS, "y", YEARS, encoding=encoding
        )
    except PartitionError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 3000


NAMES = [
    ".csv", "..csv", "...csv", ".hidden.csv", "a\nb.csv", "\x1b[31m.csv", "a\udcf1o.csv", "a" * 251 + ".csv", " .csv", "é" * 125 + ".csv",
    "-rf.csv", "a|b.csv", "a=b.csv", "%2e%2e.csv", "\u202e.csv", "\U0001f600.csv", "CON.csv", "a.part.csv", ".x.part.csv", "\\.csv",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_parted_below_the_folder_or_refused(name: str, tmp_path: Path) -> None:
    tried["file names"] += 1
    file, out = tmp_path / "in" / name, tmp_path / "out"
    for path in (file.parent, out):
        path.mkdir()
    file.write_text("tenant_code,api_year,a\nn,2026,1\n")
    try:
        (part,) = partition_on_tenant_and_year(file, out)
    except PartitionError as error:
        assert str(error).isprintable()
        assert list(out.iterdir()) == []
    else:
        assert [path.name for path in out.iterdir()] == [file.stem]
        assert rows_of(*part.paths) == [["1"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_file_of_any_name_is_run_by_the_sensor_once(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    bundle = {
        "path": str(DEMO),
        "inputs": {"INPUT_FILE": {"folder": "incoming", "pattern": "*.csv"}},
        "destination": "none",
    }
    platform = platform_of(tmp_path, {GRAND_BEND: {}}, earthbeam={"bundles": {"riverbend": bundle}})
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    for number, name in enumerate(NAMES):
        tried["file names"] += 1
        (incoming / name).write_text(str(number))
    daemon = Daemon(build(platform), instance, Clock())
    asked = [request for _ in range(4) for request in daemon.sensor(FILE_DROP_SENSOR).requests]
    assert len(asked) == len({request.run_key for request in asked})
    # Every one of which a run can be made, and no other: it would hold up the rest.
    assert {request.tags["edfi/file"] for request in asked} == {
        name for name in NAMES if name[0] != "." and name != "a\udcf1o.csv"
    }
    json.dumps([request.run_config for request in asked], ensure_ascii=False).encode()


# -- what the tools read and write -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bytes], Path]:
    folder = tmp_path_factory.mktemp("files")

    def written(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return written


RATES = ("source_column_name", "edfi_column_name", "num_matches", "num_rows", "match_rate")
NUMBERS = st.sampled_from(
    ["1", "0", "1.0", "0.5", "", "nan", "inf", "-1", "1e999", "9" * 5000, STUDENT, "½", "1,5"]
)


@fuzzed(60)
@given(
    header=st.one_of(st.just(list(RATES)), st.lists(st.sampled_from(RATES), max_size=6)),
    rows=st.lists(st.lists(NUMBERS, min_size=1, max_size=6), max_size=3),
    piece=PIECES,
    at=st.integers(0, 300),
)
def test_rates_of_matches_are_read_or_the_file_is_named(
    files: Callable[[str, bytes], Path],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    piece: bytes,
    at: int,
) -> None:
    tried["match rates"] += 1
    content = Table(list(header), [list(row) for row in rows]).encoded("utf-8")
    file = files(f"{MATCH_RATES}.csv", content[:at] + piece + content[at:])
    try:
        rates = read_rates(file.parent)
    except ToolFailed as error:
        assert f"{MATCH_RATES}.csv" in str(error)
        assert STUDENT not in str(error)
        return
    for rate in rates:
        assert 0 <= rate.rate <= 1
        assert rate.matches >= 0 and 0 <= rate.rows < 2**63
    assert list(rates) == sorted(rates, key=lambda rate: -rate.rate)


SETTINGS = {"type": "csv", "header_rows": 1, "encoding": "utf-8"}


@fuzzed(50)
@given(
    settings=spoiled(SETTINGS).filter(lambda found: isinstance(found, dict)),
    table=tables(),
    piece=PIECES,
    at=st.integers(0, 200),
)
def test_rows_are_counted_or_nobody_knows_how_many_there_are(
    files: Callable[[str, bytes], Path], settings: dict[str, Any], table: Table, piece: bytes, at: int
) -> None:
    tried["counted files"] += 1
    content = table.encoded("utf-8")
    assert count_rows(SETTINGS, files("a.csv", content)) == sum(1 for row in table.rows if any(row))
    found = count_rows(settings, files("a.csv", content[:at] + piece + content[at:]))
    assert found is None or found >= 0


@fuzzed(50)
@given(content=st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=8).map(b"".join)), table=tables())
def test_records_are_counted_and_blank_lines_dropped_whatever_a_file_holds(
    files: Callable[[str, bytes], Path], content: bytes, table: Table
) -> None:
    tried["counted files"] += 1
    lines = files("a.jsonl", content)
    count = count_records(lines)
    drop_blank_lines(lines)
    left = lines.read_bytes()
    assert count_records(lines) == count == sum(1 for line in left.split(b"\n") if line)
    assert b"".join(left.split()) == b"".join(content.split())
    try:
        encoding = encoding_of(lines)
    except EncodingError as error:
        assert str(lines) in str(error)
    else:
        assert left.decode(encoding) is not None
    assert 0 <= count_records(files("b.csv", content)) <= content.count(b"\n") + content.count(b"\r") + 1
    assert count_records(files("b.csv", table.encoded("utf-8"))) == sum(1 for row in table.rows if any(row))
