"""What trips up client authors, points 31 to 34 of 34: what old and new generations do otherwise. See ``test_protocol``."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from edfi_dagster.config import TenantYear
from edfi_dagster.extract import Job, Work, extract
from edfi_dagster.ods.changes import EVERYTHING, ChangeWindow, whole_window
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import RequestInfo, SandboxServer
from edfi_dagster_tests.bench import ODS, PAIR, Bench, set_credentials, write_config
from edfi_dagster_tests.ods.data_management_service import DataManagementService
from edfi_dagster_tests.ods.platforms import session_at
from edfi_dagster_tests.ods.stand_in import Reply, StandIn
from edfi_dagster_tests.ods.test_protocol import collection, on, reading, walk

MakeBench = Callable[..., Bench]


@on("5.3", "6.1", "7.3")
def test_31_no_modified_date_is_needed_to_know_which_of_two_rows_is_the_later(
    version: str, make_bench: MakeBench
) -> None:
    """Records re-created and updated while the first pull goes on, so that it reads both rows; ``_etag`` is but kept."""
    bench = make_bench("students", "locations", endpoint_defaults={"page_size": 4})
    store = bench.store
    made = [bench.add_student(n) for n in range(6)]
    dated = version == "7.3"
    assert ("_lastModifiedDate" in store.get("students", made[0])) == dated

    def move(request: RequestInfo) -> None:
        if request.path.endswith("/students") and request.query.get("limit") == "0" and not moved:
            moved.append(bench.recreate("students", made[0]))
            moved.append(bench.recreate("students", made[5], firstName="Again"))
            bench.change("students", made[2], firstName="Later")

    moved: list[str] = []
    bench.server.before_request.append(move)  # when all was read, and is counted
    bench.materialize()
    assert bench.manifest("students").rows == len(bench.ods_rows("students")) + 2, "both rows were read"
    bench.verify()
    etags = {record["id"]: record["_etag"] for _, _, record in bench.raw("locations")}
    assert etags == {row["id"]: row["_etag"] for row in store.rows("locations")}


def test_31_an_etag_of_any_form_is_taken_as_it_is() -> None:
    rows = [{"id": "a", "_etag": 'W/"1;ü"'}, {"id": "b", "_etag": None}, {"id": "c", "_etag": 5}, {"id": "d"}]
    replies = Reply(rows, headers={"Total-Count": "4"})
    with (
        StandIn(lambda asked: replies if asked.path.endswith("/students") else None) as there,
        session_at(there.url) as session,
    ):
        page = collection(session, "students").first_page(EVERYTHING)
    assert [json.loads(row) for row in page.rows] == rows


@on("6.1", "7.3")
def test_32_gzip_is_asked_for_and_indented_bodies_become_one_line_each(
    version: str, sandbox: SandboxServer
) -> None:
    with reading(sandbox) as session:
        page = collection(session, "students", page_size=16).page_at(EVERYTHING, 0)
    assert {request.headers.get("accept-encoding") for request in sandbox.requests} == {"gzip"}
    assert b"\n  " in sandbox.store(ODS).texts("students")[0], "the ODS indents"
    assert page.lines.text.count(b"\n") == len(page) == 16
    assert [json.loads(row) for row in page.rows] == sandbox.store(ODS).rows("students")


def test_32_a_proxy_may_compress() -> None:
    body = gzip.compress(b'[\n  {\n    "id": "a"\n  }\n]')
    packed = Reply(body, headers={"Content-Encoding": "gzip", "Total-Count": "1"})
    with (
        StandIn(lambda asked: packed if asked.path.endswith("/students") else None) as there,
        session_at(there.url) as session,
    ):
        assert collection(session, "students").first_page(EVERYTHING).rows == [b'{"id":"a"}']


@on("5.3", "6.1", "7.3")
def test_33_a_newest_version_behind_the_saved_one_means_another_database_and_a_full_reload(
    version: str, make_bench: MakeBench
) -> None:
    bench = make_bench("students", "locations")
    bench.store.save("backup")
    lost = bench.add_student(1)
    bench.materialize()
    bench.store.restore("backup")
    results = bench.materialize()
    assert all(result.full for result in results.values())
    assert any("restored" in told for told in bench.told)
    assert lost not in bench.current("students")
    bench.verify()


def test_33_the_years_of_a_tenant_have_sequences_of_their_own(tmp_path: Path) -> None:
    """The year whose sequence is far behind the other's was not restored."""
    other = TenantYear(PAIR.tenant, PAIR.year + 1)
    names = [ODS, f"{other.tenant}/{other.year}"]
    with SandboxServer(names, rows={"students": 4}, ods_version="6.1") as server:
        set_credentials(server)
        path = write_config(tmp_path, server, ["students"])
        document = yaml.safe_load(path.read_text())
        years = document["tenants"][PAIR.tenant]["years"]
        years[other.year] = {**years[PAIR.year], "base_url": server.url_of(names[1])}
        path.write_text(yaml.safe_dump(document))
        bench = Bench(path, server)
        for number in range(30):
            bench.add_student(number)
        for pair, full in ((PAIR, True), (other, True), (PAIR, False), (other, False)):
            assert _run(bench, pair) == {"students": full}
        assert server.store(names[1]).newest < bench.store.newest
        assert not any("restored" in told for told in bench.told)
        bench.verify()


def _run(bench: Bench, pair: TenantYear) -> dict[str, bool]:
    """Endpoint → whether it was read in full."""
    session = OdsSession(bench.platform.ods(pair), pair)
    job = Job(
        bench.platform, pair, session, bench.lake, bench.warehouse, bench.told.append, bench.told.append
    )
    try:
        results = list(extract(job, [Work(endpoint) for endpoint in bench.endpoints]))
    finally:
        session.close()
    assert not any(result.failures for result in results)
    return {result.endpoint.name: result.full for result in results}


@contextmanager
def serving(service: DataManagementService) -> Iterator[tuple[StandIn, OdsSession]]:
    with StandIn(service) as there, session_at(there.url) as session:
        yield there, session


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("high", [None, 50])
@pytest.mark.parametrize("rows", [9, 200])
def test_34_the_data_management_service_is_read_from_partitions_by_long_tokens(
    rows: int, high: int | None, threads: int
) -> None:
    far = 1 << 40
    service = DataManagementService({far + n: (n * 37) % 100 for n in range(rows)})
    window = EVERYTHING if high is None else ChangeWindow(0, high)
    with serving(service) as (there, session):
        read = walk(collection(session, "students", page_size=3), window, threads=threads)
        pages = [asked for asked in there.matching("/students") if not asked.path.endswith("/partitions")]
    wanted = [n for n, version in service.rows.items() if high is None or version <= high]
    assert sorted(read) == sorted(f"{n:032x}" for n in wanted)
    assert "pageToken" not in pages[0].query and all("pageToken" in asked.query for asked in pages[1:])


def test_34_an_empty_page_with_a_token_is_not_the_end() -> None:
    service = DataManagementService(dict.fromkeys(range(40), 1), gone=frozenset(range(8, 24)))
    with serving(service) as (_, session):
        read = walk(collection(session, "students", page_size=4), whole_window(9))
    assert len(read) == 40 - 16
