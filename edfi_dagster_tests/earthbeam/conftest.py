"""A bench whose platform has bundles, run by the real tools against a sandbox ODS over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import edfi_dagster
from edfi_dagster.earthbeam import BundleJob, BundleResult, run_bundle
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import PAIR, Bench, write_config
from edfi_dagster_tests.earthbeam.prepared import STUDENTS, write_results
from edfi_dagster_tests.earthbeam.runway_sender import Sender
from edfi_dagster_tests.earthbeam.runway_stand_in import RunwayStandIn

DEMO = Path(edfi_dagster.__file__).parent / "earthbeam" / "demo" / "riverbend_reading"
BUNDLES = Path(__file__).parent / "bundles"
HEADER = "student_id,last_name,first_name,grade,test_date,words_per_minute,comprehension"
ENDPOINTS = (
    "students",
    "studentEducationOrganizationAssociations",
    "assessments",
    "objectiveAssessments",
    "studentAssessments",
)


class BundleBench(Bench):
    """A bench that runs bundles."""

    def run(self, bundle: str = "riverbend", file: Path | None = None, **options: Any) -> BundleResult:
        """Run a bundle over ``file``, by default the one that it is configured with."""
        inputs = {**({"INPUT_FILE": file} if file else {}), **options.pop("inputs", {})}
        job = BundleJob(
            self.platform,
            PAIR,
            bundle,
            self.lake,
            self.warehouse,
            inputs=inputs,
            tell=self.told.append,
            warn=self.told.append,
            **options,
        )
        return run_bundle(job)

    def file(self, *students: object, name: str = "fall.csv", words: int = 100, grade: str = "03") -> Path:
        """A file of results, one for each student."""
        path = self.folder / name
        rows = [f"{student},Doe,Jo,{grade},09/12/2024,{words},7" for student in students]
        path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
        return path

    def results_in_ods(self) -> dict[str, dict[str, Any]]:
        """studentAssessmentIdentifier → record, of the demo's assessment."""
        found = self.store.rows("studentAssessments")
        return {
            row["studentAssessmentIdentifier"]: row
            for row in found
            if row["assessmentReference"]["assessmentIdentifier"] == "RIVERBEND-READING"
        }

    def run_log(self) -> list[dict[str, Any]]:
        rows = self.query(
            "SELECT run_type, grain_update, result FROM edfi3._meta_run_log ORDER BY run_timestamp"
        )
        return [{"run_type": name, "grain": grain, **json.loads(result)} for name, grain, result in rows]

    def words(self, name: str = "student_assessments__riverbend") -> dict[str, list[str]]:
        """Student → words per minute of each raw row of that name, oldest first."""
        rows = self.query(
            "SELECT v FROM edfi3.student_assessments WHERE name = ? ORDER BY pull_timestamp", [name]
        )
        found: dict[str, list[str]] = {}
        for (text,) in rows:
            record = json.loads(text)
            student = record["studentReference"]["studentUniqueId"]
            found.setdefault(student, []).append(record["scoreResults"][0]["result"])
        return found


MakeBundleBench = Callable[..., BundleBench]
Prepare = Callable[..., BundleBench]


@pytest.fixture
def bundles(sandbox: SandboxServer, tmp_path: Path, storage: dict[str, Any]) -> MakeBundleBench:
    """``bundles(tools={…}, year={…}, **settings of the bundle)``: a bench with the demo as ``riverbend``."""

    def make(
        tools: Mapping[str, Any] | None = None,
        endpoints: tuple[str, ...] = ENDPOINTS,
        year: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> BundleBench:
        path = write_config(
            tmp_path,
            sandbox,
            endpoints,
            ("performanceLevelDescriptors", "assessmentReportingMethodDescriptors"),
            year=year,
            **storage,
        )
        document = yaml.safe_load(path.read_text())
        bundle = {
            "path": str(DEMO),
            "parameters": {"API_YEAR": "{year}"},
            "inputs": {"INPUT_FILE": str(DEMO / "data" / "fall.csv")},
            **settings,
        }
        document["earthbeam"] = {"bundles": {"riverbend": bundle}, **(tools or {})}
        path.write_text(yaml.safe_dump(document))
        return BundleBench(path, sandbox)

    return make


@pytest.fixture
def prepare(bundles: MakeBundleBench, tmp_path: Path) -> Iterator[Prepare]:
    """A bench whose Earthmover writes what lies in ``prepared``; a bundle that makes assessments and their results."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    destinations = "".join(
        f"  {name}: {{source: $sources.input, extension: jsonl}}\n"
        for name in ("assessments", "studentAssessments")
    )
    (folder / "earthmover.yaml").write_text(
        f'version: 2\nsources:\n  input: {{file: "${{INPUT_FILE}}"}}\ndestinations:\n{destinations}'
    )
    tool = tmp_path / "earthmover"
    tool.write_text(
        '#!/bin/sh\nwhile [ "$1" != "-p" ]; do shift; done\n'
        f'echo "$2" >> {tmp_path / "parameters"}\n'
        'while [ "$1" != "config.output_dir" ]; do shift; done\n'
        f'cp {tmp_path / "prepared"}/* "$2"\n'
    )
    tool.chmod(0o755)
    write_results(tmp_path, *STUDENTS)
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")

    def make(**settings: Any) -> BundleBench:
        defaults = {
            "path": str(folder),
            "parameters": {},
            "inputs": {"INPUT_FILE": str(tmp_path / "in.csv")},
            "lightbeam": {"command": "send"},
        }
        bench = bundles(tools={"earthmover": {"path": str(tool)}}, **{**defaults, **settings})
        object.__setattr__(bench.platform.extract, "tmp_dir", tmp_path / "rooms")
        return bench

    yield make
    # Nothing is left in the rooms of runs, however they ended.
    assert not list((tmp_path / "rooms").glob("*"))


@pytest.fixture
def runway() -> Iterator[RunwayStandIn]:
    with RunwayStandIn() as running:
        yield running


@pytest.fixture
def sender(runway: RunwayStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sender:
    return Sender(runway, tmp_path, runway.config(monkeypatch))
