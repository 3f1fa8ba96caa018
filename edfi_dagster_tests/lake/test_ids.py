"""The count of distinct ids is exact, whatever the ids look like and however many there are."""

from __future__ import annotations

import itertools
import tracemalloc
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfi_dagster.lake import ids as module
from edfi_dagster.lake.ids import DistinctIds

GUIDS = st.uuids().map(lambda value: value.hex)
ANY_ID = st.one_of(
    GUIDS,
    st.uuids().map(str),
    st.text(max_size=40),
    st.integers(0, 999).map(lambda n: f"{n:032x}"),
    st.binary(min_size=16, max_size=16).map(lambda raw: (raw[:12] + b"\0\0\0\0").hex()),
)


def as_the_warehouse(ids: Iterable[str]) -> set[str]:
    """Ids as rows are matched by there, where case and dashes are no difference."""
    return {key.replace("-", "").lower() for key in ids}


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds and buffers so small that a few ids go through the file and several rounds."""
    monkeypatch.setattr(module, "_HELD", 8)
    monkeypatch.setattr(module, "_COUNTED", 16)


@pytest.mark.usefixtures("small_steps")
@given(pages=st.lists(st.lists(ANY_ID, max_size=12), max_size=12), others=st.lists(ANY_ID, max_size=5))
def test_it_is_a_set(pages: list[list[str]], others: list[str]) -> None:
    expected = as_the_warehouse(itertools.chain.from_iterable(pages))
    with closing(DistinctIds()) as ids:
        for page in pages:
            ids.add(page)
            assert len(ids) <= len(expected)
        assert len(ids) == len(expected)
        asked = [*others, *itertools.chain.from_iterable(pages[:2])]
        assert ids.among(asked) == {key for key in asked if as_the_warehouse([key]) <= expected}


@pytest.mark.usefixtures("small_steps")
@given(left=st.lists(ANY_ID, max_size=30), right=st.lists(ANY_ID, max_size=30))
def test_fingerprints_are_equal_where_the_sets_are(left: list[str], right: list[str]) -> None:
    with closing(DistinctIds()) as one, closing(DistinctIds()) as other:
        one.add(left)
        other.add(right)
        assert (one.fingerprint() == other.fingerprint()) == (
            as_the_warehouse(left) == as_the_warehouse(right)
        )
        other.clear()
        other.add([*left, *reversed(left)])
        assert one.fingerprint() == other.fingerprint()


def test_an_id_in_other_company_stays_the_same() -> None:
    guid = uuid.UUID(int=7).hex
    with closing(DistinctIds()) as ids:
        ids.add([guid])
        ids.add([guid, "not-a-guid"])
        assert len(ids) == 2


def test_memory_does_not_grow_with_the_number_of_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", 4_096)
    monkeypatch.setattr(module, "_COUNTED", 16_384)

    def peak(rows: int) -> int:
        with closing(DistinctIds()) as ids:
            tracemalloc.start()
            for page in batches(rows):
                ids.add(page)
            assert len(ids) == rows
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return most

    peak(1)
    assert peak(120_000) < 1.5 * peak(40_000) < 3_000_000


def batches(rows: int) -> Iterator[list[str]]:
    for start in range(0, rows, 500):
        yield [f"{n * 0x9E3779B97F4A7C15 % 2**128:032x}" for n in range(start, min(rows, start + 500))]
