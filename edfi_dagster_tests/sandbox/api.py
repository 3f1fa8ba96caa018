"""A plain client for the tests: one session with a token against one ODS of a sandbox."""

from __future__ import annotations

from typing import Any

import requests

from edfi_dagster.sandbox import SandboxServer, Store

EVENTS = "studentSectionAttendanceEvents"


class Api:
    """Requests against one ODS; paths are relative to the ``ed-fi`` data unless they begin with ``/``.

    ``data``, ``changes``, ``sections`` and ``documents`` are URLs of the API's areas, in any version and mode.
    """

    def __init__(self, server: SandboxServer, ods: str) -> None:
        generation, address = server.site.generation, server.site.book.addresses[ods]
        self.root = server.url_of(ods)
        self.data = address.url(server.url, *generation.data_area)
        self.changes = address.url(server.url, "changeQueries", "v1")
        self.sections = f"{address.url(server.url, 'metadata')}/"
        self.documents = address.url(server.url, "metadata", "data", "v3")
        self.session = requests.Session()
        oauth = address.oauth_url(server.url, generation)
        key, secret = server.credentials
        if generation.token_steps == 2:
            asked = {"Client_id": key, "Response_type": "code"}
            code = self.session.post(f"{oauth}/authorize", data=asked, timeout=10).json()["code"]
            sent: dict[str, Any] = {"Client_id": key, "Client_secret": secret, "Code": code}
            answer = self.session.post(
                f"{oauth}/token", json=sent | {"Grant_type": "authorization_code"}, timeout=10
            )
        else:
            grant = {"grant_type": "client_credentials"}
            answer = self.session.post(f"{oauth}/token", data=grant, auth=(key, secret), timeout=10)
        answer.raise_for_status()
        self.namespace = "/ed-fi" if generation.namespaces else ""
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def url(self, path: str) -> str:
        return f"{self.root}{path}" if path.startswith("/") else f"{self.data}{self.namespace}/{path}"

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
        answer = self.session.get(f"{self.changes}/availableChangeVersions", timeout=10).json()
        return int({name.lower(): value for name, value in answer.items()}["newestchangeversion"])


class VersionApi(Api):
    """A client with the server and the store that it talks to."""

    def __init__(self, server: SandboxServer, ods: str) -> None:
        super().__init__(server, ods)
        self.server = server
        self.store = server.store(ods)


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


def version(store: Store, endpoint: str, row_id: str) -> int:
    row = store.row(endpoint, row_id)
    assert row is not None
    return row.change_version


def changed_ids(api: Api, path: str, low: int | None = None, high: int | None = None) -> list[str]:
    window: dict[str, Any] = {"minChangeVersion": low, "maxChangeVersion": high}
    return [row["id"] for row in api.rows(path, **{name: v for name, v in window.items() if v is not None})]


def room(store: Store, code: str, school: int = 0) -> dict[str, Any]:
    return {
        "classroomIdentificationCode": code,
        "schoolReference": {"schoolId": store.rows("schools")[school]["schoolId"]},
    }
