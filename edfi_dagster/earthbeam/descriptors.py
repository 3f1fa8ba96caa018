"""The descriptor values that records use, asked of the ODS before Lightbeam validates.

Lightbeam would read every descriptor collection there is, parsing the whole API description before each, believe what it
found for a month, and ask for ever where one may not be read. It takes its values from a file if there is one: this one.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edfi_dagster.ods.answers import json_value
from edfi_dagster.ods.errors import NotOffered, NotPermitted, UnusableBody
from edfi_dagster.ods.session import Answer, OdsSession

_PAGE = 100
_USED = re.compile(rb'"(\w+Descriptor)"\s*:\s*("(?:[^"\\]|\\.)*")')
_KIND = re.compile(r"/(\w+Descriptor)$")
_HEADER = ("descriptor", "namespace", "codeValue", "shortDescription", "description")


def write_descriptors(
    session: OdsSession, files: Iterable[Path], namespaces: Mapping[str, str], base_url: str, cache: Path
) -> list[str]:
    """Write the file that Lightbeam takes the descriptors from: those of the kinds that ``files`` (JSON lines) use.

    Returns the collections that this key may not read; what is used of them is taken for right, and the ODS will tell.
    Raises EdFiError.
    """
    unread, rows = [], []
    for endpoint, used in sorted(used_descriptors(files).items()):
        path = f"{namespaces.get(endpoint, 'ed-fi')}/{endpoint}"
        try:
            rows += [[endpoint[:-1], *value] for value in _values(session, path)]
        except NotPermitted:
            unread.append(endpoint)
            rows += [[endpoint[:-1], namespace, code] for namespace, code in used]
        except NotOffered:
            continue
    cache.mkdir(parents=True, exist_ok=True)
    name = hashlib.md5(base_url.encode(), usedforsecurity=False).hexdigest()
    with (cache / f"descriptor-values-{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_HEADER)
        writer.writerows(row + [""] * (len(_HEADER) - len(row)) for row in rows)
    return unread


def used_descriptors(files: Iterable[Path]) -> dict[str, set[tuple[str, str]]]:
    """Descriptor collection → (namespace, code) of each value that records use."""
    found: dict[str, set[tuple[str, str]]] = {}
    for file in files:
        with file.open("rb") as lines:
            for field, literal in (match for line in lines for match in _USED.findall(line)):
                namespace, hash_sign, code = json.loads(literal).partition("#")
                if hash_sign:
                    kind = _KIND.search(namespace)
                    name = kind.group(1) if kind else field.decode()
                    found.setdefault(f"{name[0].lower()}{name[1:]}s", set()).add((namespace, code))
    return found


def _values(session: OdsSession, path: str) -> Iterator[list[str]]:
    url = f"{session.url('dataManagementApi')}/{path}"
    offset = 0
    while True:
        parameters = {"limit": str(_PAGE), "offset": str(offset)}
        page: list[Mapping[str, Any]] = session.get(url, parameters, _rows, endpoint=path)
        for row in page:
            yield [str(row.get(name) or "") for name in _HEADER[1:]]
        if len(page) < _PAGE:
            return
        offset += _PAGE


def _rows(answer: Answer) -> list[Mapping[str, Any]]:
    found = json_value(answer)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise UnusableBody("a page of descriptors is no list of records")
    return found
