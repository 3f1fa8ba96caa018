"""What trips up client authors, points 21 to 30 of 34: addresses, tokens, errors, parameters, names. See ``test_protocol``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from edfi_dagster.extract import Result
from edfi_dagster.extract.collections import Collections
from edfi_dagster.ods.answers import Answer, json_value
from edfi_dagster.ods.catalogue import endpoints_of, find_endpoints
from edfi_dagster.ods.changes import EVERYTHING
from edfi_dagster.ods.errors import NotOffered, RequestRefused, SnapshotGone, WrongCredentials
from edfi_dagster.ods.pages import Absence, Collection
from edfi_dagster.ods.published import PublishedEndpoints
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import ODS, Bench
from edfi_dagster_tests.ods.platforms import PAIR, SECRET_VARIABLE, endpoint, platform_at, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn
from edfi_dagster_tests.ods.test_protocol import collection, largest_page, on, reading, walk
from edfi_dagster_tests.sandbox.api import Api, body
from edfi_dagster_tests.sandbox.api import student as pupil

MakeBench = Callable[..., Bench]


@pytest.fixture
def sandbox(sandbox: SandboxServer) -> SandboxServer:
    """Each of these tests keeps its token to itself, and a key has fifteen."""
    sandbox.expire_tokens()
    return sandbox


def ods(version: str, mode: str | None, of_year: str, token: str, data: str) -> object:
    marked = pytest.mark.ods(version, mode=mode)
    return pytest.param(of_year, token, data, marks=marked, id="-".join(filter(None, (version, mode))))


@pytest.mark.parametrize(
    ("of_year", "token", "data"),
    [
        ods("5.3", "shared_instance", "", "/grand_bend/2025/oauth/token", "/grand_bend/2025/data/v3"),
        ods("6.1", "year_specific", "", "/grand_bend/oauth/token", "/grand_bend/data/v3/2025"),
        ods(
            "6.1",
            "instance_year_specific",
            "instance_code: grand_bend",
            "/grand_bend/oauth/token",
            "/data/v3/grand_bend/2025",
        ),
        ods("7.3", None, "", "/grand_bend/2025/oauth/token", "/grand_bend/2025/data/v3"),
    ],
)
def test_21_instance_and_year_come_behind_the_area_before_7_0_and_before_it_since(
    of_year: str, token: str, data: str, sandbox: SandboxServer
) -> None:
    with session_at(sandbox.url_of(ODS), of_year=of_year) as session:
        assert len(walk(collection(session, "students"))) == sandbox.store(ODS).count("students")
        session.newest_change_version()
    paths = {request.path for request in sandbox.requests if request.status == 200}
    assert token in paths
    assert f"{data}/ed-fi/students" in paths
    assert f"{data.replace('/data/', '/changeQueries/').replace('v3', 'v1')}/availableChangeVersions" in paths


def test_22_placeholders_hosts_and_years_of_the_root_document_are_not_believed() -> None:
    urls = {
        "oauth": "http://internal:8080/{tenantIdentifier}/{schoolYearFromRoute}/oauth/token",
        "dataManagementApi": "http://internal:8080/{tenantIdentifier}/{schoolYearFromRoute}/data/v3/",
        "changeQueries": "http://internal:8080/{tenantIdentifier}/{schoolYearFromRoute}/changeQueries/v1/",
    }
    model = {"name": "Ed-Fi", "version": "5.2.0"}

    def answer(asked: Asked) -> Reply | None:
        if asked.path == "/a/2025/":
            return Reply({"version": "7.3", "dataModels": [model], "urls": urls})
        return Reply([]) if asked.path.endswith("/students") else None

    with StandIn(answer, base="/a/2025") as there, session_at(there.url) as session:
        assert collection(session, "students").record("f00d") is Absence.NO_SUCH_ID
        assert session.newest_change_version() == 42
        assert [asked.path for asked in there.asked][:2] == ["/a/2025/", "/a/2025/oauth/token"]
        assert {asked.path.rpartition("/")[0] for asked in there.asked[2:]} == {
            "/a/2025/data/v3/ed-fi/students",
            "/a/2025/changeQueries/v1",
        }


@pytest.mark.ods("6.1", mode="year_specific")
def test_22_the_year_is_the_configured_one_and_not_the_servers_own(sandbox: SandboxServer) -> None:
    with session_at(sandbox.url_of(ODS)) as session:
        assert "/2025" not in session.discovery.urls["dataManagementApi"], "the server's clock is ahead"
        assert session.url("dataManagementApi").endswith("/data/v3/2025")
        assert len(walk(collection(session, "students"))) == 16


@on("7.3")
def test_23_one_token_serves_all_threads_and_sessions(version: str, sandbox: SandboxServer) -> None:
    """A token for each worker would be refused at the sixteenth."""
    with ExitStack() as opened, ThreadPoolExecutor(20) as threads:
        sessions = [opened.enter_context(session_at(sandbox.url_of(ODS))) for _ in range(20)]
        counts = threads.map(lambda s: collection(s, "students").count(EVERYTHING), sessions)
        assert set(counts) == {16}
    assert len(sandbox.requests.matching("/oauth/token")) == 1


@on("6.1", "7.1", "7.3")
def test_24_a_401_with_or_without_a_body_costs_one_token_and_no_row(
    version: str, sandbox: SandboxServer
) -> None:
    with reading(sandbox) as session:
        ended: list[int] = []

        def end(request: object) -> None:
            if len(sandbox.requests.matching("/students")) == 2 and not ended:
                ended.append(1)
                sandbox.expire_tokens()

        sandbox.after_response.append(end)
        pages = collection(session, "students", page_size=3)
        assert sorted(walk(pages)) == sorted(sandbox.store(ODS).ids("students"))
    assert [r.status for r in sandbox.requests.matching("/students")].count(401) == 1
    assert len(sandbox.requests.matching("/oauth/token")) == 1


@on("5.3", "6.1", "7.3")
def test_24_wrong_credentials_are_told_whether_400_or_401_says_so(
    version: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, "wrong")
    status = 400 if version == "5.3" else 401
    with (
        session_at(sandbox.url_of(ODS)) as session,
        pytest.raises(WrongCredentials, match=rf"^grand_bend.2025: .*HTTP {status} .*check client_id"),
    ):
        session.newest_change_version()
    assert len(sandbox.requests.matching("/oauth/token")) == 2, "Basic, then the body"


@on("5.3", "6.1", "7.0", "7.1", "7.2", "7.3")
def test_25_errors_are_told_apart_in_the_form_of_every_version(version: str, sandbox: SandboxServer) -> None:
    """A page that is too large, an endpoint that is not there, a snapshot that is gone; from 7.0 both are 404."""
    store = sandbox.store(ODS)
    sandbox.faults.add("swagger.json", status=404)
    with largest_page(sandbox, 10), reading(sandbox) as session:
        with pytest.raises(RequestRefused, match=r"^grand_bend.2025 ed-fi/students: HTTP 400") as refused:
            walk(collection(session, "students", page_size=11))
        if version in ("7.2", "7.3"):
            assert "urn:ed-fi:api:bad-request" in str(refused.value)
            assert "page_size is more than this ODS allows; write 10 or less" in str(refused.value)
    sandbox.faults.clear()
    with reading(sandbox) as session:
        store.take_snapshot()
        session.start_snapshot()
        store.withdraw("locations")
        with pytest.raises(NotOffered, match="the ODS has no such endpoint"):
            collection(session, "locations").count(EVERYTHING)
        store.drop_snapshot()
        with pytest.raises(SnapshotGone, match="the snapshot is not there any more"):
            collection(session, "students").count(EVERYTHING)


@on("6.1", "7.3")
def test_26_a_filter_is_sent_only_where_the_ods_says_that_it_knows_it(
    version: str, sandbox: SandboxServer
) -> None:
    store = sandbox.store(ODS)
    with reading(sandbox) as session:
        misspelt = collection(session, "students", filters={"studentUniqueID_": "nobody"})
        assert misspelt.count(EVERYTHING) == store.count("students"), "it gives everything"
        unknown = collection(session, "students", filters={"studentUniqueId": "nobody"})
        assert walk(unknown) == [], "a value that nobody has is a good answer without rows"
    multiyear = platform_at(sandbox.url_of(ODS), "extract: {resources: all}", "multiyear: true")
    told: list[str] = []
    with session_at(sandbox.url_of(ODS), of_year="multiyear: true") as session:
        collections = Collections(multiyear, session, told.append)
        sandbox.requests.clear()
        for name in ("students", "sessions"):
            walk(collections.open(endpoint(name)))
    pages = [r for r in sandbox.requests if "/ed-fi/" in r.path]
    asked = {(r.path.rpartition("/ed-fi/")[2].split("/")[0], r.query.get("schoolYear")) for r in pages}
    assert asked == {("students", None), ("sessions", "2025")}
    assert told == ["grand_bend/2025 ed-fi/students: has no school year and comes whole"]


@on("5.3", "6.1", "7.3")
def test_27_a_post_replaces_by_natural_key_a_put_never_creates_and_no_change_is_no_change(
    version: str, make_bench: MakeBench
) -> None:
    """Tools that send to an ODS rely on it; and a record that was sent again as it is must not be loaded again."""
    bench = make_bench("students", change_version_overlap=0)
    bench.server.expire_tokens()
    api = Api(bench.server, ODS)
    made = api.post("students", pupil("s-1"))
    record_id = made.headers["Location"].rpartition("/")[2]
    assert (made.status_code, made.content) == (201, b"")
    bench.materialize()
    newest = api.newest
    for answer in (
        api.post("students", pupil("s-1")),
        api.put(f"students/{record_id}", {"id": record_id, **pupil("s-1")}),
    ):
        assert answer.status_code in (200, 204)
        assert answer.headers["Location"].endswith(record_id)
    assert api.newest == newest
    assert bench.materialize()["students"].kinds["records"].result == Result.UNCHANGED

    assert api.post("students", pupil("s-1", firstName="Nora")).status_code == 200
    assert api.put(f"students/{'0' * 32}", body(pupil("s-2"))).status_code == 404
    assert api.newest == newest + 1
    assert bench.materialize()["students"].rows_inserted == 1
    bench.verify()
    api.session.close()


def test_28_endpoints_of_one_name_in_two_namespaces_are_two() -> None:
    """And ``_ext`` of a record, by the name of its extension, stays as it was sent."""
    row = b'{"id":"a","_ext":{"TPDM":{"genderIdentity":"x"},"Sample":{"petNames":[{"petName":"Rex"}]}}}'

    def answer(asked: Asked) -> Reply | None:
        if not asked.path.endswith("/students"):
            return None
        rows = b"[%b]" % row if "homograph" in asked.path else b'[{"id":"a"}]'
        return Reply(rows, headers={"Total-Count": "1"})

    with StandIn(answer) as there, session_at(there.url) as session:
        platform = platform_at(there.url, "extract: {resources: {students: {}, homograph/students: {}}}")
        both = find_endpoints(["students", "homograph/students"], endpoints_of(platform, PAIR))
        read = [Collection(session, one).first_page(EVERYTHING).rows for one in both]
    assert [one.path for one in both] == ["ed-fi/students", "homograph/students"]
    assert [one.snake for one in both] == ["students", "homograph_students"]
    assert len({*both}) == 2
    assert read == [[b'{"id":"a"}'], [row]]


@on("5.3", "6.1", "7.3")
def test_29_endpoints_come_from_the_catalogue_once_each_and_not_from_the_dependencies(
    version: str, sandbox: SandboxServer
) -> None:
    with reading(sandbox) as session:
        url = f"{session.url('openApiMetadata')}/dependencies"
        rows = session.get(url, {}, json_value)
    named = [row["resource"] for row in rows]
    people_twice = named.count("/ed-fi/students") == 2
    assert people_twice == (version != "5.3")
    assert ({tuple(row["operations"]) for row in rows} == {("Create",)}) == (version == "5.3")

    standard = sandbox.site.generation.standard
    platform = platform_at(sandbox.url_of(ODS), f'extract: {{data_standard: "{standard}", resources: all}}')
    paths = [one.path for one in endpoints_of(platform, PAIR)]
    assert len(paths) == len(set(paths))
    assert {"ed-fi/students", "ed-fi/schoolYearTypes"} <= set(paths)
    assert {name.removeprefix("/") for name in named} <= set(paths)


@on("5.3", "6.1", "7.0", "7.1", "7.3")
def test_30_swagger_2_and_openapi_3_are_read_whole_and_never_conditionally(
    version: str, sandbox: SandboxServer
) -> None:
    generation = sandbox.site.generation
    platform = platform_at(sandbox.url_of(ODS), f'extract: {{data_standard: "{generation.standard}"}}')
    known = {one.path: one for one in endpoints_of(platform, PAIR)}
    with reading(sandbox) as session:
        document = session.get(f"{session.url('openApiMetadata')}/resources/swagger.json", {}, _document)
        assert ("swagger" in document, "openapi" in document) == (
            version in ("5.3", "6.1", "7.0"),
            version in ("7.1", "7.3"),
        )
        published = PublishedEndpoints(session)
        for path in ("ed-fi/sections", "ed-fi/studentSchoolAssociations", "ed-fi/grades"):
            assert dict(published.key(path)) == dict(known[path].key)
            assert published.has_key_changes(path) == generation.key_changes
        assert published.page_limit() == 500
    assert not any("if-none-match" in request.headers for request in sandbox.requests)


def _document(answer: Answer) -> dict[str, object]:
    found: dict[str, object] = json_value(answer)
    return found
