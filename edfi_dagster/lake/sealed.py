"""JSON documents of the lake with a sha256 of their own, so that one edited by hand is not believed.

The last property, ``sha256``, is that of the others as compact JSON; layout does not count. A document without it is of
an earlier version, and believed. It is no signature: it tells of slips and accidents, not of who would forge it.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import msgspec

from edfi_dagster.lake.store import LakeError, LakeStore
from edfi_dagster.ods.answers import NO_JSON

T = TypeVar("T")
_SEAL = "sha256"


def write_sealed(store: LakeStore, path: str, document: object) -> None:
    """Raises LakeError."""
    plain: dict[str, Any] = msgspec.to_builtins(document)
    content = msgspec.json.encode({**plain, _SEAL: _seal(plain)})
    with store.writing(path) as stream:
        stream.write(msgspec.json.format(content) + b"\n")


def read_sealed(store: LakeStore, path: str, of: type[T], *, what: str, remedy: str) -> T:
    """Raises LakeError where the document is missing, was edited, or is none of its type; ``what`` names that."""
    content = store.read(path)
    try:
        found = msgspec.json.decode(content, type=of)
        plain = msgspec.json.decode(content)
    except NO_JSON as error:
        raise LakeError(
            f"{store.uri(path)} is no {what} of this version ({type(error).__name__}); {remedy}"
        ) from None
    if _SEAL in plain and plain.pop(_SEAL) != _seal(plain):
        raise LakeError(f"{store.uri(path)} was edited after it was written (its sha256 differs); {remedy}")
    return found


def _seal(plain: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()
