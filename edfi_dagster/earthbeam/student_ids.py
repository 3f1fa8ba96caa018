"""Which student a row of a file is of: the roster, the match rates, and whether enough rows found their student.

The student-id wrapper compares columns of a file with the ids of a roster; which of them is gone by, `crosswalk` says.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edfi_dagster.config import TenantYear
from edfi_dagster.earthbeam.bundle import MATCH_RATES
from edfi_dagster.earthbeam.errors import ToolFailed
from edfi_dagster.earthbeam.result import MatchOutcome
from edfi_dagster.ods.catalogue import standard_endpoints
from edfi_dagster.warehouse.contract import Connection, RawTable
from edfi_dagster.warehouse.current import current_sql

ASSOCIATIONS = "studentEducationOrganizationAssociations"
_COLUMNS = ("source_column_name", "edfi_column_name", "num_matches", "num_rows", "match_rate")
_MOST_ROWS = 2.0**63
_PAIR = "tenant_code = ? AND api_year = ?"


@dataclass(frozen=True)
class Rate:
    """How many rows of a file matched when one of its columns was compared with one kind of id."""

    source_column: str
    edfi_column: str
    matches: int
    rows: int
    rate: float

    @property
    def pair(self) -> tuple[str, str]:
        """The column and the kind of id."""
        return self.source_column, self.edfi_column

    @property
    def bound(self) -> float:
        """The share of rows that matched is at most this."""
        return min(1.0, self.rate)

    def plain(self) -> tuple[str, str, int, int, float]:
        return self.source_column, self.edfi_column, self.matches, self.rows, self.rate


def roster_table(standard: str) -> RawTable:
    """The raw table that the roster is made of."""
    endpoint = next(e for e in standard_endpoints(standard) if e.name == ASSOCIATIONS)
    return RawTable(endpoint.snake, tuple(endpoint.key.values()))


def write_roster(connection: Connection, pair: TenantYear, standard: str, file: Path) -> int:
    """Write the pair's students with their ids, one association a line as the wrapper wants them; how many there are.

    Made of the current rows in the raw tables, so a student who left the ODS is not among them.
    """
    table = roster_table(standard)
    paths = (
        "studentReference.studentUniqueId",
        "educationOrganizationReference.educationOrganizationId",
        "educationOrganizationReference.link.rel",
        "studentIdentificationCodes",
    )
    columns = ", ".join(connection.text(path) for path in paths)
    rows = connection.rows(
        f"SELECT {columns} FROM ({current_sql(connection, table)}) roster WHERE {_PAIR} AND name = ? ORDER BY 1, 2",  # noqa: S608
        [*pair, table.name],
    )
    with file.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(_association(*row)) + "\n")
    return len(rows)


def _association(student: str, organization: str, kind: str | None, codes: str | None) -> dict[str, Any]:
    number = int(organization) if str(organization).isdigit() else organization
    return {
        "educationOrganizationReference": {"educationOrganizationId": number, "link": {"rel": kind or ""}},
        "studentReference": {"studentUniqueId": student},
        "studentIdentificationCodes": json.loads(codes) if codes else [],
    }


def stored_rates(
    connection: Connection, pair: TenantYear, assessment: str, required: float
) -> tuple[Rate, ...]:
    """The rates of earlier files that would be enough, best first."""
    found = connection.rows(
        f"""SELECT {", ".join(_COLUMNS)} FROM {connection.table(connection.names.student_id_match_rates)}
        WHERE {_PAIR} AND assessment_name = ? AND match_rate >= ?
        ORDER BY match_rate DESC, num_matches DESC, source_column_name, edfi_column_name""",  # noqa: S608
        [*pair, assessment, required],
    )
    return tuple(Rate(*row) for row in found)


def store_rates(connection: Connection, pair: TenantYear, assessment: str, rates: Sequence[Rate]) -> None:
    """Replace the stored rates of an assessment, in one transaction; rates too low are stored as well."""
    table = connection.table(connection.names.student_id_match_rates)
    scope = [*pair, assessment]
    with connection.transaction():
        where = f"{_PAIR} AND assessment_name = ?"
        ((count,),) = connection.rows(f"SELECT count(*) FROM {table} WHERE {where}", scope)  # noqa: S608
        if count:
            connection.run(f"DELETE FROM {table} WHERE {where}", scope)  # noqa: S608
        if rates:
            marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(rates))
            connection.run(
                f"INSERT INTO {table} (tenant_code, api_year, assessment_name, {', '.join(_COLUMNS)}) VALUES {marks}",  # noqa: S608
                [value for rate in rates for value in (*scope, *rate.plain())],
            )


def write_rate(rate: Rate, file: Path) -> None:
    """The file that the wrapper takes a stored rate from."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(_COLUMNS)
        writer.writerow(rate.plain())


def read_rates(outputs: Path) -> tuple[Rate, ...]:
    """The rates that the wrapper computed, best first; none where it took a stored one, or where nothing matched. Raises ToolFailed."""
    file = outputs / f"{MATCH_RATES}.csv"
    if not file.is_file():
        return ()
    try:
        with file.open(encoding="utf-8", newline="") as text:
            found = [_read_rate(row) for row in csv.DictReader(text)]
    except (csv.Error, KeyError, TypeError, ValueError, OverflowError):
        raise ToolFailed(
            f"{file.name}, which the student-id wrapper wrote, holds no match rates; see which version of it "
            "student_ids.wrapper names"
        ) from None
    return tuple(sorted(found, key=lambda rate: -rate.rate))


def _read_rate(row: Mapping[str, Any]) -> Rate:
    """Raises KeyError, TypeError, ValueError or OverflowError for a row that tells none."""
    source, edfi = row["source_column_name"], row["edfi_column_name"]
    matches, rows, rate = (float(row[name]) for name in ("num_matches", "num_rows", "match_rate"))
    if (
        not source
        or not edfi
        or not (0 <= matches < _MOST_ROWS and 0 <= rows < _MOST_ROWS and 0 <= rate < math.inf)
    ):
        raise ValueError("no rate")
    return Rate(source, edfi, int(matches), int(rows), rate)


def matched(
    unmatched: int | None, required: float, rates: Sequence[Rate], rows: int | None, *, stored: bool
) -> MatchOutcome:
    """How this file's own rows matched. ``rows`` is how many it has, ``unmatched`` how many of them found no student.

    Where either cannot be counted, the best rate tells instead.
    """
    best = max(rates, key=lambda rate: rate.rate, default=None)
    counted = rows if rows is not None else best.rows if best else unmatched or 0
    share: float | None = None
    if unmatched is None and rows != 0:
        share = best.rate if best else 0.0
    elif counted:
        share = max(0.0, 1 - (unmatched or 0) / counted)
    found = tuple(rate.plain() for rate in rates)
    return MatchOutcome(required, share, counted, unmatched or 0, found, stored=stored)
