"""CSV files parted by tenant and school year: every row in its part, or nothing written."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from edfi_dagster.config import TenantYear
from edfi_dagster.earthbeam import tenant_years, tenant_years_csv
from edfi_dagster.earthbeam.errors import EarthbeamError
from edfi_dagster.earthbeam.tenant_years import partition_on_tenant_and_year
from edfi_dagster.earthbeam.tenant_years_csv import PartitionError, UnusableCsv

HEADER = ("id", "tenant_code", "api_year")
ROWS = (
    ("0", "north", "1999"),
    ("1", "north", "1999"),
    ("2", "north", "2000"),
    ("3", "south", "2000"),
    ("4", "south", "2001"),
    ("5", "south", "2001"),
)


def write_csv(path: Path, rows: Sequence[Sequence[str]] = ROWS, header: Sequence[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def ids(folder: Path) -> dict[str, list[str]]:
    """``tenant/year`` → the ids in that part, as another reader of Parquet folders finds them."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        tenant, year = (part.partition("=")[2] for part in file.parts[-3:-1])
        assert file.parts[-3:-1] == (f"tenant_code={tenant}", f"api_year={year}")
        found.setdefault(f"{tenant}/{year}", []).extend(pq.ParquetFile(file).read()["id"].to_pylist())
    return found


PARTED = {"north/1999": ["0", "1"], "north/2000": ["2"], "south/2000": ["3"], "south/2001": ["4", "5"]}


def test_each_row_is_in_the_folder_of_its_tenant_and_year(tmp_path: Path) -> None:
    made = partition_on_tenant_and_year(write_csv(tmp_path / "data.csv"), tmp_path)
    assert ids(tmp_path / "data") == PARTED
    assert [(part.pair, part.rows) for part in made] == [
        (TenantYear("north", 1999), 2),
        (TenantYear("north", 2000), 1),
        (TenantYear("south", 2000), 1),
        (TenantYear("south", 2001), 2),
    ]
    assert made[0].paths == (tmp_path / "data" / "tenant_code=north" / "api_year=1999" / "part.0.parquet",)
    frame = pd.read_parquet(tmp_path / "data" / "tenant_code=south")
    assert list(frame["id"]) == ["3", "4", "5"]


def test_several_files_given_as_text_or_path_have_a_folder_each(tmp_path: Path) -> None:
    files = [write_csv(tmp_path / f"{name}.csv") for name in ("one", "two", "three")]
    partition_on_tenant_and_year([files[0], str(files[1]), files[2]], tmp_path / "out" / "deep")
    for name in ("one", "two", "three"):
        assert ids(tmp_path / "out" / "deep" / name) == PARTED


@pytest.mark.parametrize(
    ("tenant_map", "year_map"),
    [
        ({"n": "north", "s": "south"}, {"99": "1999", "00": "2000", "01": 2001}),
        (
            {"n": "north", "s": "south"}.get,
            lambda text: 1900 + int(text) if text == "99" else 2000 + int(text),
        ),
    ],
    ids=["mappings", "functions"],
)
def test_columns_of_other_names_are_translated(tenant_map: Any, year_map: Any, tmp_path: Path) -> None:
    rows = [(number, tenant[0], year[2:]) for number, tenant, year in ROWS]
    file = write_csv(tmp_path / "data.csv", rows, ("id", "name", "data_year"))
    partition_on_tenant_and_year(
        file, tmp_path, tenant_col="name", tenant_map=tenant_map, year_col="data_year", year_map=year_map
    )
    assert ids(tmp_path / "data") == PARTED
    part = pq.ParquetFile(tmp_path / "data" / "tenant_code=north" / "api_year=2000" / "part.0.parquet")
    assert part.read().to_pylist() == [{"id": "2", "name": "n", "data_year": "00"}]


def test_defaults_stand_for_empty_cells_and_for_columns_that_are_not_there(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "data.csv", [("0", "north", ""), ("1", " ", "")])
    partition_on_tenant_and_year(
        file,
        tmp_path,
        tenant_map={"north": "north"},
        tenant_default="state",
        year_col=None,
        year_default=2026,
    )
    assert ids(tmp_path / "data") == {"north/2026": ["0"], "state/2026": ["1"]}


