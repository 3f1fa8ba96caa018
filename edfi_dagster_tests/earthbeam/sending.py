"""Records as Earthmover would leave them, and Lightbeam upon them, without Earthmover's seconds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edfi_dagster.config.earthbeam import LightbeamOptions, LightbeamTool
from edfi_dagster.earthbeam.lightbeam import Lightbeam
from edfi_dagster.earthbeam.result import ResourceOutcome
from edfi_dagster.earthbeam.sent import SentState
from edfi_dagster.earthbeam.target import find_target, sending_session
from edfi_dagster_tests.bench import PAIR, Bench

NAMESPACE = "uri://brook.example.org/Assessment"
METHOD = "uri://ed-fi.org/AssessmentReportingMethodDescriptor#Raw score"
ASSESSMENT = {
    "assessmentIdentifier": "BROOK",
    "namespace": NAMESPACE,
    "assessmentTitle": "Brook Check",
    "academicSubjects": [{"academicSubjectDescriptor": "uri://ed-fi.org/AcademicSubjectDescriptor#Reading"}],
}


def result(student: object, score: object = 7, **fields: Any) -> dict[str, Any]:
    """One student's result."""
    return {
        "studentAssessmentIdentifier": f"{student}-brook",
        "assessmentReference": {"assessmentIdentifier": "BROOK", "namespace": NAMESPACE},
        "studentReference": {"studentUniqueId": str(student)},
        "administrationDate": "2024-10-01T00:00:00Z",
        "scoreResults": [
            {
                "assessmentReportingMethodDescriptor": METHOD,
                "resultDatatypeTypeDescriptor": "uri://ed-fi.org/ResultDatatypeTypeDescriptor#Integer",
                "result": str(score),
            }
        ],
        **fields,
    }


class Sending:
    """Lightbeam on the records of a folder, for one ODS."""

    resources = ("assessments", "studentAssessments")

    def __init__(self, bench: Bench, folder: Path, lightbeam: Lightbeam) -> None:
        self.bench, self.folder, self.lightbeam = bench, folder, lightbeam

    def write(self, *results: dict[str, Any], resource: str = "studentAssessments") -> None:
        write_lines(self.folder / "outputs" / f"{resource}.jsonl", results)

    def run(self, command: str) -> dict[str, ResourceOutcome]:
        return {o.resource: o for o in getattr(self.lightbeam, command)(self.resources)}

    def send(self) -> ResourceOutcome:
        return self.run("send")["studentAssessments"]

    def scores(self) -> dict[str, str]:
        """Student → score, as the ODS has it."""
        rows = self.bench.store.rows("studentAssessments")
        return {
            row["studentReference"]["studentUniqueId"]: row["scoreResults"][0]["result"]
            for row in rows
            if row["assessmentReference"]["namespace"] == NAMESPACE
        }


def write_lines(file: Path, records: Iterable[dict[str, Any]]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


@contextmanager
def sending(bench: Bench, **settings: Any) -> Iterator[Sending]:
    """``settings`` of ``lightbeam``, the bundle's and the tool's, and ``base_url`` in place of the bench's; nobody waits between attempts."""
    tool = {name: settings.pop(name) for name in ("path", "timeout_minutes", "pool_size") if name in settings}
    base_url = settings.pop("base_url", None)
    folder = bench.folder / "sending"
    for part in ("outputs", "state", "scratch"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    session = sending_session(bench.platform.ods(PAIR), PAIR, base_url=base_url)
    try:
        lightbeam = Lightbeam(
            LightbeamTool(**tool),
            LightbeamOptions(**settings),
            find_target(session, base_url=base_url),
            folder / "outputs",
            SentState(folder / "state"),
            folder / "scratch",
            session,
            sleep=lambda seconds: None,
        )
        write_lines(folder / "outputs" / "assessments.jsonl", [ASSESSMENT])
        yield Sending(bench, folder, lightbeam)
    finally:
        session.close()
