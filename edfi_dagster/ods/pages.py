"""One collection of an ODS, asked one page, count or record at a time. How pages make a walk is in ``pagers``."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, TypeVar
from urllib.parse import quote

import msgspec

from edfi_dagster.ods.answers import NO_JSON, Answer
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.changes import ChangeWindow
from edfi_dagster.ods.errors import (
    EdFiError,
    NotOffered,
    NotPermitted,
    OdsUnreachable,
    RequestRefused,
    TooHeavy,
    UnusableBody,
)
from edfi_dagster.ods.oauth import JSON
from edfi_dagster.ods.rows import Lines, change_lines, is_same_id, record_line, record_lines
from edfi_dagster.ods.session import OdsSession, Tally

T = TypeVar("T")
RecordKind = Literal["records", "deletes", "key_changes"]
RECORDS: Literal["records"] = "records"
DELETES: Literal["deletes"] = "deletes"
KEY_CHANGES: Literal["key_changes"] = "key_changes"

# Ten thousand million rows are in no ODS: a larger number is no count.
_COUNT = re.compile(r"[0-9]{1,10}")
_SUFFIX = {RECORDS: "", DELETES: "/deletes", KEY_CHANGES: "/keyChanges"}
# Pages that overlap by one row need two to get on.
_SMALLEST_PAGE = 2
# No ODS is known to refuse pages of its default size.
_ALWAYS_ALLOWED = 25
# A page size that was halved is doubled again after so many pages in a row that went well.
_PAGES_UNTIL_LARGER = 10
# What the ODS would say of a window without change versions, were it asked.
_NO_ROWS = Answer(b"[]", {"Total-Count": "0"})


class Absence(Enum):
    """Why the ODS did not give a record by id; each is the ODS's own answer, and none of them alone a proof of death."""

    NO_SUCH_ID = "no such id"
    NOT_PERMITTED = "not permitted"
    FILTERED_OUT = "not among the records that are asked for"


@dataclass(frozen=True)
class Page:
    """Rows as the API sent them, layout stripped, and the Total-Count of the request's filters where it was asked for."""

    lines: Lines
    next_token: str | None = None
    total: int | None = None

    @property
    def ids(self) -> list[str]:
        return self.lines.ids

    @property
    def rows(self) -> list[bytes]:
        """The rows one by one."""
        return self.lines.rows

    @property
    def change_keys(self) -> list[str]:
        """What tells one delete or key change from another: an id may have several."""
        versions = self.lines.change_versions
        return [f"{key}@{version}" for key, version in zip(self.ids, versions, strict=True)]

    def at(self, places: Sequence[int]) -> Page:
        """The page with only the rows at these places."""
        return self if len(places) == len(self) else replace(self, lines=self.lines.only(places))

    def without(self, known: Container[str]) -> Page:
        """The page less the rows whose id is known."""
        return self.at([n for n, key in enumerate(self.ids) if key not in known])

    def __len__(self) -> int:
        return len(self.lines)


