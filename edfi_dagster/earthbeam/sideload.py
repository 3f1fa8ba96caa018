"""Records straight into the raw tables, past the ODS: staged, committed and replayed as pulls of an ODS are.

Their ``name`` is ``<resource>__<bundle>[__<grain>]``, so no refresh of the ODS's own records touches them. A record equal to
what its natural key's current row of that name says is not loaded again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.earthbeam.archive import Archive
from edfi_dagster.earthbeam.result import LoadOutcome, WrittenOutput
from edfi_dagster.earthbeam.workspace import Workspace
from edfi_dagster.lake import paths
from edfi_dagster.lake.manifest import Manifest, latest_stamp, read_manifest, stamps, write_manifest
from edfi_dagster.lake.proof import DamagedFile
from edfi_dagster.lake.store import LakeError, LakeStore
from edfi_dagster.ods.catalogue import RESOURCE, Endpoint, endpoints_of, snake_case, standard_endpoints
from edfi_dagster.ods.pages import RECORDS
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.contract import RAW_COLUMNS, Connection, Waiting, Warehouse
from edfi_dagster.warehouse.current import keyed, raw_table
from edfi_dagster.warehouse.lease import Lease, holding
from edfi_dagster.warehouse.opening import tables_of

FOLDER = "sideload"
_SCOPE = "tenant_code = ? AND api_year = ? AND name = ?"


@dataclass(frozen=True)
class Versions:
    """As which versions of the ODS and its data model the records are loaded."""

    ods: str
    data_model: str


def endpoint_for(resource: str, platform: Platform, pair: TenantYear) -> Endpoint:
    """The endpoint whose table an output's records go to; one that no catalogue knows has no natural key."""
    standard = standard_endpoints(platform.ods(pair).extract.data_standard)
    known = [*endpoints_of(platform, pair), *standard]
    found = [endpoint for endpoint in known if endpoint.name == resource]
    if found:
        return min(found, key=lambda endpoint: endpoint.namespace != "ed-fi")
    kind = "descriptor" if resource.endswith("Descriptors") else RESOURCE
    return Endpoint("ed-fi", resource, kind, "other", {}, False, False, {}, snake_case(resource))  # type: ignore[arg-type]


def sideload(
    platform: Platform,
    archive: Archive,
    warehouse: Warehouse,
    space: Workspace,
    outputs: Sequence[WrittenOutput],
    versions: Versions,
    *,
    full_refresh: bool,
    tell: Waiting,
) -> Iterator[LoadOutcome]:
    """Store each output's records in the lake with a manifest, then load them; one transaction for each.

    Raises LakeError, WarehouseError, EarthbeamError.
    """
    pair, started = archive.pair, datetime.now(UTC)
    endpoints = {o.name: endpoint_for(str(o.resource), platform, pair) for o in outputs}
    warehouse.prepare(tables_of(endpoints.values()))
    with holding(warehouse, pair, waiting=tell) as lease, warehouse.connected() as connection:
        stamp = lease.next_stamp(after=latest_stamp(archive.lake, pair))
        for output in outputs:
            endpoint = endpoints[output.name]
            stored = _Stored(
                endpoint, raw_table(connection, endpoint).name, versions, full_refresh, stamp, started
            )
            yield load_manifest(connection, lease, stored.keep(archive, space.outputs / output.file))


@dataclass(frozen=True)
class _Stored:
    """One output on its way to the lake."""

    endpoint: Endpoint
    table: str
    versions: Versions
    full: bool
    stamp: datetime
    started: datetime

    def keep(self, archive: Archive, file: Path) -> Manifest:
        """Store the records, then their manifest."""
        folder = f"{paths.run_folder(archive.pair, self.stamp)}/{FOLDER}"
        name = f"{self.endpoint.snake}__{archive.name}"
        kept = archive.keep_records(file, paths.part_path(folder, name, 0, archive.compression))
        manifest = Manifest(
            tenant=archive.pair.tenant,
            year=archive.pair.year,
            namespace=self.endpoint.namespace,
            endpoint=self.endpoint.name,
            name=name,
            kind=RECORDS,
            table=self.table,
            full=self.full,
            files=(kept,),
            rows=kept.rows,
            expected_rows=kept.rows,
            min_change_version=0,
            max_change_version=None,
            low=None,
            newest=None,
            ods_version=self.versions.ods,
            data_model_version=self.versions.data_model,
            pull_timestamp=self.stamp,
            started_at=self.started,
            seconds=(datetime.now(UTC) - self.started).total_seconds(),
            requests=0,
            retries=0,
            key=dict(self.endpoint.key),
        )
        write_manifest(archive.lake, paths.manifest_path(folder, name), manifest)
        return manifest


