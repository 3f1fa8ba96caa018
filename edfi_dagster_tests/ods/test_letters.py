"""The byte path: what the API sent reaches the lake letter by letter, only without its layout."""

from __future__ import annotations

import json

import pytest

from edfi_dagster.ods.changes import EVERYTHING
from edfi_dagster.ods.errors import UnusableBody
from edfi_dagster.ods.pages import DELETES, Collection
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import Store
from edfi_dagster_tests.ods.platforms import endpoint, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

LETTERS = [
    '{"id":"a","n":1.10,"m":100000000000000000000000000000000001,"e":-1.5E+400,"z":-0.0,"t":0.1000000000000000055}',
    '{"id":"b","text":"one\\ntwo\\r\\n\\ttab \\"quoted\\" back\\\\slash \\/ \\u00e9 \\ud83d\\ude00 \\u0000 \\u2028"}',
    '{"id":"c","text":"Ñandú 学校 😀 \u2028\u2029\x85 | \x7f { [ , : ] }"}',
    '{"unknownFirst":{"b":1,"a":2},"id":"d","a":[],"a2":{},"null":null,"_ext":{"TPDM":{"x":[true,false]}}}',
    '{"id":"e","id2":"  two  spaces  ","duplicate":1,"duplicate":2}',
    '{"id":"f","_etag":"5250093105232954695","_lastModifiedDate":"2025-01-02T03:04:05.1234567Z"}',
]


def laid_out(texts: list[str], indent: str, newline: str) -> bytes:
    """The array of ``texts`` with white space between all its tokens."""
    out, in_string, escaped = "", False, False
    for letter in f"[{','.join(texts)}]":
        in_string ^= letter == '"' and not escaped
        escaped = letter == "\\" and not escaped
        out += letter if in_string or letter not in "[{,:" else f"{letter}{newline}{indent}"
    return (out + newline).encode()


def students_of(body: bytes, total: int = 6) -> StandIn:
    def answer(asked: Asked) -> Reply | None:
        headers = {"Total-Count": str(total), "Content-Type": "application/json; charset=utf-8"}
        return Reply(body, headers=headers) if "/students" in asked.path else None

    return StandIn(answer)


@pytest.mark.parametrize(("indent", "newline"), [("", ""), ("  ", "\n"), ("\t", "\r\n")])
def test_values_their_order_and_their_spelling_are_untouched(indent: str, newline: str) -> None:
    body = laid_out(LETTERS, indent, newline)
    assert len(json.loads(body)) == 6
    with students_of(body) as ods, session_at(ods.url) as session:
        page = Collection(session, endpoint("students")).first_page(EVERYTHING)
    assert [row.decode() for row in page.rows] == LETTERS
    assert page.ids == ["a", "b", "c", "d", "e", "f"]
    assert not [row for row in page.rows if b"\n" in row or b"\r" in row]


def test_a_record_read_by_id_is_untouched_too() -> None:
    with students_of(LETTERS[1].replace(",", ", \n").encode()) as ods, session_at(ods.url) as session:
        assert Collection(session, endpoint("students")).record("b") == LETTERS[1].encode()


def test_key_values_of_changes_are_untouched() -> None:
    text = (
        '{"id":"a","changeVersion":9007199254740993,"keyValues":{"weight":1.50,"namespace":"uri://\\u00e9"}}'
    )
    with students_of(laid_out([text], "  ", "\n"), total=1) as ods, session_at(ods.url) as session:
        page = Collection(session, endpoint("students"), DELETES).page_at(EVERYTHING, 0, counted=True)
    assert [row.decode() for row in page.rows] == [text]
    assert page.ids == ["a"]


def test_a_page_of_changes_that_lacks_rows_is_asked_for_again() -> None:
    text = '{"id":"a","changeVersion":1,"keyValues":{}}'
    with students_of(laid_out([text], "  ", "\n")) as ods, session_at(ods.url) as session:
        pages = Collection(session, endpoint("students"), DELETES)
        with pytest.raises(UnusableBody, match="6 rows are counted, 1 given"):
            pages.page_at(EVERYTHING, 0, counted=True)
        assert pages.count(EVERYTHING) == 6


@pytest.mark.parametrize(
    "row",
    [
        b'{"id":"a","n":01}',
        b'{"id":"a","text":"\\x41"}',
        b"{'id':'a'}",
        b'{"id":"a",}',
    ],
)
def test_what_would_break_a_line_of_the_lake_is_refused(row: bytes) -> None:
    with (
        students_of(b"[" + row + b"]") as ods,
        session_at(ods.url) as session,
        pytest.raises(UnusableBody, match="cut or is not JSON"),
    ):
        Collection(session, endpoint("students"), retries=0).first_page(EVERYTHING)


def test_the_sandboxs_indented_records_become_one_line_each(store: Store, session: OdsSession) -> None:
    rows = Collection(session, endpoint("students"), page_size=50).first_page(EVERYTHING).rows
    assert [json.loads(row) for row in rows] == store.rows("students")[:50]
    assert not [row for row in rows if b"\n" in row or b": " in row]