class Collection:
    """One collection of one ODS: an endpoint's records, deletes or key changes. Threads may share it.

    ``page_size`` is what is asked for; less where the ODS publishes a smaller maximum, and for a while where it could
    not serve a page of that size (413, repeated 504 or time-out). ``deepest`` is the number of rows that a walk by
    offset should not go beyond, because deep offsets are slow on the ODS. ``accept`` is the content type of the records,
    a profile's for example. ``warn_once`` hears of a topic what somebody should know of the whole ODS.
    """

    def __init__(
        self,
        session: OdsSession,
        endpoint: Endpoint,
        kind: RecordKind = RECORDS,
        *,
        page_size: int = 500,
        retries: int | None = None,
        filters: Mapping[str, str] | None = None,
        deepest: int = 50_000,
        accept: str = JSON,
        warn_once: Callable[[str, str], None] = lambda topic, sentence: None,
    ) -> None:
        self.endpoint = endpoint
        self.kind = kind
        self.deepest = deepest
        self.has_partitions = True
        self.tally = Tally()
        self.abilities = session.abilities
        self._published = session.published
        largest = self._published.largest_page or self.abilities.largest_page or page_size
        self._most = self._size = min(page_size, largest)
        self._is_tried = False
        self._good_pages = 0
        self._lock = threading.Lock()
        self._session = session
        self._accept = accept
        self._warn_once = warn_once
        self._retries = retries
        self._has_answered = False
        self._filters = dict(filters or {})
        path = endpoint.path if self.abilities.namespaces else endpoint.name
        self._url = f"{session.url('dataManagementApi')}/{path}{_SUFFIX[kind]}"

    @property
    def label(self) -> str:
        return f"{self.endpoint.path}{_SUFFIX[self.kind]}"

    @property
    def page_size(self) -> int:
        """Rows asked for per page now."""
        return self._size

    def of_deletes(self) -> Collection:
        """The deletes of the same endpoint."""
        session, endpoint = self._session, self.endpoint
        found = Collection(session, endpoint, DELETES, page_size=self._most, retries=self._retries)
        found.tally = self.tally
        return found

    # -- requests --------------------------------------------------------------------------------------

    def count(self, window: ChangeWindow) -> int:
        """How many rows the ODS counts in the window now; in halves where it cannot count the whole in time."""
        # The limit of deletes and key changes is documented from 1 (api.md section 5.4).
        limit = "0" if self.kind == RECORDS else "1"
        halves = window.split(2)
        try:
            page = self._page(window, {"limit": limit, "totalCount": "true"}, lighter=len(halves) > 1)
        except TooHeavy:
            # The lower half first: a row that is updated meanwhile moves up and is counted twice rather than never.
            return sum(self.count(half) for half in halves)
        return self._total(page)

    def first_page(self, window: ChangeWindow) -> Page:
        """The first page with the Total-Count (if the ODS counts): one request that settles a window without rows."""

        def ask(size: int, _: bool) -> Page:
            return self._page(window, {"limit": str(size), **self._counted}, lighter=True)

        try:
            page = self._shrinking(ask, halving=False)
        except TooHeavy:  # of the two, counting may be the hard part
            page = replace(self.page_at(window, 0), total=self.count(window))
        if self._counted:
            self._total(page)
        return page

    def page_at(self, window: ChangeWindow, offset: int, *, counted: bool = False) -> Page:
        """The page from row ``offset`` on."""

        def ask(size: int, lighter: bool) -> Page:
            limit = str(max(size, _SMALLEST_PAGE))
            params = {"limit": limit, "offset": str(offset), **(self._counted if counted else {})}
            return self._page(window, params, lighter=lighter, offset=offset)

        page = self._shrinking(ask)
        if counted and self._counted:
            self._total(page)
        return page

    def page_before(self, window: ChangeWindow, end: int, *, counted: bool = False) -> tuple[int, Page]:
        """The page that ends with row number ``end`` (exclusive), and the number of its first row."""

        def ask(size: int, lighter: bool) -> tuple[int, Page]:
            start = max(0, end - max(size, _SMALLEST_PAGE))
            params = {
                "limit": str(end - start),
                "offset": str(start),
                **(self._counted if counted else {}),
            }
            return start, self._page(window, params, lighter=lighter)

        return self._shrinking(ask)

    def page_of(self, window: ChangeWindow, token: str) -> Page:
        """The page that a page token stands for."""
        return self._shrinking(
            lambda size, lighter: self._page(
                window, {"pageToken": token, "pageSize": str(size)}, lighter=lighter
            )
        )

    def partitions(self, window: ChangeWindow, number: int) -> list[str]:
        """Page tokens of at most ``number`` disjoint ranges that together hold the window; none where they cannot be had.

        They only make a walk faster, and an ODS may take minutes to find them in a large table. So they have little time.
        """
        if window.is_empty:
            return []
        params = self._params(window, {"number": str(number)})
        for is_last in (False, True):
            try:
                return self._get(
                    f"{self._url}/partitions", params, _read_partitions, lighter=True, hurried=True, retries=0
                )
            except (OdsUnreachable, RequestRefused, UnusableBody) as error:
                if is_last or isinstance(error, TooHeavy | RequestRefused):
                    self.has_partitions = False
                    self._warn_once("partitions", _no_partitions(error))
                    break
        return []

    def record(self, record_id: str) -> bytes | Absence:
        """One record by id, layout stripped, or why it is absent."""
        try:
            row = self._ask(
                f"{self._url}/{quote(record_id, safe='')}",
                {},
                lambda answer: record_line(answer.body, record_id),
            )
        except NotOffered:
            return Absence.NO_SUCH_ID
        except NotPermitted:
            return Absence.NOT_PERMITTED
        if not self._filters:
            return row
        page = self._page(ChangeWindow(None), {"id": record_id})
        found = (row for key, row in zip(page.ids, page.rows, strict=True) if is_same_id(key, record_id))
        return next(found, Absence.FILTERED_OUT)

    def check_offered(self) -> None:
        """Raises RequestRefused where the collection is not there, or not for this key."""
        self._page(ChangeWindow(None), {"limit": "1"})

    def pause(self, seconds: float) -> None:
        """Wait before asking again."""
        self._session.pause(seconds)

    def unusable(self, reason: str) -> UnusableBody:
        return UnusableBody(reason, pair=self._session.pair, endpoint=self.label)

    # -- around them -----------------------------------------------------------------------------------

    @property
    def _counted(self) -> Mapping[str, str]:
        abilities = self.abilities
        counts = abilities.counts if self.kind == RECORDS else abilities.counts_changes
        return {"totalCount": "true"} if counts else {}

    def _shrinking(self, ask: Callable[[int, bool], T], *, halving: bool = True) -> T:
        """What ``ask`` returns for a page size that the ODS allows and, if ``halving``, can serve."""
        while True:
            size = self._size
            try:
                answer = ask(size, size > _SMALLEST_PAGE)
            except TooHeavy:
                if size <= _SMALLEST_PAGE or not halving:
                    raise
                self._resize(max(_SMALLEST_PAGE, size // 2))
            except RequestRefused as error:
                if error.status != 400 or not self._has_found_limit(size):
                    raise
            else:
                if self._is_tried:  # only now is it known that the size was what the ODS refused
                    self._published.largest_page, self._is_tried = self._most, False
                self._note_good_page()
                return answer

    def _has_found_limit(self, refused: int) -> bool:
        """Whether the ODS may allow a smaller page than the one it refused: what it publishes, else by trying."""
        limit = self._published.page_limit() or (refused // 2 if refused >= 2 * _ALWAYS_ALLOWED else refused)
        if limit >= refused:
            return False
        self._most, self._is_tried = limit, True
        self._resize(limit)
        return True

    def _resize(self, size: int) -> None:
        with self._lock:
            self._size, self._good_pages = min(size, self._most), 0

    def _note_good_page(self) -> None:
        if self._size < self._most:
            with self._lock:
                self._good_pages += 1
                if self._good_pages >= _PAGES_UNTIL_LARGER:
                    self._size, self._good_pages = min(2 * self._size, self._most), 0

    def _page(
        self,
        window: ChangeWindow,
        params: Mapping[str, str],
        *,
        lighter: bool = False,
        offset: int | None = None,
    ) -> Page:
        def read(answer: Answer) -> Page:
            page = _read_records(answer) if self.kind == RECORDS else _read_changes(answer)
            if offset is not None:
                _check_goes_on(page, offset)
            return page

        if window.is_empty:
            return read(_NO_ROWS)
        return self._get(self._url, self._params(window, params), read, lighter=lighter)

    def _params(self, window: ChangeWindow, params: Mapping[str, str]) -> dict[str, str]:
        return {**self._filters, **window.params, **params}

    def _get(
        self,
        url: str,
        params: Mapping[str, str],
        read: Callable[[Answer], T],
        *,
        lighter: bool = False,
        hurried: bool = False,
        retries: int | None = None,
    ) -> T:
        """An answer of the collection. 403 and 404 say something of it only if they come first."""
        try:
            answer = self._ask(url, params, read, lighter=lighter, hurried=hurried, retries=retries)
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

    def _ask(
        self,
        url: str,
        params: Mapping[str, str],
        read: Callable[[Answer], T],
        *,
        lighter: bool = False,
        hurried: bool = False,
        retries: int | None = None,
    ) -> T:
        return self._session.get(
            url,
            params,
            read,
            endpoint=self.label,
            retries=self._retries if retries is None else retries,
            tally=self.tally,
            lighter=lighter,
            hurried=hurried,
            accept=self._accept,
        )

    def _total(self, page: Page) -> int:
        if page.total is None:
            raise self.unusable("the ODS did not count (no Total-Count header)")
        return page.total


class _Partitions(msgspec.Struct, rename={"page_tokens": "pageTokens"}):
    page_tokens: list[str]


def _read_records(answer: Answer) -> Page:
    token = answer.headers.get("Next-Page-Token") or None
    return Page(record_lines(answer.body), token, _read_total(answer))


def _read_changes(answer: Answer) -> Page:
    return Page(change_lines(answer.body), None, _read_total(answer))


def _check_goes_on(page: Page, offset: int) -> None:
    """A page that is not the last must bring the walk on, and one that shares a row needs two for that."""
    rows = len(page)
    if rows < _SMALLEST_PAGE and offset + rows < (page.total or 0) and (rows or not offset):
        raise UnusableBody(f"{page.total} rows are counted, {rows} given")


def _read_total(answer: Answer) -> int | None:
    value = answer.headers.get("Total-Count", "")
    return int(value) if _COUNT.fullmatch(value) else None


def _no_partitions(error: EdFiError) -> str:
    """Which request failed. Its remedy is left out, for none is needed."""
    failed = f"HTTP {error.status}" if isinstance(error, RequestRefused) else error.reason.partition("; ")[0]
    return (
        f"{EdFiError(failed, pair=error.pair, endpoint=f'{error.endpoint}/partitions')}; no row is missing, but the "
        "endpoint is read page by page, which takes longer"
    )


def _read_partitions(answer: Answer) -> list[str]:
    try:
        return msgspec.json.decode(answer.body, type=_Partitions).page_tokens
    except NO_JSON:
        raise UnusableBody("the body has no pageTokens") from None
