"""A stand-in for Ed-Fi's Data Management Service (API 8), with its own rules.

Its rules, and where its public source states them (Ed-Fi-Alliance-OSS/Data-Management-Service):

    rule                                                                  source
    --------------------------------------------------------------------- -------------------------------------------
    key and secret come as ``Authorization: Basic`` only; anything else   OAuthManager.cs
      is 400 "Malformed Authorization header"
    any grant but client_credentials is 400; a wrong key is 401           OAuthManager.cs
    an unknown query parameter is 400                                     ValidateQueryMiddleware.cs
    minChangeVersion and maxChangeVersion are numbers from 0 on, and      ChangeVersionParameterValidator.cs
      the first is not above the second; else 400
    limit and pageSize are 0 to MaximumPageSize (500); else 400           CURSOR-PAGING.md, CONFIGURATION.md
    pageToken excludes limit, offset and totalCount; pageSize needs it    CURSOR-PAGING.md
    a token is good for the walk order it was given under: one of a       CURSOR-PAGING.md, "Repeat your filters"
      window with maxChangeVersion is 400 without it, and the reverse
    a window with maxChangeVersion is read by change version, and its     CURSOR-PAGING.md
      first page may have no token, so it is read from /partitions
    the end is an answer without Next-Page-Token, never an empty page     CURSOR-PAGING.md
    /partitions takes number (1 to 200), filters and windows only         CURSOR-PAGING.md
    /deletes and /keyChanges know no cursor: its parameters are 400       CURSOR-PAGING.md, "Scope"
    errors are problems whose type begins with urn:ed-fi:api:             FailureResponse.cs
"""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs

from edfi_dagster_tests.ods.stand_in import Asked, Reply

KEY, SECRET = "sandbox", "sandbox-secret"
MAXIMUM_PAGE = 500
_WINDOW = frozenset({"minChangeVersion", "maxChangeVersion"})
_COUNTED = frozenset({"limit", "offset", "totalCount"})
_CURSOR = frozenset({"pageToken", "pageSize"})
_OPEN_END = (1 << 63) - 1


