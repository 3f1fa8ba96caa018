"""The change sensor: a run for each tenant and year whose ODS has changed since its last run that succeeded.

Its cursor is ``{"grand_bend/2025": 52341}``: per pair the newest change version that a run asked for and then succeeded.
All else it takes from the runs themselves, so nothing is lost with a tick that is: a version is asked for once at a time,
again only after a failure, later each time, and not more than three times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import takewhile

import dagster as dg

from edfi_dagster.assets.extract import UNREFRESHED_TAG
from edfi_dagster.assets.keys import partition_key
from edfi_dagster.automation.cadence import Part
from edfi_dagster.automation.inquiry import Answers, Ask, Inquiry
from edfi_dagster.automation.jobs import EXTRACT_JOB
from edfi_dagster.automation.run_history import (
    PARTITION_TAG,
    TRIGGER_TAG,
    Trigger,
    covers,
    described,
    run_request,
    unfinished,
    utc_text,
)
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.dagster_private import (
    RUN_KEY_TAG,
    UnresolvedAssetJobDefinition,
    default_sensor_grpc_timeout,
)
from edfi_dagster.extract.sources import configured_digest

CHANGE_SENSOR = "ods_changes"
CHANGE_VERSION_TAG = "edfi/change_version"
SOURCE_TAG = "edfi/source"
"""A digest of what the configuration said of the pair's sources: with another one, the same version means nothing."""
INTERVAL_SECONDS = 60
MOST_ATTEMPTS = 3
# After the first failure in a row, the second, and so on.
_PAUSES_SECONDS = (300.0, 900.0, 3600.0)
_RUNS_LOOKED_AT = 20
_TOLD = 10

Cursor = dict[TenantYear, int]
Narrow = Callable[[Mapping[TenantYear, dg.RunRequest]], dict[TenantYear, dg.RunRequest]]
"""Runs → those with anything to do, each only for what changed."""


