"""The query parameters of collections: offset and cursor paging, change windows, partitions.

Functions read parameters with lower-case names and raise ``ApiError`` (400).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edfi_dagster.sandbox.database import ALL_VERSIONS, FIRST_AGGREGATE_ID, LAST_AGGREGATE_ID
from edfi_dagster.sandbox.errors import ApiError, bad_parameters
from edfi_dagster.sandbox.generations import Generation

DEFAULT_PARTITIONS = 10
MOST_PARTITIONS = 200
SMALLEST_PARTITION_PAGES = 5
CHANGES_DETAIL = "Parameters supplied to the request were invalid."


@dataclass(frozen=True)
class PageRequest:
    """One validated page: ``cursor`` holds inclusive AggregateId bounds under cursor paging."""

    limit: int
    offset: int
    total_count: bool
    versions: tuple[int, int]
    cursor: tuple[int, int] | None


def page_request(parameters: Mapping[str, str], max_page: int, generation: Generation) -> PageRequest:
    """The page that a collection GET asks for."""
    if generation.cursor:
        return _page_or_token(parameters, max_page)
    limit = _integer("Limit", parameters.get("limit"))
    offset = _integer("Offset", parameters.get("offset"))
    if limit is not None and not generation.lowest_limit <= limit <= max_page:
        raise bad_parameters(generation.limit_text or f"Limit must be a value between 0 and {max_page}.")
    total = generation.counts and _boolean(parameters.get("totalcount"))
    window = versions(parameters) if generation.change_queries else ALL_VERSIONS
    default = default_limit(max_page, generation)
    return PageRequest(default if limit is None else limit, max(offset or 0, 0), total, window, None)


def default_limit(max_page: int, generation: Generation) -> int:
    return min(max_page, generation.default_limit or max_page)


def _page_or_token(parameters: Mapping[str, str], max_page: int) -> PageRequest:
    token, limit, size = (parameters.get(name) or None for name in ("pagetoken", "limit", "pagesize"))
    cursor = decoded_token(token) if token else None
    limit_value, size_value = _integer("Limit", limit), _integer("PageSize", size)
    offset_value = _integer("Offset", parameters.get("offset"))
    total = _boolean(parameters.get("totalcount"))
    errors: list[str] = []
    if cursor is not None:
        errors += _cursor_conflicts(limit_value, size_value, offset_value, total)
    elif size_value is not None and limit_value is None:
        errors.append(
            "PageToken is required when pageSize is specified."
            if offset_value is None
            else "Use limit instead of pageSize when using limit/offset paging."
        )
    for name, value in (("Limit", limit_value), ("PageSize", size_value)):
        if value is not None and not 0 <= value <= max_page:
            errors.append(f"{name} must be a value between 0 and {max_page}.")
    if offset_value is not None and offset_value < 0:
        errors.append("Offset cannot be a negative value.")
    if errors:
        raise bad_parameters(*errors)
    rows = size_value if cursor is not None else limit_value
    return PageRequest(
        max_page if rows is None else rows, offset_value or 0, total, versions(parameters), cursor
    )


def _cursor_conflicts(limit: int | None, size: int | None, offset: int | None, total: bool) -> list[str]:
    errors = []
    if offset is not None:
        errors.append(
            "Both offset and pageToken parameters were provided, but they support alternative paging approaches"
            " and cannot be used together."
        )
    if limit is not None and size is None:
        errors.append("Use pageSize instead of limit when using cursor paging with pageToken.")
    if total:
        errors.append(
            "Total count cannot be determined while using cursor paging (when pageToken is specified)."
        )
    return errors


def changes_request(parameters: Mapping[str, str], max_page: int, generation: Generation) -> PageRequest:
    """What a request of ``/deletes`` or ``/keyChanges`` asks for; they know no cursor and ignore a valid one."""
    if generation.cursor and parameters.get("pagetoken"):
        decoded_token(parameters["pagetoken"])
    limit, offset = _integer("Limit", parameters.get("limit")), _integer("Offset", parameters.get("offset"))
    window, rows = versions(parameters), default_limit(max_page, generation) if limit is None else limit
    if not generation.keyed_deletes:
        return PageRequest(max(rows, 0), max(offset or 0, 0), False, window, None)
    errors = []
    if limit is not None and not 0 <= limit <= max_page:
        errors.append(f"Limit must be omitted or set to a value between 1 and {max_page}.")
    if offset is not None and offset < 0:
        errors.append("Offset must be greater than or equal to 0.")
    if errors:
        raise bad_parameters(*errors, detail=CHANGES_DETAIL)
    return PageRequest(rows, offset or 0, _boolean(parameters.get("totalcount")), window, None)


def partition_starts(positions: Sequence[int], number: int, max_page: int, *, small: bool) -> list[int]:
    """Every partition's first position: ``number`` of them at most, of five pages at least."""
    if not positions:
        return []
    size = max(len(positions) // number, 1 if small else SMALLEST_PARTITION_PAGES * max_page)
    return list(positions[::size][:number])


def partition_count(parameters: Mapping[str, str]) -> int:
    number = _integer("Number", parameters.get("number"))
    if number is None:
        return DEFAULT_PARTITIONS
    if not 1 <= number <= MOST_PARTITIONS:
        raise bad_parameters(f"Number of partitions must be between 1 and {MOST_PARTITIONS}.")
    return number


def small_partitions_allowed(parameters: Mapping[str, str]) -> bool:
    return _boolean(parameters.get("allowsmallpartitions"))


def versions(parameters: Mapping[str, str]) -> tuple[int, int]:
    """The inclusive change version window."""
    low = _integer("MinChangeVersion", parameters.get("minchangeversion"))
    high = _integer("MaxChangeVersion", parameters.get("maxchangeversion"))
    return (ALL_VERSIONS[0] if low is None else low), (ALL_VERSIONS[1] if high is None else high)


def encoded_token(first: int, last: int = LAST_AGGREGATE_ID) -> str:
    return base64.urlsafe_b64encode(f"{first},{last}".encode()).decode().rstrip("=")


def decoded_token(token: str) -> tuple[int, int]:
    """The AggregateId bounds of a page token; an empty upper bound is the last AggregateId."""
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
        first, last = text.split(",")
        bounds = int(first), int(last or LAST_AGGREGATE_ID)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise bad_token() from None
    if not all(FIRST_AGGREGATE_ID <= bound <= LAST_AGGREGATE_ID + 1 for bound in bounds):
        raise bad_token()
    return bounds


def bad_token() -> ApiError:
    return bad_parameters("The page token provided was invalid.")


def _integer(name: str, value: str | None) -> int | None:
    if value is None or value == "":
        return None
    try:
        number = int(value)
    except ValueError:
        raise bad_parameters(f"The value '{value}' is not valid for {name}.") from None
    if not -(2**63) <= number < 2**63:
        raise bad_parameters(f"The value '{value}' is not valid for {name}.")
    return number


def _boolean(value: str | None) -> bool:
    if not value:
        return False
    if value.lower() not in ("true", "false"):
        raise bad_parameters(f"The value '{value}' is not valid.")
    return value.lower() == "true"
