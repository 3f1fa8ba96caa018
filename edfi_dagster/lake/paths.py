"""The one path law of the lake.

    <tenant>/<year>/<YYYYMMDD>/<YYYYMMDDTHHMMSS>/<folder>/<name>[.<part>].jsonl.zst
    <tenant>/<year>/<YYYYMMDD>/<YYYYMMDDTHHMMSS>/<folder>/<name>[.<part>].repaired.zst
    <tenant>/<year>/<YYYYMMDD>/<YYYYMMDDTHHMMSS>/<folder>/<name>.manifest.json
    <tenant>/<year>/<YYYYMMDD>/<YYYYMMDDTHHMMSS>/run.json

Paths are relative to the lake's root and use ``/``. ``<tenant>`` is the code as ``tenant_folder`` writes it. Our loaders
take date and stamp from the manifest, never from a path: a tenant code may hold eight digits.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from edfi_dagster.config import TenantYear
from edfi_dagster.config.values import tenant_folder
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RecordKind

STAMP_FORMAT = "%Y%m%dT%H%M%S"
SUFFIXES = {"zstd": ".jsonl.zst", "gzip": ".jsonl.gz"}

_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}")


def stamp_text(stamp: datetime) -> str:
    return stamp.strftime(STAMP_FORMAT)


def parse_stamp(text: str) -> datetime | None:
    """The stamp a folder is named after, in UTC; None for a folder of another name."""
    try:
        return datetime.strptime(text, STAMP_FORMAT).replace(tzinfo=UTC) if _STAMP.fullmatch(text) else None
    except ValueError:  # digits, but no date
        return None


def pair_folder(pair: TenantYear) -> str:
    return f"{tenant_folder(pair.tenant)}/{pair.year}"


def run_folder(pair: TenantYear, stamp: datetime) -> str:
    text = stamp_text(stamp)
    return f"{pair_folder(pair)}/{text[:8]}/{text}"


def pull_folder(pair: TenantYear, stamp: datetime, endpoint: Endpoint, kind: RecordKind) -> str:
    if kind == DELETES:
        folder = "resource_deletes"
    elif kind == KEY_CHANGES:
        folder = "resource_key_changes"
    else:
        folder = "descriptors" if endpoint.is_descriptor else "resources"
    return f"{run_folder(pair, stamp)}/{folder}"


def part_path(folder: str, name: str, part: int, compression: str) -> str:
    """The file of one part; the first carries no number."""
    number = f".{part}" if part else ""
    return f"{folder}/{name}{number}{SUFFIXES[compression]}"


def repaired_path(path: str) -> str:
    """The file beside a part that holds records which are not strict JSON: the same lines, as a warehouse can load them."""
    stem, _, compression = path.rpartition(".jsonl.")
    return f"{stem}.repaired.{compression}"


def manifest_path(folder: str, name: str) -> str:
    return f"{folder}/{name}.manifest.json"
