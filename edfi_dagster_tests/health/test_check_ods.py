"""What ``check`` says of one ODS: each thing that can be wrong, and its remedy."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import pytest

from edfi_dagster.health import probe
from edfi_dagster.health.findings import Finding, State
from edfi_dagster.health.probe import Patience
from edfi_dagster.ods.errors import OdsUnreachable
from edfi_dagster_tests.bench import KEY_VARIABLE, PAIR, SECRET_VARIABLE
from edfi_dagster_tests.health.asking import MakeBench, asked, at, of_tenant, rewritten
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

DISTRICT = 255901


def states(found: Mapping[str, Finding]) -> set[State]:
    return {finding.state for finding in found.values()}


def test_an_ods_as_it_should_be_is_well_in_every_line(make_bench: MakeBench) -> None:
    bench = make_bench("students", "schools", descriptors=("sexDescriptors",))
    found = asked(rewritten(bench, of_tenant(education_organization_id=DISTRICT)))
    assert list(found) == [
        "reachable",
        "data standard",
        "mode",
        "token",
        "education org.",
        "change queries",
        "permissions",
        "ReadChanges",
        "page limit",
    ]
    assert states(found) == {State.OK}, found
    assert found["reachable"].found.startswith("ODS/API 7.3")
    assert found["data standard"].found == "5.2.0, declared is 5.2"
    assert found["token"].found == "claim set Ed-Fi Sandbox"
    assert found["education org."].found.startswith(f"{DISTRICT} ")
    assert found["change queries"].found == f"newest change version {bench.store.newest:,}"
    assert found["permissions"].found == "3 of 3 endpoints can be read"
    assert found["ReadChanges"].found == "/deletes and /keyChanges of 2 of 2 resources can be read"
    assert found["page limit"].found == "pages of 20 rows are taken"


@pytest.mark.parametrize(
    ("api_version", "questions"),
    [
        pytest.param("2", {"token", "page limit"}, marks=pytest.mark.ods("2", mode="year_specific")),
        pytest.param(None, {"ReadChanges", "change queries"}, marks=pytest.mark.ods("5.3")),
        pytest.param(
            None, {"ReadChanges", "education org."}, marks=pytest.mark.ods("6.1", mode="year_specific")
        ),
        pytest.param(None, {"ReadChanges", "education org."}, marks=pytest.mark.ods("7.1")),
    ],
    ids=["2", "5.3", "6.1", "7.1"],
)
def test_every_version_is_asked_only_what_it_can_answer(
    make_bench: MakeBench, api_version: str | None, questions: set[str]
) -> None:
    bench = make_bench("students", "schools", year={"api_version": api_version} if api_version else {})
    found = asked(bench.platform)
    assert questions <= found.keys()
    assert states(found) == {State.OK}, found
    refused = [r for r in bench.server.requests if r.status >= 400 and r.status != 404]
    assert refused == []


def test_nobody_at_the_address_is_told_at_once_and_ends_the_questions(make_bench: MakeBench) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = asked(rewritten(make_bench("students"), at(f"http://127.0.0.1:{taken.getsockname()[1]}")))
    assert list(found) == ["reachable"]
    assert found["reachable"].state == State.FAILED
    assert found["reachable"].found.startswith("no connection from 127.0.0.1:")
    assert "check base_url" in found["reachable"].remedy


def test_another_site_at_the_address_is_no_ods(make_bench: MakeBench) -> None:
    with StandIn(lambda asked: Reply({"hello": "world"})) as site:
        found = asked(rewritten(make_bench("students"), at(site.url)))
    assert list(found) == ["reachable"]
    assert "is no Ed-Fi discovery document" in found["reachable"].found
    assert found["reachable"].remedy == "check base_url"


def test_an_ods_that_only_fails_is_given_up(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.server.faults.add("", status=503)
    found = asked(bench.platform)
    assert list(found) == ["reachable"]
    assert found["reachable"].found.startswith("HTTP 503 from")


def test_a_question_without_an_answer_is_given_up_in_seconds(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "READ_SECONDS", 0.2)
    monkeypatch.setattr(probe, "QUESTION_SECONDS", 0.5)
    bench = make_bench("students")
    bench.server.faults.add("availableChangeVersions", action="stall", seconds=3.0)
    found = asked(bench.platform)
    assert list(found)[-1] == "change queries"
    assert found["change queries"].state == State.FAILED
    assert "no usable answer within" in found["change queries"].found
    assert "ask again" in found["change queries"].remedy
    # The pauses of a pull add up to half a minute.
    assert len(bench.server.requests.matching("availableChangeVersions")) <= 4


def test_patience_ends_with_a_sentence() -> None:
    patience = Patience(PAIR)
    patience.begin(0.0)
    with pytest.raises(OdsUnreachable, match="no usable answer within 0 s"):
        patience(10.0)


def test_a_wrong_secret_ends_the_questions_and_is_not_shown(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    monkeypatch.setenv(SECRET_VARIABLE, "not-the-secret")
    found = asked(bench.platform)
    assert list(found)[-1] == "token"
    assert found["token"].state == State.FAILED
    assert found["token"].found.startswith("the ODS refused the key and secret")
    assert found["token"].remedy == "check client_id and client_secret of this tenant and year"
    assert "not-the-secret" not in str(found)


def test_an_unset_variable_is_named_and_the_lines_before_it_stand(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    monkeypatch.delenv(KEY_VARIABLE)
    found = asked(bench.platform)
    assert [question for question, finding in found.items() if finding.state == State.OK] == [
        "reachable",
        "data standard",
        "mode",
    ]
    assert f"environment variable {KEY_VARIABLE} is not set" in found["token"].found
    assert "client_id" in found["token"].found
    assert found["token"].remedy.startswith("set it, in .env or otherwise, where")


def test_a_key_of_another_organization_fails_and_names_both(make_bench: MakeBench) -> None:
    found = asked(rewritten(make_bench("students"), of_tenant(education_organization_id=4711)))
    assert found["education org."].state == State.FAILED
    assert found["education org."].found.startswith(f"expected 4711, the key belongs to {DISTRICT} ")
    assert "correct education_organization_id" in found["education org."].remedy
    assert found["page limit"].state == State.OK


def test_a_key_of_a_part_of_the_organization_is_warned_of(make_bench: MakeBench) -> None:
    school = {
        "education_organization_id": 255901001,
        "name_of_institution": "Grand Bend High School",
        "type": "edfi.School",
        "local_education_agency_id": DISTRICT,
    }

    def answering(request: Asked) -> Reply | None:
        if request.path == "/oauth/token_info":
            assert request.headers["authorization"] == "Bearer f00dfeed"
            return Reply(
                {"active": True, "education_organizations": [school], "assigned_profiles": ["Staff-Only"]}
            )
        return Reply([]) if request.path.startswith("/data/v3/") else None

    with StandIn(answering) as ods:
        bench = make_bench("students", "schools")
        platform = rewritten(bench, of_tenant(education_organization_id=DISTRICT))
        found = asked(rewritten(bench, at(ods.url)))
    assert platform.ods(PAIR).education_organization_id == DISTRICT
    assert found["education org."].state == State.WARNING
    assert (
        found["education org."].found
        == f"the key belongs to 255901001 Grand Bend High School, parts of {DISTRICT}"
    )
    assert "take a key of the whole" in found["education org."].remedy
    assert found["token"].state == State.WARNING
    assert "Staff-Only" in found["token"].found
    assert "f00dfeed" not in str(found)


@pytest.mark.ods("6.1")
def test_an_organization_that_cannot_be_compared_is_warned_of(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.server.faults.add("token_info", status=404)
    found = asked(rewritten(bench, of_tenant(education_organization_id=DISTRICT)))
    assert found["education org."].state == State.WARNING
    assert "no token_info" in found["education org."].found
    assert found["token"].state == State.OK


def test_a_key_without_read_changes_fails_by_its_claims(make_bench: MakeBench) -> None:
    bench = make_bench("students", "schools")
    for endpoint in ("students", "schools"):
        bench.store.deny(endpoint, read=False)
    found = asked(bench.platform)
    assert found["ReadChanges"].state == State.FAILED
    assert found["ReadChanges"].found.startswith("/deletes and /keyChanges of 0 of 2 resources")
    assert "have the key's claim set allow ReadChanges" in found["ReadChanges"].remedy
    bench.store.allow("students")
    found = asked(bench.platform)
    assert found["ReadChanges"].state == State.WARNING
    assert "not ed-fi/schools" in found["ReadChanges"].found


@pytest.mark.ods("6.1")
def test_a_key_without_read_changes_fails_by_asking(make_bench: MakeBench) -> None:
    bench = make_bench("students", "schools")
    bench.store.deny("schools", read=False)
    found = asked(bench.platform)
    assert found["permissions"].found.startswith("ed-fi/schools can be read")
    assert found["ReadChanges"].state == State.FAILED
    assert found["ReadChanges"].found == "ed-fi/schools/deletes: HTTP 403, the key may not read this"
    assert "have the key's claim set allow ReadChanges" in found["ReadChanges"].remedy


def test_who_takes_neither_deletes_nor_key_changes_needs_no_read_changes(make_bench: MakeBench) -> None:
    options = {"page_size": 20, "fetch_deletes": False}
    bench = make_bench("students", endpoint_defaults=options, get_key_changes=False)
    bench.store.deny("students", read=False)
    assert "ReadChanges" not in asked(bench.platform)


@pytest.mark.parametrize("version", [pytest.param("7.3"), pytest.param("6.1", marks=pytest.mark.ods("6.1"))])
def test_endpoints_that_may_not_be_read_are_told(make_bench: MakeBench, version: str) -> None:
    bench = make_bench("students", "schools")
    bench.store.deny("schools")
    found = asked(bench.platform)
    by_claims = version == "7.3"
    assert found["permissions"].state == (State.WARNING if by_claims else State.OK)
    assert ("not ed-fi/schools" if by_claims else "ed-fi/students can be read") in found["permissions"].found
    bench.store.deny("students")
    found = asked(bench.platform)
    assert found["permissions"].state == State.FAILED
    assert "have the key's claim set allow Read" in found["permissions"].remedy


@pytest.mark.parametrize("version", [pytest.param("7.3"), pytest.param("6.1", marks=pytest.mark.ods("6.1"))])
def test_a_page_size_above_the_limit_is_told_without_reading_a_row(
    make_bench: MakeBench, version: str
) -> None:
    bench = make_bench("students", endpoint_defaults={"page_size": 501})
    found = asked(bench.platform)
    assert found["page limit"].state == State.WARNING
    assert "page_size is more than this ODS allows" in found["page limit"].found
    assert ("write 500 or less" if version == "7.3" else "write less") in found["page limit"].remedy


def test_a_snapshot_is_asked_for_where_it_is_used(make_bench: MakeBench) -> None:
    bench = make_bench("students", use_snapshot=True)
    missing = asked(bench.platform)["snapshot"]
    assert missing.state == State.FAILED
    assert "the ODS has no snapshot" in missing.found
    assert "write use_snapshot: false" in missing.remedy
    bench.store.take_snapshot()
    assert (
        asked(bench.platform)["snapshot"].found == f"there is one, of change version {bench.store.newest:,}"
    )


def test_another_data_standard_than_declared_is_warned_of_with_what_to_write(make_bench: MakeBench) -> None:
    found = asked(make_bench("students", data_standard="5.1").platform)
    assert found["data standard"].state == State.WARNING
    assert found["data standard"].found == "5.2.0 is offered, 5.1 is declared"
    assert 'write data_standard: "5.2"' in found["data standard"].remedy


def test_change_queries_that_are_off_fail(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.server.faults.add("availableChangeVersions", status=404)
    found = asked(bench.platform)
    assert found["change queries"].state == State.FAILED
    assert "HTTP 404" in found["change queries"].found
    assert found["permissions"].state == State.OK


def test_an_endpoint_nobody_knows_fails_and_the_ods_is_asked_all_the_same(make_bench: MakeBench) -> None:
    bench = make_bench("students")

    def misspell(document: dict[str, object]) -> None:
        document["extract"] |= {"resources": {"studnets": {}}}  # type: ignore[operator]

    found = asked(rewritten(bench, misspell))
    assert found["endpoints"].state == State.FAILED
    assert "studnets" in found["endpoints"].found
    assert "did you mean students?" in found["endpoints"].remedy
    assert found["token"].state == State.OK
