"""The invariants of shared tables, re-created keys and changed keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edfi_dagster.ods.pages import DELETES, KEY_CHANGES
from edfi_dagster.sandbox import Store
from edfi_dagster_tests.bench import SCHEDULING, Bench, changed

MakeBench = Callable[..., Bench]

pytestmark = pytest.mark.both_storages
CLASSES = ("sessions", "courseOfferings", "sections", "studentSectionAssociations")


def graduation_plan(store: Store, code: str) -> dict[str, Any]:
    """A graduation plan of a type of its own, whose descriptor is part of its natural key."""
    kind = "uri://ed-fi.org/GraduationPlanTypeDescriptor"
    store.post(
        "graduationPlanTypeDescriptors",
        {"namespace": kind, "codeValue": code, "shortDescription": code},
    )
    pattern = store.rows("graduationPlans")[0]
    return changed(pattern, graduationPlanTypeDescriptor=f"{kind}#{code}")


def recreate_plan(bench: Bench, plan: str, code: str) -> str:
    """Re-create a plan together with its type: the ODS then goes on showing the tombstone of the old one."""
    body = changed(bench.store.get("graduationPlans", plan))
    bench.store.delete("graduationPlans", plan)
    (descriptor,) = (
        row["id"] for row in bench.store.rows("graduationPlanTypeDescriptors") if row["codeValue"] == code
    )
    bench.recreate("graduationPlanTypeDescriptors", descriptor)
    return bench.store.post("graduationPlans", body)


def test_7_tombstone_read_again_never_gets_a_later_stamp(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    gone = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", gone)
    bench.materialize()
    first = bench.deletes()
    assert first == {gone: [bench.stamps()[-1]]}
    for n in range(2):
        bench.add_student(10 + n)
        bench.materialize()
    assert bench.deletes() == first
    bench.verify()


def test_7_tombstone_of_a_recreated_key_waits_while_the_records_fail(make_bench: MakeBench) -> None:
    bench = make_bench("graduationPlans", endpoint_defaults={"num_retries": 0})
    old = bench.store.post("graduationPlans", graduation_plan(bench.store, "Night school"))
    bench.materialize()
    new = recreate_plan(bench, old, "Night school")
    assert [row["id"] for row in bench.store.deletes("graduationPlans")] == [old]
    bench.server.faults.add("/graduationPlans$", status=500)
    result = bench.materialize(may_fail=True)["graduationPlans"]
    assert result.kinds[DELETES].cause == "waits for its records"
    assert bench.deletes() == {}
    bench.server.faults.clear()
    bench.materialize()
    assert new in bench.current("graduationPlans")
    bench.verify()
    bench.materialize()
    bench.verify()


def test_7_tombstone_read_after_the_record_that_replaced_it_does_not_take_it_along(
    make_bench: MakeBench,
) -> None:
    """The tombstone's stamp is then later than the living row's, and dbt would prefer the dead one.

    The ODS, asked by id, says that the replaced record is gone, so its row leaves before its tombstone comes.
    """
    bench = make_bench("graduationPlans")
    old = bench.store.post("graduationPlans", graduation_plan(bench.store, "Night school"))
    bench.materialize()
    new = recreate_plan(bench, old, "Night school")
    bench.store.deny("graduationPlans", read=False)
    result = bench.materialize(may_fail=True)["graduationPlans"]
    assert result.failures.keys() == {DELETES, KEY_CHANGES}
    assert result.rows_removed == 1
    bench.verify()
    bench.store.allow("graduationPlans")
    result = bench.materialize()["graduationPlans"]
    assert (result.rows_removed, result.kinds[DELETES].rows_loaded) == (0, 1)
    assert bench.deletes().keys() == {old}
    assert new in bench.current("graduationPlans")
    bench.verify()


def test_7_key_deleted_recreated_and_deleted_again_stays_deleted(make_bench: MakeBench) -> None:
    bench = make_bench("graduationPlans", "students")
    plan = bench.store.post("graduationPlans", graduation_plan(bench.store, "Night school"))
    student_id = bench.add_student(1)
    bench.materialize()
    bench.store.delete("graduationPlans", recreate_plan(bench, plan, "Night school"))
    again = bench.recreate("students", student_id)
    bench.materialize()
    bench.verify()
    bench.store.delete("students", again)
    bench.materialize()
    bench.verify()


def test_7_tombstone_hidden_by_a_record_that_lived_between_two_reads_is_found_later(
    make_bench: MakeBench,
) -> None:
    """A student is deleted, comes back while the run reads, and is gone again before the next, which begins far above."""
    bench = make_bench("students", change_version_overlap=3)
    student_id = bench.add_student(1)
    bench.materialize()
    bench.store.delete("students", student_id)
    for number in range(2, 12):
        bench.add_student(number)
    bench.at_request("/students/deletes", lambda: bench.add_student(1))
    bench.materialize()
    assert bench.deletes() == {}
    assert student_id in bench.current("students")
    (again,) = [row["id"] for row in bench.store.rows("students") if row["studentUniqueId"] == "bench-1"]
    bench.store.delete("students", again)
    for number in range(12, 22):
        bench.add_student(number)
    bench.materialize()
    assert bench.deletes().keys() == {student_id, again}
    bench.verify()
    before = len(bench.server.requests)
    bench.materialize()
    assert len([r for r in list(bench.server.requests)[before:] if r.path.endswith("/deletes")]) == 1


def test_8_key_change_takes_its_cascades_along(make_bench: MakeBench) -> None:
    bench = make_bench(*SCHEDULING)
    bench.materialize()
    bench.rename_session("Autumn")
    result = bench.materialize()
    bench.verify()
    assert result["sessions"].rows_removed == 1
    assert result["sections"].kinds[KEY_CHANGES].rows_loaded > 1
    bench.rename_session("Fall again")
    bench.materialize()
    bench.verify()


def test_8_key_change_whose_rows_do_not_come_along_is_read_by_id(make_bench: MakeBench) -> None:
    """Before ODS/API 7.3 a cascade leaves the change version of the rows it rewrites alone."""
    bench = make_bench(*CLASSES, change_version_overlap=0)
    bench.materialize()
    bench.store.cascade_bumps = False
    bench.rename_session("Autumn")
    result = bench.materialize()
    assert result["sections"].rows_inserted > 1
    bench.verify()
    assert not bench.materialize()["sections"].table_changed
    bench.verify()


def test_8_old_key_given_to_a_new_record_before_its_key_change_was_read(make_bench: MakeBench) -> None:
    bench = make_bench(*CLASSES, change_version_overlap=0, endpoint_defaults={"num_retries": 0})
    bench.materialize()
    bench.store.cascade_bumps = False
    session = bench.store.get("sessions", bench.store.ids("sessions")[0])
    offering = next(
        row
        for row in bench.store.rows("courseOfferings")
        if row["sessionReference"]["link"]["href"].endswith(session["id"])
    )
    bench.rename_session("Autumn")
    bench.store.post("sessions", changed(session))
    new = bench.store.post("courseOfferings", changed(offering))
    bench.server.faults.add("/courseOfferings/keyChanges$", status=500)
    result = bench.materialize(may_fail=True)["courseOfferings"]
    assert result.failures.keys() == {KEY_CHANGES}
    assert new in bench.current("courseOfferings")
    bench.server.faults.clear()
    bench.materialize()
    bench.verify()


def test_8_recreation_followed_by_a_key_change_leaves_no_ghost(make_bench: MakeBench) -> None:
    bench = make_bench("locations", change_version_overlap=0)
    pattern = bench.store.rows("locations")[0]
    old = bench.store.post("locations", changed(pattern, classroomIdentificationCode="cellar"))
    both = bench.store.post("locations", changed(pattern, classroomIdentificationCode="attic"))
    bench.materialize()
    new = bench.recreate("locations", old)
    bench.change("locations", bench.recreate("locations", both), classroomIdentificationCode="roof")
    bench.materialize()
    bench.verify()
    bench.change("locations", new, classroomIdentificationCode="vault")
    bench.materialize()
    bench.verify()


def test_8_record_rekeyed_then_deleted_while_its_new_key_lives_again_is_gone(make_bench: MakeBench) -> None:
    """The ODS hides its tombstone then; that it is not there any more is seen by asking for its id."""
    bench = make_bench("locations", change_version_overlap=0)
    pattern = bench.store.rows("locations")[0]
    old = bench.store.post("locations", changed(pattern, classroomIdentificationCode="cellar"))
    bench.materialize()
    bench.change("locations", old, classroomIdentificationCode="attic")
    bench.recreate("locations", old)
    assert bench.store.deletes("locations") == []
    assert bench.materialize()["locations"].rows_removed == 1
    bench.verify()
    requests = len(bench.server.requests.matching(old))
    assert not bench.materialize()["locations"].table_changed
    assert len(bench.server.requests.matching(old)) == requests  # not asked again night after night
    bench.rebuild()
    bench.verify()


def test_8_keys_that_change_hands_within_one_window(make_bench: MakeBench) -> None:
    bench = make_bench("locations")
    pattern = bench.store.rows("locations")[0]
    codes = ["red", "green", "blue"]
    ids = [bench.store.post("locations", changed(pattern, classroomIdentificationCode=c)) for c in codes]
    bench.materialize()
    for code, record_id in [("gone", ids[2]), ("blue", ids[1]), ("green", ids[0]), ("red", ids[2])]:
        bench.change("locations", record_id, classroomIdentificationCode=code)
    bench.materialize()
    bench.verify()
    for code, record_id in [("other", ids[0]), ("green", ids[2]), ("red", ids[0])]:
        bench.change("locations", record_id, classroomIdentificationCode=code)
    bench.materialize()
    bench.verify()


@pytest.mark.parametrize("also_recreated", [False, True])
def test_8_keys_changed_long_before_the_first_key_change_pull_are_cleared_up(
    make_bench: MakeBench, also_recreated: bool
) -> None:
    """Airflow leaves the row of the old key beside the new one, and that of a re-created id's predecessor."""
    bench = make_bench("sessions", change_version_overlap=0)
    bench.materialize()
    table = "edfi3.sessions"
    old_row = f"SELECT * REPLACE (pull_timestamp - INTERVAL 30 DAY AS pull_timestamp, {{v}} AS v) FROM {table} LIMIT 2"
    renamed = 'json_merge_patch(v, \'{"sessionName": "Long ago"}\')'
    recreated = 'json_merge_patch(v, \'{"id": "00000000000000000000000000000000"}\')'
    bench.query(f"INSERT INTO {table} {old_row.format(v=recreated if also_recreated else renamed)}")
    bench.query("DELETE FROM edfi3._meta_change_versions WHERE is_key_changes")
    result = bench.materialize()["sessions"]
    assert (result.full, result.rows_removed) == (False, 2)
    assert len(bench.raw("sessions")) == bench.store.count("sessions")
    bench.verify()


