"""What happens in the demo's districts: the changes that a night's delta must bring over, made through the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from edfi_dagster.config import TenantYear
from edfi_dagster.config.embedded import SANDBOX_CLIENT_ID, SANDBOX_CLIENT_SECRET

Record = dict[str, Any]

CHANGED_ENDPOINTS = (
    "students",
    "schools",
    "sessions",
    "courseOfferings",
    "sections",
    "studentSectionAssociations",
    "staffSectionAssociations",
    "studentSchoolAttendanceEvents",
    "studentSectionAttendanceEvents",
    "sectionAttendanceTakenEvents",
    "surveySectionAssociations",
    "grades",
    "gradeLevelDescriptors",
)
REFRESHED_ENDPOINTS = ("students", "schools", "sexDescriptors")
BUNDLE_ENDPOINTS = (
    "assessments",
    "objectiveAssessments",
    "studentAssessments",
    "performanceLevelDescriptors",
    "assessmentReportingMethodDescriptors",
)

_SERVER_FIELDS = ("id", "_etag", "_lastModifiedDate")


class District:
    """One sandbox ODS, seen as its student information system sees it."""

    def __init__(self, url: str, pair: TenantYear) -> None:
        self.pair = pair
        self._base = f"{url}/{pair.tenant}/{pair.year}"
        self._http = requests.Session()
        self._late = ""
        form = {
            "grant_type": "client_credentials",
            "client_id": SANDBOX_CLIENT_ID,
            "client_secret": SANDBOX_CLIENT_SECRET,
        }
        token = self._http.post(f"{self._base}/oauth/token", data=form, timeout=30)
        token.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {token.json()['access_token']}"

    def change(self) -> None:
        """A day in the district: enrolments, corrections, withdrawals, a renamed session, an open transaction."""
        students = self.records("students")
        for student in students[:5]:
            self._put("students", student | {"lastSurname": f"{student['lastSurname']}-Day"})
        for number in range(3):
            self._post("students", _new_student(students[0], f"demo{self.pair.year}{number}"))
        self._delete_and_recreate("studentSchoolAttendanceEvents")
        session = self.records("sessions")[0]
        self._put("sessions", session | {"sessionName": f"{session['sessionName']} (renamed)"})
        descriptor = self.records("gradeLevelDescriptors")[0]
        self._put("gradeLevelDescriptors", descriptor | {"shortDescription": "Renamed grade level"})
        self._late = self._control("transactions")["id"]
        self._post("students", _new_student(students[1], f"late{self.pair.year}"), transaction=self._late)

    def commit_late(self) -> None:
        """Commit what was open while the delta ran: its change version lies below what that delta read up to."""
        self._control(f"transactions/{self._late}/commit")

    def rows(self, endpoint: str) -> list[str]:
        """Every record of an endpoint as the ODS would give it now, as JSON texts: the truth to compare with."""
        answer = self._http.get(f"{self._base}/_control/rows", params={"endpoint": endpoint}, timeout=60)
        answer.raise_for_status()
        return answer.text.splitlines()

    def filled(self) -> set[str]:
        """The endpoints that hold records, as ``ed-fi/students``."""
        answer = self._http.get(f"{self._base}/_control/summary", timeout=60)
        answer.raise_for_status()
        return {path for path, count in answer.json()["counts"].items() if count}

    def requests(self) -> int:
        """How many requests this ODS has answered, the demo's own included."""
        answer = self._http.get(f"{self._base}/_control/requests", timeout=60)
        answer.raise_for_status()
        return sum(1 for request in answer.json() if request["ods"] == f"{self.pair.tenant}/{self.pair.year}")

    def records(self, endpoint: str) -> list[Record]:
        """The first page of an endpoint."""
        answer = self._http.get(self._url(endpoint), timeout=60)
        answer.raise_for_status()
        records: list[Record] = answer.json()
        return records

    def _delete_and_recreate(self, endpoint: str) -> None:
        gone, again, *_ = self.records(endpoint)
        for record in (gone, again):
            self._http.delete(self._url(endpoint, record["id"]), timeout=60).raise_for_status()
        self._post(endpoint, again)

    def _post(self, endpoint: str, record: Record, *, transaction: str = "") -> None:
        headers = {"X-Sandbox-Transaction": transaction} if transaction else {}
        self._http.post(
            self._url(endpoint), json=_body(record), headers=headers, timeout=60
        ).raise_for_status()

    def _put(self, endpoint: str, record: Record) -> None:
        answer = self._http.put(
            self._url(endpoint, record["id"]), json=_body(record) | {"id": record["id"]}, timeout=60
        )
        answer.raise_for_status()

    def _control(self, route: str) -> Mapping[str, Any]:
        answer = self._http.post(f"{self._base}/_control/{route}", timeout=60)
        answer.raise_for_status()
        document: Mapping[str, Any] = answer.json()
        return document

    def _url(self, endpoint: str, record_id: str = "") -> str:
        return f"{self._base}/data/v3/ed-fi/{endpoint}" + (f"/{record_id}" if record_id else "")


def _body(record: Record) -> Record:
    return {name: value for name, value in record.items() if name not in _SERVER_FIELDS}


def _new_student(like: Record, unique_id: str) -> Record:
    return like | {"studentUniqueId": unique_id, "firstName": "New", "lastSurname": unique_id.capitalize()}
