"""The checks over all tenants and years at once, on the one asset that stands for them: who is late, whose schema changed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import dagster as dg

from edfi_dagster.checks.schema import SchemaReport, schema_report
from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.dagster_private import UnresolvedAssetJobDefinition
from edfi_dagster.lake.store import LakeError
from edfi_dagster.warehouse.contract import WarehouseError

TENANT_YEARS = dg.AssetKey(["health", "tenant_years"])
IN_TIME, SCHEMA = "pulled_in_time", "schema_as_expected"
LATENESS_JOB, SCHEMA_JOB = "check_lateness", "check_schemas"
_LISTED = 200
_BEGINNING = datetime.fromtimestamp(0, UTC)
_WARN = dg.AssetCheckSeverity.WARN


class Late(Protocol):
    """A tenant and year, or a part of it, that is late; ``cron`` is what it was due by."""

    @property
    def pair(self) -> TenantYear: ...
    @property
    def part(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def expected(self) -> datetime: ...
    @property
    def succeeded(self) -> datetime | None: ...
    @property
    def cron(self) -> str | None: ...


WhoIsLate = Callable[[dg.DagsterInstance, datetime, Mapping[TenantYear, datetime]], Sequence[Late]]
"""What is late at a moment, by the runs of an instance; a pair that never succeeded counts from the moment it is given."""


def tenant_years_spec(platform: Platform, partitions: dg.PartitionsDefinition) -> dg.AssetSpec:
    """The asset: every run observes it with its summary, and nothing materializes it."""
    return dg.AssetSpec(
        TENANT_YEARS,
        description="Every tenant and year as a whole: what each of its runs did, whether it was pulled when it should have "
        "been, and whether its ODS still has the endpoints and fields that these assets were made for. Every run is an "
        "observation here; nothing materializes this asset.",
        partitions_def=partitions,
        group_name="health",
        kinds={"edfi"},
        owners=list(platform.owners),
    )


def build_lateness_check(
    who_is_late: WhoIsLate, pairs: Sequence[TenantYear], clock: Callable[[], float]
) -> dg.AssetChecksDefinition:
    """``pulled_in_time``: by the very rule that Slack is told by, from runs alone, so that it wakes no warehouse."""

    @dg.asset_check(
        asset=TENANT_YEARS,
        name=IN_TIME,
        description="Every declared tenant and year was pulled at most late_after_hours after its schedule said. "
        "Without a schedule: within the last late_after_hours, unless its ODS has not changed.",
    )
    def pulled_in_time(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        now = datetime.fromtimestamp(clock(), UTC)
        late = who_is_late(context.instance, now, dict.fromkeys(pairs, _BEGINNING))
        return _lateness(late, pairs, now)

    return pulled_in_time


def build_schema_check(platform: Platform) -> dg.AssetChecksDefinition:
    """``schema_as_expected``: two documents of every ODS, some megabytes each; once a day will do."""

    @dg.asset_check(
        asset=TENANT_YEARS,
        name=SCHEMA,
        description="Whether each ODS publishes the endpoints and fields that are expected of its data standard. Records "
        "are loaded as they are in any case: this tells when models downstream may want to know of more, or of less. An "
        "endpoint that appeared is no news any more once it is named under extract, switched on or off.",
    )
    def schema_as_expected(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        pairs = platform.pairs()
        try:
            report = schema_report(platform, pairs)
        except (ConfigError, LakeError, WarehouseError) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        for pair, reason in report.unread.items():
            context.log.warning(reason if str(pair) in reason else f"{pair}: {reason}")
        return _schemas(report, len(pairs))

    return schema_as_expected


def build_jobs() -> list[UnresolvedAssetJobDefinition]:
    """One job for each check, to be started from the UI or by a schedule."""
    described = {
        LATENESS_JOB: (IN_TIME, "See which tenants and years were not pulled when they should have been."),
        SCHEMA_JOB: (SCHEMA, "See which ODSs have endpoints or fields more or less than are expected."),
    }
    return [
        dg.define_asset_job(
            job,
            dg.AssetSelection.checks(dg.AssetCheckKey(TENANT_YEARS, check)),
            executor_def=dg.in_process_executor,
            description=description,
        )
        for job, (check, description) in described.items()
    ]


def build_schedules(
    platform: Platform, jobs: Iterable[UnresolvedAssetJobDefinition]
) -> list[dg.ScheduleDefinition]:
    """Lateness by the hour and schemas by the day, off until turned on."""
    crons = {LATENESS_JOB: "15 * * * *", SCHEMA_JOB: "0 6 * * *"}
    return [
        dg.ScheduleDefinition(
            name=job.name,
            job=job,
            cron_schedule=crons[job.name],
            execution_timezone=platform.timezone,
            description=job.description,
        )
        for job in jobs
    ]


# -- what is told ---------------------------------------------------------------------------------------------


def _lateness(late: Sequence[Late], pairs: Sequence[TenantYear], now: datetime) -> dg.AssetCheckResult:
    late = sorted(late, key=lambda one: one.succeeded or _BEGINNING)
    metadata: dict[str, dg.MetadataValue] = {
        "edfi/tenant_years": dg.MetadataValue.int(len(pairs)),
        "edfi/late": dg.MetadataValue.int(len(late)),
    }
    if late:
        metadata["edfi/who"] = table(
            ("tenant", "year", "what", "last success (UTC)", "late by", "schedule"),
            [
                (
                    one.pair.tenant,
                    one.pair.year,
                    str(one.part),
                    _moment(one.succeeded),
                    _late_by(one, now),
                    one.cron or "none",
                )
                for one in late[:_LISTED]
            ],
        )
    names = ", ".join(one.name for one in late[:3])
    more = f" and {len(late) - 3} more" if len(late) > 3 else ""
    return dg.AssetCheckResult(
        passed=not late,
        severity=_WARN,
        description=f"late: {names}{more}" if late else f"none of {len(pairs)} is late",
        metadata=metadata,
    )


def _schemas(report: SchemaReport, asked: int) -> dg.AssetCheckResult:
    metadata: dict[str, dg.MetadataValue] = {
        "edfi/tenant_years": dg.MetadataValue.int(asked - len(report.unread)),
        "edfi/changes": dg.MetadataValue.int(len(report.changes)),
    }
    if report.changes:
        rows = [
            (c.pair.tenant, c.pair.year, c.endpoint, str(c.change), ", ".join(c.fields[:20]))
            for c in report.changes[:_LISTED]
        ]
        metadata["edfi/what"] = table(("tenant", "year", "endpoint", "change", "fields"), rows)
    if report.unread:
        unread = [(pair.tenant, pair.year, reason) for pair, reason in report.unread.items()]
        metadata["edfi/not_read"] = table(("tenant", "year", "why"), unread[:_LISTED])
    found = f"changes: {len(report.changes):,}" if report.changes else "nothing changed"
    return dg.AssetCheckResult(
        passed=not report.changes,
        severity=_WARN,
        description=f"{found}; ODSs read: {asked - len(report.unread)} of {asked}",
        metadata=metadata,
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> dg.TableMetadataValue:
    """A table of metadata, each column of one type."""
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    kinds = {
        name: "int" if records and isinstance(records[0].data[name], int) else "string" for name in columns
    }
    return dg.MetadataValue.table(
        records, schema=dg.TableSchema([dg.TableColumn(name, kind) for name, kind in kinds.items()])
    )


def _moment(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" if moment else "never"


def _late_by(late: Late, now: datetime) -> str:
    """Since it was due; without a schedule, since its last success was too long ago."""
    if late.cron is not None:
        span = now - late.expected
    elif late.succeeded is not None:
        span = late.expected - late.succeeded
    else:
        return "–"
    return f"{span.total_seconds() / 3600:,.1f} h"
