"""Reading a snapshot of the ODS instead of what moves (api.md section 5.5).

Up to 6.x an ODS lists its snapshots and is told one by ``Snapshot-Identifier``; from 7.0 on it has one at most,
asked for by ``Use-Snapshot``. Both say so when the snapshot is not there: by 410, and by 404.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from edfi_dagster.ods.answers import Answer, json_value, problem
from edfi_dagster.ods.errors import UnusableBody

Version = tuple[int, int]

USE_SNAPSHOT = {"Use-Snapshot": "true"}
_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_LISTED_UNTIL: Version = (7, 0)
_LISTED_WITH_DATA_UNTIL: Version = (5, 2)


def are_known(version: Version) -> bool:
    """Whether the version has snapshots that a header asks for: not Ed-Fi 2, not the Data Management Service."""
    return (5, 0) <= version < (8, 0)


def are_listed(version: Version) -> bool:
    return version < _LISTED_UNTIL


def list_address(version: Version, data_url: str, change_queries_url: str) -> str:
    if version < _LISTED_WITH_DATA_UNTIL:
        return f"{data_url}/publishing/snapshots"
    return f"{change_queries_url}/snapshots"


def read_snapshots(answer: Answer) -> dict[str, datetime]:
    """Identifier → when it was taken. Raises UnusableBody."""
    rows = json_value(answer)
    if not isinstance(rows, list):
        raise UnusableBody("the list of snapshots is none")
    return dict(_read_snapshot(row) for row in rows)


def all_listed(page_from: Callable[[Mapping[str, str]], dict[str, datetime]]) -> dict[str, datetime]:
    """The snapshots of every page; ``page_from`` reads the page that query parameters ask for."""
    found: dict[str, datetime] = {}
    while True:
        page = page_from({"offset": str(len(found))} if found else {})
        if not page.keys() - found.keys():
            return found
        found |= page


def header_of_newest(snapshots: Mapping[str, datetime]) -> Mapping[str, str]:
    """The header that asks for the latest of ``snapshots``."""
    return {"Snapshot-Identifier": max(snapshots, key=lambda name: snapshots[name])}


def is_gone(answer: Answer) -> bool:
    """Whether the answer to a request for a snapshot says that there is none."""
    if answer.status == 410:
        return True
    if answer.status != 404:
        return False
    document = problem(answer)
    return "snapshot not found" in f"{document.get('detail', '')} {document.get('message', '')}".lower()


def _read_snapshot(row: object) -> tuple[str, datetime]:
    try:
        fields = {str(name).lower(): value for name, value in row.items()}  # type: ignore[attr-defined]
        identifier, taken = fields["snapshotidentifier"], datetime.fromisoformat(fields["snapshotdatetime"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UnusableBody("a snapshot has no snapshotIdentifier or no snapshotDateTime") from None
    if not isinstance(identifier, str) or not _HEADER_VALUE.fullmatch(identifier):
        raise UnusableBody("a snapshot has no snapshotIdentifier")
    return identifier, taken if taken.tzinfo else taken.replace(tzinfo=UTC)
