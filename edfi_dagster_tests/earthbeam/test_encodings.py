"""A text file is read in the encoding it is in, or it is an error: no row is lost and no name is spoiled."""

from __future__ import annotations

import codecs
import logging
from pathlib import Path

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from edfi_dagster.config.earthbeam import Bundle
from edfi_dagster.earthbeam import encodings
from edfi_dagster.earthbeam.bundle import composed_bundle
from edfi_dagster.earthbeam.encodings import EncodingError, encoding_of, write_as_utf_8
from edfi_dagster.earthbeam.errors import BundleError
from edfi_dagster.earthbeam.tenant_years import partition_on_tenant_and_year
from edfi_dagster.earthbeam.tenant_years_csv import UnusableCsv
from edfi_dagster.earthbeam.text_inputs import TextInputs, text_inputs
from edfi_dagster_tests.earthbeam.conftest import HEADER, MakeBundleBench, Prepare

PLAIN = "id,name\r\n" + "".join(f"{n},Ada Lovelace\r\n" for n in range(300))
NAMES = "id,name\r\n1,Núñez\r\n2,O’Brien – “Jo” €\r\n3,Grace\r\n"
ACCENTS = "id,name\r\n1,Núñez\r\n2,Zoë Ågren\r\n"
WITH_MARK = {
    "utf-8-sig": codecs.BOM_UTF8 + NAMES.encode(),
    "utf-16": NAMES.encode("utf-16"),
    "utf-16 big": codecs.BOM_UTF16_BE + NAMES.encode("utf-16-be"),
    "utf-32": NAMES.encode("utf-32"),
    "utf-32 big": codecs.BOM_UTF32_BE + NAMES.encode("utf-32-be"),
}
READ = {
    **WITH_MARK,
    "utf-8": NAMES.encode(),
    "utf-16-le": NAMES.encode("utf-16-le"),
    "utf-16-be": NAMES.encode("utf-16-be"),
    "utf-32-le": NAMES.encode("utf-32-le"),
    "utf-32-be": NAMES.encode("utf-32-be"),
    "cp1252": NAMES.encode("cp1252"),
}


