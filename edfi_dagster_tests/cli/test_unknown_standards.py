"""Hosts of a data standard without a catalogue: ``init``, ``discover --yaml``, ``check`` and a run of what only they have."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from edfi_dagster.cli.app import cli
from edfi_dagster.cli.commands import register
from edfi_dagster.config import load_platform
from edfi_dagster.health.findings import State
from edfi_dagster.ods.catalogue import nearest_standard, without_catalogue
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import ODS, PAIR, Bench, MakeBench
from edfi_dagster_tests.cli.in_process import invoke
from edfi_dagster_tests.health.asking import asked

OF_PAIR = ("discover", "--tenant", PAIR.tenant, "--year", str(PAIR.year))
# Known to no catalogue by these names; one looks like the one it stands for.
BEYOND = {
    "ed-fi/locations": "ed-fi/studentIDEAEvents",
    "ed-fi/classPeriods": "ed-fi/classPeriodss",
    "ed-fi/sexDescriptors": "ed-fi/ideaEventDescriptors",
}


@pytest.mark.parametrize(
    ("version", "nearest", "side"),
    [
        ("6.1.0", "6.0", "older"),
        ("3.2.0-c", "3.3", "newer"),
        ("5.3", "5.2", "older"),
        ("4.1.0", "4.0", "older"),
        ("7.0.0", "6.0", "older"),
        ("5.10.0", "5.2", "older"),
        ("5.2.0", "5.2", ""),
        ("3.3.1-b", "3.3", ""),
    ],
)
def test_the_nearest_older_catalogue_serves_else_the_oldest(version: str, nearest: str, side: str) -> None:
    assert nearest_standard(version) == nearest
    assert (
        f"{nearest} is the nearest {side} one" in without_catalogue(version)
        if side
        else not without_catalogue(version)
    )
    assert not without_catalogue("ED-FI2")


@pytest.mark.parametrize(("model", "written"), [("6.1.0", "6.0"), ("3.2.0-c", "3.3"), ("5.2.0", "5.2")])
def test_init_writes_the_nearest_catalogue_and_says_so(
    sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, written: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDFI_DAGSTER_CONFIG", raising=False)
    sandbox.store(ODS).oddities.data_model = model
    register(cli)
    pair = ("--tenant", "grand_bend", "--year", "2025")
    done = CliRunner().invoke(cli, ["init", *pair, "--base-url", sandbox.url_of(ODS)], env={"TERM": "dumb"})
    assert done.exit_code == 0, done.stderr
    assert load_platform().extract.data_standard == written
    text = (tmp_path / "edfi_dagster.yaml").read_text()
    sentence = without_catalogue(model)
    assert bool(sentence) is (model != "5.2.0")
    assert sentence in done.stderr and sentence in text
    assert ("discover --yaml" in text) is bool(sentence)


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    made = make_bench("students", data_standard="5.2")
    made.store.oddities.data_model = "5.3.0"
    made.store.oddities.endpoints = dict(BEYOND)
    return made


def test_what_no_catalogue_has_is_discovered_pasted_and_pulled(bench: Bench) -> None:
    done = invoke(bench, *OF_PAIR, "--yaml")
    assert done.exit_code == 0, done.output
    assert "data standard 5.3 has no catalogue, and 5.2 is the nearest older one" in done.stderr
    selections = yaml.safe_load(done.stdout)
    assert selections["resources"]["studentIDEAEvents"] == {"in_catalogue": False}
    assert selections["descriptors"]["ideaEventDescriptors"] == {"in_catalogue": False}
    assert selections["resources"]["sections"] == {}
    pasted = yaml.safe_load(bench.config.read_text())
    pasted["extract"] |= selections
    bench.config.write_text(yaml.safe_dump(pasted))

    again = Bench(bench.config, bench.server)
    again.materialize(["students", "studentIDEAEvents", "classPeriodss", "ideaEventDescriptors"])
    again.verify(["students"])
    for own, here, table in (
        ("locations", "studentIDEAEvents", "student_idea_events"),
        ("classPeriods", "classPeriodss", "class_periodss"),
        ("sexDescriptors", "ideaEventDescriptors", "_descriptors"),
    ):
        truth = {row["id"]: row for row in bench.store.rows(own)}
        assert {i: row for i, _, row in again.raw(table, again.endpoint(here).snake)} == truth
    bench.change("locations", bench.store.ids("locations")[0], maximumNumberOfSeats=7)
    gone = bench.store.post("locations", {**_room(bench), "classroomIdentificationCode": "gone"})
    again.materialize(["studentIDEAEvents"])
    bench.store.delete("locations", gone)
    again.materialize(["studentIDEAEvents"])
    assert set(again.deletes("student_idea_events")) == {gone}


def _room(bench: Bench) -> dict[str, object]:
    row = bench.store.rows("locations")[0]
    return {name: value for name, value in row.items() if not name.startswith("_") and name != "id"}


def test_check_says_what_stands_for_the_standard(bench: Bench) -> None:
    found = asked(bench.platform)["data standard"]
    assert found.state is State.WARNING
    assert (
        found.found == "data standard 5.3 has no catalogue, and 5.2 is the nearest older one, declared is 5.2"
    )
    assert "discover --yaml" in found.remedy
    bench.store.oddities.data_model = "6.1.0"
    found = asked(bench.platform)["data standard"]
    assert "6.0 is the nearest older one" in found.found and 'write data_standard: "6.0"' in found.remedy


def test_a_misspelt_name_is_still_refused(bench: Bench) -> None:
    document = yaml.safe_load(bench.config.read_text())
    document["extract"]["resources"] = {"studnts": {}}
    bench.config.write_text(yaml.safe_dump(document))
    done = invoke(bench, *OF_PAIR)
    assert done.exit_code == 2
    assert "did you mean students?" in done.stderr
