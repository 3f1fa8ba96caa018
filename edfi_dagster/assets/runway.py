"""``send_to_runway``: files of one tenant and year sent to Runway, which runs their bundle elsewhere."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
from pydantic import Field

from edfi_dagster.assets.keys import pair_of
from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.earthbeam.errors import EarthbeamError
from edfi_dagster.earthbeam.filling import fill
from edfi_dagster.earthbeam.runway import (
    RunwayJob,
    RunwayOutcome,
    RunwaySending,
    RunwaySent,
    send_to_runway,
)
from edfi_dagster.earthbeam.runway_client import service_of
from edfi_dagster.lake.store import LakeError, open_lake

ASSET_KEY = dg.AssetKey(["earthbeam", "send_to_runway"])
_PATTERN = re.compile(r"[*?\[]")


class SendToRunway(dg.Config):
    """What is sent: ``ops.send_to_runway.config`` in the launchpad."""

    bundle: str = Field(description="Runway's name of the bundle, such as assessments/PSAT_SAT.")
    files: dict[str, str] = Field(
        description="Variable of the bundle → file, such as INPUT_FILE: incoming/{tenant}/{year}/sat.csv. One of them may "
        "be a pattern (*.csv): each file that it matches is a job of its own. Relative paths start from the "
        "configuration's folder.",
    )
    params: dict[str, str] = Field(
        default={},
        description="Parameters of the bundle, such as TEST_TYPE: SAT. {tenant} and {year} are filled in.",
    )
    partner: str | None = Field(default=None, description="Runway's partner code, if not the configured one.")
    tenant: str | None = Field(default=None, description="Runway's tenant code, if not ours.")
    wait_minutes: float = Field(
        default=60.0,
        ge=0,
        description="How long to wait for the output sets; 0 starts the jobs and leaves them.",
    )
    poll_seconds: float = Field(default=15.0, gt=0, description="How often Runway is asked meanwhile.")
    force: bool = Field(default=False, description="A new job also for a file that was sent before.")


def build_send_to_runway(
    platform: Platform, partitions: dg.PartitionsDefinition
) -> list[dg.AssetsDefinition]:
    """The asset ``earthbeam/send_to_runway``, if the platform has an ``earthbeam.runway``."""
    if platform.earthbeam.runway is None:
        return []

    spec = dg.AssetSpec(
        ASSET_KEY,
        group_name="earthbeam",
        owners=list(platform.owners),
        description="Output sets of files that Runway turned into Ed-Fi records. A file is sent once, whatever its name; "
        "a run without new ones materializes nothing.",
        skippable=True,
        kinds={"runway"},
        partitions_def=partitions,
    )

    @dg.multi_asset(name="send_to_runway", specs=[spec], backfill_policy=dg.BackfillPolicy.multi_run(1))
    def sending(
        context: dg.AssetExecutionContext, config: SendToRunway
    ) -> Iterator[dg.MaterializeResult[None]]:
        pair = pair_of(context.partition_key)
        try:
            platform.ods(pair)  # fails for an undeclared pair
            sent = _send(context, platform, pair, config)
        except (ConfigError, EarthbeamError, LakeError) as error:
            raise dg.Failure(f"{pair}: {error}", allow_retries=False) from None
        new = [outcome for outcome in sent.outcomes if not outcome.was_sent_before]
        if new and not sent.failures:
            yield dg.MaterializeResult(asset_key=ASSET_KEY, metadata=_metadata(sent))
        elif new:
            context.log_event(
                dg.AssetMaterialization(ASSET_KEY, metadata=_metadata(sent), partition=context.partition_key)
            )
        if sent.failures:
            raise _failure(pair, sent)

    return [sending]


def jobs_of(platform: Platform, pair: TenantYear, config: SendToRunway) -> list[RunwayJob]:
    """A job for each file that the pattern among ``files`` matches, else one job. Raises EarthbeamError."""
    values = {"tenant": pair.tenant, "year": str(pair.year)}
    paths = {name: platform.folder / fill(path, values) for name, path in config.files.items()}
    params = {name: fill(value, values) for name, value in config.params.items()}
    patterns = [name for name, path in paths.items() if _PATTERN.search(path.name) and not path.exists()]
    if len(patterns) > 1:
        raise EarthbeamError(f"{', '.join(patterns)} are patterns; name the files of all but one of them")
    found: list[Mapping[str, Path]] = [paths]
    for name in patterns:
        matching = sorted(
            p for p in paths[name].parent.glob(paths[name].name) if p.is_file() and p.name[0] != "."
        )
        if not matching:
            raise EarthbeamError(f"{name}: no file matches {paths[name]}")
        found = [{**paths, name: path} for path in matching]
    return [RunwayJob(pair, config.bundle, files, params, config.tenant) for files in found]


def _send(
    context: dg.AssetExecutionContext, platform: Platform, pair: TenantYear, config: SendToRunway
) -> RunwaySent:
    service = service_of(platform.earthbeam.runway, platform.source, partner=config.partner)
    sending = RunwaySending(
        config.wait_minutes, config.poll_seconds, config.force, context.log.info, context.log.warning
    )
    lake = open_lake(platform.lake, platform.extract.tmp_dir)
    return send_to_runway(service, lake, jobs_of(platform, pair, config), sending)


def _metadata(sent: RunwaySent) -> dict[str, dg.MetadataValue]:
    new = [outcome for outcome in sent.outcomes if not outcome.was_sent_before]
    return {
        "edfi/runway_jobs": dg.MetadataValue.json([_told(outcome) for outcome in new]),
        "edfi/files_sent": dg.MetadataValue.int(len(new)),
        "edfi/files_sent_before": dg.MetadataValue.int(len(sent.outcomes) - len(new)),
    }


def _told(outcome: RunwayOutcome) -> dict[str, object]:
    output_set = outcome.output_set
    return {
        "files": [file.name for file in outcome.job.files.values()],
        "bundle": outcome.job.bundle,
        "job": outcome.uid,
        "started_at": outcome.started_at.isoformat() if outcome.started_at else None,
        "output_set": output_set.uid if output_set else None,
        "outputs": list(output_set.files) if output_set else [],
        "sent_to_ods": output_set.sent_to_ods if output_set else None,
    }


def _failure(pair: TenantYear, sent: RunwaySent) -> dg.Failure:
    failures = {error.file or str(pair): str(error) for error in sent.failures}
    return dg.Failure(
        f"{pair}: {len(failures)} not sent or not done, {len(sent.outcomes)} done; a new run does only what is left.\n"
        + "\n".join(f"- {cause}" for cause in failures.values()),
        metadata={"edfi/failures": dg.MetadataValue.json(failures)},
        allow_retries=False,
    )
