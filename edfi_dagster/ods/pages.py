"""Reading one collection to its proven end.

Which pager reads what is decided here and nowhere else. On ODS/API 7.3 and later records are read by cursor
(AggregateId order, so rows that change cannot shift others), several ``/partitions`` side by side; deletes
and key changes have no cursor and are ordered by change version, so they are read by stepping the lower bound
to the last version seen, or, where that would change the rows, by offsets that overlap by one row: if it does
not come again, rows before it have come or gone, and the walk starts over.
No pager takes an empty or short page alone for the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar
from urllib.parse import quote

import msgspec

from edfi_dagster.ods.answers import Answer
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.changes import ChangeWindow
from edfi_dagster.ods.errors import NotOffered, NotPermitted, RequestRefused, UnusableBody
from edfi_dagster.ods.session import OdsSession, Tally

T = TypeVar("T")
RecordKind = Literal["records", "deletes", "key_changes"]
RECORDS: Literal["records"] = "records"
DELETES: Literal["deletes"] = "deletes"
KEY_CHANGES: Literal["key_changes"] = "key_changes"

_SUFFIX = {RECORDS: "", DELETES: "/deletes", KEY_CHANGES: "/keyChanges"}
# The ODS makes no partition smaller than five of its pages, and none beyond 200 (api.md section 4.6).
_PAGES_PER_PARTITION = 5
_MOST_PARTITIONS = 200
_MOST_RESTARTS = 20


class _Identity(msgspec.Struct):
    id: str


class _Change(msgspec.Struct, rename={"change_version": "changeVersion"}):
    id: str
    change_version: int


class _Partitions(msgspec.Struct, rename={"page_tokens": "pageTokens"}):
    page_tokens: list[str]


_raw_rows = msgspec.json.Decoder(list[msgspec.Raw])
_identities = msgspec.json.Decoder(list[_Identity])
_changes = msgspec.json.Decoder(list[_Change])


@dataclass(frozen=True)
class Page:
    """Rows as the API sent them, layout stripped, one JSON object each, with their ids.

    ``total`` is the Total-Count of the request's filters where it was asked for.
    """

    rows: list[bytes]
    ids: list[str]
    next_token: str | None = None
    total: int | None = None
    change_versions: tuple[int, ...] = ()


class Collection:
    """One collection of one ODS: an endpoint's records, deletes or key changes."""

    def __init__(
        self,
        session: OdsSession,
        endpoint: Endpoint,
        kind: RecordKind = RECORDS,
        *,
        page_size: int = 500,
        retries: int | None = None,
        filters: Mapping[str, str] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.kind = kind
        self.tally = Tally()
        self.page_size = page_size
        self._session = session
        self._retries = retries
        self._has_answered = False
        self._filters = dict(filters or {})
        self._url = f"{session.url('dataManagementApi')}/{endpoint.path}{_SUFFIX[kind]}"

    @property
    def label(self) -> str:
        return f"{self.endpoint.path}{_SUFFIX[self.kind]}"

    def count(self, window: ChangeWindow) -> int:
        """How many rows the ODS counts in the window now."""
        # The limit of deletes and key changes is documented from 1 (api.md section 5.4).
        limit = "0" if self.kind == RECORDS else "1"
        return self._total(self._page(window, {"limit": limit, "totalCount": "true"}))

    def first_page(self, window: ChangeWindow) -> Page:
        """The first page with the Total-Count: one request that settles a window without rows."""
        page = self._page(window, {"limit": str(self.page_size), "totalCount": "true"})
        self._total(page)
        return page

    def partitions(self, window: ChangeWindow, rows: int) -> list[str]:
        """Page tokens of disjoint ranges that together hold the window, for about ``rows`` rows."""
        number = math.ceil(rows / (_PAGES_PER_PARTITION * self.page_size))
        params = self._params(window, {"number": str(max(1, min(number, _MOST_PARTITIONS)))})
        return self._get(f"{self._url}/partitions", params, _read_partitions)

    def follow(self, window: ChangeWindow, token: str | None) -> Iterator[Page]:
        """The pages from ``token`` to the end of its range: the end is an answer without a next token."""
        seen: set[str] = set()
        while token is not None:
            if token in seen:
                raise self._unusable("the ODS gave the same page token twice")
            seen.add(token)
            page = self._page(window, {"pageToken": token, "pageSize": str(self.page_size)})
            if page.rows:
                yield page
            token = page.next_token

    def changes(self, window: ChangeWindow) -> Iterator[Page]:
        """The deletes or key changes of the window, each once, in change-version order."""
        low, offset, restarts = window.low or 0, 0, 0
        seen: set[str] = set()
        last_key = ""
        while True:
            page = self._changes_page(ChangeWindow(low, window.high), offset)
            keys = _change_keys(page)
            if offset and keys[:1] != [last_key]:
                offset, restarts = 0, restarts + 1
                if restarts > _MOST_RESTARTS:
                    raise self._unusable("the rows keep moving while they are read")
                continue
            fresh = [n for n, key in enumerate(keys) if key not in seen]
            if fresh:
                yield _only(page, fresh)
            if offset + len(keys) >= self._total(page):
                return
            last_key, last = keys[-1], page.change_versions[-1]
            # The API folds the key changes of one record in the window that was asked for: it must stay whole.
            if self.kind == DELETES and last > low:
                low, offset, seen = last, 0, set(keys)
            else:
                offset += len(keys) - 1
                seen.update(keys)

    def _changes_page(self, window: ChangeWindow, offset: int) -> Page:
        """A page that brings a walk on: if it is not the last, then at least two rows, so that pages can overlap."""

        def read(answer: Answer) -> Page:
            page = _read_changes(answer)
            if (
                len(page.rows) < 2
                and offset + len(page.rows) < (page.total or 0)
                and (not offset or page.rows)
            ):
                raise UnusableBody(f"{page.total} rows are counted, {len(page.rows)} given")
            return page

        params = {"limit": str(max(2, self.page_size)), "offset": str(offset), "totalCount": "true"}
        return self._get(self._url, self._params(window, params), read)

    def record(self, record_id: str) -> bytes | None:
        """One record by id, layout stripped; None where it is gone or not visible to this key."""
        try:
            return self._ask(f"{self._url}/{quote(record_id, safe='')}", {}, _read_record)
        except (NotOffered, NotPermitted):
            return None

    def _page(self, window: ChangeWindow, params: Mapping[str, str]) -> Page:
        read = _read_records if self.kind == RECORDS else _read_changes
        return self._get(self._url, self._params(window, params), read)

    def _params(self, window: ChangeWindow, params: Mapping[str, str]) -> dict[str, str]:
        return {**self._filters, **window.params, **params}

    def _get(self, url: str, params: Mapping[str, str], read: Callable[[Answer], T]) -> T:
        """An answer of the collection. 403 and 404 say something of it only if they come first."""
        try:
            answer = self._ask(url, params, read)
        except (NotOffered, NotPermitted) as error:
            if not self._has_answered:
                raise
            raise RequestRefused(
                f"HTTP {error.status} in the middle of reading, after it had answered",
                status=error.status,
                pair=error.pair,
                endpoint=self.label,
            ) from None
        self._has_answered = True
        return answer

    def _ask(self, url: str, params: Mapping[str, str], read: Callable[[Answer], T]) -> T:
        return self._session.get(
            url, params, read, endpoint=self.label, retries=self._retries, tally=self.tally
        )

    def _total(self, page: Page) -> int:
        if page.total is None:
            raise self._unusable("the ODS did not count (no Total-Count header)")
        return page.total

    def _unusable(self, reason: str) -> UnusableBody:
        return UnusableBody(reason, pair=self._session.pair, endpoint=self.label)


def _compact(answer: Answer) -> bytes:
    """The body without layout; values, their order and their spelling untouched."""
    try:
        if not answer.body.isascii():
            answer.body.decode()  # msgspec lets bytes that are not UTF-8 pass where it copies
        return msgspec.json.format(answer.body, indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnusableBody("the body is cut or is not JSON") from None


def _read_records(answer: Answer) -> Page:
    body = _compact(answer)
    try:
        rows = [bytes(row) for row in _raw_rows.decode(body)]
        ids = [row.id for row in _identities.decode(body)]
    except msgspec.DecodeError:
        raise UnusableBody("the body is not a list of records with an id") from None
    return Page(rows, ids, answer.headers.get("Next-Page-Token") or None, _read_total(answer))


def _read_changes(answer: Answer) -> Page:
    body = _compact(answer)
    try:
        rows = [bytes(row) for row in _raw_rows.decode(body)]
        changes = _changes.decode(body)
    except msgspec.DecodeError:
        raise UnusableBody("the body is not a list of changes with id and changeVersion") from None
    versions = tuple(change.change_version for change in changes)
    if any(later < earlier for earlier, later in pairwise(versions)):
        raise UnusableBody("the changes are not in change-version order")
    return Page(rows, [change.id for change in changes], None, _read_total(answer), versions)


def _read_total(answer: Answer) -> int | None:
    value = answer.headers.get("Total-Count", "")
    return int(value) if value.isdecimal() else None


def _read_partitions(answer: Answer) -> list[str]:
    try:
        return msgspec.json.decode(answer.body, type=_Partitions).page_tokens
    except msgspec.DecodeError:
        raise UnusableBody("the body has no pageTokens") from None


def _read_record(answer: Answer) -> bytes:
    body = _compact(answer)
    try:
        msgspec.json.decode(body, type=_Identity)
    except msgspec.DecodeError:
        raise UnusableBody("the body is not a record with an id") from None
    return body


def _only(page: Page, places: list[int]) -> Page:
    return Page(
        [page.rows[n] for n in places],
        [page.ids[n] for n in places],
        total=page.total,
        change_versions=tuple(page.change_versions[n] for n in places),
    )


def _change_keys(page: Page) -> list[str]:
    return [f"{key}@{version}" for key, version in zip(page.ids, page.change_versions, strict=True)]
