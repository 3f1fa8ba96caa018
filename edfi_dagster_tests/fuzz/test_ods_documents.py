"""Whatever an ODS answers: what it means, or UnusableBody; never another exception, never a row less."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfi_dagster.config import TenantYear
from edfi_dagster.health.probe import read_token_info
from edfi_dagster.lake.ids import DistinctIds
from edfi_dagster.ods.answers import (
    Answer,
    Oversized,
    Transient,
    Unauthorised,
    check_status,
    json_object,
    redirection,
)
from edfi_dagster.ods.discovery import AREAS, addresses, read_discovery
from edfi_dagster.ods.errors import EdFiError, RequestRefused, UnusableBody
from edfi_dagster.ods.openapi import read_document
from edfi_dagster.ods.pages import _read_partitions, _read_total
from edfi_dagster.ods.rows import change_lines, record_line, record_lines
from edfi_dagster.ods.snapshots import header_of_newest, read_snapshots
from edfi_dagster.ods.token import LONGEST_SECONDS, read_token
from edfi_dagster_tests.fuzz.inputs import BROKEN, ODD_TEXTS, bodies, fuzzed, tried
from edfi_dagster_tests.ods.platforms import PAIR, platform_at

GUID = "0123456789abcdef0123456789abcdef"
BASE = "https://ods.example.org/v7.3/api"
SETTINGS = platform_at(BASE).ods(PAIR)

DISCOVERY = {
    "version": "7.3",
    "informationalVersion": "7.3.2",
    "apiMode": "Instance Year Specific",
    "dataModels": [{"name": "Ed-Fi", "version": "5.2.0"}, {"name": "TPDM", "version": "1.1"}],
    "urls": {
        "dataManagementApi": f"{BASE}/data/v3/",
        "oauth": f"{BASE}/oauth/token",
        "openApiMetadata": f"{BASE}/metadata",
        "changeQueries": f"{BASE}/changeQueries/v1",
    },
}
OPENAPI = {
    "parameters": {"limit": {"maximum": 500, "schema": {"maximum": 250}}},
    "definitions": {
        "edFi_student": {
            "required": ["schoolReference"],
            "properties": {"id": {"type": "string"}, "schoolReference": {"$ref": "#/definitions/edFi_schoolReference"}},
            "x-Ed-Fi-domains": ["Student"],
        },
        "edFi_schoolReference": {"properties": {"schoolId": {"$ref": "#/definitions/edFi_student"}}},
    },
    "paths": {
        "/ed-fi/students": {
            "get": {
                "parameters": [{"name": "schoolId", "in": "query", "x-Ed-Fi-isIdentity": True}, {"$ref": "#/parameters/limit"}],
                "responses": {"200": {"schema": {"items": {"$ref": "#/definitions/edFi_student"}}}},
            }
        },
        "/ed-fi/students/{id}": {"put": {"x-Ed-Fi-isUpdatable": True}},
        "/ed-fi/students/deletes": {},
    },
}  # fmt: skip
CHANGES = [
    {"id": GUID, "changeVersion": 3, "keyValues": {"a": 1}},
    {"id": GUID[::-1], "changeVersion": 4, "oldKeyValues": {}, "newKeyValues": {"a": "ä"}},
]
RECORDS = [{"id": GUID, "a": 1.50}, {"id": GUID[::-1], "b": {"c": [None]}}]
TOKEN_INFO = {
    "active": True,
    "client_id": "x",
    "education_organizations": [{"education_organization_id": 255901, "name_of_institution": "A", "local_education_agency_id": 1}],
    "claim_set": {"name": "x"},
    "resources": [{"resource": "/ed-fi/students", "operations": ["Read"]}],
    "assigned_profiles": ["p"],
}  # fmt: skip


def documents(document: Any) -> Callable[[Any], Any]:
    return given(body=st.one_of(bodies(document), BROKEN))


def outcome(what: str, read: Callable[[], Any]) -> Any:
    """What ``read`` returns; None for UnusableBody, whose sentence must be one."""
    tried[what] += 1
    try:
        return read()
    except UnusableBody as error:
        assert error.reason.isprintable() and 5 < len(error.reason) < 300
        return None


@fuzzed(50)
@documents(DISCOVERY)
def test_a_discovery_document_is_read_or_refused_and_the_token_stays_with_its_host(body: bytes) -> None:
    document = outcome("discovery", lambda: json_object(Answer(body, {})))
    if document is None:
        return
    try:
        found = read_discovery(document, SETTINGS)
    except ValueError as error:
        assert str(error).isprintable()
        return
    assert found.ods_version.isprintable()
    assert found.data_model_version.isprintable()
    places = addresses(BASE, found, 2025)
    assert places.keys() == set(AREAS)
    assert all(place.startswith(f"{BASE}/") and ".." not in place for place in places.values())


@fuzzed(60)
@documents(OPENAPI)
def test_an_openapi_document_is_read_or_refused(body: bytes) -> None:
    found = outcome("openapi", lambda: read_document(body))
    if found is not None:
        endpoints, largest = found
        assert largest is None or largest >= 1
        assert all(len(endpoint.key) == len(endpoint.key_names) for endpoint in endpoints)


def test_an_openapi_document_whose_schemas_refer_to_themselves_ends() -> None:
    circle = {"properties": {"selfReference": {"$ref": "#/definitions/a"}}, "required": ["selfReference"]}
    listed = {"get": {"responses": {"200": {"schema": {"items": {"$ref": "#/definitions/a"}}}}}}
    paths = {f"/ed-fi/endpoint{n}": listed for n in range(5_000)}
    endpoints, _ = read_document(json.dumps({"definitions": {"a": circle}, "paths": paths}).encode())
    assert len(endpoints) == 5_000


def is_right(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get("id"), str)


def strictly(body: bytes) -> Any:
    """The rows as the standard says JSON is read; None where it is none."""
    try:
        return json.loads(body.decode(), parse_constant=lambda _: 1 / 0)
    except (ValueError, RecursionError, ZeroDivisionError):
        return None


@fuzzed(60)
@documents(RECORDS)
def test_a_page_of_records_gives_each_of_its_rows_or_none(body: bytes) -> None:
    lines = outcome("pages", lambda: record_lines(body))
    rows = strictly(body)
    if lines is None:
        return
    assert isinstance(rows, list) and all(map(is_right, rows))
    assert lines.ids == [row["id"] for row in rows]
    assert [json.loads(row) for row in lines.rows] == rows
    assert lines.text.count(b"\n") == len(rows)
    ids = DistinctIds()
    ids.add(lines.ids)
    assert len(ids) == len({key.replace("-", "").lower() for key in lines.ids})


@fuzzed(50)
@documents(CHANGES)
def test_a_page_of_changes_gives_each_of_its_rows_in_order_or_none(body: bytes) -> None:
    lines = outcome("changes", lambda: change_lines(body))
    if lines is not None:
        rows = strictly(body)
        assert len(lines.rows) == len(lines) == len(rows)
        assert list(lines.change_versions) == sorted(lines.change_versions)
        assert all(-(2**63) <= version < 2**63 for version in lines.change_versions)


@fuzzed(50)
@documents(RECORDS[0])
def test_a_record_asked_for_by_id_is_one_line_or_refused(body: bytes) -> None:
    line = outcome("records", lambda: record_line(body))
    if line is not None:
        assert b"\n" not in line and is_right(json.loads(line))


@fuzzed(60)
@documents({"access_token": "f00d", "expires_in": 1800, "token_type": "bearer"})
def test_a_token_answer_gives_a_token_that_fits_a_header_or_is_refused(body: bytes) -> None:
    token = outcome("tokens", lambda: read_token(json_object(Answer(body, {})), 1000.0))
    if token is not None:
        token.value.encode("latin-1")
        assert token.value.isprintable()
        assert 0 < token.seconds <= LONGEST_SECONDS
        assert math.isfinite(token.good_until)


@fuzzed(50)
@documents({"pageTokens": ["a", "b"]})
def test_partitions_are_page_tokens_or_refused(body: bytes) -> None:
    tokens = outcome("partitions", lambda: _read_partitions(Answer(body, {})))
    assert tokens is None or all(token.encode() for token in tokens if token)


@fuzzed(50)
@documents([{"snapshotIdentifier": "a1", "snapshotDateTime": "2025-01-02T03:04:05Z"}])
def test_a_snapshots_identifier_fits_a_header_or_is_refused(body: bytes) -> None:
    found = outcome("snapshots", lambda: read_snapshots(Answer(body, {})))
    if found:
        (value,) = header_of_newest(found).values()
        assert value.isascii() and value.isprintable()


@fuzzed(50)
@documents(TOKEN_INFO)
def test_what_a_key_may_do_is_read_or_refused(body: bytes) -> None:
    outcome("token info", lambda: read_token_info(Answer(body, {})))


HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "Location", "Total-Count", "Next-Page-Token"]),
    st.one_of(
        ODD_TEXTS,
        st.text(st.characters(max_codepoint=255), max_size=30),
        st.sampled_from(["9" * 400, "Sat, 99 Nov 9999 99:99:99 GMT", "http://[", "//x", "https://a@b/\x1b[2J", "²"]),
    ),
)  # fmt: skip


@fuzzed(60)
@given(
    status=st.integers(100, 999),
    headers=HEADERS,
    body=st.one_of(bodies({"type": "urn:ed-fi:api:x", "correlationId": GUID, "errors": ["limit must be a value between 0 and 25"]}), BROKEN),
)  # fmt: skip
def test_any_status_with_any_headers_and_body_is_good_or_one_sentence(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    tried["statuses"] += 1
    answer = Answer(body, headers, status)
    total = _read_total(answer)
    assert total is None or 0 <= total < 10**10
    try:
        check_status(answer, TenantYear("a", 2025), "ed-fi/students", f"{BASE}/data/v3/ed-fi/students", BASE)
        assert 200 <= status < 300
    except RequestRefused as error:
        assert str(error).isprintable()
    except (Unauthorised, Transient, Oversized) as error:
        assert str(error)
        assert not isinstance(error, Transient) or error.wait >= 0
    with suppress(Transient):  # to another place altogether
        redirection(answer, BASE, BASE)


@pytest.mark.parametrize(
    "spelling", ["0123456789ABCDEF0123456789ABCDEF", "01234567-89ab-cdef-0123-456789abcdef", GUID]
)
def test_spellings_that_are_one_id_to_the_warehouse_are_counted_once(spelling: str) -> None:
    ids = DistinctIds()
    ids.add([GUID])
    ids.add([spelling])
    assert len(ids) == 1
    assert ids.among([spelling]) == {spelling}


@pytest.mark.parametrize("odd", [f"{'0' * 30}  ", f"  {'0' * 30}", "0 " * 16, f"\t{'0' * 31}"])
def test_an_id_with_spaces_is_counted_for_itself(odd: str) -> None:
    ids = DistinctIds()
    ids.add([odd, GUID, GUID[::-1]])
    assert len(ids) == 3


def test_what_an_ods_says_cannot_begin_a_line_of_a_log() -> None:
    error = EdFiError("HTTP 302, to \x1b[31mhost\r\n2025-01-01 all is well\u2028x\ud800", pair=PAIR)
    assert str(error).isprintable()
    assert error.reason == "HTTP 302, to  [31mhost  2025-01-01 all is well x "
