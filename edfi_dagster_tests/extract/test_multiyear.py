"""One ODS that holds several school years: each year's partition gets its own records and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import pytest
import yaml

from edfi_dagster.config import TenantYear
from edfi_dagster.extract import EndpointResult, Job, Result, Work, extract
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.warehouse.current import current_rows
from edfi_dagster_tests.bench import PAIR, Bench, changed

MakeBench = Callable[..., Bench]

THIS, NEXT = PAIR.year, PAIR.year + 1
# Where the school year stands in a record that has one.
OF_YEAR = {
    "sessions": "schoolYearTypeReference",
    "courseOfferings": "sessionReference",
    "sections": "courseOfferingReference",
    "studentSchoolAssociations": "schoolYearTypeReference",
}
WHOLE = ("students", "locations", "graduationPlans")
VERSIONS = [
    pytest.param("6.1", marks=[pytest.mark.ods("6.1", mode="shared_instance"), pytest.mark.slow]),
    pytest.param("7.3", marks=pytest.mark.ods("7.3")),
]


class Years:
    """Two partitions of one ODS, lake and warehouse. ``session``, ``offering`` and ``section`` are of the next year."""

    def __init__(self, make_bench: MakeBench) -> None:
        options: dict[str, Any] = {"descriptors": ("gradeLevelDescriptors",), "change_version_overlap": 50}
        made = make_bench(*OF_YEAR, *WHOLE, year={"multiyear": True}, **options)
        document = yaml.safe_load(made.config.read_text())
        years = document["tenants"][PAIR.tenant]["years"]
        years[NEXT] = years[THIS]
        made.config.write_text(yaml.safe_dump(document))
        self.bench = Bench(made.config, made.server)
        self.store = self.bench.store
        self.told: list[str] = []
        self.session = self._copy("sessions", schoolYearTypeReference={"schoolYear": NEXT})
        offering = self.store.rows("courseOfferings")[0]
        of_next = {**offering["sessionReference"], **self._key("sessions", self.session)}
        self.offering = self._copy("courseOfferings", sessionReference=of_next)
        section = self.store.rows("sections")[0]
        offered = {**section["courseOfferingReference"], **self._key("courseOfferings", self.offering)}
        self.section = self._copy("sections", courseOfferingReference=offered)
        enrolled = changed(self.store.rows("studentSchoolAssociations")[0], entryDate="2025-12-01")
        del enrolled["calendarReference"]  # its school year and the record's own are one and the same
        enrolled["schoolYearTypeReference"] = {"schoolYear": NEXT}
        self.enrollment = self.store.post("studentSchoolAssociations", enrolled)

    def _copy(self, endpoint: str, **fields: Any) -> str:
        return self.store.post(endpoint, changed(self.store.rows(endpoint)[0], **fields))

    def _key(self, endpoint: str, record_id: str) -> Mapping[str, Any]:
        return self.store.endpoint(endpoint).key_values(self.store.get(endpoint, record_id))

    def run(self, year: int, *, full_refresh: bool = False) -> dict[str, EndpointResult]:
        bench, pair = self.bench, TenantYear(PAIR.tenant, year)
        session = OdsSession(bench.platform.ods(pair), pair, sleep=lambda _: None)
        job = Job(
            bench.platform, pair, session, bench.lake, bench.warehouse, self.told.append, self.told.append
        )
        works = [Work(endpoint) for endpoint in bench.endpoints]
        with closing(session), bench.warehouse.connected():
            results = {r.endpoint.name: r for r in extract(job, works, full_refresh=full_refresh)}
        assert not any(result.failures for result in results.values())
        return results

    def current(self, year: int, name: str) -> dict[str, Any]:
        pair = TenantYear(PAIR.tenant, year)
        with self.bench.warehouse.connected() as connection:
            rows = [json.loads(v) for _, v in current_rows(connection, pair, self.bench.endpoint(name))]
        return {record["id"]: record for record in rows}

    def raw_ids(self, year: int, table: str) -> set[str]:
        rows = self.bench.query(f'SELECT v FROM edfi3."{table}" WHERE api_year = ?', [year])
        return {json.loads(value)["id"] for (value,) in rows}

    def expected(self, year: int, name: str) -> dict[str, Any]:
        rows = {row["id"]: row for row in self.store.rows(name)}
        if name not in OF_YEAR:
            return rows
        return {i: row for i, row in rows.items() if row[OF_YEAR[name]]["schoolYear"] == year}

    def verify(self, *years: int) -> None:
        with self.bench.warehouse.connected():
            for year in years or (THIS, NEXT):
                for name in (*OF_YEAR, *WHOLE, "gradeLevelDescriptors"):
                    assert self.current(year, name) == self.expected(year, name), (year, name)


@pytest.fixture
def years(make_bench: MakeBench) -> Years:
    return Years(make_bench)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_year_gets_its_own_records_and_the_ones_without_a_year_whole(version: str, years: Years) -> None:
    for year in (THIS, NEXT):
        years.run(year)
    years.verify()
    assert len(years.expected(NEXT, "sections")) == 1
    assert years.raw_ids(NEXT, "sections") == {years.section}
    assert years.section not in years.raw_ids(THIS, "sections")

    for year in (THIS, NEXT):
        whole = {
            line for line in years.told if line.startswith(f"grand_bend/{year} ") and "comes whole" in line
        }
        assert whole == {f"grand_bend/{year} ed-fi/{n}: has no school year and comes whole" for n in WHOLE}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_delta_of_one_year_takes_nothing_of_the_other(version: str, years: Years) -> None:
    for year in (THIS, NEXT):
        years.run(year)
    years.bench.change("sessions", years.session, totalInstructionalDays=7)
    years.store.delete("sections", years.section)
    years.bench.change("students", years.store.ids("students")[0], firstName="Of every year")
    of_this, of_next = years.run(THIS), years.run(NEXT)
    assert [name for name, result in of_this.items() if result.table_changed] == ["students"]
    assert of_next["sessions"].table_changed
    assert years.current(NEXT, "sections") == {}
    years.verify()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_key_change_of_the_other_year_is_not_loaded(version: str, years: Years) -> None:
    for year in (THIS, NEXT):
        years.run(year)
    years.bench.change("sessions", years.session, sessionName="Renamed")
    of_this = years.run(THIS)
    for name in ("sessions", "courseOfferings", "sections"):
        assert not of_this[name].table_changed
    assert years.raw_ids(THIS, "sections").isdisjoint({years.section})
    assert years.raw_ids(THIS, "sessions").isdisjoint({years.session})
    years.run(NEXT)
    assert (
        years.current(NEXT, "sections")[years.section]["courseOfferingReference"]["sessionName"] == "Renamed"
    )
    years.verify()


@pytest.mark.parametrize(
    "version", [pytest.param("5.3", marks=pytest.mark.ods("5.3", mode="shared_instance")), *VERSIONS]
)
def test_a_record_that_a_key_change_moves_to_the_other_year_moves_with_its_cascade(
    version: str, years: Years
) -> None:
    for year in (THIS, NEXT):
        years.run(year)
    moved = next(row for row in years.store.rows("sessions") if row["id"] != years.session)
    name = f"{moved['sessionName']} of next"
    sections = years.expected(THIS, "sections").keys()
    years.bench.change(
        "sessions", moved["id"], sessionName=name, schoolYearTypeReference={"schoolYear": NEXT}
    )
    assert sections - years.expected(THIS, "sections").keys(), "sections go along"
    years.run(NEXT)
    years.verify(NEXT)
    years.run(THIS)
    years.verify()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refresh_of_one_year_leaves_the_other_alone(version: str, years: Years) -> None:
    for year in (THIS, NEXT):
        years.run(year)
    years.bench.change("sessions", years.session, totalInstructionalDays=7)
    before = {name: years.current(NEXT, name) for name in OF_YEAR}
    years.run(THIS, full_refresh=True)
    years.verify(THIS)
    assert {name: years.current(NEXT, name) for name in OF_YEAR} == before
    assert not years.run(NEXT)["sessions"].full
    years.verify()


def test_a_year_that_is_no_part_of_the_key_is_left_because_the_counts_differ(years: Years) -> None:
    """The record only ceases to pass the filter: it leaves neither a tombstone nor a key change."""
    for year in (THIS, NEXT):
        years.run(year)
    years.bench.change(
        "studentSchoolAssociations", years.enrollment, schoolYearTypeReference={"schoolYear": THIS}
    )
    years.run(THIS)
    years.verify(THIS)
    years.run(NEXT)
    assert years.enrollment not in years.current(NEXT, "studentSchoolAssociations")
    years.verify()


@pytest.mark.parametrize("version", VERSIONS)
def test_without_an_openapi_document_the_data_standard_tells_what_has_a_year(
    version: str, years: Years
) -> None:
    years.bench.server.faults.add("/resources/swagger.json", status=404)
    years.run(THIS)
    years.verify(THIS)


def test_without_an_openapi_document_an_extension_is_not_read_and_the_remedy_is_told(
    make_bench: MakeBench,
) -> None:
    """It fails alone: the other endpoints of the pair are read."""
    bench = make_bench("sample/buses", "students", "sessions", year={"multiyear": True})
    bench.server.faults.add("/resources/swagger.json", status=404)
    for _ in range(2):
        results = bench.materialize(may_fail=True)
        (cause,) = results["buses"].failures.values()
        assert re.match(r"grand_bend/2025 sample/buses: .*OpenAPI.*multiyear: false", cause)
        assert not results["students"].failures and not results["sessions"].failures
        bench.verify(["students", "sessions"])
    assert bench.server.requests.matching("/sample/") == []


def test_every_page_and_count_of_a_year_asks_for_it_and_changes_do_not(years: Years) -> None:
    years.run(THIS)
    years.run(THIS)
    asked = years.bench.server.requests
    for name in OF_YEAR:
        records = [r for r in asked if r.path.endswith((f"/{name}", f"/{name}/partitions"))]
        assert {r.query.get("schoolYear") for r in records} == {str(THIS)}
    for name in WHOLE:
        assert not any("schoolYear" in r.query for r in asked if f"/{name}" in r.path)
    for kind in ("/deletes", "/keyChanges"):
        assert asked.matching(kind)
        assert not any("schoolYear" in r.query for r in asked.matching(kind))
    assert years.run(THIS)["sections"].kinds["records"].result == Result.UNCHANGED
