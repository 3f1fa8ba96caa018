"""Walks: which pages, in which order, read a window to its proven end. Which pager reads what is decided in this file.

    ODS/API          records                                            deletes, key changes
    7.3 and later    by cursor, several /partitions side by side        by change version
    5.x to 7.2       by offset from the end to the start, several       by change version
                     change-version windows side by side
    Ed-Fi 2          by offset from the start to an empty page          none

Cursor pages come in AggregateId order, so rows that change cannot shift others. Offset pages can shift: a row that
leaves the window moves all behind it up, one that enters moves them down. So offset pages share a row with the page
read before. Whoever finds it again knows that nothing between the two pages was skipped; where it is gone, the walk
looks for another common row, and at last starts over. No pager takes an empty or short page alone for the end, except
where an empty page is the only end there is.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

from edfi_dagster.ods.changes import ChangeWindow
from edfi_dagster.ods.pages import DELETES, Collection, Page

# The ODS makes no partition smaller than five of its pages, and none beyond 200 (api.md section 4.6).
_PAGES_PER_PARTITION = 5
_MOST_PARTITIONS = 200
# More walks than threads, so that the last ones end together; each costs a request or two of its own.
_WALKS_PER_THREAD = 4
# A part may hold so much more than its share before it is split again.
_TOLERANCE = 1.5
_MOST_RESTARTS = 20
# Into which a window is split at a time; each is counted.
_MOST_PIECES = 1000
_MOVING = "the rows keep moving while they are read; pull when the ODS is quiet"


def record_walks(
    collection: Collection, window: ChangeWindow, first: Page, *, threads: int
) -> list[Iterator[Page]]:
    """Walks that may go side by side and together read the window, whose ``first_page`` is given."""
    if first.total is None:
        return [_forward(collection, window, first)]
    if collection.abilities.cursor:
        return _cursor_walks(collection, window, first, threads)
    return _offset_walks(collection, window, first, threads)


# -- by cursor -------------------------------------------------------------------------------------------


def _cursor_walks(
    collection: Collection, window: ChangeWindow, first: Page, threads: int
) -> list[Iterator[Page]]:
    """Side by side from the tokens of /partitions; without those from the first page's, or by offset where it has none."""
    total = first.total or 0
    is_small = total <= 2 * collection.page_size and collection.abilities.first_page_has_token
    if not is_small and total <= len(first):
        return [iter([first])]
    if not is_small and collection.has_partitions:
        number = math.ceil(total / (_PAGES_PER_PARTITION * collection.page_size))
        most = threads * _WALKS_PER_THREAD if threads > 1 else 1
        if tokens := collection.partitions(window, max(1, min(number, most, _MOST_PARTITIONS))):
            return [follow(collection, window, token) for token in tokens]
    if is_small or first.next_token is not None:
        return [_from(first, follow(collection, window, first.next_token))]
    return _offset_walks(collection, window, first, threads)


def follow(collection: Collection, window: ChangeWindow, token: str | None) -> Iterator[Page]:
    """The pages from ``token`` to the end of its range: the end is an answer without a next token."""
    seen: set[str] = set()
    standstills, last = 0, ""
    while token is not None:
        if token in seen:
            raise collection.unusable("the ODS gave the same page token twice")
        seen.add(token)
        page = collection.page_of(window, token)
        goes_on = bool(len(page)) and page.ids[-1] != last
        standstills = 0 if goes_on else standstills + 1
        if standstills > _MOST_RESTARTS:
            raise collection.unusable("the ODS's page tokens lead on and on without another record")
        if len(page):
            yield page
            last = page.ids[-1]
        token = page.next_token


# -- by offset -------------------------------------------------------------------------------------------


def _offset_walks(
    collection: Collection, window: ChangeWindow, first: Page, threads: int
) -> list[Iterator[Page]]:
    total = first.total or 0
    if total <= len(first):
        return [iter([first])]
    share = max(4 * collection.page_size, math.ceil(total / (threads * _WALKS_PER_THREAD)))
    parts = _parts(collection, window, total, min(share, collection.deepest), threads)
    return [_reverse(collection, part, rows) for part, rows in parts]


def _parts(
    collection: Collection, window: ChangeWindow, total: int, most: int, threads: int
) -> list[tuple[ChangeWindow, int]]:
    """Windows that together are the given one, with their counts: at most about ``most`` rows in each.

    A window whose rows all have one change version cannot be split, nor one without an upper bound.
    """
    counted = [(window, total)]
    with ThreadPoolExecutor(threads) as pool:
        while any(_is_large(part, rows, most) for part, rows in counted):
            slices = [
                (part, None if len(pieces) > 1 else rows)
                for whole, rows in counted
                for pieces in [
                    whole.split(min(_MOST_PIECES, max(2, math.ceil(rows / most))))
                    if _is_large(whole, rows, most)
                    else [whole]
                ]
                for part in pieces
            ]
            counts = pool.map(lambda s: collection.count(s[0]) if s[1] is None else s[1], slices)
            counted = [(part, rows) for (part, _), rows in zip(slices, counts, strict=True)]
            if sum(rows for _, rows in counted) > 2 * total + most:
                raise collection.unusable(
                    "the ODS's counts of a window and of its parts contradict each other"
                )
    return list(_joined(counted, most))


def _is_large(part: ChangeWindow, rows: int, most: int) -> bool:
    return rows > _TOLERANCE * most and len(part.split(2)) > 1


