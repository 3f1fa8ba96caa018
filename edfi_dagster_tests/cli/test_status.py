"""``status`` as a command: what it prints at 80 columns, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from edfi_dagster_tests.bench import PAIR, Bench
from edfi_dagster_tests.cli.in_process import document, fits, invoke
from edfi_dagster_tests.health.asking import Document, MakeBench, rewritten


def with_neighbour(bench: Bench, *years: int) -> None:
    """Declares more years of the pair's tenant, whose ODS nobody serves."""

    def change(platform: Document) -> None:
        declared = platform["tenants"][PAIR.tenant]["years"]
        declared |= {year: declared[PAIR.year] | {"base_url": "http://127.0.0.1:9"} for year in years}

    rewritten(bench, change)


def rows_of(stdout: str) -> dict[str, list[str]]:
    """First word of each line → its other words."""
    return {line.split()[0]: line.split()[1:] for line in stdout.splitlines() if line.strip()}


def test_one_tenant_year_is_told_endpoint_by_endpoint(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "tpdm/candidates", verify_counts="off")
    bench.materialize(["students", "sessions"])
    bench.add_student(1)
    done = invoke(bench, "status")
    assert done.exit_code == 0, done.output
    assert fits(done)
    rows = rows_of(done.stdout)
    assert rows[str(PAIR)][:6] == ["2", "of", "3", "loaded,", "ODS", "at"]
    version, ahead = f"{bench.store.newest - 1:,}", "1"
    assert rows["students"][:3] == [version, f"{bench.store.count('students') - 1:,}", ahead]
    assert rows["sessions"][:3] == [version, f"{bench.store.count('sessions'):,}", ahead]
    assert rows["tpdm/candidates"] == ["–", "–", "–", "never", "–"]
    assert "drift" not in rows["endpoint"]  # nobody counted


def test_many_endpoints_share_what_is_the_same_for_all(make_bench: MakeBench) -> None:
    names = ["students", "sessions", "schools", "sections", "locations", "classPeriods", "courses", "staffs"]
    bench = make_bench(*names, "grades", "calendars", "assessmentScoreRangeLearningStandards")
    bench.materialize()
    done = invoke(bench, "status", "--offline")
    assert fits(done)
    caption, heading, *_ = done.stdout.split("endpoint")
    assert f"version {bench.store.newest:,}, behind ?" in " ".join(caption.split())
    assert heading.split()[0] == "rows"
    assert caption.split()[-2:] == ["result", "loaded"]
    assert rows_of(done.stdout)["students"] == [f"{bench.store.count('students'):,}"]


def test_a_pair_that_was_never_loaded_is_one_line_not_a_list_of_names(make_bench: MakeBench) -> None:
    names = ["students", "sessions", "schools", "sections", "locations", "classPeriods", "courses", "staffs"]
    done = invoke(make_bench(*names, "grades", "calendars", "assessments"), "status")
    assert f"{PAIR}  0 of 11 loaded, last pull never" in done.stdout
    assert "sessions" not in done.stdout
    assert "Load with: edfi-dagster materialize --tenant grand_bend --year 2025" in done.stdout


def test_many_tenant_years_are_told_in_a_line_each(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions", "schools", descriptors=("sexDescriptors", "termDescriptors"))
    bench.store.deny("schools")
    bench.materialize()
    with_neighbour(bench, *range(2026, 2036))
    done = invoke(bench, "status")
    assert done.exit_code == 0
    assert fits(done)
    rows = rows_of(done.stdout)
    assert rows[str(PAIR)][:2] == [
        "4/5",
        f"{sum(bench.store.count(e.name) for e in bench.endpoints if e.name != 'schools'):,}",
    ]
    assert rows[str(PAIR)][2:4] == [f"{bench.store.newest:,}", "0"]
    assert rows[str(PAIR)][-2:] == ["1", "skipped"]
    assert rows["grand_bend/2030"] == ["0/5", "0", "–", "–", "never"]
    assert done.stdout.splitlines()[-1] == (
        "Load with: edfi-dagster materialize --tenant grand_bend --year 2026"
    )
    small = invoke(bench, "status", "--endpoints", "students,sessions")
    assert rows_of(small.stdout)["students"]  # few enough to be listed one by one


def test_what_failed_is_told_below_with_its_cause(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    bench.store.deny("students")
    bench.materialize(may_fail=True)
    done = invoke(bench, "status")
    assert done.exit_code == 0
    assert rows_of(done.stdout)["students"][-1] == "failed"
    told = " ".join(done.stdout.split())
    assert f"✗ {PAIR} ed-fi/students: HTTP 403, the key may not read this; it was loaded before" in told


def test_late_shows_only_what_is_late(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.materialize()
    assert invoke(bench, "status", "--late").stdout.strip() == "nothing is late"
    bench.query(
        "UPDATE edfi3._meta_change_versions SET pull_timestamp = pull_timestamp - INTERVAL 30 HOUR "
        "WHERE name = 'students'"
    )
    late = rows_of(invoke(bench, "status", "--late").stdout)
    assert late["students"][-2:] == ["late,", "loaded"]
    assert "sessions" not in late
    found = document(invoke(bench, "status", "--late", "--json"))
    assert [endpoint["name"] for endpoint in found["partitions"][0]["endpoints"]] == ["students"]


def test_a_warehouse_with_nothing_in_it_says_what_to_run(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    (bench.folder / "warehouse.duckdb").unlink()
    done = invoke(bench, "status")
    assert done.exit_code == 0
    assert "The warehouse has no tables yet; nothing has been loaded into it." in done.stdout
    assert "Load with: edfi-dagster materialize --tenant grand_bend --year 2025" in done.stdout


def test_a_warehouse_that_cannot_be_opened_ends_with_1(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    (bench.folder / "warehouse.duckdb").write_text("no database, but long enough to be looked at\n" * 200)
    done = invoke(bench, "status", "--json")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "cannot be opened" in done.stderr


def test_json_tells_everything(make_bench: MakeBench) -> None:
    bench = make_bench("students", "sessions")
    bench.store.deny("sessions", read=False)
    bench.materialize()
    with_neighbour(bench, 2026)
    done = invoke(bench, "status", "--json")
    assert done.exit_code == 0, done.output
    found: dict[int, Any] = {partition["year"]: partition for partition in document(done)["partitions"]}
    pair = found[2025]
    assert (pair["loaded"], pair["declared"], pair["behind"], pair["late"]) == (2, 2, 0, 0)
    assert pair["version"] == pair["newest"] == bench.store.newest
    by_name = {endpoint["name"]: endpoint for endpoint in pair["endpoints"]}
    assert by_name["students"]["rows"] == bench.store.count("students")
    assert by_name["students"]["rows_exact"] is True
    assert by_name["students"]["result"] == "loaded"
    assert by_name["sessions"]["troubles"]["deletes"]["result"] == "not permitted to this key"
    assert found[2026]["last_pull"] is None
    assert found[2026]["endpoints"][0]["late"] is True


@pytest.mark.parametrize("name", ["check", "status", "discover"])
def test_help_gives_an_example(make_bench: MakeBench, name: str) -> None:
    done = invoke(make_bench("students"), name, "--help")
    assert done.exit_code == 0
    assert f"Example: edfi-dagster {name}" in done.stdout
