"""The change queries: ``/deletes`` and ``/keyChanges`` as ODS/API 6.0 and later answer them, and what 5.x shows."""

from __future__ import annotations

from typing import Any

import msgspec

from edfi_dagster.sandbox.database import Reader
from edfi_dagster.sandbox.model import Endpoint

Json = dict[str, Any]


def tombstones(
    reader: Reader, endpoint: Endpoint, versions: tuple[int, int], *, suppress: bool
) -> list[Json]:
    """Rows of ``/deletes`` in change version order; key values as they are stored, for a page shows few of them.

    ``suppress`` hides a tombstone while a live row has its natural key. The ODS joins on surrogate
    keys, so a re-created descriptor, and a row keyed by one, stays visible beside the live row.
    """
    rows = reader.connection.execute(
        "SELECT tombstone.change_version, tombstone.id, surrogates, key_values, row.position"
        " FROM tombstone LEFT JOIN row ON row.key = tombstone.key"
        " WHERE tombstone.endpoint = ? AND tombstone.change_version BETWEEN ? AND ?"
        " ORDER BY tombstone.change_version",
        (endpoint.number, *versions),
    ).fetchall()
    return [
        {"id": row_id, "changeVersion": version, "keyValues": msgspec.Raw(values)}
        for version, row_id, surrogates, values, live in rows
        if not (
            suppress and live is not None and not endpoint.is_descriptor and _all_live(reader, surrogates)
        )
    ]


def bare(rows: list[Json]) -> list[Json]:
    """Tombstones as 5.x shows them: without keys, in Pascal case."""
    return [{"Id": row["id"], "ChangeVersion": row["changeVersion"]} for row in rows]


def key_changes(reader: Reader, endpoint: Endpoint, versions: tuple[int, int]) -> list[Json]:
    """Rows of ``/keyChanges``: one per resource, from its first to its last change in the window."""
    rows = reader.connection.execute(
        "SELECT change_version, id, old_values, new_values FROM key_change"
        " WHERE endpoint = ? AND change_version BETWEEN ? AND ? ORDER BY change_version",
        (endpoint.number, *versions),
    )
    found: dict[str, Json] = {}
    for version, row_id, old, new in rows:
        first = found.get(row_id)
        found[row_id] = {
            "id": row_id,
            "changeVersion": version,
            "oldKeyValues": first["oldKeyValues"] if first else msgspec.Raw(old),
            "newKeyValues": msgspec.Raw(new),
        }
    return sorted(found.values(), key=lambda change: change["changeVersion"])


def _all_live(reader: Reader, surrogates: str) -> bool:
    return all(reader.is_live(int(position)) for position in surrogates.split(",") if position)
