"""What trips up client authors, points 13 to 20 of 34: deletes, key changes, visibility, snapshots. See ``test_protocol``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edfi_dagster.extract import Result
from edfi_dagster.ods.changes import whole_window
from edfi_dagster.ods.errors import SnapshotGone
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES
from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster.sandbox.generations import GENERATIONS
from edfi_dagster_tests.bench import ODS, Bench, changed, set_credentials, student, write_config
from edfi_dagster_tests.ods.test_protocol import collection, on, reading, rooms, walk, walk_changes

MakeBench = Callable[..., Bench]
PLAN_TYPE = "uri://ed-fi.org/GraduationPlanTypeDescriptor"


@pytest.fixture
def sandbox(sandbox: SandboxServer) -> SandboxServer:
    """Each of these tests keeps its token to itself, and a key has fifteen."""
    sandbox.expire_tokens()
    return sandbox


def rename(store: Store, record_id: str, code: str) -> None:
    body = changed(store.get("locations", record_id), classroomIdentificationCode=code)
    store.put("locations", record_id, body)


@on("5.3", "6.1", "7.3")
def test_13_newest_version_and_deletes_are_read_in_pascal_and_in_camel_case(
    version: str, sandbox: SandboxServer
) -> None:
    store = sandbox.store(ODS)
    made = rooms(store, 3)
    for record_id in made:
        store.delete("locations", record_id)
    with reading(sandbox) as session:
        assert session.newest_change_version() == store.newest
        pages = collection(session, "locations", DELETES, page_size=2)
        found = pages.page_at(whole_window(store.newest), 0)
        assert (b'"Id"' in found.rows[0], b'"id"' in found.rows[0]) == (version == "5.3", version != "5.3")
        assert found.lines.change_versions == (store.newest - 2, store.newest - 1)
        assert walk_changes(pages, whole_window(store.newest)) == made


@on("5.3")
def test_14_deletes_without_keys_are_applied_by_id_and_key_changes_not_asked_for_where_there_are_none(
    version: str, make_bench: MakeBench
) -> None:
    bench = make_bench("locations", change_version_overlap=0)
    gone, renamed, _ = rooms(bench.store, 3)
    bench.materialize()
    bench.store.delete("locations", gone)
    rename(bench.store, renamed, "renamed")
    results = bench.materialize()
    assert bench.raw("_deletes", "locations")[0][2].keys() == {"Id", "ChangeVersion"}
    assert "key_changes" not in results["locations"].kinds
    assert not bench.server.requests.matching("/keyChanges")
    assert len([row for row in bench.raw("locations") if row[0] == renamed]) == 1, "the old key is taken away"
    bench.verify()


@pytest.fixture
def cqe(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """The edition of 5.3 with the change queries of 6.0, which calls itself 5.3."""
    edition = replace(GENERATIONS["5.3"], keyed_deletes=True, key_changes=True)
    monkeypatch.setitem(GENERATIONS, "5.3-cqe", edition)
    with SandboxServer([ODS], rows={"students": 4}, ods_version="5.3-cqe") as server:
        set_credentials(server)
        yield server


def test_14_key_changes_are_read_from_a_5_3_that_publishes_them(cqe: SandboxServer, tmp_path: Path) -> None:
    bench = Bench(write_config(tmp_path, cqe, ["sessions", "courseOfferings", "sections"]), cqe)
    bench.materialize()
    bench.rename_session("Autumn")
    bench.materialize()
    assert cqe.requests.matching("/sections/keyChanges")
    bench.verify()


@on("5.3", "6.1", "7.3")
def test_15_a_recreated_key_has_a_new_id_and_the_old_one_goes_although_nothing_may_report_it(
    version: str, make_bench: MakeBench
) -> None:
    bench = make_bench("students", "locations", change_version_overlap=0)
    people, places = [bench.add_student(n) for n in range(3)], rooms(bench.store, 3)
    bench.materialize()
    again = [bench.recreate("students", people[0]), bench.recreate("locations", places[0])]
    is_told = version == "5.3"
    assert bool(bench.store.generation.keyed_deletes) != is_told
    bench.materialize()
    assert again[0] in bench.current("students") and people[0] not in bench.current("students")
    assert again[1] in bench.current("locations") and places[0] not in bench.current("locations")
    assert (people[0] in bench.deletes("students")) == is_told
    bench.verify()


@on("6.1", "7.3")
@pytest.mark.parametrize("read_between", [False, True])
def test_16_a_tombstone_beside_the_living_row_of_a_recreated_descriptor_takes_nothing_along(
    version: str, read_between: bool, make_bench: MakeBench
) -> None:
    bench = make_bench("graduationPlans", descriptors=("graduationPlanTypeDescriptors",))
    store = bench.store
    plan_type = {"namespace": PLAN_TYPE, "codeValue": "Mine", "shortDescription": "Mine"}
    described = store.post("graduationPlanTypeDescriptors", plan_type)
    body = changed(store.rows("graduationPlans")[0], graduationPlanTypeDescriptor=f"{PLAN_TYPE}#Mine")
    old = store.post("graduationPlans", body)
    bench.materialize()
    store.delete("graduationPlans", old)
    store.delete("graduationPlanTypeDescriptors", described)
    if read_between:
        bench.materialize()
    store.post("graduationPlanTypeDescriptors", plan_type)
    new = store.post("graduationPlans", body)
    assert [row["id"] for row in store.deletes("graduationPlans")] == [old], "it is not hidden"
    for _ in range(2):  # the overlap shows the tombstone again
        bench.materialize()
        assert new in bench.current("graduationPlans")
        bench.verify()


@on("6.1", "7.3")
def test_17_key_changes_are_read_in_one_undivided_window_and_never_of_descriptors(
    version: str, make_bench: MakeBench
) -> None:
    bench = make_bench(
        "locations",
        descriptors=("gradeLevelDescriptors",),
        endpoint_defaults={"page_size": 2, "change_version_step_size": 2},
        change_version_overlap=0,
    )
    made = rooms(bench.store, 5)
    bench.materialize()
    bench.server.requests.clear()
    for turn in ("first", "second"):
        for number, record_id in enumerate(made):
            rename(bench.store, record_id, f"{turn} {number}")
    bench.materialize()
    asked = bench.server.requests.matching("/keyChanges")
    assert len(asked) > 1
    assert len({(r.query["minChangeVersion"], r.query["maxChangeVersion"]) for r in asked}) == 1
    people = {f"{name}/keyChanges" for name in ("students", "staffs", "contacts", "parents")}
    assert {r.path.rpartition("/ed-fi/")[2] for r in asked} - people == {"locations/keyChanges"}
    loaded = [
        (i, change["oldKeyValues"], change["newKeyValues"]) for i, _, change in bench.raw("_key_changes")
    ]
    assert sorted(i for i, _, _ in loaded) == sorted(made), "one for each, from its first key to its last"
    codes = [(o["classroomIdentificationCode"], n["classroomIdentificationCode"]) for _, o, n in loaded]
    assert {(o[:4], n[:6]) for o, n in codes} == {("room", "second")}
    bench.verify()


@on("6.1", "7.3")
def test_18_deletes_and_key_changes_may_be_forbidden_where_records_are_not(
    version: str, make_bench: MakeBench
) -> None:
    bench = make_bench("locations", "students")
    bench.store.deny("locations", read=False)
    kinds = bench.materialize()["locations"].kinds
    assert kinds["records"].result == Result.LOADED
    assert {kinds[kind].result for kind in (DELETES, KEY_CHANGES)} == {Result.NOT_PERMITTED}
    rename(bench.store, bench.store.ids("locations")[0], "renamed")
    bench.materialize()
    bench.verify()


@on("6.1", "7.3")
def test_19_what_becomes_visible_or_invisible_without_a_change_comes_and_goes_with_a_full_refresh(
    version: str, make_bench: MakeBench
) -> None:
    """A new claim shows records with old versions; a lost one, or a purge of the tombstones, reports nothing."""
    bench = make_bench("students", "locations", change_version_overlap=0)
    shown_late = bench.store.begin()
    shown = shown_late.post("students", student(1))
    hidden = bench.add_student(2)
    bench.materialize()
    shown_late.commit()
    bench.store.delete("students", hidden)
    bench.store.connection.execute("DELETE FROM tombstone")
    bench.materialize()
    assert shown not in bench.current("students") and hidden in bench.current("students")
    bench.materialize(full_refresh=True)
    assert shown in bench.current("students") and hidden not in bench.current("students")
    bench.verify()


@on("5.3", "6.1", "7.0", "7.3")
def test_20_a_snapshot_is_chosen_from_a_list_or_is_the_only_one_and_is_told_when_gone(
    version: str, sandbox: SandboxServer
) -> None:
    store = sandbox.store(ODS)
    store.take_snapshot()
    store.post("students", student(1))
    store.take_snapshot()
    newest, present = store.newest, set(store.ids("students"))
    store.post("students", student(2))
    with reading(sandbox) as session:
        session.start_snapshot()
        assert session.newest_change_version() == newest
        assert set(walk(collection(session, "students"))) == present
        listed = version in ("5.3", "6.1")
        assert bool(sandbox.requests.matching("/snapshots")) == listed
        store.drop_snapshot()
        with pytest.raises(SnapshotGone, match=rf"HTTP {410 if listed else 404}, the snapshot"):
            walk(collection(session, "students"))
