"""What a bundle's run did → materializations, check results, and ONE failure. Nothing in them is of any student."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import dagster as dg

from edfi_dagster.assets.bundle_specs import (
    RECORDS_VALID,
    SENT_WITHOUT_FAILURES,
    STUDENT_IDS_MATCH,
    BundleAssets,
)
from edfi_dagster.assets.keys import AssetKeys, partition_key
from edfi_dagster.config import TenantYear
from edfi_dagster.earthbeam import (
    BundleResult,
    LoadOutcome,
    MatchOutcome,
    Refusal,
    ResourceOutcome,
    WrittenOutput,
)
from edfi_dagster.earthbeam.bundle import MATCH_RATES, NO_MATCH
from edfi_dagster.lake.store import LakeStore

Metadata = dict[str, dg.MetadataValue]
_TOLD_REFUSALS = 5


class BundleEvents:
    """The events of one run of one bundle."""

    def __init__(self, assets: BundleAssets, keys: AssetKeys, result: BundleResult, lake: LakeStore) -> None:
        self._assets = assets
        self._keys = keys
        self._result = result
        self._lake = lake
        self._validated = {outcome.resource: outcome for outcome in result.validated}

    def materializations(self) -> Iterator[dg.AssetMaterialization]:
        """One for each output that was written, each resource of which anything was sent, each raw table that got rows."""
        result = self._result
        for output in result.outputs:
            if output.rows or output.name != NO_MATCH:
                yield self._materialization(self._assets.key(output.name), self._output(output))
        for outcome in (*result.sent, *result.deleted):
            if outcome.accepted or outcome.failed:
                yield self._materialization(self._assets.sent_key(outcome.resource), self._sent(outcome))
        for load in result.loaded:
            if load.inserted or load.removed:
                yield self._materialization(self._keys.shared(load.table), self._loaded(load))

    def checks(self) -> Iterator[dg.AssetCheckResult]:
        """Of what the run got to."""
        result = self._result
        most = self._assets.settings.lightbeam.max_failed_share
        if result.match is not None:
            yield _match_check(self._assets.key(MATCH_RATES), result.match)
        for outcome in result.validated:
            key = self._assets.key(self._assets.resources.get(outcome.resource, outcome.resource))
            yield _outcome_check(key, RECORDS_VALID, outcome, most)
        for outcome in (*result.sent, *result.deleted):
            yield _outcome_check(
                self._assets.sent_key(outcome.resource), SENT_WITHOUT_FAILURES, outcome, most
            )

    def _materialization(self, key: dg.AssetKey, metadata: Metadata) -> dg.AssetMaterialization:
        return dg.AssetMaterialization(
            key, partition=partition_key(self._result.pair), metadata={**metadata, **self._run()}
        )

    def _run(self) -> Metadata:
        """What is the same for every asset of the run."""
        result = self._result
        found: Metadata = {
            "edfi/files": dg.MetadataValue.json(dict(result.files)),
            "edfi/fingerprint": dg.MetadataValue.text(result.fingerprint),
        }
        if result.grain is not None:
            found["edfi/grain"] = dg.MetadataValue.text(result.grain)
        if result.commit is not None:
            found["edfi/commit"] = dg.MetadataValue.text(result.commit)
        if result.encodings:
            found["edfi/encodings"] = dg.MetadataValue.json(dict(result.encodings))
        return found

    def _output(self, output: WrittenOutput) -> Metadata:
        found: Metadata = {
            "edfi/rows": dg.MetadataValue.int(output.rows),
            "edfi/seconds": dg.MetadataValue.float(self._result.seconds.get("earthmover", 0.0)),
        }
        kept = (path for path in self._result.archived if "/raw/" not in path)
        path = next((p for p in kept if p.rpartition("/")[2].rpartition(".")[0] == output.file), None)
        if path is not None:
            found["dagster/uri"] = dg.MetadataValue.path(self._lake.uri(path))
        if output.resource in self._validated:
            found |= _rejected(self._validated[output.resource].refusals)
        if output.name == MATCH_RATES and self._result.match is not None:
            found |= _match(self._result.match)
        return found

    def _sent(self, outcome: ResourceOutcome) -> Metadata:
        verb = "deleted" if self._result.deleted else "sent"
        return {
            "edfi/records": dg.MetadataValue.int(outcome.records),
            f"edfi/{verb}": dg.MetadataValue.int(outcome.accepted),
            "edfi/skipped": dg.MetadataValue.int(outcome.skipped),
            "edfi/failed": dg.MetadataValue.int(outcome.failed),
            "edfi/accepted_by_status": dg.MetadataValue.json(dict(outcome.statuses)),
            "edfi/seconds": dg.MetadataValue.float(
                self._result.seconds.get("delete" if self._result.deleted else "send", 0.0)
            ),
            **_rejected(outcome.refusals),
        }

    def _loaded(self, load: LoadOutcome) -> Metadata:
        return {
            "edfi/rows": dg.MetadataValue.int(load.rows),
            "edfi/rows_loaded": dg.MetadataValue.int(load.inserted),
            "edfi/rows_removed": dg.MetadataValue.int(load.removed),
            "edfi/name": dg.MetadataValue.text(load.name),
            "edfi/bundle": dg.MetadataValue.text(self._assets.name),
            "edfi/full_refresh": dg.MetadataValue.bool(load.full_refresh),
            "edfi/pull_timestamp": dg.MetadataValue.timestamp(load.pull_timestamp),
        }


def failed(result: BundleResult) -> dg.Failure:
    """The failure of a run that has one: tenant, year, bundle, step, cause."""
    bundle = result.bundle if result.grain is None else f"{result.bundle} ({result.grain})"
    return failure_of(result.pair, bundle, result.failed_step or "begin", result.failure or "")


def failure_of(pair: TenantYear, bundle: str, step: str, cause: str) -> dg.Failure:
    return dg.Failure(
        f"{pair}: bundle {bundle}, step {step}: {cause}",
        metadata={"edfi/bundle": bundle, "edfi/step": step},
        allow_retries=False,
    )


def _rejected(refusals: Sequence[Refusal]) -> Metadata:
    """Counts by status, and the messages of those that struck most records."""
    if not refusals:
        return {}
    by_status: Counter[str] = Counter()
    for refusal in refusals:
        by_status[refusal.status] += refusal.count
    return {
        "edfi/rejected_by_status": dg.MetadataValue.json(dict(by_status)),
        "edfi/rejections": dg.MetadataValue.json([asdict(refusal) for refusal in refusals[:_TOLD_REFUSALS]]),
    }


def _match(match: MatchOutcome) -> Metadata:
    found: Metadata = {
        "edfi/required_match_rate": dg.MetadataValue.float(float(match.required)),
        "edfi/file_rows": dg.MetadataValue.int(match.rows),
        "edfi/unmatched": dg.MetadataValue.int(match.unmatched),
        "edfi/by_an_earlier_file": dg.MetadataValue.bool(match.stored),
    }
    if match.share is not None:
        found["edfi/match_rate"] = dg.MetadataValue.float(round(match.share, 6))
    if match.rates:
        names = ("source_column", "edfi_column", "matches", "rows", "match_rate")
        found["edfi/match_rates"] = dg.MetadataValue.json(
            [dict(zip(names, rate, strict=True)) for rate in match.rates]
        )
    return found


def _match_check(key: dg.AssetKey, match: MatchOutcome) -> dg.AssetCheckResult:
    share = "a file without rows" if match.share is None else f"{match.share:.1%} of {match.rows} rows"
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=STUDENT_IDS_MATCH,
        passed=match.is_enough,
        description=f"{share} found their student; {match.required:.1%} are required",
        metadata=_match(match),
    )


def _outcome_check(key: dg.AssetKey, name: str, outcome: ResourceOutcome, most: float) -> dg.AssetCheckResult:
    """Passed only if nothing failed; as many failures as are allowed make a warning of it."""
    told = f"{outcome.accepted} of {outcome.records} taken, {outcome.skipped} there already, {outcome.failed} failed"
    if name == RECORDS_VALID:
        told = f"{outcome.failed} of {outcome.records} invalid"
    lost = not outcome.offered and outcome.records > 0
    if lost:
        told = f"the ODS has no such endpoint, so {outcome.records} records were not sent"
    if outcome.refusals:
        told += f"; first: {outcome.refusals[0].text}"
    allowed = (outcome.failed or lost) and outcome.failed_share <= most
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=not outcome.failed and not lost,
        severity=dg.AssetCheckSeverity.WARN if allowed else dg.AssetCheckSeverity.ERROR,
        description=told,
        metadata={
            "edfi/records": dg.MetadataValue.int(outcome.records),
            "edfi/failed": dg.MetadataValue.int(outcome.failed),
            **_rejected(outcome.refusals),
        },
    )
