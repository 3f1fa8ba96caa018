"""``discover``: what an ODS offers beside what is configured, as a table, as YAML and as JSON."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from edfi_dagster.config import parse_platform
from edfi_dagster.ods.catalogue import endpoints_of
from edfi_dagster_tests.bench import PAIR
from edfi_dagster_tests.cli.in_process import document, fits, invoke
from edfi_dagster_tests.health.asking import Document, MakeBench, at, rewritten
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

OF_PAIR = ("discover", "--tenant", PAIR.tenant, "--year", str(PAIR.year))


def selecting(**selections: Any) -> Any:
    def change(platform: Document) -> None:
        platform["extract"] |= selections

    return change


def collection(schema: str) -> dict[str, Any]:
    items = {"schema": {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"get": {"responses": {"200": {"content": {"application/json": items}}}}}


def publishing(paths: list[str], refused: set[str]) -> Any:
    """An ODS whose documents list ``paths``, and that refuses to give some of them."""

    def answering(asked: Asked) -> Reply | None:
        if asked.path.endswith("/swagger.json"):
            wanted = [p for p in paths if p.endswith("Descriptors") == ("/descriptors/" in asked.path)]
            return Reply(
                {
                    "paths": {path: collection("thing") for path in wanted},
                    "components": {"schemas": {"thing": {"properties": {"name": {"type": "string"}}}}},
                }
            )
        if asked.path.startswith("/data/v3/"):
            assert asked.query == {"limit": "1"}
            is_refused = asked.path.removeprefix("/data/v3") in refused
            return (
                Reply({"type": "urn:ed-fi:api:security:authorization"}, status=403)
                if is_refused
                else Reply([])
            )
        return None

    return answering


def test_an_ods_as_configured_has_nothing_new(make_bench: MakeBench) -> None:
    bench = make_bench()
    platform = rewritten(bench, selecting(resources="all", descriptors="all"))
    done = invoke(bench, *OF_PAIR)
    assert done.exit_code == 0, done.output
    assert (
        done.stdout.splitlines()[0]
        == f"{PAIR}  {len(endpoints_of(platform, PAIR))} endpoints are offered and configured"
    )
    assert "nothing is new, missing or not permitted" in done.stdout


def test_new_missing_and_refused_endpoints_are_told_apart_by_claims(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "schools")
    bench.store.withdraw("sessions")
    bench.store.deny("schools")
    found = document(invoke(bench, *OF_PAIR, "--json"))
    by_path = {endpoint["endpoint"]: endpoint for endpoint in found["endpoints"]}
    assert by_path["ed-fi/students"] == {
        "endpoint": "ed-fi/students",
        "kind": "resource",
        "standing": "declared",
        "in_catalogue": True,
        "permitted": True,
    }
    assert (by_path["ed-fi/sessions"]["standing"], by_path["ed-fi/sessions"]["permitted"]) == (
        "missing",
        None,
    )
    assert (by_path["ed-fi/schools"]["standing"], by_path["ed-fi/schools"]["permitted"]) == (
        "declared",
        False,
    )
    assert by_path["ed-fi/sexDescriptors"]["standing"] == "new"
    assert not bench.server.requests.matching("2025/data/v3/", "GET")  # the claims tell, and nothing is read
    table = invoke(bench, *OF_PAIR)
    assert fits(table)
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in table.stdout.splitlines()}
    assert lines["sessions"] == "missing skipped by runs"
    assert lines["schools"] == "declared not permitted to this key"
    assert lines["sections"] == "new of the data standard"


@pytest.mark.ods("6.1")
def test_a_version_that_does_not_tell_claims_is_asked_for_a_row_of_each(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", resources={"students": {}, "sessions": {}})
    bench.store.deny("sessions")
    found = document(invoke(bench, *OF_PAIR, "--json"))
    permitted = {endpoint["endpoint"]: endpoint["permitted"] for endpoint in found["endpoints"]}
    assert permitted["ed-fi/sessions"] is False
    assert all(allowed for path, allowed in permitted.items() if path != "ed-fi/sessions")
    asked = bench.server.requests.matching("data/v3/", "GET")
    asked = [request for request in asked if "metadata" not in request.path]
    assert len(asked) == len(permitted)
    assert {request.query["limit"] for request in asked} == {"1"}


def test_yaml_can_be_pasted_and_then_nothing_is_new(make_bench: MakeBench) -> None:
    bench = make_bench(
        resources={"students": {"page_size": 7}, "survey_responses": {"namespace": "ed-fi"}},
        descriptors=("sexDescriptors",),
    )
    bench.store.deny("schools")
    done = invoke(bench, *OF_PAIR, "--yaml")
    assert done.exit_code == 0, done.output
    assert "# not permitted to this key: ed-fi/schools" in done.stdout
    selections = yaml.safe_load(done.stdout)
    assert selections["resources"]["students"] == {"page_size": 7}
    assert "schools" not in selections["resources"]
    pasted = yaml.safe_load(bench.config.read_text())
    pasted["extract"] |= selections
    platform = parse_platform(yaml.safe_dump(pasted), "pasted.yaml", bench.folder)
    names = {endpoint.path for endpoint in endpoints_of(platform, PAIR)}
    assert names == {e.path for e in bench.store.model.endpoints} - {"ed-fi/schools"}
    bench.config.write_text(yaml.safe_dump(pasted))
    assert "0 resources and 0 descriptors are new" in invoke(bench, *OF_PAIR, "--yaml").stdout


def test_an_extension_is_found_and_pasted_with_its_namespace(make_bench: MakeBench) -> None:
    paths = ["/ed-fi/students", "/sample/buses", "/sample/busRoutes", "/sample/seatDescriptors"]
    with StandIn(publishing(paths, refused={"/sample/busRoutes"})) as ods:
        bench = make_bench(resources="all")
        rewritten(bench, at(ods.url))
        found = document(invoke(bench, *OF_PAIR, "--json"))
        done = invoke(bench, *OF_PAIR, "--yaml")
        table = invoke(bench, *OF_PAIR)
    new = {e["endpoint"]: e["permitted"] for e in found["endpoints"] if e["standing"] == "new"}
    assert new == {"sample/buses": True, "sample/busRoutes": False, "sample/seatDescriptors": True}
    assert not any(e["in_catalogue"] for e in found["endpoints"] if e["endpoint"] in new)
    selections = yaml.safe_load(done.stdout)
    assert selections == {
        "resources": {"*": {}, "sample/buses": {}},
        "descriptors": {"sample/seatDescriptors": {}},
    }
    assert "an extension's, or of another data standard" in " ".join(table.stdout.split())


def test_an_ods_that_stops_answering_leaves_the_rest_unasked(make_bench: MakeBench) -> None:
    paths = [f"/sample/things{n}" for n in range(20)]
    answering = publishing(paths, refused=set())

    def dying(asked: Asked) -> Reply | None:
        return Reply(status=503) if asked.path.startswith("/data/v3/") else answering(asked)

    with StandIn(dying) as ods:
        bench = make_bench("students", max_concurrent_requests=1)
        rewritten(bench, at(ods.url))
        table = invoke(bench, *OF_PAIR)
        assert len(ods.matching("/data/v3/")) <= 4
    assert table.exit_code == 0
    assert "20 were not asked whether the key may read them" in table.stdout


@pytest.mark.ods("2", mode="year_specific")
def test_ed_fi_2_publishes_nothing_to_compare_with(make_bench: MakeBench) -> None:
    done = invoke(make_bench("students", year={"api_version": "2"}), *OF_PAIR)
    assert done.exit_code == 1
    assert "list its endpoints under extract.resources" in done.stderr


def test_documents_that_are_switched_off_are_told(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.server.faults.add("swagger.json", status=404)
    done = invoke(bench, *OF_PAIR)
    assert done.exit_code == 1
    assert "have its host switch OpenAPI metadata on" in done.stderr
