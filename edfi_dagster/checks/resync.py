"""``resync``: bring a tenant and year up to date, and refresh fully only what even then differs from its ODS."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

from edfi_dagster.assets.extract import PairRun
from edfi_dagster.assets.keys import AssetKeys, pair_of, partition_key
from edfi_dagster.assets.materializations import log
from edfi_dagster.assets.outcome import told_as_failure
from edfi_dagster.checks.counts import counted_and_compared, evaluations
from edfi_dagster.checks.tenant_years import TENANT_YEARS, table
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.extract.comparison import Comparison, Verdict
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of, find_endpoints

RESYNC_JOB = "resync"
# An ODS that is being written to differs from every delta by the time it is counted.
_DELTAS = 3

Pull = Callable[[Sequence[Endpoint], bool], Sequence[str]]
"""Pulls and loads endpoints, fully refreshed or not; the causes of what failed."""
Compare = Callable[[Sequence[Endpoint]], Sequence[Comparison]]


@dataclass(frozen=True)
class Resynced:
    """What came of it: the last comparison of every endpoint, and those that were fully refreshed.

    ``uncounted`` are endpoints that the ODS does not offer, or did not count.
    """

    pair: TenantYear
    compared: Sequence[Comparison]
    refreshed: Sequence[Endpoint]
    uncounted: Sequence[Endpoint]
    failures: Sequence[str]

    @property
    def differing(self) -> list[Comparison]:
        return [c for c in self.compared if c.verdict is not Verdict.EQUAL]

    @property
    def is_equal(self) -> bool:
        """Whether all that was asked for is known to be right."""
        return not self.differing and not self.failures

    @property
    def sentence(self) -> str:
        moving = sum(c.verdict is Verdict.MOVING for c in self.differing)
        numbers = {
            "fully refreshed": len(self.refreshed),
            "drifted": len(self.differing) - moving,
            "being written to": moving,
        }
        told = [f"{number} {what}" for what, number in numbers.items() if number]
        if self.compared and not self.differing:
            told.append("all equal")
        return ", ".join([f"{self.pair}: {len(self.compared)} counted", *told])

    def document(self) -> dict[str, Any]:
        return {
            "tenant": self.pair.tenant,
            "year": self.pair.year,
            "equal": self.is_equal,
            "compared": len(self.compared),
            "refreshed": [endpoint.path for endpoint in self.refreshed],
            "differing": [
                {
                    "endpoint": c.endpoint.path,
                    "ods_count": c.counted,
                    "rows": c.rows,
                    "difference": c.difference,
                    "verdict": str(c.verdict),
                }
                for c in self.differing
            ],
            "not_compared": [endpoint.path for endpoint in self.uncounted],
            "failures": list(self.failures),
        }


def resync(
    pair: TenantYear, endpoints: Sequence[Endpoint], pull: Pull, compare: Compare, *, dry_run: bool = False
) -> Resynced:
    """A delta, then a full refresh of what still differs and no write since can explain; ``dry_run`` only compares."""
    failures = [] if dry_run else list(pull(endpoints, False))
    found = {c.endpoint: c for c in compare(endpoints)}
    for _ in range(1, _DELTAS):
        moving = _with(found, Verdict.MOVING)
        if dry_run or not moving:
            break
        failures += pull(moving, False)
        found |= {c.endpoint: c for c in compare(moving)}
    drifted = [] if dry_run else _with(found, Verdict.DRIFTED)
    if drifted:
        failures += pull(drifted, True)
        found |= {c.endpoint: c for c in compare(drifted)}
    uncounted = [endpoint for endpoint in endpoints if endpoint not in found]
    if not found:
        failures.append(f"{pair}: the ODS counted none of {len(endpoints)} endpoints, so nothing is compared")
    return Resynced(pair, list(found.values()), drifted, uncounted, failures)


def _with(found: dict[Endpoint, Comparison], verdict: Verdict) -> list[Endpoint]:
    return [endpoint for endpoint, comparison in found.items() if comparison.verdict is verdict]


# -- as a job -------------------------------------------------------------------------------------------------


class ResyncConfig(dg.Config):
    """``ops.resync_tenant_year.config`` in the launchpad."""

    endpoints: list[str] = Field(
        default=[], description="Only these, e.g. students or tpdm/candidates; all of them when empty."
    )
    dry_run: bool = Field(default=False, description="Count and compare, and change nothing.")


def build_resync_job(
    platform: Platform, keys: AssetKeys, partitions: dg.PartitionsDefinition
) -> dg.JobDefinition:
    """The job of the UI; its resources are those of the definitions."""

    @dg.op(
        out=dg.Out(dg.Nothing),
        description="A delta, then a full refresh of only what still differs.",
    )
    def resync_tenant_year(context: dg.OpExecutionContext, config: ResyncConfig) -> None:
        pair = pair_of(context.partition_key)
        with told_as_failure(pair):
            declared = endpoints_of(platform, pair)
            chosen = find_endpoints(config.endpoints, declared) if config.endpoints else declared
            run = _JobRun(context, platform, keys, pair)
            done = resync(pair, chosen, run.pull, run.compare, dry_run=config.dry_run)
        for event in run.evaluations(done):
            log(context, event)
        context.log.info(done.sentence)
        log(
            context,
            dg.AssetObservation(TENANT_YEARS, partition=partition_key(pair), metadata=_metadata(done)),
        )
        if not done.is_equal:
            causes = "".join(f"\n- {cause}" for cause in done.failures)
            raise dg.Failure(done.sentence + causes, metadata=_metadata(done), allow_retries=False)

    @dg.job(
        name=RESYNC_JOB,
        partitions_def=partitions,
        executor_def=dg.in_process_executor,
        description="Bring one tenant and year up to date, have its ODS count every endpoint, and fully refresh only those "
        "that still differ.",
    )
    def job() -> None:
        resync_tenant_year()

    return job


class _JobRun:
    """What the job does, by the same means as an extract."""

    def __init__(
        self, context: dg.OpExecutionContext, platform: Platform, keys: AssetKeys, pair: TenantYear
    ) -> None:
        self._context = context
        self._platform = platform
        self._keys = keys
        self._pair = pair

    def pull(self, endpoints: Sequence[Endpoint], full_refresh: bool) -> Sequence[str]:
        selected = {key for endpoint in endpoints for key in self._keys.family(endpoint)}
        asset_context = dg.AssetExecutionContext(self._context)
        run = PairRun(asset_context, self._platform, self._keys, selected)
        failures: list[str] = []
        for result in run.results(full_refresh=full_refresh):
            failures += result.failures.values()
            for event in run.events(result):
                log(self._context, event)
        for closing in run.closing_events():
            log(self._context, closing)
        return failures

    def compare(self, endpoints: Sequence[Endpoint]) -> Sequence[Comparison]:
        say = {"tell": self._context.log.info, "warn": self._context.log.warning}
        run_id = self._context.run_id
        return counted_and_compared(self._platform, self._pair, endpoints, **say, run_id=run_id)

    def evaluations(self, done: Resynced) -> Iterator[dg.AssetCheckEvaluation]:
        """For the tables' checks, where there are any."""
        if self._platform.ods(self._pair).extract.pull_total_counts:
            context = self._context
            yield from evaluations(context.instance, context.run_id, self._keys, self._pair, done.compared)


def _metadata(done: Resynced) -> dict[str, dg.MetadataValue]:
    found: dict[str, dg.MetadataValue] = {
        "edfi/compared": dg.MetadataValue.int(len(done.compared)),
        "edfi/refreshed": dg.MetadataValue.json([endpoint.path for endpoint in done.refreshed]),
        "edfi/differing": table(
            ("endpoint", "in the ODS", "here", "difference", "verdict"),
            [(c.endpoint.path, c.counted, c.rows, c.difference, str(c.verdict)) for c in done.differing],
        ),
    }
    return found
