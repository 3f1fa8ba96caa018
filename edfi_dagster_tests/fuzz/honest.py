"""An ODS of one endpoint that tells the truth, and one answer of it that may be anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edfi_dagster_tests.fuzz.inputs import encoded
from edfi_dagster_tests.ods.stand_in import DISCOVERY, Asked, Reply

VERSIONS = {"7.3": "5.2.0", "6.1": "4.0.0", "5.3": "3.3.0"}
NEWEST = 1000
_DELETED = "deadbeef" * 4


@dataclass(frozen=True)
class Spoilt:
    """From answer ``nth`` to a path that ends with ``path`` on, so many ``times`` something else."""

    path: str
    nth: int
    times: int
    change: Callable[[Reply], Reply]


class Honest:
    """``rows`` have change versions one after the other; answers as ODS/API ``version`` does."""

    def __init__(self, version: str, rows: list[dict[str, Any]], spoilt: Spoilt | None = None) -> None:
        self.version = version
        self.rows = rows
        self.spoilt = spoilt
        self._seen = 0

    def __call__(self, asked: Asked) -> Reply | None:
        reply = self._true(asked)
        spoilt = self.spoilt
        if reply is None or spoilt is None or not asked.path.endswith(spoilt.path):
            return reply
        self._seen += 1
        body = reply.body if isinstance(reply.body, bytes) else encoded(reply.body)
        of_turn = spoilt.nth <= self._seen < spoilt.nth + spoilt.times
        return spoilt.change(replace(reply, body=body)) if of_turn else reply

    def _true(self, asked: Asked) -> Reply | None:
        path = asked.path
        if path == "/":
            models = [{"name": "Ed-Fi", "version": VERSIONS[self.version]}]
            return Reply(
                {**DISCOVERY, "version": self.version, "apiMode": "Shared Instance", "dataModels": models}
            )
        if path == "/oauth/token":
            return Reply({"access_token": "f00dfeed", "expires_in": 1800})
        if path.endswith("/availableChangeVersions"):
            return Reply({"newestChangeVersion": NEWEST, "NewestChangeVersion": NEWEST})
        if path.endswith(("/deletes", "/keyChanges")):
            return self._page([], asked.query)
        if path.endswith("/students/partitions"):
            return Reply({"pageTokens": ["0", str(len(self.rows) // 2)]})
        if path.endswith("/students"):
            return self._students(asked.query)
        return None

    def _students(self, query: Mapping[str, str]) -> Reply:
        if "pageToken" not in query:
            return self._page(self._window(query), query)
        start, size = int(query["pageToken"]), int(query["pageSize"])
        half = len(self.rows) // 2
        end = min(start + size, half if start < half else len(self.rows))
        going_on = {"Next-Page-Token": str(end)} if end not in {half, len(self.rows)} else {}
        return Reply(self.rows[start:end], headers=going_on)

    def _window(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        low, high = int(query.get("minChangeVersion", 0)), int(query.get("maxChangeVersion", NEWEST))
        return [row for number, row in enumerate(self.rows, 1) if low <= number <= high]

    def _page(self, rows: list[dict[str, Any]], query: Mapping[str, str]) -> Reply:
        start, size = int(query.get("offset", 0)), int(query.get("limit", 25))
        counted = {"Total-Count": str(len(rows))} if "totalCount" in query else {}
        return Reply(rows[start : start + size], headers=counted)


def students(number: int) -> list[dict[str, Any]]:
    return [
        {"id": f"{n:032x}", "studentUniqueId": f"s{n}", "firstName": "A", "lastSurname": "B", "birthDate": "2011-02-03",
         "_lastModifiedDate": "2025-01-01T00:00:00Z"}
        for n in range(1, number + 1)
    ]  # fmt: skip
