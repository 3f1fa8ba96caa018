"""What can go wrong between us and Runway, and whether it may pass.

RunwayError             names tenant, year, file and step; never a secret, a token or an upload address
├── RunwayUnreachable   no answer, or only failing ones, after every retry
├── RunwayUnsure        nobody can tell whether Runway made a job, and a second one must not be made
├── RunwayRefused       any other answer that is not 2xx
│   └── WrongRunwayCredentials
├── UploadExpired       the addresses to upload to are too old
└── RunwayTimedOut      no output set until the deadline
"""

from __future__ import annotations

from typing import Literal, Self

from edfi_dagster.config import TenantYear
from edfi_dagster.config.errors import printable
from edfi_dagster.earthbeam.errors import EarthbeamError

Step = Literal["read", "token", "create", "upload", "start", "wait"]


class RunwayError(EarthbeamError):
    """A file could not be sent to Runway, or nothing is known of what came of it.

    ``reason`` is the sentence without the names in front of it; ``file`` the names of a job's files.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pair: TenantYear | None = None
        self.file: str | None = None
        self.step: Step | None = None

    def at(self, pair: TenantYear, file: str, step: Step) -> Self:
        """This error with the place where it happened; one that has a step keeps it."""
        self.pair, self.file, self.step = pair, file, self.step or step
        return self

    def during(self, step: Step) -> Self:
        """This error with its step."""
        self.step = step
        return self

    def __str__(self) -> str:
        place = " ".join(str(part) for part in (self.pair, self.file) if part)
        found = ", ".join(part for part in (place, self.step) if part)
        return printable(f"{found}: {self.reason}" if found else self.reason)


class RunwayUnreachable(RunwayError):
    """Nothing usable came back after every retry. ``unsure`` where Runway may have done what it was asked."""

    def __init__(self, reason: str, *, unsure: bool = False) -> None:
        super().__init__(reason)
        self.unsure = unsure


class RunwayUnsure(RunwayError):
    """A job was asked for and no answer came: there may be one, with an id that nobody knows."""


class RunwayRefused(RunwayError):
    """A permanent answer that is not 2xx. ``status`` is the HTTP status."""

    def __init__(self, reason: str, *, status: int) -> None:
        super().__init__(reason)
        self.status = status


class WrongRunwayCredentials(RunwayRefused):
    """The token, or the request for one, was refused: no other file of this configuration can be sent."""


class UploadExpired(RunwayError):
    """A job's upload addresses are good for an hour; this job can get no files any more, and so can never run."""


class RunwayTimedOut(RunwayError):
    """Runway shows successes only: a job that failed and one that is slow look alike."""