def test_8_key_change_of_an_endpoint_with_unknown_key_refreshes_it(make_bench: MakeBench) -> None:
    bench = make_bench("locations")
    bench.server.faults.add("/metadata/", status=404)
    unknown = replace(bench.endpoint("locations"), key={})
    bench.materialize([unknown])
    bench.change("locations", bench.store.ids("locations")[0], classroomIdentificationCode="new")
    assert bench.materialize([unknown])["locations"].full
    bench.verify()
    assert not bench.materialize([unknown])["locations"].full
    bench.verify()


def test_8_natural_key_of_an_extension_comes_from_the_openapi_document(make_bench: MakeBench) -> None:
    bench = make_bench("locations")
    unknown = replace(bench.endpoint("locations"), key={})
    bench.materialize([unknown])
    pattern = bench.store.rows("locations")[0]
    old = bench.store.post("locations", changed(pattern, classroomIdentificationCode="cellar"))
    bench.materialize([unknown])
    bench.change("locations", bench.recreate("locations", old), classroomIdentificationCode="attic")
    bench.change("locations", bench.store.ids("locations")[0], classroomIdentificationCode="new")
    result = bench.materialize([unknown])["locations"]
    assert (result.full, result.rows_removed) == (False, 1)
    bench.verify()
    assert bench.manifest("locations").key == dict(bench.endpoint("locations").key)
