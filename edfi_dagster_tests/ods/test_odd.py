"""Pages that are whole but not strict JSON: which rows are odd, what is kept of them, and what stays an error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfi_dagster.ods.answers import without_mark
from edfi_dagster.ods.errors import UnusableBody
from edfi_dagster.ods.odd import DEEPEST, loadable, split
from edfi_dagster.ods.rows import change_lines, record_line, record_lines

ODD = b'{ "id" : "b",\n  "n" : NaN, "t": "x\\ud83d \xff , } ]" }'
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def test_one_odd_row_leaves_the_others_as_they_are() -> None:
    lines = record_lines(b'[ {"id": "a", "t": "{"} , ' + ODD + b' , {"id": "c"} ]\n')
    assert lines.ids == ["a", "b", "c"]
    assert lines.odd == {"b"}
    assert lines.rows == [
        b'{"id":"a","t":"{"}',
        b'{"id":"b","n":NaN,"t":"x\\ud83d \xff , } ]"}',
        b'{"id":"c"}',
    ]
    assert json.loads(loadable(lines.rows[1])) == {"id": "b", "n": None, "t": "x\ufffd \ufffd , } ]"}
    assert lines.only([0, 2]).odd == set()
    assert lines.only([2, 1]).odd == {"b"}
    assert record_line(ODD) == lines.rows[1]


def test_odd_changes_keep_their_versions() -> None:
    lines = change_lines(
        b'[{"id":"a","changeVersion":1},{"id":"b","changeVersion":2,"keyValues":{"k":"\\udc00"}}]'
    )
    assert (lines.ids, lines.change_versions, lines.odd) == (["a", "b"], (1, 2), {"b"})


def test_what_is_nested_too_deep_is_left_out_of_what_is_loaded() -> None:
    row = b'{"id":"a","deep":' + b"[" * 5000 + b"1" + b"]" * 5000 + b',"after":[1]}'
    lines = record_lines(b"[" + row + b"]")
    assert lines.rows == [row]
    loaded = loadable(row)
    assert loaded.count(b"[") == DEEPEST
    assert loaded.endswith(b'],"after":[1]}') and b"null" in loaded
    assert json.loads(loaded)["after"] == [1]


@pytest.mark.parametrize(
    "body",
    [
        b'[{"id":"a\\ud83d"}]',
        b'[{"id":"\xff"}]',
        b'[{"id":"a","t":"\\ud83d"}',
        b'[{"id":"a","t":"\\ud83d"}]]',
        b'[{"id":"a","t":"\\ud83d"}] x',
        b'[{"id":"a","t":"\\ud83d}]',
        b'[{"id":"a","t":"\\ud83d"},]',
        b'[{"id":"a","t":"\\ud83d"},{"id":"b","n":1 2}]',
        b'[{"id":"a","t":"\\ud83d"},{"id":"b","n":01}]',
        b'[{"id":"a","t":"\\ud83d"},{"id":"b","t":"\\x"}]',
        b'[{"id":"a","t":"\\ud83d"},{"no":"id"}]',
        b'[{"id":"a","t":"\\ud83d"},NaN]',
        b'{"id":"a","t":"\\ud83d"}',
        b"\xff",
        b"[\xff]",
    ],
)
def test_what_is_cut_or_names_no_record_stays_an_error(body: bytes) -> None:
    with pytest.raises(UnusableBody, match=r"cut or is not JSON|not a list of records with an id"):
        record_lines(body)


@given(st.lists(JSON_VALUES, max_size=5), st.sampled_from([None, 0, 2]))
def test_a_list_is_split_at_its_own_commas(values: list[object], indent: int | None) -> None:
    body = json.dumps(values, indent=indent).encode()
    assert [json.loads(row) for row in split(body)] == values
    assert [json.loads(loadable(row)) for row in split(body)] == values


@given(st.lists(JSON_VALUES, min_size=1, max_size=4), st.data())
def test_a_list_that_is_cut_is_never_split(values: list[object], data: st.DataObject) -> None:
    body = json.dumps(values).encode()
    with pytest.raises(UnusableBody):
        split(body[: data.draw(st.integers(0, len(body) - 1))])


def test_byte_order_marks_are_taken_away() -> None:
    text = '[{"id":"ä"}]'
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert without_mark(text.encode(encoding)).decode() == text
    assert without_mark(b"\xff\xfe\x00") == b"\xff\xfe\x00"
    assert without_mark(b"") == b""
