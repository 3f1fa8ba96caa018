"""A bundle whose Earthmover is stood in for by a copy of prepared outputs, as its seconds prove nothing in tests of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edfi_dagster.earthbeam import BundleResult
from edfi_dagster_tests.earthbeam.sending import ASSESSMENT, result, write_lines

if TYPE_CHECKING:
    from edfi_dagster_tests.earthbeam.conftest import BundleBench

STUDENTS = (600052, 600053)


def write_results(folder: Path, *students: object, score: object = 7) -> None:
    """What Earthmover will write from now on."""
    (folder / "prepared").mkdir(exist_ok=True)
    write_lines(folder / "prepared" / "assessments.jsonl", [ASSESSMENT])
    write_lines(folder / "prepared" / "studentAssessments.jsonl", (result(s, score) for s in students))


def sent(found: BundleResult) -> dict[str, tuple[int, int, int]]:
    return {o.resource: (o.accepted, o.skipped, o.failed) for o in found.sent}


def parameters(bench: BundleBench) -> list[dict[str, str]]:
    """What each run of Earthmover was told."""
    return [json.loads(line) for line in (bench.folder / "parameters").read_text().splitlines()]
