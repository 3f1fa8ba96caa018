"""A plain client for the tests: one session with a token against one ODS of a sandbox."""

from __future__ import annotations

from typing import Any

import requests

from edfi_dagster.sandbox import SandboxServer


class Api:
    """Requests against one ODS; paths are relative to ``/data/v3/ed-fi/`` unless they begin with ``/``."""

    def __init__(self, server: SandboxServer, ods: str) -> None:
        self.root = server.url_of(ods)
        self.session = requests.Session()
        key, secret = server.credentials
        answer = self.session.post(
            f"{self.root}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(key, secret),
            timeout=10,
        )
        answer.raise_for_status()
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def url(self, path: str) -> str:
        return f"{self.root}{path}" if path.startswith("/") else f"{self.root}/data/v3/ed-fi/{path}"

    def get(self, path: str, headers: dict[str, str] | None = None, **parameters: Any) -> requests.Response:
        return self.session.get(self.url(path), params=parameters, headers=headers, timeout=10)

    def rows(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        return self.session.post(self.url(path), json=body, headers=headers, timeout=10)

    def put(self, path: str, body: Any, **headers: str) -> requests.Response:
        return self.session.put(self.url(path), json=body, headers=headers, timeout=10)

    def delete(self, path: str, **headers: str) -> requests.Response:
        return self.session.delete(self.url(path), headers=headers, timeout=10)

    @property
    def newest(self) -> int:
        answer = self.get("/changeQueries/v1/availableChangeVersions")
        return int(answer.json()["newestChangeVersion"])


def student(unique_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "studentUniqueId": unique_id,
        "firstName": "Noor",
        "lastSurname": "Adler",
        "birthDate": "2010-02-03",
    } | fields


def body(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A record as a client would send it back: without the server's properties."""
    kept = {name: value for name, value in record.items() if name not in ("id", "_etag", "_lastModifiedDate")}
    return kept | changes
