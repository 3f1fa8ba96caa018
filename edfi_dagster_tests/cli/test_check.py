"""``check`` as a command: what it prints, and how it ends."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from edfi_dagster_tests.bench import ODS, PAIR, SECRET_VARIABLE
from edfi_dagster_tests.cli.in_process import document, invoke
from edfi_dagster_tests.health.asking import Document, MakeBench, rewritten

KNOWN = ("✓", "!", "✗", "→")


def with_years(*years: int, url: str) -> Any:
    """The pair's tenant declares these years as well, all at one address."""

    def change(platform: Document) -> None:
        declared = platform["tenants"][PAIR.tenant]["years"]
        declared |= {year: declared[PAIR.year] | {"base_url": url} for year in years}

    return change


def test_all_well_ends_with_0_and_one_line_each(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    done = invoke(bench, "check")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("configuration")
    assert f"{PAIR}  {bench.server.url_of(ODS)}" in lines
    assert any(line.strip().startswith("✓ token") for line in lines)
    assert any(line.strip().startswith("✓ writable") for line in lines)
    assert any(line.strip().startswith("✓ tables") for line in lines)
    assert lines[-1].startswith("a run will work; ")


def test_a_failure_ends_with_1_says_what_to_do_and_the_rest_goes_on(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench("students")
    monkeypatch.setenv(SECRET_VARIABLE, "not-the-secret")
    done = invoke(bench, "check")
    assert done.exit_code == 1
    told = " ".join(done.stdout.split())
    assert "✗ token the ODS refused the key and secret" in told
    assert "→ check client_id and client_secret of this tenant and year" in told
    assert "✓ writable" in told
    assert told.split(" ")[-6:-4] == ["1", "failed,"]
    assert "not-the-secret" not in done.output


def test_a_name_that_switches_nothing_off_is_a_warning(make_bench: MakeBench) -> None:
    bench = make_bench("students")

    def change(platform: Document) -> None:
        platform["extract"]["resources"] = {"*": {}, "payrolls": {"enabled": False}}

    rewritten(bench, change)
    told = " ".join(invoke(bench, "check").stdout.split())
    assert (
        "! enabled: false payrolls: no declared data standard has this endpoint, so nothing is switched off"
        in told
    )
    assert "→ write the name that it has in your data standard, or take it out" in told


def test_json_is_one_document_with_every_finding(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.store.deny("students", read=False)
    done = invoke(bench, "check", "--json")
    assert done.exit_code == 1
    found = document(done)
    assert found["ok"] is False
    assert [block["subject"] for block in found["checked"]] == ["configuration", "ods", "lake", "warehouse"]
    (ods,) = (block for block in found["checked"] if block["subject"] == "ods")
    assert (ods["tenant"], ods["year"], ods["state"]) == (*PAIR, "failed")
    (failed,) = (finding for finding in ods["findings"] if finding["state"] == "failed")
    assert failed["question"] == "ReadChanges"
    assert failed["remedy"].startswith("have the key's claim set allow ReadChanges")
    assert all(f["remedy"] is None for f in ods["findings"] if f["state"] == "ok")


def test_of_many_tenant_years_only_what_is_not_well_is_told_at_length(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    rewritten(bench, with_years(*range(2026, 2030), url=bench.server.url_of(ODS)))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        rewritten(bench, with_years(2030, 2031, url=f"http://127.0.0.1:{taken.getsockname()[1]}"))
        done = invoke(bench, "check")
    assert done.exit_code == 1
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    well = [line for line in lines if line.startswith(f"✓ {PAIR.tenant}/")]
    assert [line.split()[1] for line in well] == [f"{PAIR.tenant}/{year}" for year in range(2025, 2030)]
    failed = [n for n, line in enumerate(lines) if line.startswith(f"{PAIR.tenant}/")]
    assert [lines[n].split()[0] for n in failed] == [f"{PAIR.tenant}/2030", f"{PAIR.tenant}/2031"]
    assert all(lines[n + 1].strip().startswith("✗ reachable") for n in failed)
    assert lines[-1].startswith("2 failed")


def test_one_tenant_and_year_is_all_that_is_asked(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    rewritten(bench, with_years(2026, url="http://127.0.0.1:9"))
    done = invoke(bench, "check", "--tenant", PAIR.tenant, "--year", "2025", "--json")
    assert done.exit_code == 0, done.output
    assert [block["year"] for block in document(done)["checked"] if "year" in block] == [2025]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("check", "--tenant", "nowhere"), "nowhere is not declared; declared are grand_bend/2025"),
        (("check", "--year", "1999"), "1999 is not declared"),
        (("status", "--tenant", "nowhere"), "nowhere is not declared"),
        (("status", "--endpoints", "studnets"), "did you mean students?"),
        (("discover", "--tenant", "grand_bend", "--year", "1999"), "is not declared"),
        (("discover", "--tenant", "grand_bend", "--year", "2025", "--yaml", "--json"), "give one of them"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_to_write(
    make_bench: MakeBench, arguments: tuple[str, ...], told: str
) -> None:
    done = invoke(make_bench("students"), *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stdout == ""


def test_a_mistaken_configuration_ends_with_2(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.config.write_text(bench.config.read_text().replace("lake:", "lakes:"))
    done = invoke(bench, "check", "--json")
    assert done.exit_code == 2
    assert "did you mean lake?" in done.stderr


def test_nothing_is_changed_by_asking(make_bench: MakeBench) -> None:
    bench = make_bench("students")
    bench.materialize()
    before = bench.state(), sorted(bench.folder.rglob("*"))
    assert invoke(bench, "check").exit_code == 0
    assert invoke(bench, "status").exit_code == 0
    assert (bench.state(), sorted(bench.folder.rglob("*"))) == before
    assert {r.method for r in bench.server.requests if not r.path.endswith(("/token", "/token_info"))} == {
        "GET"
    }
