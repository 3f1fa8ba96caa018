"""What an ODS counts beside what the warehouse holds, endpoint by endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from edfi_dagster.config import TenantYear
from edfi_dagster.extract import Job
from edfi_dagster.extract.collections import Collections
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of
from edfi_dagster.ods.changes import closing_window
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.ods.pages import DELETES, RECORDS
from edfi_dagster.warehouse.contract import Connection
from edfi_dagster.warehouse.current import current_sql, descriptor_counts, raw_table
from edfi_dagster.warehouse.ledger import standings

_TABLES_OF_A_QUERY = 40


class Verdict(StrEnum):
    """What a difference means.

    MOVING: no more records than the ODS wrote or deleted since the pull, so the next delta settles it. DRIFTED: more than
    that, so no delta will.
    """

    EQUAL = "equal"
    MOVING = "moving"
    DRIFTED = "drifted"


@dataclass(frozen=True)
class Comparison:
    """One endpoint: records that the ODS counted, and current rows here, which were pulled last at ``pulled`` (UTC).

    ``changed`` is how many records the ODS wrote since (where rows are missing here) or deleted (where there are too
    many); None where that was not asked or cannot be known.
    """

    endpoint: Endpoint
    counted: int
    rows: int
    verdict: Verdict
    pulled: datetime | None = None
    changed: int | None = None

    @property
    def difference(self) -> int:
        """Rows here less records there."""
        return self.rows - self.counted


def compare(job: Job, counted: Mapping[str, int]) -> list[Comparison]:
    """Judge what the ODS counted (name → records) by what is in the warehouse, in the order of the endpoints.

    One query for all tables; the ODS is asked again only about endpoints that differ. What it cannot say is warned of
    and left out. Raises WarehouseError.
    """
    endpoints = [e for e in endpoints_of(job.platform, job.pair) if e.snake in counted]
    with job.warehouse.connected() as connection:
        rows = current_counts(connection, job.pair, endpoints)
        known = standings(connection, job.pair).get(job.pair, {})
    found = [_first_look(e, counted[e.snake], rows.get(e.snake, 0)) for e in endpoints]
    pulled = {name: standing.last_pull for name, standing in known.items()}
    versions = {name: standing.version for name, standing in known.items()}
    question = _Question(job, versions)
    with ThreadPoolExecutor(job.session.settings.extract.max_concurrent_requests, "compare") as asking:
        judged = asking.map(lambda c: c if c.verdict is Verdict.EQUAL else question.judged(c), found)
        return [replace(c, pulled=pulled.get(c.endpoint.snake)) for c in judged if c is not None]


def current_counts(connection: Connection, pair: TenantYear, endpoints: Sequence[Endpoint]) -> dict[str, int]:
    """name → current rows, where there are any; one query for the descriptors, two for every 40 resources."""
    counts = descriptor_counts(connection, pair) if any(e.is_descriptor for e in endpoints) else {}
    resources = [e for e in endpoints if not e.is_descriptor]
    for start in range(0, len(resources), _TABLES_OF_A_QUERY):
        batch = resources[start : start + _TABLES_OF_A_QUERY]
        tables = {e: connection.table(e.snake) for e in batch}
        raw = _counted(connection, pair, tables)
        # To tell which rows are current takes parsing them all.
        looked_into = {
            e: f"({current_sql(connection, raw_table(connection, e))})" for e in batch if raw[e.snake]
        }
        counts |= _counted(connection, pair, looked_into)
    return counts


def _counted(connection: Connection, pair: TenantYear, sources: Mapping[Endpoint, str]) -> dict[str, int]:
    """name → rows of the pair in what the endpoint stands for: a table, or a query in parentheses."""
    if not sources:
        return {}
    query = " UNION ALL ".join(
        f"SELECT {n}, count(*) FROM {source} c WHERE tenant_code = ? AND api_year = ? AND name = ?"  # noqa: S608
        for n, source in enumerate(sources.values())
    )
    names = [endpoint.snake for endpoint in sources]
    found = connection.rows(query, [value for name in names for value in (*pair, name)])
    return {names[n]: int(count) for n, count in found}


def _first_look(endpoint: Endpoint, counted: int, rows: int) -> Comparison:
    return Comparison(endpoint, counted, rows, Verdict.EQUAL if counted == rows else Verdict.DRIFTED)


class _Question:
    """Asks an ODS what it did since an endpoint was pulled up to its change version."""

    def __init__(self, job: Job, versions: Mapping[str, int | None]) -> None:
        self._job = job
        self._versions = versions
        self._collections = Collections(job.platform, job.session, lambda _: None)
        extract = job.session.settings.extract
        self._has_versions = extract.use_change_version and job.session.abilities.change_versions

    def judged(self, found: Comparison) -> Comparison | None:
        """None where the ODS did not answer."""
        if not self._has_versions:
            # Every run replaces all of it, and proves by two counts that it has it: what differs came afterwards.
            return replace(found, verdict=Verdict.MOVING)
        version = self._versions.get(found.endpoint.snake)
        if version is None:
            return found
        try:
            changed = self._changed(found, version)
        except EdFiError as error:
            self._job.warn(f"{error}; not compared")
            return None
        verdict = Verdict.MOVING if abs(found.difference) <= changed else Verdict.DRIFTED
        return replace(found, verdict=verdict, changed=changed)

    def _changed(self, found: Comparison, version: int) -> int:
        since = closing_window(version)
        if found.difference < 0:
            return self._collections.open(found.endpoint, RECORDS).count(since)
        if found.endpoint.has_changes:
            return self._collections.open(found.endpoint, DELETES).count(since)
        # Its deletes are not published to us; each took a change version.
        return max(0, self._job.session.newest_change_version() - version)
