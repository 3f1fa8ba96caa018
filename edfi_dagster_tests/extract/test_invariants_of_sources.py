"""The invariant of sources: a watermark counts change versions of one ODS, key and filter, and of no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edfi_dagster.extract import Result
from edfi_dagster.lake.manifest import stamps
from edfi_dagster.lake.paths import run_folder
from edfi_dagster.lake.sealed import write_sealed
from edfi_dagster.ods.pages import RECORDS
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster_tests.bench import (
    KEY_VARIABLE,
    ODS,
    PAIR,
    SECRET_VARIABLE,
    Bench,
    changed,
    failures,
    student,
    write_config,
)

pytestmark = pytest.mark.both_storages
OTHER = "lakeview/2025"
MakeBench = Callable[..., Bench]


@pytest.fixture(scope="module")
def two() -> Iterator[SandboxServer]:
    """A host with two districts."""
    with SandboxServer([ODS, OTHER], rows={"students": 8}) as server:
        for name in (ODS, OTHER):
            server.store(name).save("first")
        yield server


@pytest.fixture
def hosted(
    two: SandboxServer, tmp_path: Path, storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeBench]:
    """Makes a bench of the first district; the second has students of its own and is further in its versions."""
    monkeypatch.setenv(KEY_VARIABLE, two.credentials[0])
    monkeypatch.setenv(SECRET_VARIABLE, two.credentials[1])
    for name in (ODS, OTHER):
        two.store(name).restore("first")
    for number in range(30):
        two.store(OTHER).post("students", student(700 + number))
    yield lambda *endpoints, **options: Bench(
        write_config(tmp_path, two, endpoints, **{**storage, **options}), two
    )
    two.faults.clear()
    two.store(ODS).withdrawn.clear()


def warnings(bench: Bench) -> list[str]:
    """What was said of sources since the last look."""
    found = [told for told in bench.told if "refresh" in told]
    bench.told.clear()
    return found


def verify_of(bench: Bench, ods: str, *names: str) -> None:
    bench.ods = ods
    bench.verify(names or None)
    assert not warnings(bench)


# -- the whole pair -------------------------------------------------------------------------------------------


def test_13_wrong_base_url_corrected_brings_the_right_students_and_no_others(hosted: MakeBench) -> None:
    bench = hosted("students", "sessions", change_version_overlap=0)
    bench.configure_year(base_url=bench.server.url_of(OTHER))
    bench.materialize()
    verify_of(bench, OTHER)
    bench.configure_year(base_url=bench.server.url_of(ODS))
    results = bench.materialize(["students"])
    assert results["students"].full
    (warning,) = warnings(bench)
    assert warning.startswith("grand_bend/2025: the address was 127.0.0.1")
    assert "/lakeview/2025 and is 127.0.0.1" in warning
    assert not {name for name, _ in bench.watermarks()} - {"students"}  # sessions are of the other one still
    assert bench.materialize()["sessions"].full
    verify_of(bench, ODS)
    assert not any(result.full for result in bench.materialize().values())


def test_13_rows_of_another_ods_that_the_right_one_does_not_have_are_no_success(hosted: MakeBench) -> None:
    """Nothing will ever replace them, so the run fails until somebody has deleted them."""
    bench = hosted("students", "sessions")
    bench.configure_year(base_url=bench.server.url_of(OTHER))
    bench.materialize()
    bench.configure_year(base_url=bench.server.url_of(ODS))
    bench.store.withdrawn.add("ed-fi/sessions")
    for _ in range(2):
        results = bench.materialize(may_fail=True)
        cause = results["sessions"].failures[RECORDS]
        assert "were read from another ODS, or with another key, than is configured now" in cause
        assert "delete the rows of this tenant, year and name sessions from sessions, _deletes" in cause
        assert not results["students"].failures
    for table in ("sessions", "_deletes", "_key_changes", "_meta_change_versions"):
        bench.query(f"DELETE FROM edfi3.{table} WHERE name = 'sessions'")
    assert bench.materialize()["sessions"].kinds[RECORDS].result == Result.NOT_OFFERED


def test_13_key_that_routes_to_another_instance_brings_its_rows(
    hosted: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = hosted("students", "sessions")
    bench.server.route("key of lakeview", ODS, OTHER)
    bench.materialize()
    verify_of(bench, ODS)
    monkeypatch.setenv(KEY_VARIABLE, "key of lakeview")
    assert all(result.full for result in bench.materialize().values())
    (warning,) = warnings(bench)
    assert "the key (client_id) was changed" in warning
    assert "lakeview" not in warning.replace("/lakeview/", "")
    verify_of(bench, OTHER)


def test_13_new_secret_of_the_same_key_refreshes_nothing(
    hosted: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = hosted("students")
    bench.materialize()
    monkeypatch.setattr(bench.server.site.tokens(bench.store), "secret", "renewed")
    monkeypatch.setenv(SECRET_VARIABLE, "renewed")
    assert not bench.materialize()["students"].full
    assert not warnings(bench)


def test_13_instance_code_that_is_corrected_refreshes_the_pair(
    tmp_path: Path, storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SandboxServer(
        [ODS, OTHER], rows={"students": 8}, ods_version="6.1", mode="instance_year_specific"
    ) as server:
        monkeypatch.setenv(KEY_VARIABLE, server.credentials[0])
        monkeypatch.setenv(SECRET_VARIABLE, server.credentials[1])
        server.store(OTHER).post("students", student(1))
        year = {"instance_code": "lakeview"}
        bench = Bench(write_config(tmp_path, server, ["students", "sessions"], year=year, **storage), server)
        bench.materialize()
        verify_of(bench, OTHER)
        bench.configure_year(instance_code="grand_bend")
        assert all(result.full for result in bench.materialize().values())
        assert len(warnings(bench)) == 1
        verify_of(bench, ODS)


def test_13_multiyear_turned_on_leaves_no_row_of_another_year(hosted: MakeBench) -> None:
    bench = hosted("sessions", "students")
    session = changed(bench.store.rows("sessions")[0], schoolYearTypeReference={"schoolYear": 2026})
    of_next = bench.store.post("sessions", session)
    bench.materialize()
    verify_of(bench, ODS)
    bench.configure_year(multiyear=True)
    assert bench.materialize()["sessions"].full
    assert "multiyear was turned on" in warnings(bench)[0]
    assert bench.current("sessions").keys() == bench.ods_rows("sessions").keys() - {of_next}
    bench.configure_year(multiyear=False)
    assert bench.materialize()["sessions"].full
    assert "multiyear was turned off" in warnings(bench)[0]
    verify_of(bench, ODS)


def test_13_snapshots_turned_on_are_read_from_the_start(hosted: MakeBench) -> None:
    bench = hosted("students")
    bench.store.take_snapshot()
    before = bench.ods_rows("students")
    bench.add_student(1)
    bench.materialize()
    bench.configure(lambda document: document["extract"].update(use_snapshot=True))
    assert bench.materialize()["students"].full
    assert "use_snapshot was turned on" in warnings(bench)[0]
    assert bench.current("students") == before
    bench.store.drop_snapshot()


@pytest.mark.parametrize(
    "spelling",
    [
        lambda url: f"{url}/",
        lambda url: url.replace("/grand_bend/", "//Grand_Bend/"),
    ],
)
def test_13_another_spelling_of_the_same_address_is_no_change(
    hosted: MakeBench, spelling: Callable[[str], str]
) -> None:
    bench = hosted("students")
    bench.materialize()
    bench.configure_year(base_url=spelling(bench.server.url_of(ODS)))
    assert not bench.materialize()["students"].full
    assert not warnings(bench)


def test_13_instance_code_that_was_found_out_may_be_written_down(
    tmp_path: Path, storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SandboxServer([ODS], rows={"students": 8}, ods_version="6.1") as server:
        monkeypatch.setenv(KEY_VARIABLE, server.credentials[0])
        monkeypatch.setenv(SECRET_VARIABLE, server.credentials[1])
        bench = Bench(write_config(tmp_path, server, ["students"], **storage), server)
        bench.materialize()
        bench.configure_year(api_version="6.1", api_mode=server.site.book.mode)
        assert not bench.materialize()["students"].full
        assert not warnings(bench)


# -- one endpoint ---------------------------------------------------------------------------------------------


def filtered(bench: Bench, endpoint: str = "students", **parameters: str) -> None:
    def change(document: dict[str, Any]) -> None:
        document["extract"]["resources"][endpoint] = {"query_parameters": parameters}

    bench.configure(change)


def test_13_filter_taken_out_brings_what_it_kept_out(hosted: MakeBench) -> None:
    bench = hosted("students", "sessions", change_version_overlap=0)
    bench.add_student(1, lastSurname="Quill")
    filtered(bench, lastSurname="Quill")
    bench.materialize()
    assert len(bench.current("students")) == 1
    filtered(bench)
    results = bench.materialize()
    assert (results["students"].full, results["sessions"].full) == (True, False)
    (warning,) = warnings(bench)
    assert (
        warning == "grand_bend/2025 ed-fi/students: query parameter `lastsurname` was removed: full refresh"
    )
    verify_of(bench, ODS)


def test_13_filter_added_or_changed_leaves_only_what_passes_it(hosted: MakeBench) -> None:
    bench = hosted("students")
    names = {bench.add_student(n, lastSurname=name): name for n, name in enumerate(("Quill", "Reed"))}
    bench.materialize()
    for name, done in (("Quill", "added"), ("Reed", "changed")):
        filtered(bench, lastSurname=name)
        bench.materialize()
        (warning,) = warnings(bench)
        assert f"query parameter `lastsurname` was {done}" in warning
        assert name not in warning
        assert bench.current("students").keys() == {i for i, n in names.items() if n == name}
        assert not bench.materialize()["students"].full
    filtered(bench, LASTSURNAME="Reed")
    assert not bench.materialize()["students"].full


def test_13_profile_that_is_exchanged_or_taken_out_refreshes(
    hosted: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = hosted("students", "sessions")
    kept = {"Names": {"ed-fi/students": ["firstName"]}, "Dates": {"ed-fi/students": ["birthDate"]}}

    def read_by(**profile: str) -> str:
        bench.configure(lambda d: d["extract"]["resources"].update(students=profile))
        results = bench.materialize()
        assert (results["students"].full, results["sessions"].full) == (True, False)
        return warnings(bench)[0]

    bench.materialize(["sessions"])
    with monkeypatch.context() as assigned:
        assigned.setattr(bench.store.oddities, "profiles", kept)
        bench.configure(lambda d: d["extract"]["resources"].update(students={"profile": "Names"}))
        bench.materialize()
        assert all("firstName" in row for row in bench.current("students").values())
        assert "the profile was names and is dates" in read_by(profile="Dates")
        assert not any("firstName" in row for row in bench.current("students").values())
        bench.configure(lambda d: d["extract"]["resources"].update(students={"profile": "DATES"}))
        assert not bench.materialize()["students"].full
    assert "the profile was dates and is none" in read_by()
    verify_of(bench, ODS)


def test_13_filter_of_all_endpoints_is_one_warning(hosted: MakeBench) -> None:
    bench = hosted("students", "sessions", "locations")
    bench.materialize()
    bench.configure(lambda d: d["extract"]["endpoint_defaults"].update(query_parameters={"id": "0" * 32}))
    bench.materialize()
    assert len(warnings(bench)) == 1
    bench.configure(lambda d: d["extract"]["endpoint_defaults"].pop("query_parameters"))
    bench.materialize()
    assert len(warnings(bench)) == 1
    verify_of(bench, ODS)


def test_13_name_that_stands_for_another_endpoint_inherits_neither_rows_nor_watermark(
    hosted: MakeBench,
) -> None:
    """``tx/sessions`` of one standard that is ``ed-fi/sessions`` in the next."""
    bench = hosted("sessions", "students")
    bench.materialize()
    for row in bench.query(f"SELECT DISTINCT source FROM {LEDGER} WHERE name = 'sessions'"):
        source = json.loads(row[0])
        source["endpoint"] = "tx/sessions"
        bench.query(f"UPDATE {LEDGER} SET source = ? WHERE name = 'sessions'", [json.dumps(source)])
    results = bench.materialize()
    assert (results["sessions"].full, results["students"].full) == (True, False)
    assert warnings(bench) == ["grand_bend/2025 ed-fi/sessions: the name stood for tx/sessions: full refresh"]
    verify_of(bench, ODS)


LEDGER = "edfi3._meta_change_versions"


# -- ledgers without a source ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lacks", ["value", "column"])
def test_13_ledger_without_sources_is_taken_over_once_and_said(hosted: MakeBench, lacks: str) -> None:
    bench = hosted("students", "sessions")
    bench.materialize()
    if lacks == "value":
        bench.query(f"UPDATE {LEDGER} SET source = NULL")
    else:
        bench.query(f"ALTER TABLE {LEDGER} DROP COLUMN source")
        bench.warehouse.prepare([])
    bench.add_student(1)
    bench.told.clear()
    assert not any(result.full for result in bench.materialize().values())
    said = [told for told in bench.told if "before their source was noted" in told]
    assert len(said) == 1
    bench.told.clear()
    assert not any(result.full for result in bench.materialize().values())
    assert not [told for told in bench.told if "source" in told]
    bench.configure_year(base_url=bench.server.url_of(OTHER))
    assert all(result.full for result in bench.materialize().values())
    warnings(bench)
    verify_of(bench, OTHER)


def test_13_ledger_that_is_taken_over_is_said_once_though_deletes_are_read_no_more(hosted: MakeBench) -> None:
    bench = hosted("students")
    bench.materialize()
    bench.query(f"UPDATE {LEDGER} SET source = NULL")
    bench.configure(lambda d: d["extract"]["endpoint_defaults"].update(fetch_deletes=False))
    for times in (1, 0):
        bench.told.clear()
        bench.materialize()
        assert sum("before their source was noted" in told for told in bench.told) == times


def test_13_watermark_set_by_hand_keeps_its_source(hosted: MakeBench) -> None:
    from edfi_dagster.warehouse.lease import holding
    from edfi_dagster.warehouse.watermarks import set_watermark

    bench = hosted("students")
    bench.materialize()
    with holding(bench.warehouse, PAIR, waiting=print) as lease:
        set_watermark(bench.warehouse, lease, bench.endpoint("students"), RECORDS, 5)
    filtered(bench, lastSurname="Quill")
    assert bench.materialize()["students"].full


# -- killed, forecast, rebuilt, shared ------------------------------------------------------------------------


def test_13_run_killed_before_it_read_the_new_source_is_made_up_for(
    hosted: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = hosted("students", "sessions")
    bench.materialize()
    bench.configure_year(base_url=bench.server.url_of(OTHER))

    def killed(*args: object) -> None:
        raise WarehouseError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr("edfi_dagster.extract.run.before_a_run", killed)
        with pytest.raises(WarehouseError, match="cut off"):
            bench.materialize(["students"])
    assert bench.watermarks() == {}
    bench.configure_year(base_url=bench.server.url_of(ODS))
    bench.materialize()
    warnings(bench)
    verify_of(bench, ODS)


def test_13_forecast_counts_a_changed_source_as_news(hosted: MakeBench) -> None:
    bench = hosted("students", "sessions", change_version_overlap=0)
    bench.materialize()
    assert bench.forecast() == []
    filtered(bench, lastSurname="Quill")
    assert bench.forecast() == ["students"]
    filtered(bench)
    assert bench.forecast() == []
    bench.configure_year(base_url=bench.server.url_of(OTHER))
    assert set(bench.forecast()) == {"students", "sessions"}
    assert bench.watermarks()  # asking forgets nothing


def test_13_rebuild_takes_the_pulls_of_the_configured_source_alone(hosted: MakeBench) -> None:
    bench = hosted("students", "sessions", change_version_overlap=0)
    bench.materialize()
    bench.add_student(1)
    bench.materialize()
    bench.configure_year(base_url=bench.server.url_of(OTHER))
    bench.materialize()
    bench.server.store(OTHER).post("students", student(1))
    bench.materialize()
    warnings(bench)
    bench.configure_year(base_url=bench.server.url_of(ODS))
    assert not failures(bench.rebuild("grand_bend"))
    verify_of(bench, ODS)
    bench.configure_year(base_url=bench.server.url_of(OTHER))
    assert not failures(bench.rebuild("lakeview"))
    verify_of(bench, OTHER)
    assert not any(result.full for result in bench.materialize().values())


def test_13_rebuild_from_a_lake_that_holds_only_another_source_is_refused(hosted: MakeBench) -> None:
    bench = hosted("students")
    bench.configure_year(base_url=bench.server.url_of(OTHER))
    bench.materialize()
    bench.configure_year(base_url=bench.server.url_of(ODS))
    (cause,) = bench.rebuild()["students"].failures.values()
    assert "grand_bend/2025 ed-fi/students" in cause
    assert "the address was" in cause
    assert "full_refresh" in cause
    assert bench.raw("students") == []


def test_13_deployments_that_share_a_lake_do_not_load_each_others_pulls(
    hosted: MakeBench, tmp_path: Path
) -> None:
    mine = hosted("students", "sessions", change_version_overlap=0)
    mine.materialize()
    folder = tmp_path / "theirs"
    folder.mkdir()
    theirs = Bench(mine.config, mine.server)
    theirs.config = folder / "platform.yaml"
    theirs.config.write_text(mine.config.read_text())
    theirs.configure_year(base_url=mine.server.url_of(OTHER))
    theirs.lake = mine.lake
    theirs.move_to_warehouse("theirs")
    theirs.materialize()
    theirs.server.store(OTHER).post("students", student(2))
    theirs.materialize(load=False)
    before = mine.state()
    result = mine.load_stored(["students", "sessions"])["students"]
    assert result.kinds[RECORDS].result == Result.UNCHANGED
    assert mine.state() == before
    assert not failures(mine.rebuild())
    mine.verify()


def test_13_delta_of_another_source_is_not_put_on_a_full_pull(hosted: MakeBench) -> None:
    """Also where the run that read it left no manifest but only its line in ``run.json``."""
    bench = hosted("students", "sessions", change_version_overlap=0)
    bench.materialize()
    bench.add_student(1)
    bench.materialize()
    last = stamps(bench.lake, PAIR)[-1]
    folder = run_folder(PAIR, last)
    for path in (f"{folder}/resources/students.manifest.json", f"{folder}/run.json"):
        document = json.loads(bench.lake.read(path))
        of_ods = document["source"]["ods"] if "ods" in document["source"] else document["source"]
        of_ods["key"] = "another"
        del document["sha256"]
        write_sealed(bench.lake, path, document)
    low = bench.query(f"SELECT min(max_version) FROM {LEDGER}")[0][0]
    bench.rebuild()
    assert set(bench.watermarks().values()) == {low}
    bench.materialize()
    verify_of(bench, ODS)
