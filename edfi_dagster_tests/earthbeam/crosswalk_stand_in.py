"""The student-id wrapper without Earthmover's seconds: a program with its parameters, outputs and exit codes.

Of pairs of one rate it takes the last, and a student who is in the roster twice counts twice: both are the wrapper's right.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

Row = dict[str, str]


def main(argv: list[str]) -> int:
    given = json.loads(argv[argv.index("-p") + 1])
    with Path(given["INPUT_FILE"]).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    roster = [json.loads(line) for line in Path(given["EDFI_ROSTER_FILE"]).read_text().splitlines()]
    outputs = Path(given["OUTPUT_DIR"])
    if given["MATCH_RATES_SOURCE_TYPE"] == "file":
        with Path(given["MATCH_RATES_FILE"]).open(newline="", encoding="utf-8") as file:
            rates = list(csv.DictReader(file))
    else:
        rates = list(compared(given, rows, roster))
        write(outputs / "student_id_match_rates.csv", rates)
    enough = [rate for rate in rates if float(rate["match_rate"]) > float(given["REQUIRED_ID_MATCH_RATE"])]
    best = sorted(enough, key=lambda rate: float(rate["match_rate"]))[-1:]
    if best and rows and best[0]["source_column_name"] not in rows[0]:
        print("2025-01-01 00:00:00 earthmover ERROR column not found", file=sys.stderr)
        return 255
    found = [(row, students(best[0], row, roster) if best else []) for row in rows]
    (outputs / "assessments.jsonl").write_text("{}\n")
    records = [json.dumps({"student": s, "score": row["score"]}) for row, of in found for s in of]
    (outputs / "studentAssessments.jsonl").write_text("".join(f"{record}\n" for record in records))
    write(outputs / "input_no_student_id_match.csv", [row for row, of in found if not of])
    return 0


def compared(given: Row, rows: list[Row], roster: list[dict[str, object]]) -> Iterator[Row]:
    for column in given["POSSIBLE_STUDENT_ID_COLUMNS"].split(","):
        for kind in given["EDFI_STUDENT_ID_TYPES"].split(","):
            pair = {"source_column_name": column, "edfi_column_name": kind}
            count = sum(len(matches(pair, row, roster)) for row in rows)
            if count:
                rate = {"num_matches": count, "num_rows": len(rows), "match_rate": count / len(rows)}
                yield pair | {name: str(value) for name, value in rate.items()}


def matches(pair: Row, row: Row, roster: list[dict[str, object]]) -> list[str]:
    """The student of each association that has the row's id."""
    return [
        line["studentReference"]["studentUniqueId"]  # type: ignore[index]
        for line in roster
        for code in line["studentIdentificationCodes"]  # type: ignore[attr-defined]
        if code["studentIdentificationSystemDescriptor"].endswith(f"#{pair['edfi_column_name']}")
        and code["identificationCode"] == row.get(pair["source_column_name"])
    ]


def students(pair: Row, row: Row, roster: list[dict[str, object]]) -> list[str]:
    return sorted(set(matches(pair, row, roster)))


def write(file: Path, rows: list[Row]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]) if rows else ["nothing"])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
