"""The bytes of a page → its lines and ids, at the price of three passes and no object per value.

The ODS indents its JSON; a lake line is the row without that layout, every value spelled as the ODS spelled it, keys
in its order, unknown fields and repeated names included. JSON allows no raw line break inside a string, so what is
left holds none. Nothing is parsed but each row's id, and a change's version. A page that is not strict JSON is read
row by row, see ``odd``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated

import msgspec

from edfi_dagster.ods import odd
from edfi_dagster.ods.answers import NO_JSON
from edfi_dagster.ods.errors import UnusableBody

# What the warehouse holds of one: 64 bits.
_Version = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Identity(msgspec.Struct, gc=False):
    id: str


class _Change(msgspec.Struct, gc=False, rename={"change_version": "changeVersion"}):
    id: str
    change_version: _Version


class _ChangeOf5(msgspec.Struct, gc=False, rename={"id": "Id", "change_version": "ChangeVersion"}):
    id: str
    change_version: _Version


_rows = msgspec.json.Decoder(list[msgspec.Raw])
_identity = msgspec.json.Decoder(_Identity)
_identities = msgspec.json.Decoder(list[_Identity])
_changes = msgspec.json.Decoder(list[_Change])
_changes_of_5 = msgspec.json.Decoder(list[_ChangeOf5])


@dataclass(frozen=True)
class Lines:
    """Rows as JSON lines: ``text`` has one per row, each ended by a line feed; ``ids`` are theirs, in order.

    ``odd`` are the ids of those that are not strict JSON.
    """

    text: bytes
    ids: list[str]
    change_versions: tuple[int, ...] = ()
    odd: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def rows(self) -> list[bytes]:
        """The lines one by one, without their ends."""
        return self.text[:-1].split(b"\n") if self.ids else []

    def only(self, places: Sequence[int]) -> Lines:
        """The lines at ``places``, in that order."""
        versions = self.change_versions
        first, end = (places[0], places[-1] + 1) if places else (0, 0)
        if list(places) == list(
            range(first, end)
        ):  # nearly always: a page without the row it shares with another
            text = self.text[self._start(first) : self._start(end)]
            ids = self.ids[first:end]
            return Lines(text, ids, versions[first:end], self.odd.intersection(ids) if self.odd else self.odd)
        ids = [self.ids[n] for n in places]
        return Lines(
            b"".join(self.rows[n] + b"\n" for n in places),
            ids,
            tuple(versions[n] for n in places) if versions else (),
            self.odd.intersection(ids),
        )

    def _start(self, line: int) -> int:
        """Where a line begins in the text, looked for from the nearer end."""
        text, at = self.text, 0
        if line <= len(self) // 2:
            for _ in range(line):
                at = text.index(b"\n", at) + 1
            return at
        at = len(text)
        for _ in range(len(self) - line):
            at = text.rfind(b"\n", 0, at - 1) + 1
        return at


def record_lines(body: bytes) -> Lines:
    """The records of a page. Raises UnusableBody where it is not a JSON list of objects with an id."""
    page = _page(body)
    try:
        ids = [record.id for record in _identities.decode(page.strict)]
        return Lines(page.text or _text(page.strict), ids, odd=page.odd(ids))
    except NO_JSON:
        raise UnusableBody("the body is not a list of records with an id") from None


def change_lines(body: bytes) -> Lines:
    """The deletes or key changes of a page, named ``id``/``changeVersion`` or, as 5.x does, ``Id``/``ChangeVersion``.

    Raises UnusableBody where it is no list of those, or not in change-version order.
    """
    page = _page(body)
    try:
        text, changes = page.text or _text(page.strict), _read_changes(page.strict)
    except NO_JSON:
        raise UnusableBody("the body is not a list of changes with id and changeVersion") from None
    versions = tuple(change.change_version for change in changes)
    if any(later < earlier for earlier, later in pairwise(versions)):
        raise UnusableBody("the changes are not in change-version order")
    ids = [change.id for change in changes]
    return Lines(text, ids, versions, page.odd(ids))


def record_line(body: bytes, record_id: str | None = None) -> bytes:
    """One record, without a line end. Raises UnusableBody where it is not a JSON object with an id, or that id."""
    line, repaired = odd.line_and_repaired(body)
    try:
        found = _identity.decode(repaired).id
    except NO_JSON:
        raise UnusableBody("the body is not a record with an id") from None
    if record_id is not None and not is_same_id(found, record_id):
        raise UnusableBody("the body is the record of another id")
    return line


def is_same_id(one: str, other: str) -> bool:
    """Whether two ids are one, in capitals or not, with dashes or without."""
    return one.replace("-", "").lower() == other.replace("-", "").lower()


def lines_of(record_id: str, row: bytes) -> Lines:
    """One record that was read by its id."""
    return Lines(row + b"\n", [record_id], odd=frozenset({record_id} if odd.loadable(row) != row else ()))


@dataclass(frozen=True)
class _Page:
    """A page as strict JSON; ``text`` are its lines as sent where that differs, at the places ``odd_places``."""

    strict: bytes
    text: bytes = b""
    odd_places: tuple[int, ...] = ()

    def odd(self, ids: Sequence[str]) -> frozenset[str]:
        """The ids of the odd rows. Raises UnusableBody where an id itself had to be repaired: it names nothing then."""
        found = frozenset(ids[place] for place in self.odd_places)
        if any("\ufffd" in record_id for record_id in found):
            raise UnusableBody("the body is not a list of records with an id")
        return found


def _page(body: bytes) -> _Page:
    try:
        return _Page(odd.strict(body))
    except NO_JSON:
        rows = [odd.line_and_repaired(row) for row in odd.split(body)]
    return _Page(
        b"[%b]" % b",".join(repaired for _, repaired in rows),
        b"".join(line + b"\n" for line, _ in rows),
        tuple(place for place, (line, repaired) in enumerate(rows) if line != repaired),
    )


def _text(compact: bytes) -> bytes:
    # Raw rows are views of the body: the join is their only copy. The last one is empty, for the line end.
    return b"\n".join([*_rows.decode(compact), b""])


def _read_changes(compact: bytes) -> Sequence[_Change | _ChangeOf5]:
    try:
        return _changes.decode(compact)
    except msgspec.ValidationError:
        return _changes_of_5.decode(compact)
