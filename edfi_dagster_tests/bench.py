"""A platform on a sandbox: one tenant and year, a lake, a warehouse, and the truth to compare them with."""

from __future__ import annotations

import copy
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from edfi_dagster.config import Platform, TenantYear, parse_platform
from edfi_dagster.extract import EndpointResult, Job, Work, changed_endpoints, extract, load_stored
from edfi_dagster.lake.manifest import Manifest, manifests, stamps
from edfi_dagster.lake.store import LakeStore, open_lake
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of, find_endpoints
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, RECORDS, RecordKind
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.sandbox import RequestInfo, SandboxServer, Store
from edfi_dagster.warehouse.contract import Warehouse
from edfi_dagster.warehouse.opening import open_warehouse, tables_of

ODS = "grand_bend/2025"
PAIR = TenantYear("grand_bend", 2025)
ALL_KINDS = frozenset[RecordKind]({RECORDS, DELETES, KEY_CHANGES})
SCHEDULING = (
    "sessions",
    "courseOfferings",
    "sections",
    "studentSectionAssociations",
    "classPeriods",
    "locations",
    "students",
    "studentSchoolAssociations",
    "staffSectionAssociations",
    "grades",
)
"""Endpoints whose keys change and hang together, and ``students``, whose key cannot."""

KEY_VARIABLE, SECRET_VARIABLE = "BENCH_CLIENT_ID", "BENCH_CLIENT_SECRET"


def write_config(
    folder: Path,
    server: SandboxServer,
    endpoints: Sequence[str],
    descriptors: Sequence[str] = (),
    lake: Mapping[str, Any] | None = None,
    warehouse: Mapping[str, Any] | None = None,
    year: Mapping[str, Any] | None = None,
    **extract_options: Any,
) -> Path:
    """``platform.yaml`` in ``folder`` for a sandbox; its key and secret come from the environment.

    ``year`` is what the tenant's year says beside address and key.
    """
    document = {
        "lake": dict(lake or {"kind": "local", "root": "lake"}),
        "warehouse": dict(warehouse or {"kind": "duckdb", "path": "warehouse.duckdb"}),
        "extract": {
            "resources": {name: {} for name in endpoints} or "none",
            "descriptors": {name: {} for name in descriptors} or "none",
            "data_standard": server.store(ODS).generation.standard,
            "endpoint_defaults": {"page_size": 20, "num_retries": 1},
            **extract_options,
        },
        "tenants": {
            PAIR.tenant: {
                "years": {
                    PAIR.year: {
                        "base_url": server.url_of(ODS),
                        "client_id": {"env": KEY_VARIABLE},
                        "client_secret": {"env": SECRET_VARIABLE},
                        **(year or {}),
                    }
                }
            }
        },
    }
    path = folder / "platform.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


