"""Sends files to the stand-in for Runway."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from edfi_dagster.config.earthbeam import Runway
from edfi_dagster.earthbeam.runway import RunwayJob, RunwayOutcome, RunwaySending, RunwaySent, send_to_runway
from edfi_dagster.earthbeam.runway_client import service_of
from edfi_dagster.earthbeam.runway_errors import (
    RunwayError,
)
from edfi_dagster.lake.store import LakeStore, LocalLake
from edfi_dagster_tests.earthbeam.runway_stand_in import (
    BUNDLE,
    PAIR,
    RunwayStandIn,
)
from edfi_dagster_tests.ods.stand_in import Reply

BUSY, BROKEN, GATEWAY = Reply(status=429), Reply(status=500), Reply(status=502)
AWAY = Reply(status=503, headers={"Retry-After": "0"})


class Sender:
    """Sends files of one folder to one stand-in, and keeps what it was told."""

    def __init__(self, runway: RunwayStandIn, folder: Path, config: Runway) -> None:
        self.runway = runway
        self.folder = folder
        self.config = config
        self.lake: LakeStore = LocalLake(folder / "lake")
        self.told: list[str] = []

    def file(self, name: str = "sat.csv", content: str = "id,score\n1,400\n") -> Path:
        path = self.folder / name
        path.write_text(content)
        return path

    def job(self, *files: Path, **options: Any) -> RunwayJob:
        variables = ("INPUT_FILE", "INPUT_FILE_2")
        return RunwayJob(PAIR, BUNDLE, dict(zip(variables, files, strict=False)), **options)

    def send(self, *jobs: RunwayJob, lake: LakeStore | None = None, **options: Any) -> RunwaySent:
        sending = RunwaySending(
            **{"wait_minutes": 1.0, "poll_seconds": 0.002, **options},
            tell=self.told.append,
            warn=self.told.append,
            sleep=lambda seconds: time.sleep(min(seconds, 0.002)),
        )
        service = service_of(self.config, "agency.yaml")
        return send_to_runway(service, lake or self.lake, jobs, sending)

    def sent(self, *jobs: RunwayJob, **options: Any) -> RunwayOutcome:
        """What came of one job that went well."""
        sent = self.send(*jobs, **options)
        assert sent.failures == ()
        (outcome,) = sent.outcomes
        return outcome

    def failure(self, *jobs: RunwayJob, **options: Any) -> RunwayError:
        sent = self.send(*jobs, **options)
        assert sent.outcomes == ()
        (failure,) = sent.failures
        return failure

    def lake_files(self) -> list[Path]:
        return [path for path in (self.folder / "lake").rglob("*") if path.is_file()]
