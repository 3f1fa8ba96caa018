"""Runs that read a snapshot: what is loaded is the snapshot's, and one that goes or is replaced loses nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edfi_dagster.ods.errors import OdsNotReady, SnapshotGone
from edfi_dagster.sandbox import RequestInfo
from edfi_dagster_tests.bench import Bench, changed, student

MakeBench = Callable[..., Bench]

LISTED = pytest.param("6.1", marks=pytest.mark.ods("6.1"))
SINGLE = pytest.param("7.3", marks=pytest.mark.ods("7.3"))
BOTH = [LISTED, SINGLE]
ENDPOINTS = ("students", "locations", "sessions", "courseOfferings", "sections")


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """A platform that reads snapshots, page by page, one endpoint after the other."""
    bench = make_bench(
        *ENDPOINTS,
        descriptors=("gradeLevelDescriptors",),
        use_snapshot=True,
        change_version_overlap=50,
        max_concurrent_requests=1,
        endpoint_defaults={"page_size": 5, "num_retries": 1},
    )
    bench.pause = lambda seconds: None
    return bench


def catch_up(bench: Bench) -> None:
    """A quiet night: a snapshot of what stands in the ODS, and one run."""
    bench.store.replace_snapshot()
    bench.materialize()
    bench.verify()


def names_of(bench: Bench) -> set[str]:
    return {row["lastSurname"] for row in bench.current("students").values()}


@pytest.mark.parametrize("version", BOTH)
def test_what_is_loaded_is_the_snapshot_and_not_what_moved_since(version: str, bench: Bench) -> None:
    gone = bench.add_student(1)
    bench.store.take_snapshot()
    newest = bench.store.newest
    bench.add_student(2)
    bench.store.delete("students", gone)
    bench.rename_session("Autumn")
    bench.materialize()
    assert gone in bench.current("students")
    assert "Ämne 2" not in names_of(bench)
    assert {row["sessionName"] for row in bench.current("sessions").values()}.isdisjoint({"Autumn"})
    assert set(bench.watermarks().values()) == {newest}
    catch_up(bench)
    assert gone in bench.deletes("students")


@pytest.mark.parametrize("version", BOTH)
def test_every_request_of_data_and_changes_reads_the_same_snapshot(version: str, bench: Bench) -> None:
    identifier = bench.store.take_snapshot()
    bench.materialize()
    bench.rename_session("Autumn")
    bench.materialize()
    name, value = ("snapshot-identifier", identifier) if version == "6.1" else ("use-snapshot", "true")
    asked = [r for r in bench.server.requests if "/data/" in r.path or "availableChangeVersions" in r.path]
    asked = [r for r in asked if "/metadata/" not in r.path]
    assert {r.path.rpartition("/")[2] for r in asked} >= {"deletes", "keyChanges", "students"}
    assert {r.headers.get(name) for r in asked} == {value}


@pytest.mark.parametrize("version", BOTH)
def test_without_any_snapshot_nothing_is_read(version: str, bench: Bench) -> None:
    with pytest.raises(
        OdsNotReady, match=r"^grand_bend/2025: the ODS has no snapshot; .*use_snapshot: false"
    ):
        bench.materialize()
    assert bench.server.requests.matching("/ed-fi/") == []
    catch_up(bench)


@pytest.mark.ods("6.1")
def test_the_latest_of_several_snapshots_is_read(bench: Bench) -> None:
    bench.store.take_snapshot()
    bench.add_student(1)
    bench.store.take_snapshot()
    bench.materialize()
    bench.verify()


@pytest.mark.parametrize("full", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize("version", BOTH)
def test_a_snapshot_that_goes_in_the_middle_is_followed_by_the_next_one(
    version: str, full: bool, bench: Bench
) -> None:
    """What was durable stays; what was not is read again, up to where the next snapshot stands."""
    if not full:
        catch_up(bench)
    _move(bench, "Autumn", 1)
    bench.store.replace_snapshot()

    def lose() -> None:
        _move(bench, "Winter", 2)
        bench.store.drop_snapshot()
        if version == "6.1":
            bench.store.take_snapshot()
        else:  # there the next one would be read on without notice
            bench.server.before_request.append(_late(bench))

    bench.at_request("/locations", lose, nth=2)
    bench.materialize()
    assert any(
        "snapshot is not there any more; reading what is left from the next one" in t for t in bench.told
    )
    bench.server.before_request.clear()
    catch_up(bench)
    assert not any(result.table_changed for result in bench.materialize().values())


@pytest.mark.parametrize("version", BOTH)
def test_a_snapshot_that_goes_and_is_not_followed_ends_the_run_and_loses_nothing(
    version: str, bench: Bench
) -> None:
    catch_up(bench)
    _move(bench, "Autumn", 1)
    bench.store.replace_snapshot()
    before = bench.watermarks()
    bench.at_request("/locations", bench.store.drop_snapshot, nth=1)
    with pytest.raises(OdsNotReady, match="the ODS has no snapshot"):
        bench.materialize()
    after = bench.watermarks()
    assert after["locations", "records"] == before["locations", "records"]
    assert set(after.values()) <= {*before.values(), bench.store.newest}
    bench.server.before_request.clear()
    catch_up(bench)


@pytest.mark.ods("6.1")
def test_snapshots_that_keep_going_end_the_run(bench: Bench) -> None:
    catch_up(bench)

    def replace(request: RequestInfo) -> None:
        if request.path.endswith("/students"):
            bench.store.replace_snapshot()

    bench.server.before_request.append(replace)
    bench.add_student(1)
    bench.store.replace_snapshot()
    with pytest.raises(SnapshotGone, match="the snapshot is not there any more"):
        bench.materialize()
    bench.server.before_request.clear()
    catch_up(bench)


@pytest.mark.parametrize("full", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize("version", BOTH)
def test_a_newer_snapshot_in_the_middle_loses_nothing(version: str, full: bool, bench: Bench) -> None:
    """On 6.1 the one that is read stays to the end; on 7.3 the next page comes from another state without notice."""
    if not full:
        catch_up(bench)
    _move(bench, "Autumn", 1)
    bench.store.replace_snapshot()

    def replace() -> None:
        _move(bench, "Winter", 2)
        bench.store.take_snapshot()

    bench.at_request("/students", replace, nth=2)
    bench.materialize()
    bench.server.before_request.clear()
    catch_up(bench)
    assert "Ämne 2" in names_of(bench)


@pytest.mark.parametrize("version", BOTH)
def test_an_older_snapshot_than_what_was_loaded_stops_with_the_remedy(version: str, bench: Bench) -> None:
    """A backup that is put in the snapshot's place: nothing is read from it, and nothing is forgotten."""
    store = bench.store
    store.save("earlier")
    bench.add_student(1)
    catch_up(bench)
    before = bench.state()
    store.save("now")
    store.restore("earlier")
    store.replace_snapshot()
    with pytest.raises(OdsNotReady, match="the ODS's snapshot is older than what was loaded before"):
        bench.materialize()
    assert bench.state() == before
    store.restore("now")
    bench.add_student(2)
    catch_up(bench)