def test_a_default_does_not_stand_for_what_the_map_does_not_know(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "data.csv")
    with pytest.raises(ValueError, match=r"tenant_code 'south', api_year '2000': 1 rows"):
        partition_on_tenant_and_year(file, tmp_path, tenant_map={"north": "north"}, tenant_default="north")


def test_one_row_among_very_many_is_in_its_own_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenant_years_csv, "_MOST_CELLS", 3_000)
    monkeypatch.setattr(tenant_years, "_MOST_WAITING_BYTES", 90_000)
    rows = [(str(n), "special" if n == 10_000 else f"t{n % 3}", str(1999 + n % 2)) for n in range(20_001)]
    made = partition_on_tenant_and_year(write_csv(tmp_path / "data.csv", rows), tmp_path)
    assert sum(part.rows for part in made) == 20_001
    found = ids(tmp_path / "data")
    assert found["special/1999"] == ["10000"]
    assert sorted(int(n) for part in found.values() for n in part) == list(range(20_001))


def test_more_parts_than_files_may_be_open_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_years, "_MOST_OPEN_FILES", 5)
    monkeypatch.setattr(tenant_years_csv, "_MOST_CELLS", 90)
    monkeypatch.setattr(tenant_years_csv, "_ROWS_AT_ONCE", 30)
    monkeypatch.setattr(tenant_years, "_MOST_WAITING_BYTES", 200)
    rows = [(str(n), f"t{n % 11}", "2025") for n in range(300)]
    made = partition_on_tenant_and_year(write_csv(tmp_path / "data.csv", rows), tmp_path)
    assert {(part.pair.tenant, part.rows) for part in made} == {
        (f"t{n}", 28 if n < 3 else 27) for n in range(11)
    }
    assert all(len(part.paths) > 1 for part in made)
    assert sorted(int(n) for part in ids(tmp_path / "data").values() for n in part) == list(range(300))


# -- what stands in cells -------------------------------------------------------------------------------------

