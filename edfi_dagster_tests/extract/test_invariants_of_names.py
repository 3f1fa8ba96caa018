"""The invariant of names: a new name in the configuration moves no row and loses none."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import pytest

from edfi_dagster.extract import Result
from edfi_dagster.health.findings import State
from edfi_dagster.health.freshness import read_warehouse
from edfi_dagster.health.stores import examine_warehouse
from edfi_dagster.lake.manifest import read_manifest, stamps, write_manifest
from edfi_dagster.lake.paths import run_folder
from edfi_dagster.ods.pages import RECORDS
from edfi_dagster.warehouse.contract import WarehouseError
from edfi_dagster.warehouse.opening import open_warehouse
from edfi_dagster_tests.bench import PAIR, Bench, changed

pytestmark = pytest.mark.both_storages
MakeBench = Callable[..., Bench]
LEDGER = "edfi3._meta_change_versions"


def loaded(make_bench: MakeBench) -> Bench:
    """A bench with tombstones, key changes and descriptors, on a warehouse of its own."""
    bench = make_bench("students", "sessions", descriptors=("termDescriptors",))
    bench.move_to_warehouse("named")
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", gone)
    bench.rename_session("Autumn")
    bench.materialize()
    bench.server.requests.clear()
    return bench


def name_tables(bench: Bench, **names: str) -> None:
    bench.configure(lambda document: document.update(tables=names))


def go_on(bench: Bench) -> None:
    """Nothing is read anew, and nothing that was deleted lives again."""
    state = bench.state()
    results = bench.materialize()
    assert not any(result.table_changed for result in results.values())
    assert not results["students"].full
    assert bench.state() == state
    bench.verify()


@pytest.mark.parametrize("role", ["deletes", "key_changes", "descriptors", "change_versions"])
def test_17_new_name_of_a_shared_table_is_refused_until_the_table_has_it(
    make_bench: MakeBench, role: str
) -> None:
    bench = loaded(make_bench)
    old = getattr(bench.platform.tables, role)
    with pytest.raises(WarehouseError, match=rf"tables\.{role} is gone, but the rows lie in") as refused:
        name_tables(bench, **{role: "gone"})
    assert f"write tables.{role}: {old}" in str(refused.value)
    with pytest.raises(WarehouseError, match="rename the table"):
        open_warehouse(bench.platform, bench.lake, print).setup([])
    assert bench.server.requests.matching("/ed-fi/") == []
    name_tables(bench)
    go_on(bench)
    statement = re.search(r"ALTER TABLE .*", str(refused.value))
    assert statement
    bench.query(statement[0])
    name_tables(bench, **{role: "gone"})
    go_on(bench)
    bench.add_student(2)
    bench.materialize()
    bench.verify()
    name_tables(bench, **{role: "GONE"})
    go_on(bench)


def test_17_new_name_is_refused_in_a_warehouse_that_remembers_no_names(make_bench: MakeBench) -> None:
    """Of Airflow, or of an earlier version: default names count, and an empty table is none."""
    bench = loaded(make_bench)
    bench.query("DROP TABLE edfi3._meta_tables")
    with pytest.raises(WarehouseError, match="rename the table: ALTER TABLE"):
        name_tables(bench, deletes="gone")
    bench.query('CREATE TABLE edfi3."GONE" AS SELECT * FROM edfi3._deletes LIMIT 0')
    with pytest.raises(WarehouseError, match=r"rename the table: DROP TABLE .*; ALTER TABLE"):
        name_tables(bench, deletes="gone")
    name_tables(bench)
    go_on(bench)


def test_17_own_names_from_the_first_run_on_are_kept_and_remembered(make_bench: MakeBench) -> None:
    bench = make_bench("students", descriptors=("termDescriptors",))
    bench.move_to_warehouse("own")
    bench.query("DROP TABLE IF EXISTS edfi3._meta_tables")
    name_tables(bench, deletes="tombstones", descriptors="terms")
    bench.materialize()
    bench.verify()
    with pytest.raises(
        WarehouseError, match=r"tables\.descriptors is _descriptors, but the rows lie in .*terms"
    ):
        name_tables(bench, deletes="tombstones")
    name_tables(bench, deletes="others", descriptors="terms")  # there is no tombstone yet to be left behind
    go_on(bench)


def test_17_table_renamed_in_the_warehouse_alone_is_not_made_anew(make_bench: MakeBench) -> None:
    bench = loaded(make_bench)
    bench.query(f"ALTER TABLE edfi3._deletes RENAME TO {_target(bench, 'gone')}")
    with pytest.raises(
        WarehouseError, match=r"was there and is gone; if it was renamed, write its new name under"
    ):
        name_tables(bench)
    name_tables(bench, deletes="gone")
    go_on(bench)


def test_17_view_under_the_old_name_is_no_table(make_bench: MakeBench) -> None:
    bench = loaded(make_bench)
    bench.query(f"ALTER TABLE edfi3._deletes RENAME TO {_target(bench, 'gone')}")
    bench.query("CREATE VIEW edfi3._deletes AS SELECT * FROM edfi3.gone")
    name_tables(bench, deletes="gone")
    go_on(bench)
    bench.query("DROP VIEW edfi3._deletes")


def test_17_two_names_that_change_places_are_refused(make_bench: MakeBench) -> None:
    bench = loaded(make_bench)
    with pytest.raises(WarehouseError, match=r"tables\.deletes is _key_changes") as refused:
        name_tables(bench, deletes="_key_changes", key_changes="_deletes")
    assert "is another table, which has rows" in str(refused.value)


def test_17_prefix_of_the_asset_keys_moves_nothing(make_bench: MakeBench) -> None:
    bench = loaded(make_bench)
    name_tables(bench, asset_prefix="raw")
    go_on(bench)


# -- names of endpoints ---------------------------------------------------------------------------------------


def stored_as(bench: Bench, name: str, *, source: bool = True) -> None:
    """Let what is stored of locations be stored under another name, as an earlier rule gave it."""
    bench.query(f"CREATE TABLE IF NOT EXISTS edfi3.{name} AS SELECT * FROM edfi3.locations LIMIT 0")
    bench.query(f"INSERT INTO edfi3.{name} SELECT * REPLACE ('{name}' AS name) FROM edfi3.locations")
    bench.query("DELETE FROM edfi3.locations")
    for table in ("_deletes", "_key_changes", "_meta_change_versions"):
        bench.query(f"UPDATE edfi3.{table} SET name = '{name}' WHERE name = 'locations'")
    if not source:
        bench.query(f"UPDATE {LEDGER} SET source = NULL")


def in_locations(make_bench: MakeBench) -> Bench:
    bench = make_bench("locations", "students", change_version_overlap=0)
    bench.move_to_warehouse("named")
    bench.materialize()
    gone = bench.store.ids("locations")[0]
    pattern = bench.store.rows("locations")[1]
    new = bench.store.post("locations", changed(pattern, classroomIdentificationCode="cellar"))
    bench.materialize()
    bench.store.delete("locations", new)
    bench.change("locations", gone, classroomIdentificationCode="attic")
    bench.materialize()
    return bench


@pytest.mark.parametrize(("former", "source"), [("rooms", True), ("ed_fi_locations", False)])
def test_17_rows_under_a_former_name_of_their_endpoint_are_found(
    make_bench: MakeBench, former: str, source: bool
) -> None:
    bench = in_locations(make_bench)
    state = bench.state()
    stored_as(bench, former, source=source)
    bench.told.clear()
    results = bench.materialize()
    assert not any(result.full or result.table_changed for result in results.values())
    assert bench.state() == state
    bench.verify()
    assert bench.query(f"SELECT 1 FROM edfi3.{former}") == []
    assert [told for told in bench.told if "is called" in told] == [
        f"grand_bend/2025 ed-fi/locations: is called locations now; what was stored as {former} has moved there"
    ]
    bench.add_student(1)
    bench.materialize()
    bench.verify()


def test_17_what_a_bundle_put_there_goes_along(make_bench: MakeBench) -> None:
    bench = in_locations(make_bench)
    stored_as(bench, "rooms")
    for table in ("rooms", "_meta_change_versions"):
        row = f"SELECT * REPLACE ('rooms__psat' AS name) FROM edfi3.{table} LIMIT 1"
        bench.query(f"INSERT INTO edfi3.{table} {row}")
    bench.materialize()
    assert bench.query("SELECT count(*) FROM edfi3.locations WHERE name = 'locations__psat'") == [(1,)]
    assert bench.query("SELECT 1 FROM edfi3.rooms") == []


def test_17_rows_under_the_name_of_another_endpoint_are_left_to_it(make_bench: MakeBench) -> None:
    """Of a ledger that notes no sources, nothing may be guessed that another endpoint claims."""
    bench = make_bench("locations", "homograph/locations", descriptors=())
    bench.move_to_warehouse("named")
    bench.materialize(["ed-fi/locations"])
    bench.query(f"UPDATE {LEDGER} SET source = NULL")
    assert not bench.materialize(["ed-fi/locations"])["locations"].full
    assert bench.raw("homograph_locations") == []
    bench.verify(["ed-fi/locations"])


def test_17_rows_of_an_endpoint_that_is_chosen_no_more_are_taken_for_no_other(make_bench: MakeBench) -> None:
    """Nobody noted whose they are, but the standard has an endpoint of that very name."""
    bench = make_bench("locations", descriptors=())
    bench.move_to_warehouse("named")
    bench.materialize()
    rows = bench.raw("locations")
    bench.query(f"UPDATE {LEDGER} SET source = NULL")
    bench.configure(lambda document: document["extract"].update(resources={"homograph/locations": {}}))
    assert bench.materialize()["locations"].kinds[RECORDS].result == Result.NOT_OFFERED
    assert bench.raw("locations") == rows
    assert bench.raw("homograph_locations") == []


def test_17_table_selected_alone_and_rebuild_find_a_former_name(make_bench: MakeBench) -> None:
    bench = in_locations(make_bench)
    state = bench.state()
    stored_as(bench, "rooms")
    bench.load_stored(["locations"])
    assert bench.state() == state
    for path in [path for path in _manifests(bench) if path.endswith("/locations.manifest.json")]:
        manifest = read_manifest(bench.lake, path)
        bench.lake.delete(path)
        moved = f"{path.removesuffix('locations.manifest.json')}rooms.manifest.json"
        write_manifest(bench.lake, moved, msgspec.structs.replace(manifest, name="rooms", table="rooms"))
    bench.rebuild()
    assert bench.state()[0] == state[0]
    bench.materialize()
    bench.verify()


def _manifests(bench: Bench) -> list[str]:
    runs = [run_folder(PAIR, stamp) for stamp in stamps(bench.lake, PAIR)]
    folders = [f"{run}/{folder}" for run in runs for folder in bench.lake.children(run)]
    return [f"{folder}/{name}" for folder in folders for name in bench.lake.children(folder)]


def _target(bench: Bench, name: str) -> str:
    """What RENAME TO takes: Snowflake wants the schema again."""
    return f"edfi3.{name}" if bench.platform.warehouse.kind == "snowflake" else name


def test_17_check_and_status_tell_of_a_table_under_another_name(make_bench: MakeBench) -> None:
    bench = loaded(make_bench)
    with pytest.raises(WarehouseError):
        name_tables(bench, change_versions="gone")
    block = examine_warehouse(bench.platform, bench.endpoints, print)
    (finding,) = (found for found in block.findings if found.state == State.FAILED)
    assert "tables.change_versions is gone, but the rows lie in" in finding.found
    with pytest.raises(WarehouseError, match=r"tables\.change_versions is gone"):
        read_warehouse(bench.platform, bench.lake, {PAIR: bench.endpoints}, print, 10)
