"""What a question found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from edfi_dagster.config import TenantYear

Subject = Literal["configuration", "bundles", "ods", "lake", "warehouse", "slack"]
_NAMED_AT_MOST = 5


class State(StrEnum):
    """A warning is what a run lives with: something is skipped, or cannot be told."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One line. ``found`` never holds a secret or a student's value; ``remedy`` is empty where all is well."""

    question: str
    state: State
    found: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "state": str(self.state),
            "found": self.found,
            "remedy": self.remedy or None,
        }


@dataclass(frozen=True)
class Block:
    """The findings about one thing; ``pair`` is whose ODS it is."""

    subject: Subject
    title: str
    findings: Sequence[Finding]
    pair: TenantYear | None = None

    @property
    def state(self) -> State:
        """The worst of its findings."""
        states = {finding.state for finding in self.findings}
        return next((state for state in (State.FAILED, State.WARNING) if state in states), State.OK)

    def document(self) -> dict[str, Any]:
        place = {"tenant": self.pair.tenant, "year": self.pair.year} if self.pair else {}
        return {
            "subject": self.subject,
            **place,
            "title": self.title,
            "state": str(self.state),
            "findings": [finding.document() for finding in self.findings],
        }


def ok(question: str, found: str) -> Finding:
    return Finding(question, State.OK, found)


def warning(question: str, found: str, remedy: str = "") -> Finding:
    return Finding(question, State.WARNING, found, remedy)


def failed(question: str, found: str, remedy: str) -> Finding:
    return Finding(question, State.FAILED, found, remedy)


def explained(question: str, sentence: str, otherwise: str) -> Finding:
    """The failure that an error's sentence tells: what it says behind its first semicolon is the remedy."""
    found, semicolon, remedy = sentence.partition("; ")
    return failed(question, found, remedy if semicolon else otherwise)


def some(names: Iterable[str]) -> str:
    """The first few of many names, and how many more there are."""
    listed = list(names)
    more = len(listed) - _NAMED_AT_MOST
    shown = ", ".join(listed[:_NAMED_AT_MOST])
    return f"{shown} and {more} more" if more > 0 else shown
