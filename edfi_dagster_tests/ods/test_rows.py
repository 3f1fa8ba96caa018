"""Lines keep what the ODS wrote, letter by letter, whatever JSON it is and however it is laid out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfi_dagster.ods.errors import UnusableBody
from edfi_dagster.ods.rows import Lines, change_lines, record_line, record_lines

DIGITS = st.text("0123456789", min_size=1, max_size=40)
INTEGERS = st.builds(
    lambda sign, digits: f"{sign}{digits.lstrip('0') or '0'}", st.sampled_from(["", "-"]), DIGITS
)
NUMBERS = st.builds(
    lambda whole, fraction, exponent: whole + fraction + exponent,
    INTEGERS,
    st.one_of(st.just(""), DIGITS.map(lambda digits: f".{digits}")),
    st.one_of(st.just(""), st.builds("".join, st.tuples(st.sampled_from(["e", "E", "e+", "E-"]), DIGITS))),
)
PLAIN = st.characters(exclude_categories=["Cs"], exclude_characters='"\\', min_codepoint=0x20)
ESCAPES = st.sampled_from(
    ["\\n", "\\r", "\\t", "\\b", "\\f", '\\"', "\\\\", "\\/", "\\u00e9", "\\u0000", "\\ud83d\\ude00"]
)
STRINGS = st.lists(PLAIN | ESCAPES, max_size=12).map(lambda parts: f'"{"".join(parts)}"')
LAYOUT = st.sampled_from(["", "", " ", "\n  ", "\r\n\t", " \n "])
Tokens = list[str]


def array(items: list[Tokens]) -> Tokens:
    return ["[", *[token for n, item in enumerate(items) for token in ([","] if n else []) + item], "]"]


def members(pairs: list[tuple[str, Tokens]]) -> Tokens:
    listed = [
        token for n, (name, value) in enumerate(pairs) for token in ([","] if n else []) + [name, ":"] + value
    ]
    return ["{", *listed, "}"]


SCALARS = st.one_of(NUMBERS, STRINGS, st.sampled_from(["true", "false", "null"])).map(lambda token: [token])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(array) | st.lists(st.tuples(STRINGS, inner), max_size=3).map(members)
    ),
    max_leaves=5,
)
OTHER_NAMES = STRINGS.filter(lambda name: json.loads(name) not in {"id", "changeVersion"})
FIELDS = st.lists(st.tuples(OTHER_NAMES, VALUES), max_size=4)
IDS = STRINGS


@st.composite
def records(draw: st.DrawFn) -> tuple[str, Tokens]:
    """An id as JSON spells it, and the tokens of a record that has it anywhere among its fields."""
    identity, fields = draw(IDS), draw(FIELDS)
    fields.insert(draw(st.integers(0, len(fields))), ('"id"', [identity]))
    return identity, members(fields)


@st.composite
def pages(draw: st.DrawFn) -> tuple[list[str], list[str], bytes]:
    """Ids, rows without layout, and the body that holds them with white space anywhere between tokens."""
    drawn = draw(st.lists(records(), max_size=4))
    body = "".join(draw(LAYOUT) + token for token in array([tokens for _, tokens in drawn])) + draw(LAYOUT)
    return (
        [json.loads(identity) for identity, _ in drawn],
        ["".join(tokens) for _, tokens in drawn],
        body.encode(),
    )


@given(pages())
def test_any_record_keeps_its_spelling_order_and_unknown_fields(
    page: tuple[list[str], list[str], bytes],
) -> None:
    ids, rows, body = page
    lines = record_lines(body)
    assert lines.text.decode() == "".join(f"{row}\n" for row in rows)
    assert lines.ids == ids
    assert [row.decode() for row in lines.rows] == rows
    assert len(lines) == len(rows)


@given(records(), LAYOUT)
def test_a_single_record_keeps_its_spelling(record: tuple[str, Tokens], layout: str) -> None:
    _, tokens = record
    assert record_line(layout.join(tokens).encode()).decode() == "".join(tokens)


@given(st.lists(st.tuples(IDS, st.integers(-(2**63), 2**63 - 1), FIELDS), max_size=4), st.booleans())
def test_changes_of_either_casing_give_their_versions(
    drawn: list[tuple[str, int, list[tuple[str, Tokens]]]], of_5: bool
) -> None:
    drawn.sort(key=lambda change: change[1])
    names = ('"Id"', '"ChangeVersion"') if of_5 else ('"id"', '"changeVersion"')
    rows = [
        members([(names[0], [identity]), (names[1], [str(version)]), *fields])
        for identity, version, fields in drawn
        if not {json.loads(name) for name, _ in fields} & {"Id", "ChangeVersion"}
    ]
    kept = [c for c in drawn if not {json.loads(name) for name, _ in c[2]} & {"Id", "ChangeVersion"}]
    lines = change_lines("\n ".join(array(rows)).encode())
    assert lines.text.decode() == "".join("".join(row) + "\n" for row in rows)
    assert lines.ids == [json.loads(identity) for identity, _, _ in kept]
    assert lines.change_versions == tuple(version for _, version, _ in kept)


@pytest.mark.parametrize(
    "spelling", ["1.0", "1e5", "1E+05", "-0", "-0.0", "0.10", "9" * 60, "1e400", "0.1" + "0" * 40]
)
def test_numbers_are_not_read(spelling: str) -> None:
    assert (
        record_lines(f'[{{"id": "a", "n": {spelling}}}]'.encode()).text
        == f'{{"id":"a","n":{spelling}}}\n'.encode()
    )


def test_a_page_without_rows_is_no_line_at_all() -> None:
    for read in (record_lines, change_lines):
        lines = read(b"[\r\n]\r\n")
        assert (lines.text, lines.ids, lines.rows, len(lines)) == (b"", [], [], 0)


def test_a_repeated_name_stays_and_the_last_id_counts() -> None:
    lines = record_lines(b'[{"id": "a", "x": 1, "x": 2, "id": "b"}]')
    assert lines.text == b'{"id":"a","x":1,"x":2,"id":"b"}\n'
    assert lines.ids == ["b"]


def test_what_looks_like_a_border_of_rows_inside_a_row_is_none() -> None:
    rows = ['{"id":"a","text":"},{","list":[{"id":"x"},{"id":"y"}]}', '{"list":[{},{}],"id":"b"}']
    lines = record_lines(f"[{','.join(rows)}]".encode())
    assert [row.decode() for row in lines.rows] == rows
    assert lines.ids == ["a", "b"]


def test_lines_of_chosen_places() -> None:
    body = b'[{"id":"a","changeVersion":1},{"id":"b","changeVersion":2},{"id":"c","changeVersion":2}]'
    lines = change_lines(body).only([0, 2])
    assert lines == Lines(b'{"id":"a","changeVersion":1}\n{"id":"c","changeVersion":2}\n', ["a", "c"], (1, 2))
    assert lines.only([]) == Lines(b"", [])


@given(st.data(), st.integers(0, 9))
def test_any_choice_of_places_gives_just_those_lines(data: st.DataObject, number: int) -> None:
    lines = change_lines(
        json.dumps([{"id": f"{n}", "changeVersion": n, "x": "y" * n} for n in range(number)]).encode()
    )
    first = data.draw(st.integers(0, number))
    places = data.draw(
        st.lists(st.integers(0, number - 1), max_size=12) if number else st.just([]),
    )
    for chosen in (places, list(range(first, data.draw(st.integers(first, number))))):
        some = lines.only(chosen)
        assert some.rows == [lines.rows[n] for n in chosen]
        assert some.text == b"".join(row + b"\n" for row in some.rows)
        assert some.ids == [str(n) for n in chosen]
        assert some.change_versions == tuple(chosen)


CUT_OR_NOT_JSON = {
    "cut": b'[{"id": "a", "n": 1},\n  {"id": "b", ',
    "cut before the last bracket": b'[{"id": "a"}',
    "nothing": b"",
    "HTML": b"<html><body>502</body></html>",
    "leading zero": b'[{"id": "a", "n": 01}]',
    "two documents": b'[{"id": "a"}] [{"id": "b"}]',
    "a byte order mark": b'\xef\xbb\xbf[{"id": "a"}]',
}
NOT_ROWS = {
    "an object": b'{"message": "An unexpected error"}',
    "a string": b'"rows"',
    "no id": b'[{"id": "a"}, {"studentUniqueId": "1"}]',
    "id null": b'[{"id": null}]',
    "id a number": b'[{"id": 1}]',
    "rows in a list": b'[[{"id": "a"}]]',
    "a number among rows": b'[{"id": "a"}, 1]',
}
NOT_CHANGES = NOT_ROWS | {
    "no version": b'[{"id": "a"}]',
    "a version in words": b'[{"id": "a", "changeVersion": "1"}]',
    "a broken version": b'[{"id": "a", "changeVersion": 1.5}]',
    "half of each casing": b'[{"id": "a", "ChangeVersion": 1}]',
}


@pytest.mark.parametrize("body", CUT_OR_NOT_JSON.values(), ids=CUT_OR_NOT_JSON)
def test_a_body_that_is_cut_or_no_json(body: bytes) -> None:
    for read in (record_lines, change_lines, record_line):
        with pytest.raises(UnusableBody, match=r"^the body is cut or is not JSON$"):
            read(body)


@pytest.mark.parametrize("body", NOT_ROWS.values(), ids=NOT_ROWS)
def test_json_that_is_no_list_of_records(body: bytes) -> None:
    with pytest.raises(UnusableBody, match=r"^the body is not a list of records with an id$"):
        record_lines(body)


@pytest.mark.parametrize("body", NOT_CHANGES.values(), ids=NOT_CHANGES)
def test_json_that_is_no_list_of_changes(body: bytes) -> None:
    with pytest.raises(UnusableBody, match=r"^the body is not a list of changes with id and changeVersion$"):
        change_lines(body)


def test_json_that_is_no_record() -> None:
    for body in (b"[]", b"{}", b'[{"id": "a"}]', b"null"):
        with pytest.raises(UnusableBody, match=r"^the body is not a record with an id$"):
            record_line(body)


def test_changes_out_of_order_are_refused() -> None:
    body = b'[{"id": "a", "changeVersion": 2}, {"id": "b", "changeVersion": 1}]'
    with pytest.raises(UnusableBody, match="not in change-version order"):
        change_lines(body)


def test_no_value_of_a_row_is_in_the_message() -> None:
    with pytest.raises(UnusableBody) as caught:
        record_lines(b'[{"lastSurname": "Olson"}]')
    assert "Olson" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