class _Refused(Exception):
    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class DataManagementService:
    """Its students; everything else has no rows.

    ``rows`` maps document id to change version, with ids beyond 32 bits if need be; the ids in ``gone`` were deleted
    after their page was chosen. ``given`` counts the tokens.
    """

    def __init__(
        self,
        rows: dict[int, int],
        gone: frozenset[int] = frozenset(),
        *,
        newest: int = 100,
        key: str = KEY,
        secret: str = SECRET,
        oauth: str = "http://dms.internal/oauth/token",
    ) -> None:
        self.rows = rows
        self.gone = gone
        self.newest = newest
        self.given = 0
        self._basic = base64.b64encode(f"{key}:{secret}".encode()).decode()
        self._oauth = oauth

    def __call__(self, asked: Asked) -> Reply | None:
        if asked.path == "/":
            model = {"name": "Ed-Fi", "version": "5.2.0"}
            urls = {"dataManagementApi": "http://dms.internal/data", "oauth": self._oauth}
            return Reply({"version": "8.0", "dataModels": [model], "urls": urls})
        if asked.path == "/oauth/token":
            return self._token(asked)
        if asked.headers.get("authorization") != "Bearer f00dfeed":
            return _problem(401, "security:authentication", "Authentication Failed")
        if asked.path == "/changeQueries/v1/availableChangeVersions":
            return Reply({"oldestChangeVersion": 0, "newestChangeVersion": self.newest})
        if asked.path.startswith("/data/ed-fi/"):
            try:
                return self._data(asked)
            except _Refused as refused:
                return _problem(400, "bad-request:parameter-validation-failed", refused.error)
        return None

    def _token(self, asked: Asked) -> Reply:
        scheme, _, sent = asked.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return _problem(400, "bad-request", "Malformed Authorization header")
        if parse_qs(asked.body.decode()).get("grant_type") != ["client_credentials"]:
            return _problem(400, "bad-request", "Unsupported grant type")
        if sent != self._basic:
            return _problem(401, "security:authentication", "invalid_client")
        self.given += 1
        return Reply({"access_token": "f00dfeed", "expires_in": 1800, "token_type": "bearer"})

    def _data(self, asked: Asked) -> Reply:
        _, _, _, *rest = asked.path.split("/")
        match rest:
            case [name, "partitions"]:
                _check(asked, {"number"} | _WINDOW)
                return self._partitions(asked, self._in_window(asked, name))
            case [name, "deletes" | "keyChanges"]:
                _check(asked, _COUNTED | _WINDOW)
                return Reply([], headers={"Total-Count": "0"})
            case [name]:
                _check(asked, _COUNTED | _CURSOR | _WINDOW)
                return self._page(asked, self._in_window(asked, name))
        return _problem(404, "not-found", "The specified data could not be found.")

    def _in_window(self, asked: Asked, name: str) -> list[int]:
        low = int(asked.query.get("minChangeVersion", 0))
        high = int(asked.query.get("maxChangeVersion", 1 << 62))
        rows = self.rows if name == "students" else {}
        return sorted(n for n, version in rows.items() if low <= version <= high)

    def _partitions(self, asked: Asked, found: list[int]) -> Reply:
        size = max(1, -(-len(found) // _number(asked, "number", 1, 200)))
        starts = found[::size]
        ends = [start - 1 for start in starts[1:]] + [_OPEN_END]
        bounds = zip(starts, ends, strict=False)
        return Reply({"pageTokens": [_written(_order(asked), first, last) for first, last in bounds]})

    def _page(self, asked: Asked, found: list[int]) -> Reply:
        headers = {"Total-Count": str(len(found))} if asked.query.get("totalCount") == "true" else {}
        if "pageToken" not in asked.query:
            if "pageSize" in asked.query:
                raise _Refused("PageToken is required when pageSize is specified.")
            if "maxChangeVersion" in asked.query:
                found.sort(key=lambda number: self.rows[number])
            start = int(asked.query.get("offset", 0))
            return self._rows(found[start : start + _number(asked, "limit", 0, MAXIMUM_PAGE)], headers)
        if asked.query.keys() & _COUNTED:
            raise _Refused("Both offset and pageToken parameters were provided.")
        first, last = _read(asked.query["pageToken"], _order(asked))
        chosen = [n for n in found if first <= n <= last][: _number(asked, "pageSize", 0, MAXIMUM_PAGE)]
        if chosen:
            headers["Next-Page-Token"] = _written(_order(asked), chosen[-1] + 1, last)
        return self._rows(chosen, headers)

    def _rows(self, numbers: list[int], headers: dict[str, str]) -> Reply:
        rows: list[dict[str, Any]] = [
            {"id": f"{n:032x}", "studentUniqueId": str(n)} for n in numbers if n not in self.gone
        ]
        return Reply(rows, headers=headers)


def _check(asked: Asked, known: frozenset[str] | set[str]) -> None:
    if unknown := asked.query.keys() - known:
        raise _Refused(f"The query parameter '{min(unknown)}' is not supported.")
    for name in _WINDOW & asked.query.keys():
        if not asked.query[name].isdecimal():
            raise _Refused(f"{name} must be a numeric value greater than or equal to 0.")
    if asked.query.keys() >= _WINDOW and int(asked.query["minChangeVersion"]) > int(
        asked.query["maxChangeVersion"]
    ):
        raise _Refused("MinChangeVersion must be less than or equal to MaxChangeVersion.")


def _number(asked: Asked, name: str, low: int, high: int) -> int:
    value = asked.query.get(name, str(min(high, MAXIMUM_PAGE)))
    if not value.isdecimal() or not low <= int(value) <= high:
        spelled = name[0].upper() + name[1:]
        raise _Refused(f"{spelled} must be omitted or set to a numeric value between {low} and {high}.")
    return int(value)


def _order(asked: Asked) -> str:
    return "version" if "maxChangeVersion" in asked.query else "document"


def _written(order: str, first: int, last: int) -> str:
    return base64.urlsafe_b64encode(f"{order},{first},{last}".encode()).decode().rstrip("=")


def _read(token: str, order: str) -> tuple[int, int]:
    given, first, last = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().split(",")
    if given != order:
        raise _Refused("The page token provided was invalid.")
    return int(first), int(last)


def _problem(status: int, kind: str, error: str) -> Reply:
    return Reply(
        {
            "detail": error,
            "type": f"urn:ed-fi:api:{kind}",
            "title": kind,
            "status": status,
            "correlationId": "0HN",
            "validationErrors": {},
            "errors": [error],
        },
        status=status,
        headers={"Content-Type": "application/problem+json"},
    )
