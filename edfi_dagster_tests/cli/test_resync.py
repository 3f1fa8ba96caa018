"""``resync``: a delta first, a full refresh of only what still differs, and an exit code that tells whether all is equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edfi_dagster_tests.bench import PAIR, SECRET_VARIABLE, Bench
from edfi_dagster_tests.checks.asking import lose
from edfi_dagster_tests.cli.in_process import document, fits, invoke

MakeBench = Callable[..., Bench]
PAIR_OPTIONS = ("--tenant", PAIR.tenant, "--year", str(PAIR.year))


@pytest.fixture
def bench(make_bench: MakeBench) -> Iterator[Bench]:
    bench = make_bench(
        "students", "sessions", "grades", descriptors=("sexDescriptors",), change_version_overlap=0
    )
    bench.materialize()
    yield bench


def full_refreshes(bench: Bench) -> list[str]:
    """The endpoints whose newest pull is a full one, beside the first."""
    rows = bench.query(
        "SELECT name, count(*) FROM edfi3._meta_change_versions WHERE NOT is_active GROUP BY 1 HAVING count(*) > 0"
    )
    return sorted(name for name, _ in rows)


def test_what_a_delta_repairs_is_not_refreshed_and_only_what_drifted_is(bench: Bench) -> None:
    bench.add_student(1)
    lose(bench, "students", 2)
    bench.change("grades", bench.store.ids("grades")[0], numericGradeEarned=1)
    done = invoke(bench, "resync", *PAIR_OPTIONS)
    assert done.exit_code == 0, done.output
    assert fits(done)
    told, heading, row = done.stdout.splitlines()
    assert told == f"{PAIR}: 4 counted, 1 fully refreshed, all equal"
    count = f"{bench.store.count('students'):,}"
    assert row.split() == ["students", count, count, "+0", "refreshed"]
    assert heading.split() == ["endpoint", "ODS", "here", "difference"]
    assert set(full_refreshes(bench)) == {"students"}
    bench.verify()


def test_a_dry_run_tells_what_would_be_refreshed_and_loads_nothing(bench: Bench) -> None:
    lose(bench, "students", 2)
    bench.store.delete("grades", bench.store.ids("grades")[0])
    before = bench.state()
    done = invoke(bench, "resync", *PAIR_OPTIONS, "--dry-run")
    assert done.exit_code == 1
    assert done.stdout.startswith(f"{PAIR}: 4 counted, 1 drifted, 1 being written to\n")
    rows = {line.split()[0]: line.split()[3:] for line in done.stdout.splitlines()[2:]}
    assert rows == {
        "students": ["-2", "needs", "a", "full", "refresh"],
        "grades": ["+1", "written", "to", "since", "the", "last", "pull"],
    }
    assert bench.state() == before


def test_a_dry_run_tells_what_was_never_loaded_from_what_drifted(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize(["students"])
    done = invoke(bench, "resync", *PAIR_OPTIONS, "--dry-run")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1].split()[0] == "sessions"
    assert done.stdout.rstrip().endswith("never loaded")


def test_json_is_one_document_and_equal_counts_end_with_0(bench: Bench) -> None:
    done = invoke(bench, "resync", *PAIR_OPTIONS, "--endpoints", "students,sessions", "--json")
    assert done.exit_code == 0
    assert document(done) == {
        "dry_run": False,
        "partitions": [
            {
                "tenant": PAIR.tenant,
                "year": PAIR.year,
                "equal": True,
                "compared": 2,
                "refreshed": [],
                "differing": [],
                "not_compared": [],
                "failures": [],
            }
        ],
    }


@pytest.mark.slow
def test_what_cannot_be_repaired_is_told_and_ends_with_1(bench: Bench) -> None:
    lose(bench, "students", 2)
    # Counted, but every page of it fails.
    bench.server.faults.add("ed-fi/students$", status=500, after=3)
    done = invoke(bench, "resync", *PAIR_OPTIONS, "--endpoints", "students", "--json")
    assert done.exit_code == 1
    (found,) = document(done)["partitions"]
    assert not found["equal"]
    assert found["failures"]
    assert str(PAIR) in found["failures"][0]


def test_an_endpoint_that_may_not_be_read_is_left_out(bench: Bench) -> None:
    bench.store.deny("sessions")
    done = invoke(bench, "resync", *PAIR_OPTIONS, "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    (found,) = document(done)["partitions"]
    assert (found["compared"], found["not_compared"]) == (3, ["ed-fi/sessions"])


def test_wrong_credentials_and_an_undeclared_pair_are_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke(bench, "resync", "--tenant", "nobody").exit_code == 2
    monkeypatch.setenv(SECRET_VARIABLE, "not-the-secret")
    done = invoke(bench, "resync", *PAIR_OPTIONS, "--dry-run")
    assert done.exit_code == 1
    assert "refused the key and secret" in done.stderr