def replay_sideloads(
    lake: LakeStore, warehouse: Warehouse, pair: TenantYear, *, tell: Waiting
) -> Iterator[LoadOutcome]:
    """Load what the lake holds of a pair's sideloads and the warehouse does not, oldest first: part of a rebuild.

    Of each name from its latest full refresh on, or from the first there is. A damaged file ends its name and stops no
    other; raises LakeError for all of them at the end.
    """
    found: dict[str, list[Manifest]] = {}
    for stamp in stamps(lake, pair):
        folder = f"{paths.run_folder(pair, stamp)}/{FOLDER}"
        for file in lake.children(folder):
            if file.endswith(".manifest.json"):
                manifest = read_manifest(lake, f"{folder}/{file}")
                found[manifest.name] = [*([] if manifest.full else found.get(manifest.name, [])), manifest]
    warehouse.prepare(tables_of(_endpoint_of(manifest) for chain in found.values() for manifest in chain))
    damaged: list[str] = []
    with holding(warehouse, pair, waiting=tell) as lease, warehouse.connected() as connection:
        for chain in found.values():
            try:
                for manifest in chain:
                    yield load_manifest(connection, lease, manifest)
            except LakeError as error:
                damaged.append(str(error))
    if damaged:
        raise LakeError("; ".join(damaged))


def load_manifest(connection: Connection, lease: Lease, manifest: Manifest) -> LoadOutcome:
    """Commit one stored sideload; nothing happens if it is committed already.

    Raises NotCommitted, WarehouseError, DamagedFile.
    """
    entry = ledger.Entry(
        lease.pair,
        replace(_endpoint_of(manifest), snake=manifest.name),
        RECORDS,
        manifest.pull_timestamp,
        low=None,
        newest=None,
    )
    key = tuple(manifest.key.values())
    try:
        connection.stage("sideload_lines", manifest.files)
    except DamagedFile as error:
        raise error.of(f"{lease.pair} {manifest.name}") from None
    _key_staged(connection, key)
    removed = inserted = 0
    with connection.transaction():
        lease.check(connection)
        if ledger.not_loaded(connection, [entry]):
            removed = _delete(connection, manifest) if manifest.full else 0
            inserted = _insert(connection, manifest, key)
            ledger.record(connection, [entry])
    return LoadOutcome(
        manifest.endpoint,
        manifest.table,
        manifest.name,
        manifest.rows,
        inserted,
        removed,
        manifest.full,
        manifest.pull_timestamp,
    )


def _endpoint_of(manifest: Manifest) -> Endpoint:
    kind = "descriptor" if manifest.endpoint.endswith("Descriptors") else RESOURCE
    key: Mapping[str, str] = manifest.key
    snake = manifest.name.partition("__")[0]
    return Endpoint(manifest.namespace, manifest.endpoint, kind, "other", key, False, False, {}, snake)  # type: ignore[arg-type]


def _by_key(
    connection: Connection, source: str, key: Sequence[str], keep: Sequence[str], where: str = ""
) -> str:
    """A query of ``keep`` and the natural key; the whole record is its own key where that is not known or not complete."""
    columns = ", ".join(keep)
    lines = keyed(connection, source, key, (*keep, "v") if "v" not in keep else keep, where=where)
    return f"SELECT {columns}, coalesce(natural_key, {connection.json()}) AS natural_key FROM ({lines}) keyed_lines"  # noqa: S608  (names are ours, values bound)


def _key_staged(connection: Connection, key: Sequence[str]) -> None:
    """Of one natural key the last line counts: two rows under one stamp would be a toss-up downstream."""
    lines = _by_key(connection, "sideload_lines", key, ("read_order",))
    connection.run(
        f"""CREATE OR REPLACE TEMPORARY TABLE sideload_staged AS
        SELECT natural_key, max(read_order) AS read_order FROM ({lines}) read_lines GROUP BY 1"""  # noqa: S608
    )


def _insert(connection: Connection, manifest: Manifest, key: Sequence[str]) -> int:
    table = connection.table(manifest.table)
    rows = _by_key(connection, table, key, ("v", "pull_timestamp"), where=f"WHERE {_SCOPE}")
    current = f"SELECT natural_key, max_by(v, pull_timestamp) AS v FROM ({rows}) raw_rows GROUP BY 1"  # noqa: S608
    stamp = manifest.pull_timestamp.replace(tzinfo=None)
    pair = (manifest.tenant, manifest.year)
    return connection.run(
        f"""INSERT INTO {table} ({", ".join(RAW_COLUMNS)})
        SELECT ?, ?, ?, ?, l.file_row_number, l.filename, ?, ?, ?, l.v
        FROM sideload_lines l JOIN sideload_staged s ON s.read_order = l.read_order
        LEFT JOIN ({current}) c ON c.natural_key = s.natural_key
        WHERE c.natural_key IS NULL OR NOT ({connection.same("c.v", "l.v")})""",  # noqa: S608
        [
            *pair,
            stamp.date(),
            stamp,
            manifest.name,
            manifest.ods_version,
            manifest.data_model_version,
            *pair,
            manifest.name,
        ],
    )


def _delete(connection: Connection, manifest: Manifest) -> int:
    """A SELECT looks first: a DELETE that hits nothing still locks the table on Snowflake."""
    table, scope = connection.table(manifest.table), [manifest.tenant, manifest.year, manifest.name]
    ((count,),) = connection.rows(f"SELECT count(*) FROM {table} WHERE {_SCOPE}", scope)  # noqa: S608
    return connection.run(f"DELETE FROM {table} WHERE {_SCOPE}", scope) if count else 0  # noqa: S608
