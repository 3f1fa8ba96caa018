"""How fresh the warehouse is: every declared pair and endpoint, from the warehouse, the lake's run.json and the ODSs.

Takes no lease and writes nothing; a warehouse is let go before the ODSs are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from edfi_dagster.config import ConfigError, OdsSettings, Platform, TenantYear
from edfi_dagster.health.last_runs import LastRuns, Outcome, last_runs
from edfi_dagster.health.probe import probed
from edfi_dagster.health.rows import Counts, OdsCounts, Rows, count_rows, latest_compared, latest_totals
from edfi_dagster.health.stores import (
    existing_tables,
    is_made,
    lacks_key_changes_column,
    misnamed_tables,
)
from edfi_dagster.lake.store import LakeError, LakeStore, open_lake
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.errors import EdFiError
from edfi_dagster.sandbox.embedded import base_urls
from edfi_dagster.warehouse.contract import COUNT_CHECKS, LONGEST_WAIT_SECONDS, WarehouseError
from edfi_dagster.warehouse.ledger import Standing, standings
from edfi_dagster.warehouse.opening import open_warehouse

_ASKED_AT_ONCE = 64
_LAKE_ASKED_AT_ONCE = 16


@dataclass(frozen=True)
class EndpointStatus:
    """One endpoint of one pair. None stands for what is not known or does not exist; times are UTC.

    ``version`` is the change version up to which its records are committed, ``behind`` how many the ODS is ahead.
    ``drift`` is current rows less the records that the ODS counted in the run that loaded them, or later.
    """

    endpoint: Endpoint
    version: int | None = None
    last_pull: datetime | None = None
    rows: Rows | None = None
    behind: int | None = None
    drift: int | None = None
    outcome: Outcome | None = None
    is_late: bool = False

    @property
    def is_loaded(self) -> bool:
        return self.last_pull is not None


@dataclass(frozen=True)
class PairStatus:
    """``newest`` is the ODS's newest change version; ``problem`` says why it, or the lake, could not be asked."""

    pair: TenantYear
    endpoints: Sequence[EndpointStatus]
    newest: int | None = None
    problem: str = ""
    latest_run: datetime | None = None
    has_ended: bool = True

    @property
    def loaded(self) -> Sequence[EndpointStatus]:
        return [status for status in self.endpoints if status.is_loaded]

    @property
    def version(self) -> int | None:
        """The lowest of its endpoints: everything up to it is committed."""
        return min((s.version for s in self.loaded if s.version is not None), default=None)

    @property
    def behind(self) -> int | None:
        """Of the endpoint that is furthest behind."""
        return max((s.behind for s in self.loaded if s.behind is not None), default=None)

    @property
    def rows(self) -> Rows | None:
        found = [status.rows for status in self.endpoints if status.rows]
        if not found:
            return None
        return Rows(sum(rows.count for rows in found), all(rows.is_exact for rows in found))

    @property
    def last_pull(self) -> datetime | None:
        """The latest of its endpoints."""
        return max((s.last_pull for s in self.endpoints if s.last_pull is not None), default=None)

    @property
    def late(self) -> Sequence[EndpointStatus]:
        return [status for status in self.endpoints if status.is_late]

    @property
    def failed(self) -> Sequence[EndpointStatus]:
        return [status for status in self.endpoints if status.outcome and status.outcome.failure]

    @property
    def skipped(self) -> Sequence[EndpointStatus]:
        return [status for status in self.endpoints if status.outcome and status.outcome.is_skipped]

    @property
    def drifted(self) -> Sequence[EndpointStatus]:
        return [status for status in self.endpoints if status.drift]


@dataclass(frozen=True)
class Stored:
    """What the warehouse knows. ``is_set_up`` is false where it has no tables yet.

    ``totals`` are the total counts, ``compared`` the counts that runs compared with the current rows.
    """

    is_set_up: bool = False
    standings: Mapping[TenantYear, Mapping[str, Standing]] = field(default_factory=dict)
    rows: Counts = field(default_factory=dict)
    totals: OdsCounts = field(default_factory=dict)
    compared: OdsCounts = field(default_factory=dict)


def freshness(
    platform: Platform,
    endpoints: Mapping[TenantYear, Sequence[Endpoint]],
    *,
    offline: bool,
    tell: Callable[[str], None],
    now: datetime | None = None,
    longest_wait: float = LONGEST_WAIT_SECONDS,
) -> tuple[Stored, list[PairStatus]]:
    """What the warehouse knows, and the status of every pair in ``endpoints``; ``offline`` asks no ODS.

    ``tell`` hears what is being waited for, ``longest_wait`` are the seconds to wait for a DuckDB file. An ODS or lake
    that cannot be asked is its pair's ``problem``. Raises WarehouseError; ConfigError for a warehouse without its secret.
    """
    lake = open_lake(platform.lake, platform.extract.tmp_dir)
    stored = read_warehouse(platform, lake, endpoints, tell, longest_wait)
    known = [pair for pair in endpoints if stored.standings.get(pair)]
    with ThreadPoolExecutor(_LAKE_ASKED_AT_ONCE, "lake") as reading:
        runs = dict(
            zip(
                endpoints,
                reading.map(lambda pair: _runs(lake, pair, endpoints[pair]), endpoints),
                strict=True,
            )
        )
        newest = {} if offline else _newest(platform, known)
    now = now or datetime.now(UTC)
    return stored, [
        _pair_status(platform.ods(pair), chosen, stored, runs[pair], newest.get(pair), now)
        for pair, chosen in endpoints.items()
    ]


