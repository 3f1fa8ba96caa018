"""How many distinct ids a pull has read: the proof of completeness, in memory that does not grow with the endpoint."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

_BYTES = 16
# Ids that are held before they go to the file, and that are counted at a time (16 bytes each).
_HELD = 65_536
_COUNTED = 65_536


class DistinctIds:
    """A set of ids, kept as 16 bytes each in a temporary file.

    Counting reads the file once for every 65,536 ids or so in it; ids are spread over these rounds by their bits.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._held = bytearray()
        self._added = 0
        self._counted: int | None = None

    def add(self, ids: Sequence[str]) -> None:
        self._held += _packed(ids)
        self._added += len(ids)
        self._counted = None
        if len(self._held) >= _HELD * _BYTES:
            if self._file is None:
                self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - closed by close()
            self._file.seek(0, os.SEEK_END)
            self._file.write(self._held)
            self._held.clear()

    def __len__(self) -> int:
        if self._counted is None:
            self._counted = sum(len(unique) for unique in self._rounds())
        return self._counted

    def among(self, ids: Iterable[str]) -> set[str]:
        """Those of ``ids`` that were added."""
        wanted = {_packed([key]): key for key in ids}
        if not wanted:
            return set()
        found: set[str] = set()
        for chunk in self._chunks():
            members = np.isin(chunk, np.frombuffer(b"".join(wanted), _ID))
            found.update(wanted[key.tobytes()] for key in chunk[members])
        return found

    def fingerprint(self) -> tuple[int, int]:
        """Number and sum of the distinct ids: equal sets have equal ones, and others hardly ever."""
        rows, total = 0, 0
        for unique in self._rounds():
            rows += len(unique)
            total += int(unique.sum(dtype=np.uint64))
        return rows, total % 2**64

    @property
    def added(self) -> int:
        """How many were added, each as often as it came."""
        return self._added

    def repetition(self) -> tuple[int, int, int, int]:
        """Number and sum of all that were added, and the fingerprint: equal where the same ids came equally often."""
        total = sum(int(_halves(chunk).sum(dtype=np.uint64)) for chunk in self._chunks())
        return self._added, total % 2**64, *self.fingerprint()

    def clear(self) -> None:
        """Forget every id."""
        self.close()
        self._file, self._added, self._counted = None, 0, None
        self._held.clear()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _rounds(self) -> Iterator[NDArray[np.uint64]]:
        """The distinct ids as rows of two halves, in disjoint portions."""
        rounds = max(1, -(-self._added // _COUNTED))
        for number in range(rounds):
            chosen = [chunk[_spread(chunk) % np.uint64(rounds) == number] for chunk in self._chunks()]
            if chosen:
                yield _distinct(np.concatenate(chosen))

    def _chunks(self) -> Iterator[NDArray[np.void]]:
        if self._file is not None:
            self._file.seek(0)
            while chunk := self._file.read(_HELD * _BYTES):
                yield np.frombuffer(chunk, _ID)
        if self._held:
            yield np.frombuffer(bytes(self._held), _ID)


_ID = np.dtype(f"V{_BYTES}")


def _packed(ids: Sequence[str]) -> bytes:
    try:
        packed = bytes.fromhex("".join(ids))
        # Both, for fromhex passes over spaces.
        if len(packed) == _BYTES * len(ids) and all(len(key) == 2 * _BYTES for key in ids):
            return packed
    except ValueError:  # one of them is no plain GUID
        pass
    return b"".join(map(_packed_alone, ids))


def _packed_alone(key: str) -> bytes:
    """The GUID, or the digest of an id that is none; the same whatever ids it comes with.

    Spellings that are one id to the warehouse are one here: else the proof would count what is then not there.
    """
    key = key.replace("-", "").lower()
    if len(key) == 2 * _BYTES and _is_hex(key):
        return bytes.fromhex(key)
    return hashlib.blake2b(key.encode(), digest_size=_BYTES).digest()


def _is_hex(key: str) -> bool:
    return not key.strip("0123456789abcdefABCDEF")


def _halves(ids: NDArray[np.void]) -> NDArray[np.uint64]:
    return ids.view(np.uint64).reshape(-1, 2)


def _distinct(ids: NDArray[np.void]) -> NDArray[np.uint64]:
    # Not numpy's unique: for 16 bytes that makes an object of each (measured: seven times the time).
    pairs = _halves(ids)
    pairs = pairs[np.argsort(pairs[:, 0])]
    if not (
        pairs[1:, 0] == pairs[:-1, 0]
    ).any():  # GUIDs differ in their first half already, unless they are the same
        return pairs
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    is_new = np.ones(len(pairs), bool)
    is_new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[is_new]


def _spread(ids: NDArray[np.void]) -> NDArray[np.uint64]:
    """A number for each id that is even where its bits are not, as in GUIDs that count up."""
    halves = _halves(ids)
    mixed = (halves[:, 0] ^ (halves[:, 1] << np.uint64(1))) * np.uint64(0x9E3779B97F4A7C15)
    return mixed >> np.uint64(33)