@pytest.mark.ods("7.3")
def test_an_older_snapshot_in_the_middle_is_noticed_at_the_end_and_read_anew(bench: Bench) -> None:
    """Nothing said so while it was read: what was committed of it cannot be trusted, so all is read again."""
    store = bench.store
    store.save("earlier")
    bench.add_student(1)
    catch_up(bench)
    bench.add_student(2)
    store.replace_snapshot()

    def go_back() -> None:
        store.save("now")
        store.restore("earlier")
        store.replace_snapshot()
        store.restore("now")

    bench.at_request("/students", go_back, nth=1)
    with pytest.raises(OdsNotReady, match="the ODS's snapshot is older than what was loaded before"):
        bench.materialize()
    bench.server.before_request.clear()
    store.replace_snapshot()
    assert all(result.full for result in bench.materialize(["students", "sections"]).values())
    bench.materialize()
    bench.verify()


@pytest.mark.parametrize("version", BOTH)
def test_a_commit_that_the_snapshot_missed_is_read_with_a_later_one(version: str, bench: Bench) -> None:
    catch_up(bench)
    late = bench.store.begin()
    late.post("students", student(1, lastSurname="Late"))
    bench.add_student(2)
    bench.store.replace_snapshot()
    bench.materialize()
    late.commit()
    catch_up(bench)
    assert "Late" in names_of(bench)


def _move(bench: Bench, session: str, number: int) -> None:
    """Something of every kind: a record that comes, one that changes, one that goes, and a key change."""
    bench.add_student(number)
    bench.change("students", bench.store.ids("students")[0], firstName=f"Changed {number}")
    rooms = bench.store.rows("locations")
    bench.store.post("locations", changed(rooms[0], classroomIdentificationCode=f"mine {number}"))
    for room in rooms:
        if room["classroomIdentificationCode"] == f"mine {number - 1}":
            bench.store.delete("locations", room["id"])
    bench.rename_session(session)


def _late(bench: Bench) -> Callable[[object], None]:
    """A hook that takes the next snapshot once the run has been told that there is none."""
    left = [1]

    def hook(request: object) -> None:
        if left and any("snapshot is not there any more" in told for told in bench.told):
            left.clear()
            bench.store.take_snapshot()

    return hook
