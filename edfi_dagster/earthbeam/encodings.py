"""Which encoding a text file is in, decided from all of its bytes.

A byte order mark decides; then UTF-8, if all of the file is; then UTF-16 or UTF-32 without a mark, by their zero bytes;
then Windows-1252, which is Latin-1 with characters in place of its control codes. Nothing else is guessed.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from edfi_dagster.earthbeam.errors import EarthbeamError

UTF_8 = "utf-8"
WINDOWS = "cp1252"
_CHUNK = 1 << 20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WITHOUT_MARK = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_OF_SEVERAL_BYTES = frozenset({*_WITHOUT_MARK, "utf-16", "utf-32"})
# The zero bytes are the rest of the line end before it.
_ASCII_LINE = re.compile(rb"\0{0,3}[\t\x20-\x7e]{3,}\r?\n?")
# Of a file with columns, at least so many characters are ASCII: separators, digits, line ends.
_LEAST_ASCII = 0.1
# More zero bytes than this share are those of UTF-16 that was cut or added to.
_MOST_ZEROS = 0.1
_DECIDED_BY_BYTES = frozenset({"iso8859-1", WINDOWS, UTF_8, "utf-8-sig"})
_UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
# Letters and punctuation of Western and Central Europe in UTF-8, and its byte order mark and replacement character. As
# Windows-1252 they would be an accented capital and a symbol: no text holds that.
_IN_UTF_8 = re.compile(rb"[\xc2-\xc5][\x80-\xbf]|\xe2\x80[\x80-\xbf]|\xef\xbb\xbf|\xef\xbf\xbd")
_LONGEST = 3
_REMEDY = "save it as UTF-8"


class EncodingError(EarthbeamError, ValueError):
    """Nobody can tell how a file is to be read; the message names the file, the line, and what to do."""


def encoding_of(file: Path, declared: str | None = None) -> str:
    """Return the encoding of a text file, as Python calls it. ``declared`` is what somebody says it is.

    Bytes count more than what is declared: a byte order mark always, and UTF-8 where Latin-1 or Windows-1252 is declared.
    Raises EncodingError if the bytes are of no encoding, of two, or not of the one that is declared; OSError.
    """
    said = _codec(file, declared)
    begin = _begin(file)
    marked = next((name for mark, name in _MARKS if begin.startswith(mark)), None)
    if marked is not None:
        return _in_one_encoding(file, _checked(file, marked, "is what its byte order mark says"))
    zeros = sum(piece.count(b"\0") for piece in _pieces(file))
    if said is not None and said not in _DECIDED_BY_BYTES:
        if begin and not zeros and said.startswith(("utf-16", "utf-32")):
            raise _wrong(file, said, "is declared", 0)
        return _checked(file, said, "is declared")
    fault = _fault(file, UTF_8)
    if zeros:
        is_few = zeros < file.stat().st_size * _MOST_ZEROS
        return _with_zeros(file, is_utf_8=fault is None and is_few)
    if fault is None:
        return UTF_8
    if said is not None and said.startswith(UTF_8):
        raise _wrong(file, said, "is declared", fault)
    return _eight_bits(file, fault) if said is None else _declared_latin(file, said)


def is_unicode_text(encoding: str) -> bool:
    """Whether an encoding is a form of Unicode, so that nothing was guessed."""
    return encoding.startswith("utf-")


def write_as_utf_8(file: Path, encoding: str, to: Path) -> None:
    """Write a file's text to ``to``, as UTF-8 without a byte order mark; its line ends stay."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with (
        file.open(encoding=encoding, newline="") as text,
        to.open("w", encoding=UTF_8, newline="") as out,
    ):
        # Programs that join files leave a second mark at the beginning: it would be part of the first column's name.
        out.write(text.read(_CHUNK).lstrip("\ufeff"))
        while piece := text.read(_CHUNK):
            out.write(piece)


def _codec(file: Path, declared: str | None) -> str | None:
    if declared is None:
        return None
    try:
        found = codecs.lookup(declared)
        codecs.getincrementaldecoder(declared)
        "".encode(declared)
    except (LookupError, ValueError):
        raise EncodingError(
            f"{file}: there is no encoding {declared[:40]!r}; write for example {WINDOWS}"
        ) from None
    return found.name


