"""Records that are whole but not strict JSON: kept as they were sent, and loaded in a repaired form.

One such record must not keep its endpoint from loading. What is repaired, and how:

    as sent                                             as loaded
    --------------------------------------------------- ---------------------------
    half of a surrogate pair, ``"\\ud83d"``              U+FFFD
    bytes that are not UTF-8                            U+FFFD
    a control character in a string                     its escape, ``\\u0001``
    NaN, Infinity, -Infinity                            null
    a value nested more than 500 levels deep            null

Anything else that is not JSON, and a body that is cut, stays an error. All of it works on tokens, so keys keep their
order and numbers their spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from edfi_dagster.ods.answers import NO_JSON
from edfi_dagster.ods.errors import UnusableBody

NOT_JSON = "the body is cut or is not JSON"
DEEPEST = 500

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_BORDER = re.compile(_STRING + rb'|["\[\]{},]', re.DOTALL)
_TOKEN = re.compile(_STRING + rb"|[\[\]{}]|-?Infinity|NaN", re.DOTALL)
_LAYOUT = re.compile(rb"(" + _STRING + rb")|[ \t\r\n]+", re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([0-9a-fA-F]{4})|.)", re.DOTALL
)
_CONTROL = re.compile(r"[\x00-\x1f]")
# A GUID names a record and nobody.
_GUID = re.compile(rb'"[Ii][Dd]"\s*:\s*"([0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"')


def strict(body: bytes) -> bytes:
    """The body without its layout. Raises one of NO_JSON where it is not strict JSON."""
    if not body.isascii():
        body.decode()  # msgspec lets bytes that are not UTF-8 pass where it copies
    return msgspec.json.format(body, indent=-1)


def split(body: bytes) -> list[bytes]:
    """The elements of a list, each as sent. Raises UnusableBody where the body is no list, or is cut."""
    body = body.strip()
    depth, start, found = 0, 1, []
    for token in _BORDER.finditer(body):
        match token[0]:
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
            case b'"':
                raise UnusableBody(NOT_JSON)
        if depth == 0 or (depth == 1 and token[0] == b","):
            found.append(body[start : token.start()])
            start = token.end()
        if depth == 0:
            break
    if not body.startswith(b"[") or depth or start != len(body):
        raise UnusableBody(NOT_JSON)
    return found if len(found) > 1 or found[0].strip() else []


def line_and_repaired(record: bytes) -> tuple[bytes, bytes]:
    """A record as a line of the lake, and as a warehouse can hold it: the same where it is strict JSON.

    Raises UnusableBody, with the record's id, where it cannot be repaired.
    """
    try:
        line = strict(record)
    except NO_JSON:
        return _LAYOUT.sub(_without_breaks, record), _repaired(record)
    return line, line


def loadable(line: bytes) -> bytes:
    """A line of the lake, or a record, as a warehouse can hold it; without a line end."""
    return line_and_repaired(line)[1]


def _repaired(record: bytes) -> bytes:
    try:
        return strict(b"".join(_pieces(record)))
    except NO_JSON:
        found = _GUID.search(record)
        named = f" (record {found[1].decode()})" if found else ""
        raise UnusableBody(f"{NOT_JSON}{named}") from None


def _pieces(record: bytes) -> Iterator[bytes]:
    depth, end = 0, 0
    for token in _TOKEN.finditer(record):
        text = token[0]
        inside = depth <= DEEPEST
        if inside:
            yield record[end : token.start()]
        if text in b"[{":
            depth += 1
            inside = depth <= DEEPEST
            if depth == DEEPEST + 1:
                yield b"null"
        elif text in b"]}":
            depth -= 1
        elif text[:1] == b'"':
            text = _repaired_string(text)
        else:
            text = b"null"
        if inside:
            yield text
        end = token.end()
    yield record[end:]


def _repaired_string(text: bytes) -> bytes:
    repaired = _ESCAPE.sub(_whole_escape, text.decode(errors="replace"))
    return _CONTROL.sub(_escaped, repaired).encode()


def _whole_escape(escape: re.Match[str]) -> str:
    code = escape[1]
    return "\ufffd" if code and 0xD800 <= int(code, 16) <= 0xDFFF else escape[0]


def _escaped(control: re.Match[str]) -> str:
    return f"\\u{ord(control[0]):04x}"


def _without_breaks(part: re.Match[bytes]) -> bytes:
    """A string whose raw line breaks, which would end the line, are escapes; no layout."""
    return (part[1] or b"").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
