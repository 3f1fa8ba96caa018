"""Messages without what they say of a student."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from edfi_dagster.config.errors import printable

_LONGEST = 300
# Whose values are those of the assessment, not of the student.
_HARMLESS = frozenset(
    {"namespace", "assessmentIdentifier", "assessmentTitle", "assessmentFamily", "schoolYear"}
)
_QUOTED = re.compile(r"""(?P<quote>['"`])(?P<text>.*?)(?P=quote)""")
_NUMBER = re.compile(r"(?<![\w#/.])\d{4,}(?!\w)")
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d(T[\d:.]+Z?)?")
# Names of fields and endpoints, and descriptors, which the reader needs.
_NAME = re.compile(r"[a-z]+([A-Z][a-z]*)*(\[\d+\])?|[$.\w\[\]]*\.[\w.\[\]$]*|uri://\S[^'\"]*")
# What an ODS writes after the name of a resource, which looks like a surname: the referenced 'Student' resource.
_AFTER_RESOURCE = re.compile(r"\s+(resource|entity)\b")


def scrubbed(message: str, record: str | None = None) -> str:
    """``message`` with a student's values replaced by the names of their fields, as far as ``record`` (JSON) has them, and
    with anything else that may be one taken out: quoted texts, long numbers, dates.
    """
    text = message
    for name, value in sorted(_values(record), key=lambda pair: -len(pair[1])):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", f"<{name}>", text)
    text = _QUOTED.sub(_kept_quote, text)
    text = _DATE.sub("<date>", text)
    return " ".join(printable(_NUMBER.sub("<number>", text)).split())[:_LONGEST]


def _kept_quote(found: re.Match[str]) -> str:
    text = found["text"]
    is_resource = text.isalpha() and _AFTER_RESOURCE.match(found.string, found.end())
    if not text or _NAME.fullmatch(text) or is_resource or (text[0] == "<" and text[-1] == ">"):
        return found[0]
    return f"{found['quote']}<value>{found['quote']}"


def _values(record: str | None) -> Iterator[tuple[str, str]]:
    """(field, value) of all that a record says of a student; nothing of one that cannot be read."""
    if record is None:
        return
    try:
        yield from _leaves("", json.loads(record))
    except (ValueError, RecursionError):
        return


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(key, item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(name, item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        harmless = name in _HARMLESS or name.endswith("Descriptor")
        if not harmless and len(str(value)) > 1:
            yield name, str(value)