ALL_SORTS: Mapping[str, str] = {
    "leading zeros": "007",
    "no value": "",
    "what looks like none": "NA",
    "a comma and quotes": 'Doe, "Jo"',
    "line breaks": "first\r\nsecond\nthird",
    "accents": "Núñez Ågren",
    "spaces": "  x ",
    "a number": "1e5",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_every_cell_is_the_text_that_stood_there(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    with file.open("w", newline="", encoding=encoding) as stream:
        rows = [["tenant_code", "api_year", *ALL_SORTS], ["north", "2025", *ALL_SORTS.values()]]
        csv.writer(stream).writerows(rows)
    # Without a byte order mark nothing tells UTF-16.
    partition_on_tenant_and_year(file, tmp_path, encoding=encoding if encoding == "utf-16-le" else None)
    (found,) = pq.read_table(tmp_path / "data", partitioning=None).to_pylist()
    assert found == ALL_SORTS


def test_short_rows_blank_lines_trailing_commas_and_repeated_names_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("tenant_code,api_year,score,score,\nnorth,2025,1\n\nnorth,2025,2,3,4,,\n")
    partition_on_tenant_and_year(file, tmp_path)
    assert pq.read_table(tmp_path / "data", partitioning=None).to_pylist() == [
        {"score": "1", "score.1": "", "Unnamed: 4": ""},
        {"score": "2", "score.1": "3", "Unnamed: 4": "4"},
    ]


# -- what cannot be parted ------------------------------------------------------------------------------------


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("content", "options", "error", "message"),
    [
        (
            "id,api_year\n1,2025\n",
            {},
            KeyError,
            "provided tenant_code column 'tenant_code' not present in data",
        ),
        ("id,tenant_code\n1,n\n", {}, KeyError, "provided api_year column 'api_year' not present in data"),
        (
            "id,tenant_code\n1,n\n",
            {"year_col": None},
            KeyError,
            "neither a column nor a default is given for api_year",
        ),
        ("", {}, ValueError, "is empty; it has no header"),
        ("\n\n", {}, ValueError, "is empty; it has no header"),
        ('tenant_code,api_year\nn,2025\nn,"2025\n', {}, ValueError, "unexpected end of data"),
        ('tenant_code,api_year\nn,2025\nn,"20"25\n', {}, ValueError, "line 3: "),
        (
            "tenant_code,api_year\nn,2025\nn,2025,Doe\n",
            {},
            ValueError,
            "line 3: a row has 3 cells, the header 2",
        ),
        (
            'tenant_code,api_year\nn,2025\n"n\n\n",2025\nn\nn,2025,Doe\n',
            {},
            ValueError,
            "line 7: a row has 3 cells",
        ),
        ("tenant_code,api_year\nñ,2025\n", {"encoding": "ascii"}, ValueError, "is not ascii"),
        ("tenant_code,api_year\nn,2025\n", {"encoding": "klingon"}, ValueError, "no encoding 'klingon'"),
        (
            "tenant_code,api_year\n../../x,2025\n",
            {},
            ValueError,
            "tenant_code '../../x', api_year '2025': 1 rows",
        ),
        ("tenant_code,api_year\nn,24-25\nn,24-25\n", {}, ValueError, "api_year '24-25': 2 rows"),
        ("tenant_code,api_year\nn,\n", {}, ValueError, "api_year '': 1 rows"),
    ],
)
def test_a_file_that_cannot_be_parted_changes_nothing(
    content: str, options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    good = write_csv(tmp_path / "good.csv")
    out = tmp_path / "out"
    bad = tmp_path / "bad.csv"
    bad.write_text("tenant_code,api_year\nold,2020\n")
    partition_on_tenant_and_year([good, bad], out)
    before = left_in(out)
    write_csv(good, [("9", "new", "2025")])
    bad.write_text(content, encoding="utf-8")
    with pytest.raises(error, match=message.replace("(", r"\(")) as raised:
        partition_on_tenant_and_year([good, bad], out, **options)
    assert isinstance(raised.value, EarthbeamError)
    assert "Doe" not in str(raised.value)
    assert left_in(out) == before
    assert ids(out / "good") == PARTED


def test_every_unknown_tenant_and_year_is_listed_with_its_rows(tmp_path: Path) -> None:
    rows = [*ROWS, *[("6", "west", "2025")] * 3]
    file = write_csv(tmp_path / "data.csv", rows)
    with pytest.raises(ValueError, match=r": 4 rows are of") as raised:
        partition_on_tenant_and_year(
            file, tmp_path, pairs=[TenantYear("north", 1999), TenantYear("north", 2000), TenantYear("south", 2001)],
            tenant_map={"north": "north", "south": "south", "west": None, "2": "x"}  # type: ignore[dict-item]
        )  # fmt: skip
    assert "tenant_code 'south', api_year '2000': 1 rows" in str(raised.value)
    assert "tenant_code 'west', api_year '2025': 3 rows" in str(raised.value)


def test_unknown_values_without_end_are_counted_but_not_all_told(tmp_path: Path) -> None:
    rows = [(str(n), f"no tenant, {n}", "2025") for n in range(300)]
    with pytest.raises(ValueError, match=r"300 rows .* and 280 more") as raised:
        partition_on_tenant_and_year(write_csv(tmp_path / "data.csv", rows), tmp_path)
    assert len(str(raised.value)) < 2_500


@pytest.mark.parametrize("name", ["data.yar", "data", "gone.csv", "folder.csv"])
def test_what_is_no_csv_file_is_a_value_error(name: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "data.yar")
    write_csv(tmp_path / "data")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=r"is not a path to a file whose name ends with '\.csv'"):
        partition_on_tenant_and_year(tmp_path / name, tmp_path)


def test_two_files_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    files = [write_csv(tmp_path / "data.csv"), write_csv(tmp_path / "a" / "data.csv")]
    with pytest.raises(ValueError, match="would be written to the same folder"):
        partition_on_tenant_and_year(files, tmp_path / "out")


def test_a_header_alone_leaves_an_empty_folder_and_earlier_parts_are_gone(tmp_path: Path) -> None:
    partition_on_tenant_and_year(write_csv(tmp_path / "data.csv"), tmp_path)
    assert partition_on_tenant_and_year(write_csv(tmp_path / "data.csv", []), tmp_path) == []
    assert left_in(tmp_path / "data") == []
    assert left_in(tmp_path) == ["data", "data.csv"]


def test_what_a_killed_run_left_is_cleared_when_it_is_old(tmp_path: Path) -> None:
    old, new = tmp_path / ".data.aaaa.part", tmp_path / ".data.bbbb.part"
    for folder in (old, new):
        write_csv(folder.parent / "x.csv")
        folder.mkdir()
    day = time.time() - 2 * 86_400
    os.utime(old, (day, day))
    partition_on_tenant_and_year(write_csv(tmp_path / "data.csv"), tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    script = (
        "import resource, sys\n"
        "from edfi_dagster.earthbeam import tenant_years, tenant_years_csv\n"
        "tenant_years_csv._MOST_CELLS, tenant_years._MOST_WAITING_BYTES = 50_000, 2_000_000\n"
        "tenant_years.partition_on_tenant_and_year(sys.argv[1], sys.argv[2])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    peaks = []
    for rows in (10_000, 100_000):
        file = tmp_path / f"data{rows}.csv"
        with file.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow([*HEADER, *"abcdefgh"])
            writer.writerows((n, f"t{n % 4}", 2025, *("x" * 12 + str(n),) * 8) for n in range(rows))
        command = [sys.executable, "-c", script, str(file), str(tmp_path / "out")]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    # The rows themselves would take more than 90 MB.
    assert peaks[1] - peaks[0] < 30


@pytest.mark.parametrize("name", ["..csv", "...csv", ".hidden.csv", "a\udcf1o.csv"])
def test_a_name_that_would_lead_out_of_the_folder_or_cannot_be_written_is_refused(
    name: str, tmp_path: Path
) -> None:
    """``..csv`` would be parted into the folder itself, ``...csv`` into the one above it."""
    out = tmp_path / "out"
    with pytest.raises(UnusableCsv, match="rename it") as raised:
        partition_on_tenant_and_year(write_csv(tmp_path / name), out)
    assert str(raised.value).isprintable()
    assert not out.exists()


def test_what_cannot_be_written_is_an_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(UnusableCsv, match=r"a+\.csv: cannot be parted \(File name too long\)"):
        partition_on_tenant_and_year(write_csv(tmp_path / f"{'a' * 251}.csv"), tmp_path / "out")
    with pytest.raises(UnusableCsv, match=r"fall\.csv: no files can be written there"):
        partition_on_tenant_and_year(write_csv(tmp_path / "fall.csv"), tmp_path / "fall.csv")


@pytest.mark.parametrize("encoding", ["base64", "rot13", "a\x00b", "\ud800"])
def test_an_encoding_that_is_none_of_texts_is_refused(encoding: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableCsv, match="there is no encoding"):
        partition_on_tenant_and_year(write_csv(tmp_path / "data.csv"), tmp_path, encoding=encoding)


def test_a_byte_order_mark_before_a_quoted_name_is_none_of_its_letters(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text('\ufeff"tenant_code","api_year","id"\n"north","2025","7"\n', encoding="utf-8")
    partition_on_tenant_and_year(file, tmp_path, encoding="utf-8")
    assert ids(tmp_path / "data") == {"north/2025": ["7"]}


def test_thousands_of_columns_of_one_name_are_told_apart_at_once(tmp_path: Path) -> None:
    file = write_csv(
        tmp_path / "data.csv", [("north", "2025")], ("tenant_code", "api_year", *["score"] * 3000)
    )
    begun = time.monotonic()
    partition_on_tenant_and_year(file, tmp_path)
    assert time.monotonic() - begun < 20  # it were minutes
    (part,) = (tmp_path / "data").rglob("*.parquet")
    assert pq.ParquetFile(part).read().column_names == ["score", *[f"score.{n}" for n in range(1, 3000)]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("north2025,Zaphodia", "line 4: a row has fewer cells than the header"),
        ('"north,2025,Zaphodia\r\nx",2025,Jo', "(a text of 22 characters), api_year '2025': 1 rows"),
    ],
)
def test_a_row_that_lost_a_comma_or_a_quote_shows_no_student(row: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text(f'tenant_code,api_year,name\r\nnorth,2025,"a\rb"\r\n{row}\r\n', newline="")
    with pytest.raises(PartitionError) as raised:
        partition_on_tenant_and_year(file, tmp_path)
    assert said in str(raised.value)
    assert "Zaphodia" not in str(raised.value)
