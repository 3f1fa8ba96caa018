"""``edfi-dagster pull``: from an ODS into files."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.extract.sources import Sources
from edfi_dagster.lake.manifest import Manifest, latest_stamp
from edfi_dagster.lake.pull import Pull, PullRun, newest_to_read
from edfi_dagster.lake.store import LocalLake
from edfi_dagster.lake.written import decompressed
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of, find_endpoints
from edfi_dagster.ods.changes import ChangeWindow
from edfi_dagster.ods.errors import EdFiError, WrongCredentials
from edfi_dagster.ods.odd import loadable
from edfi_dagster.ods.pages import RECORDS, RecordKind
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


def run_pull(request: PullRequest, folder: Path | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Pull into ``folder``, laid out like a lake, or to standard output; the manifests written, and what failed.

    A window without rows leaves no manifest; a full pull always does. Raises ConfigError for the lake itself: what a
    command pulls there no run has committed, and a rebuild would take it for a run's.
    """
    endpoints = find_endpoints(request.endpoints, endpoints_of(request.platform, request.pair))
    lake = request.platform.lake
    if folder is not None and lake.kind == "local" and folder.resolve().is_relative_to(lake.root.resolve()):
        raise ConfigError(f"--out: {folder} is the lake of {request.platform.source}; give another folder")
    failures: list[str] = []
    manifests: list[dict[str, Any]] = []
    with (
        open_session(
            request.platform, request.pair, max_concurrent_requests=request.max_concurrent_requests
        ) as session,
        tempfile.TemporaryDirectory(dir=request.platform.extract.tmp_dir) as temporary,
    ):
        for manifest in _pull_all(request, session, endpoints, folder or Path(temporary), failures):
            manifests.append(msgspec.to_builtins(manifest))
            if folder is None:
                _print_rows(Path(temporary), manifest)
    return manifests, failures


def _pull_all(
    request: PullRequest,
    session: OdsSession,
    endpoints: list[Endpoint],
    folder: Path,
    failures: list[str],
) -> Iterator[Manifest]:
    lake = LocalLake(folder)
    stamp = datetime.now(UTC).replace(microsecond=0)
    earlier = latest_stamp(lake, request.pair)
    run = PullRun(
        lake=lake,
        pair=request.pair,
        stamp=max(stamp, earlier + timedelta(seconds=1)) if earlier else stamp,
        newest=newest_to_read(session),
        ods_version=session.discovery.ods_version,
        data_model_version=session.discovery.data_model_version,
        threads=session.settings.extract.max_concurrent_requests,
        compression=request.platform.lake.compression,
        tmp_dir=request.platform.extract.tmp_dir,
    )
    tell = partial(click.echo, err=True)
    sources = Sources(request.platform, session, tell, tell)

    def pulled(endpoint: Endpoint) -> Manifest | EdFiError | None:
        try:
            return _pull(request, sources, run, endpoint)
        except WrongCredentials:
            raise
        except EdFiError as error:
            return error

    with ThreadPoolExecutor(run.threads) as threads:
        try:
            for found in threads.map(pulled, endpoints):
                if isinstance(found, EdFiError):
                    failures.append(str(found))
                elif found is not None:
                    yield found
        finally:
            threads.shutdown(cancel_futures=True)


def _pull(request: PullRequest, sources: Sources, run: PullRun, endpoint: Endpoint) -> Manifest | None:
    kind: RecordKind = request.kind  # type: ignore[assignment]
    collection = sources.collections.open(endpoint, kind)
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
    manifest = pull.publish(None, sources.of(endpoint))
    for sentence in pull.warnings:
        click.echo(sentence, err=True)
    return manifest


def _print_rows(folder: Path, manifest: Manifest) -> None:
    """The last read of every id, as JSON lines."""
    last: dict[str, int] = {}
    if manifest.rows != sum(file.rows for file in manifest.files):
        last = {_id(line): n for n, line in enumerate(_lines(folder, manifest))}
    for n, line in enumerate(_lines(folder, manifest)):
        if not last or last[_id(line)] == n:
            sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


class _Identified(msgspec.Struct):
    id: str


_identity = msgspec.json.Decoder(_Identified)


def _id(line: bytes) -> str:
    return _identity.decode(loadable(line)).id


def _lines(folder: Path, manifest: Manifest) -> Iterator[bytes]:
    for file in manifest.files:
        with (folder / file.path).open("rb") as stored, decompressed(stored, file.path) as lines:
            yield from lines