def is_late(last_pull: datetime, late_after_hours: float, now: datetime) -> bool:
    """Whether the last pull is longer ago than it should be."""
    return now - last_pull > timedelta(hours=late_after_hours)


def read_warehouse(
    platform: Platform,
    lake: LakeStore,
    endpoints: Mapping[TenantYear, Sequence[Endpoint]],
    tell: Callable[[str], None],
    longest_wait: float,
) -> Stored:
    """Raises WarehouseError, also for a ledger of Airflow that lacks a column, and for tables that were renamed."""
    if not is_made(platform):
        return Stored()
    pair = next(iter(endpoints)) if len(endpoints) == 1 else None
    with (
        closing(
            open_warehouse(platform, lake, tell, tag={"run": "status"}, longest_wait=longest_wait)
        ) as warehouse,
        warehouse.connected() as connection,
    ):
        tables = existing_tables(connection, platform)
        if misnamed := misnamed_tables(connection, platform):
            raise WarehouseError("; ".join(misnamed))
        if platform.tables.change_versions.lower() not in tables:
            return Stored()
        if lacks_key_changes_column(connection, platform):
            raise WarehouseError(
                f"table {platform.tables.change_versions} has no column is_key_changes; run edfi-dagster "
                "setup-warehouse, which adds it"
            )
        has_totals = platform.tables.total_counts.lower() in tables
        return Stored(
            True,
            standings(connection, pair),
            count_rows(warehouse, endpoints, tables),
            latest_totals(connection, pair) if has_totals else {},
            latest_compared(connection, pair) if COUNT_CHECKS in tables else {},
        )


def _runs(lake: LakeStore, pair: TenantYear, endpoints: Sequence[Endpoint]) -> LastRuns | str:
    """The last runs, or why the lake does not tell them."""
    try:
        return last_runs(lake, pair, {endpoint.snake for endpoint in endpoints})
    except (LakeError, ConfigError) as error:
        return str(error)


def _newest(platform: Platform, pairs: Sequence[TenantYear]) -> Mapping[TenantYear, int | str | None]:
    """pair → newest change version; None where there are none, a sentence where the ODS cannot be asked."""
    if not pairs:
        return {}

    def ask(pair: TenantYear, base_url: str) -> int | str | None:
        try:
            with probed(platform, pair, base_url) as ods:
                if not (ods.settings.extract.use_change_version and ods.abilities.change_versions):
                    return None
                ods.patience.begin()
                return ods.newest_change_version()
        except EdFiError as error:
            return error.reason
        except ConfigError as error:
            return str(error)

    with base_urls(platform, pairs) as urls, ThreadPoolExecutor(_ASKED_AT_ONCE, "newest") as asking:
        return dict(zip(pairs, asking.map(lambda pair: ask(pair, urls[pair]), pairs), strict=True))


def _pair_status(
    settings: OdsSettings,
    endpoints: Sequence[Endpoint],
    stored: Stored,
    runs: LastRuns | str,
    newest: int | str | None,
    now: datetime,
) -> PairStatus:
    pair = settings.pair
    problems = [found for found in (newest, runs) if isinstance(found, str)]
    known = runs if isinstance(runs, LastRuns) else LastRuns()
    version = newest if isinstance(newest, int) else None
    statuses = [
        _endpoint_status(endpoint, settings, stored, known.outcomes.get(endpoint.snake), version, now)
        for endpoint in endpoints
    ]
    return PairStatus(pair, statuses, version, "; ".join(problems), known.latest, known.has_ended)


def _endpoint_status(
    endpoint: Endpoint,
    settings: OdsSettings,
    stored: Stored,
    outcome: Outcome | None,
    newest: int | None,
    now: datetime,
) -> EndpointStatus:
    pair, name = settings.pair, endpoint.snake
    standing = stored.standings.get(pair, {}).get(name)
    if standing is None:
        is_skipped = outcome is not None and outcome.is_skipped
        return EndpointStatus(endpoint, outcome=outcome, is_late=not is_skipped)
    rows = stored.rows.get(pair, {}).get(name, Rows(0, is_exact=True))
    return EndpointStatus(
        endpoint,
        standing.version,
        standing.last_pull,
        rows,
        None if newest is None or standing.version is None else max(0, newest - standing.version),
        _drift(rows, standing, stored, pair, name),
        outcome,
        is_late(standing.last_pull, settings.extract.late_after_hours, now),
    )


def _drift(rows: Rows, standing: Standing, stored: Stored, pair: TenantYear, name: str) -> int | None:
    """By the total counts, else by what a run compared; None where both are older than the last pull, or rows unknown."""
    if not rows.is_exact:
        return None
    for counts in (stored.totals, stored.compared):
        stamp, counted = counts.get(pair, {}).get(name, (None, 0))
        if stamp is not None and stamp >= standing.last_pull:
            return rows.count - counted
    return None
