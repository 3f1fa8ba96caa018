"""``edfi-dagster pull``: from an ODS into files."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.lake.manifest import Manifest, latest_stamp
from edfi_dagster.lake.pull import Pull, PullRun
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of, find_endpoints
from edfi_dagster.ods.changes import ChangeWindow
from edfi_dagster.ods.pages import RECORDS, Collection, RecordKind
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.resources import open_session


@dataclass(frozen=True)
class PullRequest:
    """What to pull. Change versions are inclusive; without any, records are pulled whole."""

    platform: Platform
    pair: TenantYear
    endpoints: list[str]
    kind: str
    low: int | None
    high: int | None
    max_concurrent_requests: int | None


def run_pull(request: PullRequest, folder: Path | None) -> list[dict[str, Any]]:
    """Pull into ``folder``, laid out like a lake, or to standard output; the manifests written.

    A window without rows leaves no manifest; a full pull always does.
    """
    endpoints = find_endpoints(request.endpoints, endpoints_of(request.platform, request.pair))
    with open_session(
        request.platform, request.pair, max_concurrent_requests=request.max_concurrent_requests
    ) as session:
        if folder is not None:
            return [
                msgspec.to_builtins(manifest) for manifest in _pull_all(request, session, endpoints, folder)
            ]
        with tempfile.TemporaryDirectory(dir=request.platform.extract.tmp_dir) as temporary:
            for manifest in _pull_all(request, session, endpoints, Path(temporary)):
                _print_rows(Path(temporary), manifest)
        return []


def _pull_all(
    request: PullRequest, session: OdsSession, endpoints: list[Endpoint], folder: Path
) -> Iterator[Manifest]:
    lake = LocalLake(folder)
    stamp = datetime.now(UTC).replace(microsecond=0)
    earlier = latest_stamp(lake, request.pair)
    run = PullRun(
        lake=lake,
        pair=request.pair,
        stamp=max(stamp, earlier + timedelta(seconds=1)) if earlier else stamp,
        newest=session.newest_change_version(),
        ods_version=session.discovery.ods_version,
        data_model_version=session.discovery.data_model_version,
        threads=session.settings.extract.max_concurrent_requests,
        compression=request.platform.lake.compression,
    )
    for endpoint in endpoints:
        manifest = _pull(request, session, run, endpoint)
        if manifest is not None:
            yield manifest


def _pull(request: PullRequest, session: OdsSession, run: PullRun, endpoint: Endpoint) -> Manifest | None:
    options = request.platform.endpoint_options(
        request.pair,
        endpoint.namespace,
        endpoint.name,
        "descriptors" if endpoint.is_descriptor else "resources",
    )
    kind: RecordKind = request.kind  # type: ignore[assignment]
    collection = Collection(
        session,
        endpoint,
        kind,
        page_size=options.page_size,
        retries=options.num_retries,
        filters={name: str(value) for name, value in options.query_parameters.items()},
    )
    bounds = ChangeWindow(request.low, request.high)
    pull = Pull(run, collection, endpoint.snake)
    if kind != RECORDS:
        pull.read_changes(
            replace(bounds, low=bounds.low or 0, high=run.newest if bounds.high is None else bounds.high)
        )
    elif bounds == ChangeWindow(None):
        pull.read_full()
    else:
        pull.read_delta(bounds)
    return pull.publish(None)


def _print_rows(folder: Path, manifest: Manifest) -> None:
    """The last read of every id, as JSON lines."""
    lines = list(_lines(folder, manifest))
    last = {record_id: n for n, (record_id, _) in enumerate(lines)}
    for n, (record_id, line) in enumerate(lines):
        if last[record_id] == n:
            sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


class _Identified(msgspec.Struct):
    id: str


_identity = msgspec.json.Decoder(_Identified)


def _lines(folder: Path, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    for file in manifest.files:
        with (folder / file.path).open("rb") as stream:
            reader = zstandard.ZstdDecompressor().stream_reader(stream)
            for line in io.BufferedReader(reader):
                yield _identity.decode(line).id, line
