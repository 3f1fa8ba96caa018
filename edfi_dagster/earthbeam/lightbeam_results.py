"""What Lightbeam did, from what it left: its results file, its log of a deletion, and its state."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edfi_dagster.earthbeam.errors import ToolFailed
from edfi_dagster.earthbeam.result import Refusal, ResourceOutcome
from edfi_dagster.earthbeam.scrubbing import scrubbed
from edfi_dagster.earthbeam.sent import ACCEPTED, record_hash, record_lines

MOST_REFUSALS = 10
# Lightbeam reads a message once per record; of many records with one fault, each may have its own text.
_MOST_READ = 200
NOT_STORED = 400
_DELETING = re.compile(r"deleting data from endpoint (\S+) ")
_COUNTS = re.compile(r"\(final status counts: (\{.*?\})\)")
_REASON = re.compile(r"\(reason: \[(.*)\]; instances: (\d+)\)")
# Hash of a record's text → HTTP status of its last sending.
Statuses = Callable[[str], Mapping[bytes, int]]


def read_results(file: Path) -> Mapping[str, Any] | None:
    """The results file; None where Lightbeam ended before it wrote one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("resources"), dict) else None


@contextmanager
def _understood() -> Iterator[None]:
    """Raises ToolFailed for results of another form than this version of Lightbeam writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise ToolFailed(
            f"Lightbeam left results that cannot be read ({type(error).__name__}); see which version of lightbeam is "
            "installed, then run again"
        ) from None


@_understood()
def validations(
    document: Mapping[str, Any], records: Path, resources: Iterable[str]
) -> tuple[ResourceOutcome, ...]:
    """What a validation found. A resource that is not in the results is not offered by the ODS. Raises ToolFailed."""
    found = []
    for resource, told in _told(document, resources):
        lines = _count(records, resource)
        if told is None:
            found.append(ResourceOutcome(resource, lines, offered=False))
            continue
        failed = min(int(told["records_failed"]), lines)
        refusals = _refusals(told, records, resource)
        found.append(ResourceOutcome(resource, lines, lines - failed, failed=failed, refusals=refusals))
    return tuple(found)


@_understood()
def sendings(
    document: Mapping[str, Any], records: Path, resources: Iterable[str], statuses: Statuses
) -> tuple[ResourceOutcome, ...]:
    """What one sending did. A record is with the ODS if, and only if, its status in the state says so: the results count
    as skipped what was refused in an earlier run. Raises ToolFailed.
    """
    found = []
    for resource, told in _told(document, resources):
        lines = [record_hash(line) for line in record_lines(records, resource)]
        if told is None:
            found.append(ResourceOutcome(resource, len(lines), offered=False))
            continue
        known = statuses(resource)
        refused = Counter(status for key in lines if (status := known.get(key, NOT_STORED)) not in ACCEPTED)
        successes = {str(row["status_code"]): int(row["count"]) for row in told.get("successes", ())}
        failed, accepted = refused.total(), sum(successes.values())
        refusals = _explained(_refusals(told, records, resource), refused)
        skipped = max(0, len(lines) - failed - accepted)
        found.append(ResourceOutcome(resource, len(lines), accepted, skipped, failed, successes, refusals))
    return tuple(found)


def joined(
    earlier: Sequence[ResourceOutcome], later: Sequence[ResourceOutcome]
) -> tuple[ResourceOutcome, ...]:
    """Two attempts at sending the same records as one: what failed is what failed last."""
    before = {outcome.resource: outcome for outcome in earlier}
    found = []
    for outcome in later:
        first = before[outcome.resource]
        now = {refusal.status for refusal in outcome.refusals}
        # The second attempt leaves alone what will not pass, and says nothing of it.
        kept = [refusal for refusal in first.refusals if refusal.status in now and refusal.message]
        told = {(refusal.status, refusal.message) for refusal in kept}
        silent = {refusal.status for refusal in kept}
        fresh = [
            refusal
            for refusal in outcome.refusals
            if (refusal.status, refusal.message) not in told
            and (refusal.message or refusal.status not in silent)
        ]
        statuses = Counter(first.statuses) + Counter(outcome.statuses)
        accepted = first.accepted + outcome.accepted
        found.append(
            replace(
                outcome,
                accepted=accepted,
                skipped=max(0, outcome.records - accepted - outcome.failed),
                statuses=dict(statuses),
                refusals=tuple([*kept, *fresh][:MOST_REFUSALS]),
            )
        )
    return tuple(found)


def deletions(log: Path, records: Path, resources: Iterable[str]) -> tuple[ResourceOutcome, ...]:
    """What a deletion did, from its log: it writes no results. A record that the ODS does not have counts as skipped."""
    counts: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {}
    current = ""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := _DELETING.search(line):
            current = found.group(1)
            counts[current], reasons[current] = Counter(), Counter()
        elif current and (found := _COUNTS.search(line)):
            counts[current].update(_numbers(found.group(1)))
        elif current and (found := _REASON.search(line)):
            reasons[current][found.group(1)] += int(found.group(2))
    return tuple(
        _deletion(resource, _count(records, resource), counts.get(resource), reasons.get(resource, Counter()))
        for resource in resources
    )


def _deletion(
    resource: str, lines: int, counts: Counter[str] | None, reasons: Counter[str]
) -> ResourceOutcome:
    if counts is None:
        return ResourceOutcome(resource, lines, offered=False)
    gone = sum(count for reason, count in reasons.items() if reason.startswith("payload not found"))
    deleted = sum(count for status, count in counts.items() if status.startswith("2"))
    refusals = tuple(
        Refusal(reason[:3] if reason[:3].isdigit() else "delete", scrubbed(reason), count)
        for reason, count in reasons.most_common(MOST_REFUSALS)
        if not reason.startswith("payload not found")
    )
    failed = max(0, lines - deleted - gone)
    return ResourceOutcome(resource, lines, deleted, gone, failed, dict(counts), refusals)


def _numbers(text: str) -> dict[str, int]:
    """``{204: 5, 409: 1}`` as Python prints it."""
    return {status: int(count) for status, count in re.findall(r"(\d+): (\d+)", text)}


def _told(
    document: Mapping[str, Any], resources: Iterable[str]
) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    for resource in resources:
        told = document["resources"].get(resource)
        yield resource, told if isinstance(told, dict) and "records_failed" in told else None


def _count(records: Path, resource: str) -> int:
    return sum(1 for _ in record_lines(records, resource))


def _refusals(told: Mapping[str, Any], records: Path, resource: str) -> tuple[Refusal, ...]:
    """The failures, those first that struck most records, with students' values taken out of the messages."""
    rows = list(told.get("failures", ()))[:_MOST_READ]
    wanted = {row["line_numbers"][0] for row in rows if row.get("line_numbers")}
    payloads = {
        number: line for number, line in enumerate(record_lines(records, resource), 1) if number in wanted
    }
    counts: Counter[tuple[str, str]] = Counter()
    lines: dict[tuple[str, str], int] = {}
    for row in rows:
        line = row["line_numbers"][0] if row.get("line_numbers") else None
        status = str(row.get("status_code") or row.get("method") or "unknown")
        key = (status, scrubbed(str(row.get("message", "")), payloads.get(line or 0)))
        counts[key] += int(row.get("count", 1))
        if line is not None:
            lines[key] = min(line, lines.get(key, line))
    return tuple(
        Refusal(status, message, count, lines.get((status, message)))
        for (status, message), count in counts.most_common(MOST_REFUSALS)
    )


def _explained(refusals: tuple[Refusal, ...], refused: Counter[int]) -> tuple[Refusal, ...]:
    """Refusals, with one more for each status that no message tells of: an answer that is no JSON leaves none."""
    told = {refusal.status for refusal in refusals}
    silent = [Refusal(str(status), "", count) for status, count in refused.items() if str(status) not in told]
    return (*refusals, *silent)