class Bench:
    """Runs extracts of one pair and looks at what they left."""

    def __init__(self, config: Path, server: SandboxServer | None = None) -> None:
        self.config = config
        self.folder = config.parent
        self.platform: Platform = parse_platform(config.read_text(), str(config), self.folder)
        self._first_warehouse = self.platform.warehouse
        self.lake: LakeStore = open_lake(self.platform.lake, self.platform.extract.tmp_dir)
        self.told: list[str] = []
        self.ods = ODS
        # An ODS that is asked twice, seconds apart, is here asked again at once.
        self.pause: Callable[[float], None] = lambda seconds: time.sleep(min(seconds, 0.05))
        # Opening the file is half the time of a small run; tests of runs beside each other let it go, as runs do.
        self.lets_go = server is None or self.platform.warehouse.kind != "duckdb"
        self._server = server
        self.warehouse = self._opened(self.platform)

    @property
    def server(self) -> SandboxServer:
        assert self._server is not None
        return self._server

    @property
    def store(self) -> Store:
        """The ODS that should be in the warehouse."""
        return self.server.store(self.ods)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return endpoints_of(self.platform, PAIR)

    def endpoint(self, name: str) -> Endpoint:
        (found,) = find_endpoints([name], self.endpoints)
        return found

    def configure(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Edit the configuration but for the warehouse, as a person would between two runs."""
        document = yaml.safe_load(self.config.read_text())
        change(document)
        self.config.write_text(yaml.safe_dump(document))
        edited = parse_platform(self.config.read_text(), str(self.config), self.folder)
        self.platform = edited.model_copy(update={"warehouse": self.platform.warehouse})
        self.warehouse = self._opened(self.platform)

    def configure_year(self, **values: Any) -> None:
        """Edit what the configuration says of the pair; None takes a key out."""

        def change(document: dict[str, Any]) -> None:
            year = document["tenants"][PAIR.tenant]["years"][PAIR.year]
            year.update(values)
            for key in [key for key, value in values.items() if value is None]:
                del year[key]

        self.configure(change)

    def move_to_warehouse(self, name: str) -> None:
        """Configure another one of the same kind, beside the first."""
        first = self._first_warehouse
        other: dict[str, object] = {"path": self.folder / f"{name}.duckdb"}
        if first.kind == "snowflake":
            other = {"database": f"{first.database}_{self.folder.name}_{name}"}
        self.platform = self.platform.model_copy(update={"warehouse": first.model_copy(update=other)})
        self.warehouse = self._opened(self.platform)

    def _opened(self, platform: Platform) -> Warehouse:
        warehouse = open_warehouse(platform, self.lake, self.told.append)
        warehouse.prepare(tables_of(self.endpoints))
        return warehouse

    # -- runs ---------------------------------------------------------------------------------------------

    def materialize(
        self,
        endpoints: Iterable[str | Endpoint] | None = None,
        *,
        full_refresh: bool = False,
        kinds: frozenset[RecordKind] = ALL_KINDS,
        load: bool = True,
        may_fail: bool = False,
    ) -> dict[str, EndpointResult]:
        """Run an extract; endpoint name → result. Fails where an endpoint does, unless it ``may_fail``."""
        chosen = self.endpoints
        if endpoints is not None:
            chosen = tuple(e if isinstance(e, Endpoint) else self.endpoint(e) for e in endpoints)
        session = OdsSession(self.platform.ods(PAIR), PAIR, sleep=lambda seconds: self.pause(seconds))
        job = Job(self.platform, PAIR, session, self.lake, self.warehouse, self.told.append, self.told.append)
        works = [Work(endpoint, kinds, load) for endpoint in chosen]
        with closing(session), nullcontext() if self.lets_go else self.warehouse.connected():
            results = {r.endpoint.name: r for r in extract(job, works, full_refresh=full_refresh)}
        if not may_fail:
            assert not any(result.failures for result in results.values()), failures(results)
        return results

    def forecast(self) -> list[str]:
        """The names of the endpoints that a dynamic run would select."""
        with closing(OdsSession(self.platform.ods(PAIR), PAIR)) as session:
            job = Job(
                self.platform, PAIR, session, self.lake, self.warehouse, self.told.append, self.told.append
            )
            return [endpoint.name for endpoint in changed_endpoints(job, self.endpoints)]

    def load_stored(self, endpoints: Iterable[str]) -> dict[str, EndpointResult]:
        chosen = find_endpoints(endpoints, self.endpoints)
        found = load_stored(self.platform, self.lake, self.warehouse, PAIR, chosen, tell=self.told.append)
        return {result.endpoint.name: result for result in found}

    def rebuild(self, name: str = "rebuilt") -> dict[str, EndpointResult]:
        """Fill another warehouse from the lake; from then on it is this bench's."""
        self.move_to_warehouse(name)
        found = load_stored(
            self.platform, self.lake, self.warehouse, PAIR, self.endpoints, tell=self.told.append
        )
        return {result.endpoint.name: result for result in found}

    def lose(self, folder: str) -> None:
        """Delete every file below a folder of the lake."""
        inside = self.lake.children(folder)
        if not inside:
            self.lake.delete(folder)
        for name in inside:
            self.lose(f"{folder}/{name}")

    # -- what lies in the warehouse -----------------------------------------------------------------------

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """``sql`` with ``{table}`` for the schema-qualified name."""
        with self.warehouse.connected() as connection:
            return connection.rows(sql, parameters)

    def raw(self, table: str, name: str | None = None) -> list[tuple[str, datetime, dict[str, Any]]]:
        """(id, pull_timestamp, record) of the pair's raw rows, in no order."""
        only = "" if name is None else f" AND name = '{name}'"
        rows = self.query(
            f"SELECT pull_timestamp, v FROM edfi3.{table} WHERE tenant_code = ? AND api_year = ?{only}",
            PAIR,
        )
        records = [(stamp, json.loads(v)) for stamp, v in rows]
        return [(record.get("id") or record["Id"], stamp, record) for stamp, record in records]

    def deletes(self, name: str | None = None) -> dict[str, list[datetime]]:
        """id → stamps of its tombstones."""
        found = defaultdict(list)
        for record_id, stamp, _ in self.raw(self.platform.tables.deletes, name):
            found[record_id].append(stamp)
        return dict(found)

    def watermarks(self) -> dict[tuple[str, str], int]:
        """(name, kind) → highest active change version, as Airflow would read it."""
        rows = self.query(
            "SELECT name, CASE WHEN is_deletes THEN 'deletes' WHEN is_key_changes THEN 'key_changes' ELSE 'records' "
            f"END, max(max_version) FROM edfi3.{self.platform.tables.change_versions} "
            "WHERE is_active AND tenant_code = ? AND api_year = ? GROUP BY 1, 2",
            PAIR,
        )
        return {(name, kind): version for name, kind, version in rows}

    def manifest(self, name: str, kind: str = RECORDS) -> Manifest:
        """The newest manifest of an endpoint and kind."""
        for stamp in reversed(stamps(self.lake, PAIR)):
            for manifest in manifests(self.lake, PAIR, stamp):
                if (manifest.endpoint, manifest.kind) == (name, kind):
                    return manifest
        raise LookupError(f"no manifest of {name} {kind}")

    def stamps(self) -> list[datetime]:
        rows = self.query("SELECT DISTINCT pull_timestamp FROM edfi3._meta_change_versions ORDER BY 1")
        return [stamp for (stamp,) in rows]

    # -- the truth ----------------------------------------------------------------------------------------

    def current(self, name: str) -> dict[str, dict[str, Any]]:
        """id → record that dbt would stage: written from the rules of the dbt packages, not from our views.

        Rows of the resource LEFT JOIN ``_deletes`` by name, tenant, year and id; of each natural key the first by
        last_modified_timestamp (the tombstone's stamp, else the row's), then pull_timestamp, both descending; dropped
        if it is deleted. Two different rows that tie would be an arbitrary choice, and are an error here.
        """
        endpoint = self.endpoint(name)
        if endpoint.is_descriptor:
            rows, deleted = self.raw(self.platform.tables.descriptors, endpoint.snake), {}
        else:
            rows, deleted = self.raw(endpoint.snake), self.deletes(endpoint.snake)
        model = (
            Store().endpoint(endpoint.path) if self._server is None else self.store.endpoint(endpoint.path)
        )
        by_key: dict[str, list[tuple[datetime, datetime, bool, dict[str, Any]]]] = defaultdict(list)
        for record_id, stamp, record in rows:
            key = json.dumps(model.key_values(record)).lower()
            for tombstone in deleted.get(record_id, [None]):
                by_key[key].append((tombstone or stamp, stamp, tombstone is not None, record))
        found = {}
        for versions in by_key.values():
            versions.sort(key=lambda version: version[:2], reverse=True)
            first = versions[0]
            ties = [v for v in versions if v[:2] == first[:2] and v[2:] != first[2:]]
            assert not ties, f"{name}: two rows tie"
            if not first[2]:
                found[first[3]["id"]] = first[3]
        return found

    def ods_rows(self, name: str) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self.store.rows(self.endpoint(name).path)}

    def verify(self, endpoints: Iterable[str] | None = None) -> None:
        """Every record of the ODS is current, as it stands there, and nothing else is; our own views agree."""
        chosen = self.endpoints if endpoints is None else find_endpoints(endpoints, self.endpoints)
        with self.warehouse.connected():
            self._verify(chosen)

    def _verify(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            expected, found = self.ods_rows(endpoint.path), self.current(endpoint.path)
            assert found.keys() == expected.keys(), (
                f"{endpoint.path}: missing {expected.keys() - found.keys()}, extra {found.keys() - expected.keys()}"
            )
            assert found == expected, (
                f"{endpoint.path}: stale {[i for i in found if found[i] != expected[i]]}"
            )
            self._verify_view(endpoint, expected)

    def _verify_view(self, endpoint: Endpoint, expected: dict[str, dict[str, Any]]) -> None:
        table = self.platform.tables.descriptors if endpoint.is_descriptor else endpoint.snake
        rows = self.query(
            f"SELECT v FROM edfi3.{table}_current WHERE tenant_code = ? AND api_year = ? AND name = ?",
            [*PAIR, endpoint.snake],
        )
        records = [json.loads(v) for (v,) in rows]
        assert len(records) == len(expected)
        assert {record["id"]: record for record in records} == expected

    def state(self) -> tuple[Any, ...]:
        """Current rows, ``_deletes`` ids and watermarks: what must be the same however the runs went."""
        with self.warehouse.connected():
            rows = {e.path: self.current(e.path) for e in self.endpoints}
            return rows, {e.snake: set(self.deletes(e.snake)) for e in self.endpoints}, self.watermarks()

    # -- what happens in the ODS --------------------------------------------------------------------------

    def at_request(
        self, path: str, action: Callable[[], object], *, nth: int = 1, answered: bool = False
    ) -> None:
        """Do something in the ODS just before (or after it has ``answered``) the nth request to ``path``."""
        hooks = self.server.after_response if answered else self.server.before_request
        seen = 0

        def hook(request: RequestInfo) -> None:
            nonlocal seen
            seen += request.path.lower().endswith(path.lower())
            if seen == nth and request.path.lower().endswith(path.lower()):
                action()

        hooks.append(hook)

    def add_student(self, number: int, **fields: Any) -> str:
        return self.store.post("students", student(number, **fields))

    def change(self, endpoint: str, record_id: str, **fields: Any) -> None:
        """Update a record by id; fields of its key included."""
        self.store.put(endpoint, record_id, changed(self.store.get(endpoint, record_id), **fields))

    def rename_session(self, name: str) -> None:
        """Give the first session another name, which its offerings, sections and enrollments then have as well."""
        self.change("sessions", self.store.ids("sessions")[0], sessionName=name)

    def recreate(self, endpoint: str, record_id: str, **fields: Any) -> str:
        """Delete a record and post it again; its new id."""
        record = self.store.get(endpoint, record_id)
        self.store.delete(endpoint, record_id)
        return self.store.post(endpoint, changed(record, **fields))


MakeBench = Callable[..., Bench]
"""The fixture ``make_bench``: ``make_bench(*endpoints, descriptors=(), year={}, **extract options)``."""


def student(number: int, **fields: Any) -> dict[str, Any]:
    """A student nobody refers to."""
    return {
        "studentUniqueId": f"bench-{number}",
        "firstName": "Ada",
        "lastSurname": f"Ämne {number}",
        "birthDate": "2011-02-03",
        **fields,
    }


def changed(record: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A record as a client would send it back, with some fields set."""
    kept = {name: value for name, value in record.items() if name not in ("id", "_etag", "_lastModifiedDate")}
    return {**copy.deepcopy(kept), **fields}


def failures(results: dict[str, EndpointResult]) -> dict[str, dict[RecordKind, str]]:
    return {name: result.failures for name, result in results.items() if result.failures}


def set_credentials(server: SandboxServer) -> None:
    os.environ[KEY_VARIABLE], os.environ[SECRET_VARIABLE] = server.credentials