def _with_zeros(file: Path, *, is_utf_8: bool) -> str:
    """UTF-16 or UTF-32 without a mark; else UTF-8 in which a zero byte happens to stand."""
    for name in _WITHOUT_MARK:
        if _is_text_in(file, name):
            return _in_one_encoding(file, name)
    if is_utf_8:
        return UTF_8
    raise EncodingError(f"{file} holds zero bytes and is neither UTF-8, UTF-16 nor UTF-32; {_REMEDY}")


def _is_text_in(file: Path, name: str) -> bool:
    characters = plain = 0
    try:
        for text in _texts(file, name):
            if "\0" in text:
                return False
            characters += len(text)
            plain += len(text.encode("ascii", "ignore"))
    except UnicodeDecodeError:
        return False
    return plain >= characters * _LEAST_ASCII


def _in_one_encoding(file: Path, name: str) -> str:
    """``name``, unless a line of a file in UTF-16 or UTF-32 has bytes of ASCII alone, as a program leaves that adds UTF-8 to it.

    Decoded, such lines would be a few strange characters, and their rows lost.
    """
    if name not in _OF_SEVERAL_BYTES:
        return name
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if _ASCII_LINE.fullmatch(line):
                raise EncodingError(f"{file} is {name}, but line {number} is not; save all of it as UTF-8")
    return name


def _eight_bits(file: Path, first: int) -> str:
    """Windows-1252, unless some of it is UTF-8 or nothing at all; ``first`` is where UTF-8 ends."""
    for pattern, told in (
        (_IN_UTF_8, f"holds characters in UTF-8, but line {_line(file, first)} holds others that are not"),
        (_UNDEFINED, f"holds a byte that is no character, neither in UTF-8 nor in {WINDOWS}"),
    ):
        at = _found(file, pattern)
        if at is not None:
            raise EncodingError(
                f"{file}, line {_line(file, at)}: {told}; {_REMEDY}, or say which encoding it is in"
            )
    return WINDOWS


def _declared_latin(file: Path, said: str) -> str:
    """Windows-1252 also for what is called Latin-1, unless bytes stand in it that only Latin-1 knows."""
    at = _found(file, _UNDEFINED)
    if at is None:
        return WINDOWS
    if said == WINDOWS:
        raise _wrong(file, said, "is declared", at)
    return said


def _checked(file: Path, name: str, why: str) -> str:
    at = _fault(file, name)
    if at is not None:
        raise _wrong(file, name, why, at)
    return name


def _wrong(file: Path, name: str, why: str, at: int) -> EncodingError:
    return EncodingError(
        f"{file}, byte {at + 1}: is not {name}, which {why}; {_REMEDY}, or correct what is declared"
    )


# -- reading piece by piece ------------------------------------------------------------------------------------


def _begin(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(4)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            yield piece


def _texts(file: Path, name: str) -> Iterator[str]:
    """Raises UnicodeError."""
    decoder = codecs.getincrementaldecoder(name)()
    for piece in _pieces(file):
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def _fault(file: Path, name: str) -> int | None:
    """Where in a file it ceases to be in an encoding; None if all of it is."""
    decoder = codecs.getincrementaldecoder(name)()
    read = left = 0
    try:
        for piece in _pieces(file):
            decoder.decode(piece)
            read += len(piece)
            left = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        return read - left + getattr(error, "start", 0)
    return None


def _found(file: Path, pattern: re.Pattern[bytes]) -> int | None:
    """Where in a file some bytes stand first, also if two pieces share them."""
    read, tail = 0, b""
    for piece in _pieces(file):
        whole = tail + piece
        if found := pattern.search(whole):
            return read - len(tail) + found.start()
        read += len(piece)
        tail = whole[-_LONGEST:]
    return None


def _line(file: Path, at: int) -> int:
    lines = 1
    for piece in _pieces(file):
        lines += piece[:at].count(b"\n")
        at -= len(piece)
        if at <= 0:
            break
    return lines
