"""``matches_ods_count``: whether a raw table has as many current rows of a tenant and year as their ODS has records.

An extract that pulls total counts reports it for every table where that is news, by one event each; it declares no check
of its own, which would cost three events a table in every run. The check can be run by itself as well, for one table or
many, and then counts anew.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from shlex import quote

import dagster as dg

from edfi_dagster.assets.keys import AssetKeys, pair_of, partition_key
from edfi_dagster.assets.outcome import told_as_failure
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.dagster_private import (
    AssetCheckEvaluationTargetMaterializationData,
    AssetCheckExecutionRecordStatus,
    PartitionKeyFilter,
)
from edfi_dagster.extract import count_rows
from edfi_dagster.extract.comparison import Comparison, Verdict, compare
from edfi_dagster.lake.pull import newest_to_read
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of
from edfi_dagster.resources import open_job

CHECK_NAME = "matches_ods_count"
_ODS_COUNT, _ENDPOINTS = "edfi/ods_count", "edfi/endpoints"
_LISTED = 50
_DESCRIPTION = (
    "Whether the table has as many current rows of the tenant and year as their ODS has records. What the ODS wrote or "
    "deleted since the pull is a warning, for the next run brings it; any other difference is an error, and "
    "`edfi-dagster resync` repairs it."
)


# -- after an extract -----------------------------------------------------------------------------------------


def evaluations(
    instance: dg.DagsterInstance,
    run_id: str,
    keys: AssetKeys,
    pair: TenantYear,
    comparisons: Iterable[Comparison],
) -> Iterator[dg.AssetCheckEvaluation]:
    """What an extract logs at its end, after its materializations: one evaluation for each table where it is news.

    No news is a table that the run did not materialize, and that is right now with the numbers of its last evaluation,
    which stands.
    """
    by_table = _by_table(keys, comparisons)
    known = _Known(instance, run_id, pair, by_table)
    for table, found in by_table.items():
        result = _result(pair, table, found)
        if known.is_news(table, result):
            yield dg.AssetCheckEvaluation(
                asset_key=table,
                check_name=CHECK_NAME,
                passed=result.passed,
                severity=result.severity,
                description=result.description,
                metadata=result.metadata,
                partition=partition_key(pair),
                # Without it, the UI takes the evaluation for one of an earlier state of the table.
                target_materialization_data=known.target(table),
            )


class _Known:
    """What an instance knows of one partition of the tables: two queries, however many tables."""

    def __init__(
        self, instance: dg.DagsterInstance, run_id: str, pair: TenantYear, tables: Iterable[dg.AssetKey]
    ) -> None:
        self._instance = instance
        self._partition = partition_key(pair)
        of_run = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        self._materialized = {record.asset_key for record in of_run.records}
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [dg.AssetCheckKey(table, CHECK_NAME) for table in tables],
            partition_filter=PartitionKeyFilter(key=self._partition),
        )
        self._latest = {check.asset_key: record for check, record in latest.items()}

    def is_news(self, table: dg.AssetKey, result: dg.AssetCheckResult) -> bool:
        last = self._last(table)
        if last is None or not result.passed:
            return True
        if _number(last, _ENDPOINTS) > _number(result, _ENDPOINTS):
            return False  # a run of some descriptors says nothing of the others
        unlike = _number(last, _ODS_COUNT) != _number(result, _ODS_COUNT)
        return not last.passed or unlike or table in self._materialized

    def _last(self, table: dg.AssetKey) -> dg.AssetCheckEvaluation | None:
        """None also where a later run has announced one, which without a new one would count as skipped."""
        record = self._latest.get(table)
        if record is None or record.status is AssetCheckExecutionRecordStatus.PLANNED:
            return None
        return record.evaluation

    def target(self, table: dg.AssetKey) -> AssetCheckEvaluationTargetMaterializationData | None:
        """The latest materialization."""
        filters = dg.AssetRecordsFilter(asset_key=table, asset_partitions=[self._partition])
        for record in self._instance.fetch_materializations(filters, limit=1).records:
            return AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id,
                run_id=record.event_log_entry.run_id,
                timestamp=record.timestamp,
            )
        return None


# -- by itself ------------------------------------------------------------------------------------------------


def build_counts_check(
    platform: Platform, keys: AssetKeys, partitions: dg.PartitionsDefinition
) -> dg.AssetChecksDefinition:
    """The check of every raw table of the platform."""
    tables = dict.fromkeys(keys.table(endpoint) for endpoint in keys.endpoints)

    @dg.multi_asset_check(name=CHECK_NAME, specs=_specs(tables, partitions), can_subset=True)
    def matches_ods_count(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        pair = pair_of(context.partition_key)
        selected = {check.asset_key for check in context.selected_asset_check_keys}
        say = {"tell": context.log.info, "warn": context.log.warning}
        with told_as_failure(pair):
            chosen = [e for e in endpoints_of(platform, pair) if keys.table(e) in selected]
            found = counted_and_compared(platform, pair, chosen, **say, run_id=context.run.run_id)
        for table, comparisons in _by_table(keys, found).items():
            yield _result(pair, table, comparisons)

    return matches_ods_count


def counted_and_compared(
    platform: Platform,
    pair: TenantYear,
    endpoints: Sequence[Endpoint],
    *,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
    run_id: str = "",
) -> list[Comparison]:
    """Have the ODS count the endpoints, note that as total counts, and compare it with the current rows.

    What the ODS does not offer or permit is left out. Raises EdFiError, LakeError, WarehouseError.
    """
    with open_job(platform, pair, endpoints_of(platform, pair), tell=tell, warn=warn, run_id=run_id) as job:
        newest_to_read(job.session)  # from here on the snapshot is read, where runs read that
        return compare(job, count_rows(job, endpoints))


def _specs(tables: Iterable[dg.AssetKey], partitions: dg.PartitionsDefinition) -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        # Dagster calls partitions of checks a preview; without, a tenant's result would hide another's.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(CHECK_NAME, asset=table, description=_DESCRIPTION, partitions_def=partitions)
            for table in tables
        ]


# -- what is told ---------------------------------------------------------------------------------------------


def _by_table(keys: AssetKeys, comparisons: Iterable[Comparison]) -> Mapping[dg.AssetKey, list[Comparison]]:
    def table(comparison: Comparison) -> dg.AssetKey:
        return keys.table(comparison.endpoint)

    ordered = sorted(comparisons, key=table)
    return {key: list(found) for key, found in groupby(ordered, key=table)}


def _result(pair: TenantYear, table: dg.AssetKey, comparisons: Sequence[Comparison]) -> dg.AssetCheckResult:
    """The verdict on one table, which holds one resource or all descriptors."""
    verdicts = {c.verdict for c in comparisons}
    return dg.AssetCheckResult(
        asset_key=table,
        check_name=CHECK_NAME,
        passed=verdicts == {Verdict.EQUAL},
        severity=dg.AssetCheckSeverity.ERROR if Verdict.DRIFTED in verdicts else dg.AssetCheckSeverity.WARN,
        description=_description(pair, comparisons),
        metadata=_metadata(comparisons),
    )


def _description(pair: TenantYear, comparisons: Sequence[Comparison]) -> str:
    counted = sum(c.counted for c in comparisons)
    differing = [c for c in comparisons if c.verdict is not Verdict.EQUAL]
    if not differing:
        return f"{pair}: {counted:,} here as in the ODS"
    told = f"{pair}: {sum(c.rows for c in comparisons):,} here, {counted:,} in the ODS"
    drifted = [c.endpoint.path for c in differing if c.verdict is Verdict.DRIFTED]
    if not drifted:
        return f"{told}, which was written to since the pull; the next run brings it"
    command = f"edfi-dagster resync --tenant {quote(pair.tenant)} --year {pair.year}"
    return f"{told}; run {command} --endpoints {','.join(drifted[:_LISTED])}"


def _metadata(comparisons: Sequence[Comparison]) -> dict[str, dg.MetadataValue]:
    pulled = [c.pulled for c in comparisons if c.pulled is not None]
    changed = [c.changed for c in comparisons if c.changed is not None]
    found: dict[str, dg.MetadataValue] = {
        _ODS_COUNT: dg.MetadataValue.int(sum(c.counted for c in comparisons)),
        "edfi/current_rows": dg.MetadataValue.int(sum(c.rows for c in comparisons)),
        "edfi/difference": dg.MetadataValue.int(sum(c.difference for c in comparisons)),
    }
    if comparisons[0].endpoint.is_descriptor:
        found[_ENDPOINTS] = dg.MetadataValue.int(len(comparisons))
    if pulled:
        found["edfi/pull_timestamp"] = dg.MetadataValue.timestamp(max(pulled))
    if changed:
        found["edfi/changed_since"] = dg.MetadataValue.int(sum(changed))
    differing = [c for c in comparisons if c.verdict is not Verdict.EQUAL]
    if len(comparisons) > 1 and differing:
        found["edfi/differing"] = _table(differing)
    return found


def _number(told: dg.AssetCheckEvaluation | dg.AssetCheckResult, name: str) -> int:
    value = (told.metadata or {}).get(name)
    return value.value or 0 if isinstance(value, dg.IntMetadataValue) else 0


def _table(differing: Sequence[Comparison]) -> dg.TableMetadataValue:
    """The endpoints that differ most."""
    largest = sorted(differing, key=lambda c: -abs(c.difference))[:_LISTED]
    columns = {
        "endpoint": "string",
        "in the ODS": "int",
        "here": "int",
        "difference": "int",
        "verdict": "string",
    }
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                dict(
                    zip(
                        columns,
                        (c.endpoint.path, c.counted, c.rows, c.difference, str(c.verdict)),
                        strict=True,
                    )
                )
            )
            for c in largest
        ],
        schema=dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()]),
    )
