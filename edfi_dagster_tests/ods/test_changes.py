"""Deletes and key changes: read whole although they have no cursor and move while they are read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from edfi_dagster.ods.changes import EVERYTHING, ChangeWindow, closing_window
from edfi_dagster.ods.errors import NotPermitted, UnusableBody
from edfi_dagster.ods.pagers import change_walk
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, Collection, RecordKind
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import SandboxServer, Store
from edfi_dagster_tests.ods.platforms import endpoint, rows_of, session_at
from edfi_dagster_tests.ods.stand_in import Asked, Reply, StandIn

KINDS: tuple[RecordKind, ...] = (DELETES, KEY_CHANGES)


def changes(session: OdsSession, name: str, kind: RecordKind, page_size: int = 2) -> Collection:
    return Collection(session, endpoint(name), kind, page_size=page_size)


def decoded(rows: list[bytes]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(row) for row in rows]


def without_extras(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("id", "_etag", "_lastModifiedDate")}


def delete_unused(store: Store, name: str, count: int) -> list[dict[str, Any]]:
    """Delete records that nothing refers to; their bodies."""
    gone = store.rows(name)[:count]
    for record in gone:
        store.delete(name, record["id"])
    return [without_extras(record) for record in gone]


# -- against the sandbox -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 2, 7, 50])
def test_every_delete_comes_once_whatever_the_page_size(
    store: Store, session: OdsSession, page_size: int
) -> None:
    delete_unused(store, "studentSchoolAttendanceEvents", 23)
    pages = changes(session, "studentSchoolAttendanceEvents", DELETES, page_size)
    assert decoded(rows_of(change_walk(pages, EVERYTHING))) == store.deletes("studentSchoolAttendanceEvents")
    assert pages.count(EVERYTHING) == 23


def test_a_window_without_changes_costs_one_request(
    server: SandboxServer, store: Store, session: OdsSession
) -> None:
    for kind in KINDS:
        assert rows_of(change_walk(changes(session, "sections", kind), EVERYTHING)) == []
    assert len(server.requests.matching("/sections")) == 2


def test_windows_of_changes_are_inclusive_at_both_ends(store: Store, session: OdsSession) -> None:
    delete_unused(store, "studentSchoolAttendanceEvents", 6)
    versions = [row["changeVersion"] for row in store.deletes("studentSchoolAttendanceEvents")]
    pages = changes(session, "studentSchoolAttendanceEvents", DELETES)
    found = decoded(rows_of(change_walk(pages, ChangeWindow(versions[1], versions[4]))))
    assert [row["changeVersion"] for row in found] == versions[1:5]
    assert rows_of(change_walk(pages, closing_window(versions[-1]))) == []


def test_a_delete_whose_key_lives_again_is_hidden(store: Store, session: OdsSession) -> None:
    bodies = delete_unused(store, "studentSchoolAttendanceEvents", 5)
    store.post("studentSchoolAttendanceEvents", bodies[2])
    found = decoded(
        rows_of(change_walk(changes(session, "studentSchoolAttendanceEvents", DELETES), EVERYTHING))
    )
    tombstones = store.tombstones("studentSchoolAttendanceEvents")
    assert found == tombstones[:2] + tombstones[3:]


def test_deletes_that_vanish_or_come_while_they_are_read_hide_no_other(
    store: Store, session: OdsSession
) -> None:
    name = "studentSchoolAttendanceEvents"
    bodies = delete_unused(store, name, 20)
    stay = {row["id"] for n, row in enumerate(store.deletes(name)) if n % 3}
    found: list[str] = []
    vanishing = iter([body for n, body in enumerate(bodies) if n % 3 == 0])
    for page in change_walk(changes(session, name, DELETES), EVERYTHING):
        found += page.ids
        if (body := next(vanishing, None)) is not None:
            store.post(name, body)
            store.delete(name, store.ids(name)[0])
    assert len(found) == len(set(found))
    assert stay <= set(found)


def rename_session(store: Store, record_id: str, name: str) -> None:
    store.put("sessions", record_id, {**store.get("sessions", record_id), "sessionName": name})


@pytest.mark.parametrize("page_size", [1, 2, 3, 50])
def test_key_changes_are_folded_over_the_whole_window_not_over_a_page(
    store: Store, session: OdsSession, page_size: int
) -> None:
    ids = store.ids("sessions")[:2]
    for turn, record_id in enumerate([*ids, ids[0]]):
        rename_session(store, record_id, f"renamed {turn}")
    for name in ("sessions", "courseOfferings", "sections"):
        wanted = store.key_changes(name)
        assert len(wanted) > 3 or name == "sessions"
        found = decoded(rows_of(change_walk(changes(session, name, KEY_CHANGES, page_size), EVERYTHING)))
        assert found == wanted


def test_key_changes_that_move_while_they_are_read_hide_no_other(store: Store, session: OdsSession) -> None:
    ids = store.ids("sessions")[:2]
    for n, record_id in enumerate(ids):
        rename_session(store, record_id, f"renamed {n}")
    before = store.key_changes("sections")
    found: list[str] = []
    for n, page in enumerate(change_walk(changes(session, "sections", KEY_CHANGES, 3), EVERYTHING)):
        found += page.ids
        if n in (1, 3):
            rename_session(store, ids[0], f"again {n}")
    assert {row["id"] for row in before} <= set(found)


@pytest.mark.parametrize("kind", KINDS)
def test_changes_may_be_forbidden_where_records_are_not(
    store: Store, session: OdsSession, kind: RecordKind
) -> None:
    store.deny("students", read=False)
    assert Collection(session, endpoint("students")).count(EVERYTHING) == 120
    with pytest.raises(NotPermitted):
        rows_of(change_walk(changes(session, "students", kind), EVERYTHING))


# -- against a server that moves the rows as it likes --------------------------------------------------------


@dataclass
class MovingChanges:
    """``/deletes`` or ``/keyChanges`` of a list that a test changes between requests."""

    rows: list[tuple[int, str]] = field(default_factory=list)
    between: Iterator[Any] = field(default_factory=lambda: iter(()))

    def __call__(self, asked: Asked) -> Reply | None:
        if not asked.path.endswith(("/deletes", "/keyChanges")):
            return None
        next(self.between, None)
        low = int(asked.query.get("minChangeVersion", 0))
        high = int(asked.query.get("maxChangeVersion", 2**62))
        found = sorted(row for row in self.rows if low <= row[0] <= high)
        start = int(asked.query["offset"])
        page = [{"id": i, "changeVersion": v} for v, i in found[start : start + int(asked.query["limit"])]]
        return Reply(page, headers={"Total-Count": str(len(found))})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("page_size", [1, 2, 3])
def test_ties_across_page_borders_come_once_each(kind: RecordKind, page_size: int) -> None:
    rows = [(v, f"{v}-{n}") for v, times in ((1, 1), (2, 4), (5, 2), (6, 1), (9, 7)) for n in range(times)]
    with StandIn(MovingChanges(rows)) as ods, session_at(ods.url) as session:
        found = rows_of(change_walk(changes(session, "sections", kind, page_size), EVERYTHING))
    assert [(row["changeVersion"], row["id"]) for row in decoded(found)] == rows


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_moves_meanwhile_what_stays_comes(kind: RecordKind) -> None:
    moving = MovingChanges()
    with StandIn(moving) as ods, session_at(ods.url) as session:
        for seed in range(30):
            chance = random.Random(seed)
            stay = {(chance.randrange(1, 12), f"stay-{n}") for n in range(chance.randrange(0, 25))}
            vanish = [(chance.randrange(1, 12), f"vanish-{n}") for n in range(chance.randrange(0, 12))]
            moving.rows = [*stay, *vanish]
            moving.between = vanishing(moving.rows, vanish, chance)
            found = [
                (row["changeVersion"], row["id"])
                for row in decoded(rows_of(change_walk(changes(session, "sections", kind, 2), EVERYTHING)))
            ]
            assert stay <= set(found), f"seed {seed}"


def vanishing(
    rows: list[tuple[int, str]], doomed: list[tuple[int, str]], chance: random.Random
) -> Iterator[None]:
    """Before a request, sometimes one row goes, or a new one comes at the end."""
    for n in range(1000):
        if doomed and chance.random() < 0.4:
            rows.remove(doomed.pop(chance.randrange(len(doomed))))
        if n < 5 and chance.random() < 0.3:
            rows.append((12 + n, f"new-{n}"))
        yield


def fixed(*replies: Reply) -> StandIn:
    left = list(replies)

    def answer(asked: Asked) -> Reply | None:
        if not asked.path.endswith("/deletes"):
            return None
        return left.pop(0) if len(left) > 1 else left[0]

    return StandIn(answer)


def given(total: int | None, *rows: tuple[int, str]) -> Reply:
    headers = {} if total is None else {"Total-Count": str(total)}
    return Reply([{"id": i, "changeVersion": v} for v, i in rows], headers=headers)


def test_an_empty_page_that_counts_rows_is_asked_again() -> None:
    with fixed(given(1), given(1, (3, "a"))) as ods, session_at(ods.url) as session:
        pages = changes(session, "sections", DELETES)
        assert decoded(rows_of(change_walk(pages, EVERYTHING))) == [{"id": "a", "changeVersion": 3}]
        assert pages.tally.retries == 1


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (given(5), "5 rows are counted, 0 given"),
        (given(5, (3, "a")), "5 rows are counted, 1 given"),
        (given(None, (3, "a")), "did not count"),
        (given(2, (4, "a"), (3, "b")), "not in change-version order"),
        (Reply([{"id": "a"}], headers={"Total-Count": "1"}), "id and changeVersion"),
        (given(9, (1, "a"), (1, "b")), "keep moving"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_server_that_breaks_the_protocol_is_an_error_and_no_endless_walk(
    reply: Reply, problem: str
) -> None:
    with fixed(reply) as ods, session_at(ods.url) as session:
        with pytest.raises(UnusableBody, match=problem):
            rows_of(change_walk(changes(session, "sections", DELETES), EVERYTHING))
        assert len(ods.asked) < 60