def _joined(counted: list[tuple[ChangeWindow, int]], most: int) -> Iterator[tuple[ChangeWindow, int]]:
    """Neighbours taken together while they stay small, so that no walk goes for a handful of rows."""
    held, held_rows = counted[0]
    for part, rows in counted[1:]:
        if held_rows + rows > most and held_rows:
            yield held, held_rows
            held, held_rows = part, rows
        else:
            held, held_rows = ChangeWindow(held.low, part.high), held_rows + rows
    yield held, held_rows


def _reverse(collection: Collection, window: ChangeWindow, rows: int) -> Iterator[Page]:
    """The window from its last page to its first, over again as often as the pages lose touch with each other."""
    end = rows
    for _ in range(_MOST_RESTARTS):
        start, page = collection.page_before(window, end, counted=True)
        total = page.total or 0
        if total > end:  # rows have come since it was counted; ask beyond the end, for more may come
            end = total + min(2 * (total - end), collection.page_size // 2)
            continue
        if len(page):
            yield page
        if (yield from _upwards(collection, window, start, page)):
            return
        end = collection.count(window)
    raise collection.unusable(_MOVING)


def _upwards(
    collection: Collection, window: ChangeWindow, start: int, above: Page
) -> Generator[Page, None, bool]:
    """The pages before row ``start``; False where one does not adjoin the page ``above``."""
    while start:
        for shared in dict.fromkeys((1, collection.page_size // 2)):
            begin, page = collection.page_before(window, start + shared)
            own = start - begin
            # Row by row, for an ODS may serve a row twice (5.1 and 5.2 do), and then its place counts.
            if 0 <= own < len(page) and page.ids[own:] == above.ids[: len(page) - own]:
                fresh = page.at(range(own))
                break
            if _adjoins(page, above, shared):
                fresh = page.without(set(above.ids))
                break
        else:
            return False
        if len(fresh):
            yield fresh
        # Where the page had to be halved to be read, it may begin where the last one did; it still got on by itself.
        start, above = min(begin, start), page
    return True


def _adjoins(page: Page, above: Page, shared: int) -> bool:
    """Whether a page ends with rows that the page above it began with, in their order.

    One common row somewhere proves nothing: before 7.3 a cascading key change moves rows without a new change version.
    Of many shared rows some may have left meanwhile, but not most of them.
    """
    place = {key: n for n, key in enumerate(above.ids)}
    common = [place[key] for key in page.ids if key in place]
    if not common or page.ids[-len(common) :] != [above.ids[n] for n in sorted(common)]:
        return False
    return common[0] == 0 if shared == 1 else 2 * len(common) >= shared


def _forward(collection: Collection, window: ChangeWindow, first: Page) -> Iterator[Page]:
    """From the first page to an empty one, for an ODS that does not count."""
    page, offset = first, 0
    for _ in range(_MOST_RESTARTS):
        while len(page):
            yield page
            offset += len(page)
            last = page.ids[-1]
            page = collection.page_at(window, offset - 1)
            if page.ids[:1] != [last]:
                break
            page = page.at(range(1, len(page)))
            if not len(page):
                page = collection.page_at(window, offset)
        else:
            return
        page, offset = collection.page_at(window, 0), 0
    raise collection.unusable(_MOVING)


# -- by change version -----------------------------------------------------------------------------------


def change_walk(collection: Collection, window: ChangeWindow) -> Iterator[Page]:
    """The deletes or key changes of the window, each once, in change-version order.

    They have no cursor (api.md section 4.1). Deletes are read by stepping the lower bound to the last version seen.
    Of key changes the API folds those of one record in the window that was asked for, so that window must stay whole:
    they are read by offset, each page sharing a row with the one before.
    """
    low, offset, standstills = window.low or 0, 0, 0
    seen: set[str] = set()
    shared: list[str] = []
    while standstills <= _MOST_RESTARTS:
        at = ChangeWindow(low, window.high)
        page = collection.page_at(at, offset, counted=True)
        keys = page.change_keys
        if offset and keys[:1] != shared:  # rows before it have come or gone
            offset, standstills, shared = 0, standstills + 1, []
            continue
        if keys[: len(shared)] == shared:  # by their places, for an ODS may serve a row twice
            fresh = list(range(len(shared), len(keys)))
        else:
            fresh = [n for n, key in enumerate(keys) if key not in seen]
        if fresh:
            yield page.at(fresh)
        if _is_last(collection, at, offset, page, is_new=bool(fresh)):
            return
        standstills += not fresh
        versions = page.lines.change_versions
        if collection.kind == DELETES and versions[-1] > low:
            low, offset = versions[-1], 0
            shared = [key for key, version in zip(keys, versions, strict=True) if version == low]
        else:
            offset += len(keys) - 1
            shared = keys[-1:]
        seen = set(keys)
    raise collection.unusable(_MOVING)


def _is_last(collection: Collection, window: ChangeWindow, offset: int, page: Page, *, is_new: bool) -> bool:
    """Whether nothing is behind the page: by the count, or where there is none, by an empty page behind it."""
    end = offset + len(page)
    if page.total is None:
        return not len(page) or (not is_new and not len(collection.page_at(window, end)))
    return end >= page.total


def _from(first: Page, rest: Iterator[Page]) -> Iterator[Page]:
    yield first
    yield from rest
