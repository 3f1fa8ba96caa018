"""A bench whose platform has bundles, run by the real tools against a sandbox ODS over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import edfi_dagster
from edfi_dagster.earthbeam import BundleJob, BundleResult, run_bundle
from edfi_dagster.sandbox import SandboxServer
from edfi_dagster_tests.bench import PAIR, Bench, write_config

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
        inputs = {"INPUT_FILE": file} if file else {}
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
