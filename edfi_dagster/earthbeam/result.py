"""What came of a bundle's run: plain, frozen values for assets, the run log and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from edfi_dagster.config import TenantYear


@dataclass(frozen=True)
class WrittenOutput:
    """A file that Earthmover wrote, and how many records it holds."""

    name: str
    file: str
    resource: str | None
    rows: int


@dataclass(frozen=True)
class Refusal:
    """Records that were refused for one reason. ``status`` is the HTTP status, or the check that they failed.

    The message names fields where a student's values stood. ``line`` is the first line of the file it happened at.
    """

    status: str
    message: str
    count: int
    line: int | None = None

    @property
    def text(self) -> str:
        """``409: The referenced `Student` resource does not exist.``"""
        message = self.message or "without a message"
        return message if message.startswith(f"{self.status}:") else f"{self.status}: {message}"


@dataclass(frozen=True)
class ResourceOutcome:
    """What came of one resource's records: ``accepted`` (with how many by HTTP status), ``skipped`` because the ODS has them
    from an earlier run, ``failed``. ``offered`` is False where the ODS has no such endpoint: nothing was sent.
    """

    resource: str
    records: int
    accepted: int = 0
    skipped: int = 0
    failed: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    offered: bool = True

    @property
    def failed_share(self) -> float:
        return self.failed / self.records if self.records else 0.0


@dataclass(frozen=True)
class MatchOutcome:
    """How the students in a file were recognised. ``share`` is that of this file's own rows, None if it has none.

    ``rates`` are (column of the file, id in the ODS, matches, rows, rate); ``stored`` tells that the columns to match by
    came from an earlier run.
    """

    required: float
    share: float | None
    rows: int
    unmatched: int
    rates: tuple[tuple[str, str, int, int, float], ...] = ()
    stored: bool = False

    @property
    def is_enough(self) -> bool:
        return self.share is None or self.share >= self.required


@dataclass(frozen=True)
class LoadOutcome:
    """Records loaded straight into a raw table, as ``name``, under the stamp ``pull_timestamp``."""

    resource: str
    table: str
    name: str
    rows: int
    inserted: int
    removed: int
    full_refresh: bool
    pull_timestamp: datetime


@dataclass(frozen=True)
class BundleResult:
    """One run of a bundle. ``unchanged``: the same files with the same bundle were done before, and nothing was to do.

    ``failure`` is the first cause of what went wrong, None if nothing did; ``failed_step`` the step it went wrong in.
    ``encodings`` are what the text files were read in, by variable. ``archived`` are paths below the lake's root.
    ``seconds`` are by step.
    """

    bundle: str
    pair: TenantYear
    grain: str | None
    files: Mapping[str, str]
    started_at: datetime
    fingerprint: str = ""
    commit: str | None = None
    unchanged: bool = False
    outputs: tuple[WrittenOutput, ...] = ()
    encodings: Mapping[str, str] = field(default_factory=dict)
    match: MatchOutcome | None = None
    validated: tuple[ResourceOutcome, ...] = ()
    sent: tuple[ResourceOutcome, ...] = ()
    deleted: tuple[ResourceOutcome, ...] = ()
    loaded: tuple[LoadOutcome, ...] = ()
    archived: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    failed_step: str | None = None
    failure: str | None = None

    @property
    def is_done(self) -> bool:
        return self.failure is None
