"""Reading one collection to its proven end.

Which pager reads what is decided here and nowhere else. On ODS/API 7.3 and later records are read by cursor
(AggregateId order, so rows that change cannot shift others), several ``/partitions`` side by side; deletes
and key changes have no cursor and are ordered by change version, so they are read by stepping the lower bound
to the last version seen, which is safe with ties and with rows that appear or vanish meanwhile.
No pager takes an empty or short page alone for the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.changes import ChangeWindow
from edfi_dagster.ods.errors import NotOffered, NotPermitted, UnusableBody
from edfi_dagster.ods.session import Answer, OdsSession, Tally

T = TypeVar("T")
RecordKind = Literal["records", "deletes", "key_changes"]
RECORDS: Literal["records"] = "records"
DELETES: Literal["deletes"] = "deletes"
KEY_CHANGES: Literal["key_changes"] = "key_changes"

_SUFFIX = {RECORDS: "", DELETES: "/deletes", KEY_CHANGES: "/keyChanges"}
# The ODS makes no partition smaller than five of its pages, and none beyond 200 (api.md section 4.6).
_PAGES_PER_PARTITION = 5
_MOST_PARTITIONS = 200


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
        self._filters = dict(filters or {})
        self._url = f"{session.url('dataManagementApi')}/{endpoint.path}{_SUFFIX[kind]}"

    @property
    def label(self) -> str:
        return f"{self.endpoint.path}{_SUFFIX[self.kind]}"

    def count(self, window: ChangeWindow) -> int:
        """How many rows the ODS counts in the window now."""
        page = self._page(window, {"limit": "0", "totalCount": "true"})
        return self._total(page)

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
                raise UnusableBody("the ODS gave the same page token twice", endpoint=self.label)
            seen.add(token)
            page = self._page(window, {"pageToken": token, "pageSize": str(self.page_size)})
            if page.rows:
                yield page
            token = page.next_token

    def changes(self, window: ChangeWindow) -> Iterator[Page]:
        """The deletes or key changes of the window, each once, in change-version order."""
        low, offset = window.low or 0, 0
        at_low: set[str] = set()
        while True:
            params = {"limit": str(self.page_size), "offset": str(offset), "totalCount": "true"}
            page = self._page(ChangeWindow(low, window.high), params)
            fresh = [n for n, key in enumerate(_change_keys(page)) if key not in at_low]
            if fresh:
                yield Page([page.rows[n] for n in fresh], [page.ids[n] for n in fresh], total=page.total)
            if not page.rows or offset + len(page.rows) >= self._total(page):
                return
            last = page.change_versions[-1]
            if last == low:
                offset += len(page.rows)
                at_low.update(_change_keys(page))
            else:
                at_low = {key for key in _change_keys(page) if key.endswith(f"@{last}")}
                low, offset = last, 0

    def record(self, record_id: str) -> bytes | None:
        """One record by id, layout stripped; None where it is gone or not visible to this key."""
        try:
            return self._get(f"{self._url}/{record_id}", {}, _read_record)
        except (NotOffered, NotPermitted):
            return None

    def _page(self, window: ChangeWindow, params: Mapping[str, str]) -> Page:
        read = _read_records if self.kind == RECORDS else _read_changes
        return self._get(self._url, self._params(window, params), read)

    def _params(self, window: ChangeWindow, params: Mapping[str, str]) -> dict[str, str]:
        return {**self._filters, **window.params, **params}

    def _get(self, url: str, params: Mapping[str, str], read: Callable[[Answer], T]) -> T:
        return self._session.get(
            url, params, read, endpoint=self.label, retries=self._retries, tally=self.tally
        )

    def _total(self, page: Page) -> int:
        if page.total is None:
            raise UnusableBody("the ODS did not count (no Total-Count header)", endpoint=self.label)
        return page.total


def _compact(answer: Answer) -> bytes:
    """The body without layout; values, their order and their spelling untouched."""
    try:
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
    return Page(rows, ids, answer.headers.get("Next-Page-Token"), _read_total(answer))


def _read_changes(answer: Answer) -> Page:
    body = _compact(answer)
    try:
        rows = [bytes(row) for row in _raw_rows.decode(body)]
        changes = _changes.decode(body)
    except msgspec.DecodeError:
        raise UnusableBody("the body is not a list of changes with id and changeVersion") from None
    versions = tuple(change.change_version for change in changes)
    return Page(rows, [change.id for change in changes], None, _read_total(answer), versions)


def _read_total(answer: Answer) -> int | None:
    value = answer.headers.get("Total-Count", "")
    return int(value) if value.isdigit() else None


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


def _change_keys(page: Page) -> list[str]:
    return [f"{key}@{version}" for key, version in zip(page.ids, page.change_versions, strict=True)]