def written(folder: Path, content: bytes, name: str = "in.csv") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(("name", "content"), READ.items(), ids=READ)
def test_every_character_comes_out_as_it_was_meant(name: str, content: bytes, tmp_path: Path) -> None:
    file = written(tmp_path, content)
    encoding = encoding_of(file)
    assert encoding == name.removesuffix(" big")
    write_as_utf_8(file, encoding, tmp_path / "copy" / "in.csv")
    assert (tmp_path / "copy" / "in.csv").read_bytes() == NAMES.encode()


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"", "utf-8"),
        (b"id,name\n1,Ada\n", "utf-8"),
        # One byte at the very end of a large file, and one that begins at a piece's end.
        (PLAIN.encode() * 20 + "9,José".encode("cp1252"), "cp1252"),
        (b"x" * 4095 + "ñ".encode() + b"\n", "utf-8"),
        (b"x" * 4095 + "ñ".encode("utf-16-le") + b"\n", "utf-16-le"),
        (ACCENTS.encode("latin-1"), "cp1252"),
        ("1,JOSÉ’S\n2,“CAFÉ”\n".encode("cp1252"), "cp1252"),
        # A zero byte in a file that is no UTF-16.
        (PLAIN.encode() + b"1,A\0da\n", "utf-8"),
        ("学生,成绩\n1,张伟\n2,王芳\n".encode("utf-16-le"), "utf-16-le"),
    ],
)
def test_all_of_a_file_decides(
    content: bytes, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if encoding == "utf-16-le" and content.startswith(b"x"):
        content = ("x" * 4095 + "ñ\n").encode(encoding)
    monkeypatch.setattr(encodings, "_CHUNK", 4096)
    assert encoding_of(written(tmp_path, content)) == encoding


@pytest.mark.parametrize("byte", [0x81, 0x8D, 0x8F, 0x90, 0x9D])
def test_a_byte_that_is_no_character_is_told_with_its_line(byte: int, tmp_path: Path) -> None:
    file = written(tmp_path, b"id,name\n1,Ada\n2,Jo" + bytes([byte]) + b"\n")
    with pytest.raises(EncodingError) as raised:
        encoding_of(file)
    assert f"{file}, line 3: holds a byte that is no character" in str(raised.value)
    assert "save it as UTF-8" in str(raised.value)


@pytest.mark.parametrize("size", [8, 1 << 20])
@pytest.mark.parametrize(
    "content",
    [
        "1,Núñez\n".encode() + "2,Zoë\n".encode("cp1252"),
        "2,Zoë\n".encode("cp1252") + "1,Núñez\n".encode(),
        "1,O’Brien\n".encode() + "2,Zoë\n".encode("latin-1"),
        "2,Zoë\n".encode("latin-1") + codecs.BOM_UTF8 + b"3,Ada\n",
        "1,Núñez\n2,Ágnes\n".encode()[:-6] + b"\xff\n",
    ],
)
def test_a_file_in_two_encodings_is_an_error(
    content: bytes, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "_CHUNK", size)
    with pytest.raises(EncodingError, match=r"holds characters in UTF-8, but line \d holds others"):
        encoding_of(written(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        NAMES.encode("utf-16")[:-1],
        codecs.BOM_UTF8 + ACCENTS.encode("latin-1"),
        NAMES.encode("utf-32") + b"\xff\xff\xff\xff",
    ],
)
def test_a_mark_that_the_rest_does_not_keep_is_an_error(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(EncodingError, match=r"is not utf-\S+, which is what its byte order mark says"):
        encoding_of(written(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        b"id,name\n1,\xe9\0\0\0\xe9\n",
        # UTF-16 without a mark that was cut, or to which a tool added a line end of one byte.
        PLAIN.encode("utf-16-le")[:-1],
        PLAIN.encode("utf-16-be") + b"\n",
        b"PK\x03\x04" + bytes(200) + b"\x81\x82",
    ],
)
def test_zero_bytes_in_no_form_of_unicode_are_an_error(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(EncodingError, match="holds zero bytes and is neither"):
        encoding_of(written(tmp_path, content))


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    "added", ["7,Ada\n", "7,Ada Lovelace\r\n8,Núñez\r\n9,Grace!", "7,Ada\n8,Bo\n9,Zoë\n"]
)
def test_rows_in_utf_8_that_were_added_to_a_file_in_utf_16_are_an_error(
    codec: str, added: str, tmp_path: Path
) -> None:
    """As `Add-Content` of PowerShell does. Half of such files can be decoded as UTF-16 to their end."""
    before, between = NAMES.encode(codec), PLAIN.encode(codec)
    for content in (before + added.encode(), before + added.encode() + between, added.encode() + between):
        with pytest.raises(EncodingError, match=r"save (all of )?it as UTF-8"):
            encoding_of(written(tmp_path, content))


def test_a_second_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    file = written(tmp_path, codecs.BOM_UTF8 * 2 + NAMES.encode())
    write_as_utf_8(file, encoding_of(file), tmp_path / "copy" / "in.csv")
    assert (tmp_path / "copy" / "in.csv").read_bytes() == NAMES.encode()


@pytest.mark.parametrize(
    ("content", "declared", "encoding"),
    [
        (NAMES.encode("utf-16"), "iso-8859-1", "utf-16"),
        (NAMES.encode("utf-16"), "utf-8", "utf-16"),
        (NAMES.encode("utf-16-le"), "latin-1", "utf-16-le"),
        (NAMES.encode("utf-16-le"), "utf-16-le", "utf-16-le"),
        (NAMES.encode("cp1252"), "iso-8859-1", "cp1252"),
        (NAMES.encode(), "latin-1", "utf-8"),
        ("1,JOSÄ“\n2,Zoë\n".encode("cp1252"), "cp1252", "cp1252"),
        (b"1,a\x81\n", "latin-1", "iso8859-1"),
        ("1,ñ\n".encode("cp850"), "cp850", "cp850"),
        ("1,Šubić\n".encode("cp1250"), "windows-1250", "cp1250"),
    ],
)
def test_what_is_declared_counts_where_bytes_do_not_tell(
    content: bytes, declared: str, encoding: str, tmp_path: Path
) -> None:
    assert encoding_of(written(tmp_path, content), declared) == encoding


@pytest.mark.parametrize(
    ("content", "declared", "told"),
    [
        (NAMES.encode("cp1252"), "utf-8", "is not utf-8, which is declared"),
        (NAMES.encode(), "ascii", "is not ascii, which is declared"),
        (b"1,a\x81\n", "cp1252", "is not cp1252, which is declared"),
        (b"id,name\n1,Ada\n", "utf-16", "is not utf-16, which is declared"),
        (b"id\n", "utf-80", "there is no encoding 'utf-80'"),
        (b"id\n", "base64", "there is no encoding 'base64'"),
    ],
)
def test_what_is_declared_wrongly_is_an_error(
    content: bytes, declared: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(EncodingError, match=told):
        encoding_of(written(tmp_path, content), declared)


# -- the two that read files ---------------------------------------------------------------------------------


def rewritten(folder: Path, source: str, file: Path) -> TextInputs:
    """What Earthmover is given of one input whose source says ``source`` besides."""
    (folder / "bundle").mkdir(exist_ok=True)
    (folder / "bundle" / "earthmover.yaml").write_text(
        f'version: 2\nsources:\n  input: {{file: "${{INPUT_FILE}}"{source}}}\n'
    )
    bundle = Bundle.model_validate({"path": str(folder / "bundle")}, context={"folder": folder})
    composed = composed_bundle(bundle, {"INPUT_FILE": str(file)})
    return text_inputs(composed, {"INPUT_FILE": file}, folder / "scratch")


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.txt", "in.fwf", "in.jsonl", "in.JSON"])
def test_earthmover_is_given_utf_8_whatever_kind_of_text_it_is(name: str, tmp_path: Path) -> None:
    file = written(tmp_path, NAMES.encode("utf-16"), name)
    found = rewritten(tmp_path, "", file)
    assert found.encodings == {"INPUT_FILE": "utf-16"}
    assert found.files["INPUT_FILE"].name == name
    assert found.files["INPUT_FILE"].read_bytes() == NAMES.encode()
    assert not found.declaring


def test_a_source_that_declares_an_encoding_is_told_that_it_is_utf_8_now(tmp_path: Path) -> None:
    file = written(tmp_path, NAMES.encode("cp1252"))
    found = rewritten(tmp_path, ", encoding: iso-8859-1", file)
    assert (found.encodings, found.declaring) == ({"INPUT_FILE": "cp1252"}, {"input"})
    assert found.files["INPUT_FILE"].read_bytes() == NAMES.encode()
    plain = rewritten(tmp_path, ", encoding: iso-8859-1", written(tmp_path, NAMES.encode()))
    assert (plain.files["INPUT_FILE"], plain.declaring) == (file, {"input"})


def test_what_is_no_text_is_left_as_it_is_and_what_nobody_can_read_names_its_variable(
    tmp_path: Path,
) -> None:
    book = written(tmp_path, b"PK\x03\x04\0\0\x81", "in.xlsx")
    assert rewritten(tmp_path, "", book) == TextInputs({"INPUT_FILE": book})
    with pytest.raises(BundleError, match=r"INPUT_FILE: .*in\.csv, line 1: holds a byte"):
        rewritten(tmp_path, "", written(tmp_path, b"a\x81\n"))


@pytest.mark.parametrize("name", READ)
def test_files_of_several_tenants_are_read_by_the_same_rules(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = READ[name].decode(name.removesuffix(" big"))
    rows = [line.split(",") for line in text.split("\r\n")[1:] if line]
    lines = ["tenant_code,api_year,id,name", *(f"n,2025,{i},{n}" for i, n in rows)]
    whole = "\r\n".join(lines) + "\r\n"
    mark = {"utf-16 big": codecs.BOM_UTF16_BE, "utf-32 big": codecs.BOM_UTF32_BE}.get(name, b"")
    codec = {"utf-16 big": "utf-16-be", "utf-32 big": "utf-32-be"}.get(name, name)
    with caplog.at_level(logging.WARNING):
        (part,) = partition_on_tenant_and_year(
            written(tmp_path, mark + whole.encode(codec), "data.csv"), tmp_path
        )
    assert part.encoding == name.removesuffix(" big")
    found = pq.ParquetFile(part.paths[0]).read().to_pylist()
    assert [[row["id"], row["name"]] for row in found] == rows
    assert [record.getMessage() for record in caplog.records] == (
        [f"{tmp_path / 'data.csv'} is not UTF-8 and was read as cp1252"] if name == "cp1252" else []
    )


def test_a_file_of_several_tenants_that_nobody_can_read_is_told_and_changes_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, b"tenant_code,api_year,name\nn,2025,\x81\n", "data.csv")
    with pytest.raises(UnusableCsv, match="line 2: holds a byte that is no character"):
        partition_on_tenant_and_year(file, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


# -- a run ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "warned"), [("utf-16", False), ("utf-8-sig", False), ("cp1252", True)])
def test_a_run_loads_every_row_and_records_what_the_file_was_read_as(
    bundles: MakeBundleBench, encoding: str, warned: bool
) -> None:
    bench = bundles(destination="warehouse")
    file = bench.folder / "fall.csv"
    rows = [f"{600052 + n},Núñez,O’Brien,03,09/12/2024,{100 + n},7" for n in range(3)]
    file.write_bytes(("\r\n".join([HEADER, *rows]) + "\r\n").encode(encoding))
    found = bench.run(file=file)
    assert found.failure is None
    assert bench.words() == {str(600052 + n): [str(100 + n)] for n in range(3)}
    assert found.encodings == {"INPUT_FILE": encoding}
    assert bench.run_log()[-1]["encodings"] == {"INPUT_FILE": encoding}
    told = f"INPUT_FILE is not UTF-8 and was read as {encoding}"
    assert (told in bench.told) is warned


def test_a_run_over_a_file_that_nobody_can_read_fails_before_earthmover(prepare: Prepare) -> None:
    bench = prepare(destination="none")
    (bench.folder / "in.csv").write_bytes(b"a,b\n1,\x9d\n")
    found = bench.run()
    assert found.failed_step == "encodings" and "INPUT_FILE" in str(found.failure)
    assert not (bench.folder / "parameters").exists()
    (bench.folder / "in.csv").write_bytes("a,b\n1,“ñ”\n".encode("utf-16"))
    again = bench.run()
    assert (again.failure, again.encodings) == (None, {"INPUT_FILE": "utf-16"})
