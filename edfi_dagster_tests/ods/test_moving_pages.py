"""Walks by offset over rows that come and go between any two requests: what stayed is read, whatever moved.

The ODS is a model in memory, so that thousands of histories can be tried; the same pagers over HTTP, against the sandbox's
5.3 and 6.1, are in ``test_offset_paging``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.abilities import Abilities
from edfi_dagster.ods.answers import Answer
from edfi_dagster.ods.catalogue import find_endpoints, standard_endpoints
from edfi_dagster.ods.changes import EVERYTHING, ChangeWindow
from edfi_dagster.ods.errors import TooHeavy, UnusableBody
from edfi_dagster.ods.pagers import change_walk, record_walks
from edfi_dagster.ods.pages import DELETES, RECORDS, Collection, RecordKind
from edfi_dagster.ods.published import PublishedEndpoints
from edfi_dagster.ods.session import OdsSession

T = TypeVar("T")
(STUDENTS,) = find_endpoints(["students"], standard_endpoints("5.2"))
Move = tuple[str, int]
MOVES = st.lists(
    st.one_of(st.none(), st.tuples(st.sampled_from(["come", "go"]), st.integers(0, 59))), max_size=60
)


@dataclass
class ModelOds:
    """Rows by number with their change versions; before each request the next move is made."""

    version: tuple[int, int]
    rows: dict[int, int]
    moves: list[Move | None] = field(default_factory=list)
    heavy: Callable[[Mapping[str, str]], bool] = lambda _: False
    requests: list[Mapping[str, str]] = field(default_factory=list)
    pair = TenantYear("t", 2025)

    @property
    def abilities(self) -> Abilities:
        return Abilities.of(self.version)

    @property
    def discovery(self) -> ModelOds:
        return self

    @cached_property
    def published(self) -> PublishedEndpoints:
        return PublishedEndpoints(cast(OdsSession, self))

    def url(self, area: str) -> str:
        return f"http://ods/{area}"

    def get(
        self,
        url: str,
        params: Mapping[str, str],
        parse: Callable[[Answer], T],
        *,
        endpoint: str | None = None,
        retries: int | None = None,
        tally: object = None,
        lighter: bool = False,
        hurried: bool = False,
        accept: str = "",
    ) -> T:
        self.requests.append(params)
        if lighter and self.heavy(params):
            raise TooHeavy("time-out", pair=self.pair, endpoint=endpoint)
        self._move()
        low, high = (int(params.get(f"{end}ChangeVersion", -1)) for end in ("min", "max"))
        rows = sorted(
            (version if urlsplit(url).path.endswith("deletes") else number, number, version)
            for number, version in self.rows.items()
            if version >= low and (high < 0 or version <= high)
        )
        headers = {"Total-Count": str(len(rows))} if "totalCount" in params else {}
        offset, limit = int(params.get("offset", 0)), int(params["limit"])
        body = [
            {"id": f"{number:032x}", "changeVersion": version}
            for _, number, version in rows[offset : offset + limit]
        ]
        return parse(Answer(json.dumps(body, indent=2).encode(), headers))

    def _move(self) -> None:
        move = self.moves.pop(0) if self.moves else None
        if move and move[0] == "come":
            self.rows.setdefault(move[1], 5)
        elif move:
            self.rows.pop(move[1], None)


def collection(ods: ModelOds, kind: RecordKind = RECORDS, **options: Any) -> Collection:
    return Collection(cast(OdsSession, ods), STUDENTS, kind, **options)


def read(ods: ModelOds, window: ChangeWindow, *, page_size: int, threads: int = 1) -> set[str]:
    pages = collection(ods, page_size=page_size)
    walks = record_walks(pages, window, pages.first_page(window), threads=threads)
    return {key for walk in walks for page in walk for key in page.ids}


def ids(numbers: set[int]) -> set[str]:
    return {f"{number:032x}" for number in numbers}


@pytest.mark.parametrize("version", [(2, 0), (6, 1)])
@given(present=st.sets(st.integers(0, 59)), moves=MOVES, page_size=st.integers(2, 9))
def test_no_row_that_stayed_is_skipped(
    version: tuple[int, int], present: set[int], moves: list[Move | None], page_size: int
) -> None:
    ods = ModelOds(version, dict.fromkeys(present, 5), list(moves))
    moved = {move[1] for move in moves if move}
    try:
        found = read(ods, EVERYTHING, page_size=page_size)
    except UnusableBody as error:
        assert "keep moving" in error.reason
        return
    assert ids(present - moved) <= found <= ids(present | moved)


@given(
    rows=st.dictionaries(st.integers(0, 400), st.integers(0, 60), max_size=200),
    page_size=st.integers(2, 9),
    threads=st.integers(1, 4),
)
def test_parts_of_a_window_hold_it_all(rows: dict[int, int], page_size: int, threads: int) -> None:
    ods = ModelOds((6, 1), rows)
    found = read(ods, ChangeWindow(0, 50), page_size=page_size, threads=threads)
    assert found == ids({number for number, version in rows.items() if version <= 50})


def test_parts_carry_similar_work_however_the_rows_lie_in_the_versions() -> None:
    clustered = {number: 7_000_000 + number // 3 for number in range(6_000)} | {9_000: 3, 9_001: 99_000_000}
    ods = ModelOds((6, 1), clustered)
    pages = collection(ods, page_size=50)
    window = ChangeWindow(0, 100_000_000)
    walks = record_walks(pages, window, pages.first_page(window), threads=4)
    sizes = [sum(len(page) for page in walk) for walk in walks]
    assert sum(sizes) == 6_002
    assert max(sizes) <= 1.5 * 6_002 / 16
    assert len(sizes) <= 26
    assert len(ods.requests) < 6_002 / 50 + 130


def test_a_walk_by_offset_holds_no_more_rows_than_it_should() -> None:
    ods = ModelOds((6, 1), {number: number for number in range(2_000)})
    pages = collection(ods, page_size=10, deepest=100)
    window = ChangeWindow(0, 5_000)
    list(map(list, record_walks(pages, window, pages.first_page(window), threads=1)))
    assert max(int(params.get("offset", 0)) for params in ods.requests) <= 150


@given(rows=st.dictionaries(st.integers(0, 99), st.integers(1, 12), max_size=60), page_size=st.integers(2, 7))
@pytest.mark.parametrize("version", [(5, 3), (7, 3)])
def test_every_delete_comes_once_with_ties_and_without_counts(
    version: tuple[int, int], rows: dict[int, int], page_size: int
) -> None:
    walk = change_walk(collection(ModelOds(version, rows), DELETES, page_size=page_size), ChangeWindow(0, 10))
    found = [key for page in walk for key in page.change_keys]
    assert sorted(found) == sorted(f"{number:032x}@{v}" for number, v in rows.items() if v <= 10)


def test_pages_that_are_too_heavy_are_asked_for_in_halves_and_grow_again() -> None:
    ods = ModelOds((6, 1), dict.fromkeys(range(1000), 5))
    ods.heavy = lambda params: int(params["limit"]) > 12 and 600 < int(params.get("offset", 0)) < 800
    assert len(read(ods, ChangeWindow(5, 5), page_size=50)) == 1_000
    limits = [int(params["limit"]) for params in ods.requests]
    assert 12 in limits
    assert limits[-2] > 40


def test_a_count_that_takes_too_long_is_made_in_halves() -> None:
    ods = ModelOds((6, 1), {number: number for number in range(100)})
    ods.heavy = lambda params: int(params["maxChangeVersion"]) - int(params["minChangeVersion"]) > 30
    assert collection(ods).count(ChangeWindow(10, 89)) == 80