class ChangeSensor:
    """Decides at each tick which pairs to run. ``ask`` and ``clock`` (seconds since 1970) are the world outside.

    With ``narrow`` a run is launched only for what changed, and a pair that counts no change has none.
    """

    def __init__(
        self,
        platform: Platform,
        ask: Ask,
        *,
        narrow: Narrow | None = None,
        clock: Callable[[], float] = time.time,
        seconds: float,
    ) -> None:
        self._narrow = narrow
        self._platform = platform
        self._sources: dict[TenantYear, str] = {}
        self._pairs = tuple(
            pair for pair in platform.pairs() if platform.ods(pair).extract.use_change_version
        )
        self._inquiry = Inquiry(ask, seconds=seconds)
        self._clock = clock
        self._went_back: set[TenantYear] = set()
        # Pairs of which the cursor is known to be the last word: no run has been asked for since.
        self._settled: set[TenantYear] = set()

    def tick(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Ask every ODS, ask for the runs it takes, and say why there are no others."""
        reached = read_cursor(context.cursor, self._pairs)
        answers = self._inquiry.answers(self._pairs)
        busy = {run.dagster_run.tags.get(PARTITION_TAG): run for run in unfinished(context.instance)}
        requests: dict[TenantYear, dg.RunRequest] = {}
        waiting = []
        for pair, newest in answers.newest.items():
            if newest is None:
                continue
            found = self._of_pair(context.instance, pair, newest, reached, busy)
            if isinstance(found, dg.RunRequest):
                requests[pair] = found
            elif found is not None:
                waiting.append(found)
        if self._narrow is not None:
            narrowed = self._narrow(requests)
            for pair in requests.keys() - narrowed.keys():
                reached[pair] = answers.newest[pair] or 0
                self._settled.add(pair)
                waiting.append(f"{pair}: the ODS counts no change since the last run")
            requests = narrowed
        told = _told(answers, waiting)
        for sentence in told:
            context.log.info(sentence)
        reason = None if requests else dg.SkipReason("; ".join(told))
        return dg.SensorResult(list(requests.values()), skip_reason=reason, cursor=write_cursor(reached))

    def _of_pair(
        self,
        instance: dg.DagsterInstance,
        pair: TenantYear,
        newest: int,
        reached: Cursor,
        busy: Mapping[str | None, dg.RunRecord],
    ) -> dg.RunRequest | str | None:
        """The run a pair needs, or why it has to wait; None where it has all there is. Moves ``reached`` forward."""
        if newest == reached.get(pair) and pair in self._settled:
            self._went_back.discard(pair)
            return None
        if running := busy.get(str(partition_key(pair))):
            return f"{pair}: {described(running)}"
        runs = _asked_for(instance, pair)
        source = self._source(pair)
        if runs and not _is_of(runs[0], source):
            reached.pop(pair, None)
        runs = list(takewhile(lambda run: _is_of(run, source), runs))
        if (version := _last_success(runs)) is not None:
            reached[pair] = version
        # A run that failed may have committed as much as it was asked for.
        highest = max([reached.get(pair, newest), *_since_success(runs)])
        if newest == reached.get(pair) == highest:
            self._settled.add(pair)
            self._went_back.discard(pair)
            return None
        if newest < highest and pair not in self._went_back:
            # A replica may lag; only an ODS that was restored says so twice.
            self._went_back.add(pair)
            return f"{pair}: its change version went back to {newest}; asked again at the next tick"
        if reason := self._reason_to_wait(pair, newest, runs):
            return reason
        self._went_back.discard(pair)
        self._settled.discard(pair)
        return self._request(instance, pair, newest)

    def _reason_to_wait(self, pair: TenantYear, newest: int, runs: Sequence[dg.RunRecord]) -> str | None:
        failed = list(takewhile(lambda run: not _succeeded(run), runs))
        if not failed or failed[0].dagster_run.is_success:  # one that left something over can be gone on with
            return None
        if failed[0].dagster_run.is_complete_and_waiting_to_retry:
            return f"{pair}: run {failed[0].dagster_run.run_id[:8]} crashed and will be run again"
        if sum(_version(run) == newest for run in failed) >= MOST_ATTEMPTS:
            return (
                f"{pair}: failed {MOST_ATTEMPTS} times at change version {newest}; left to its schedule, to a person, or to "
                "the next change"
            )
        again = _ended(failed[0]) + _PAUSES_SECONDS[min(len(failed), len(_PAUSES_SECONDS)) - 1]
        if self._clock() < again:
            return f"{pair}: failed {len(failed)} times, tried again after {utc_text(datetime.fromtimestamp(again, UTC))}"
        return None

    def _source(self, pair: TenantYear) -> str:
        if pair not in self._sources:
            self._sources[pair] = configured_digest(self._platform, pair)
        return self._sources[pair]

    def _request(self, instance: dg.DagsterInstance, pair: TenantYear, newest: int) -> dg.RunRequest:
        version = {CHANGE_VERSION_TAG: str(newest)}
        tags = {**version, SOURCE_TAG: self._source(pair)}
        same = {**version, TRIGGER_TAG: Trigger.SENSOR, PARTITION_TAG: str(partition_key(pair))}
        # Dagster drops a key that any run ever had, so an ODS restored to an old version needs a new attempt as well.
        # Old runs may have been forgotten, and not the first of them, so that their number tells less than their keys.
        used = instance.get_run_records(dg.RunsFilter(tags=same))
        attempt = max([len(used), *map(_attempt, used)]) + 1
        key = f"{pair.tenant}|{pair.year}|{newest}|{attempt}"
        return run_request(pair, Trigger.SENSOR, run_key=key, tags=tags)


def build_change_sensor(
    platform: Platform,
    job: UnresolvedAssetJobDefinition,
    *,
    ask: Ask,
    narrow: Narrow | None = None,
    clock: Callable[[], float] = time.time,
) -> dg.SensorDefinition:
    """The sensor, off until turned on. Asking takes at most half of what Dagster gives a tick."""
    seconds = default_sensor_grpc_timeout() / 2
    sensor = ChangeSensor(platform, ask, narrow=narrow, clock=clock, seconds=seconds)
    return dg.SensorDefinition(
        name=CHANGE_SENSOR,
        evaluation_fn=sensor.tick,
        job=job,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Asks every ODS for its newest change version and runs the tenants and years that have changed. "
            "An ODS without change versions is left to its schedule."
        ),
    )


def read_cursor(text: str | None, pairs: Iterable[TenantYear]) -> Cursor:
    """The versions of a cursor, of the pairs that are still declared; one that is not understood is an empty one."""
    try:
        document = json.loads(text or "{}")
    except (ValueError, RecursionError):
        document = {}
    versions = document if isinstance(document, dict) else {}
    return {pair: version for pair in pairs if type(version := versions.get(str(pair))) is int}


def write_cursor(reached: Cursor) -> str:
    return json.dumps({str(pair): version for pair, version in reached.items()}, separators=(",", ":"))


def _asked_for(instance: dg.DagsterInstance, pair: TenantYear) -> list[dg.RunRecord]:
    """The pair's latest runs that were asked for because of a change version, newest first."""
    tags = {PARTITION_TAG: str(partition_key(pair)), TRIGGER_TAG: Trigger.SENSOR.value}
    wanted = dg.RunsFilter(job_name=EXTRACT_JOB, tags=tags)
    return [
        run for run in instance.get_run_records(wanted, limit=_RUNS_LOOKED_AT) if _version(run) is not None
    ]


def _version(record: dg.RunRecord) -> int | None:
    text = record.dagster_run.tags.get(CHANGE_VERSION_TAG, "")
    return int(text) if text.isdecimal() else None


def _attempt(record: dg.RunRecord) -> int:
    """The attempt in the key that a run was asked for with."""
    attempt = record.dagster_run.tags.get(RUN_KEY_TAG, "").rpartition("|")[2]
    return int(attempt) if attempt.isdecimal() else 0


def _is_of(record: dg.RunRecord, source: str) -> bool:
    """Whether a run was asked for with this source; one of an earlier version tells none, and is taken for it."""
    return record.dagster_run.tags.get(SOURCE_TAG, source) == source


def _succeeded(record: dg.RunRecord) -> bool:
    """Whether a run did all there was to do; one that found the ODS restored, and was not to read everything, did not."""
    run = record.dagster_run
    return run.is_success and UNREFRESHED_TAG not in run.tags and covers(run, Part.EVERYTHING, ())


def _last_success(runs: Iterable[dg.RunRecord]) -> int | None:
    return next((_version(run) for run in runs if _succeeded(run)), None)


def _since_success(runs: Iterable[dg.RunRecord]) -> list[int]:
    """The versions that were asked for since the last run that succeeded."""
    return [_version(run) or 0 for run in takewhile(lambda run: not _succeeded(run), runs)]


def _ended(record: dg.RunRecord) -> float:
    return record.end_time or record.update_timestamp.replace(tzinfo=UTC).timestamp()


def _told(answers: Answers, waiting: Sequence[str]) -> list[str]:
    """One sentence of what was found, one for each that waits or is silent, up to a bound."""
    asked = len(answers.newest) + len(answers.silent)
    told = [f"{len(answers.newest)} of {asked} ODSs answered"]
    for what, sentences in (("waiting", list(waiting)), ("no answer", list(answers.silent.values()))):
        told += [f"{what}: {sentence}" for sentence in sentences[:_TOLD]]
        if len(sentences) > _TOLD:
            told.append(f"{what}: {len(sentences) - _TOLD} more")
    if answers.unasked:
        told.append(f"{len(answers.unasked)} had no turn in time and are first at the next tick")
    return told
