"""A watermark knows its source: where that changed, what was read from the former one is read anew.

The ledger keeps with each watermark what decided which rows the ODS gave. A run compares that with its own before it
reads anything, and forgets the watermarks that mean nothing any more, as after a restore: then whatever runs next
refreshes them, also if this run is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from edfi_dagster.config import EndpointKind, Platform, TenantYear
from edfi_dagster.extract.collections import Collections
from edfi_dagster.extract.work import Job
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of
from edfi_dagster.ods.errors import OdsNotReady
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.ods.source import Configured, Source, digests, normal_path, ods_changes, ods_of
from edfi_dagster.warehouse import ledger
from edfi_dagster.warehouse.contract import Connection
from edfi_dagster.warehouse.lease import Lease
from edfi_dagster.warehouse.renamed import move_renamed

# So many endpoints are named in the warning; the others are counted.
_NAMED = 5


class Sources:
    """The collections of one run, and the source of each; threads may share it."""

    def __init__(
        self,
        platform: Platform,
        session: OdsSession,
        tell: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.collections = Collections(platform, session, tell, warn)
        self.ods = ods_of(session.settings, session.discovery)

    def of(self, endpoint: Endpoint) -> Source:
        """Raises OdsNotReady where nobody knows how an endpoint of a multiyear ODS is filtered."""
        of = self.collections
        return Source(self.ods, endpoint.path, digests(of.filters(endpoint)), of.profile(endpoint))

    def known(self, endpoint: Endpoint) -> Source | None:
        """None where nobody knows how it is filtered; reading it fails, and nothing of it is loaded then."""
        try:
            return self.of(endpoint)
        except OdsNotReady:
            return None


def configured_digest(platform: Platform, pair: TenantYear) -> str:
    """Another one whenever the configuration names another source, of the pair or of an endpoint. Asks no ODS."""
    configured = Configured(platform.ods(pair))
    parts = []
    for endpoint in endpoints_of(platform, pair):
        kind: EndpointKind = "descriptors" if endpoint.is_descriptor else "resources"
        options = platform.endpoint_options(pair, endpoint.namespace, endpoint.name, kind)
        own = {"filters": digests(options.query_parameters), "profile": (options.profile or "").lower()}
        if any(own.values()):
            parts.append({"endpoint": normal_path(endpoint.path), **own})
    return configured.digest(parts)


@dataclass
class Changes:
    """What a run must not go on from: ``names`` whose watermarks are of another source, and ``told``, why.

    ``unknown`` are the names whose watermarks tell no source, as Airflow's; they are taken for the run's own.
    """

    names: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    told: str = ""


def changes(
    noted: Mapping[str, list[Source | None]], sources: Sources, endpoints: Iterable[Endpoint]
) -> Changes:
    """Compare what the ledger noted with a run's own sources; ``endpoints`` are those that the run reads."""
    of_ods = dict.fromkeys(
        change
        for known in noted.values()
        for source in known
        if source
        for change in ods_changes(source.ods, sources.ods)
    )
    if of_ods:
        # What tells no source was read from the former one as well, for all that was read from this one tells it.
        names = {name for name, known in noted.items() if any(not s or s.ods != sources.ods for s in known)}
        return Changes(
            names, told=f": {_listed(of_ods)}: full refresh of all {len(names)} endpoints loaded before"
        )
    found = Changes()
    by_change: dict[str, list[str]] = {}
    for endpoint in endpoints:
        known = noted.get(endpoint.snake, [])
        if known and not any(known):  # what is no longer read, as deletes may be, never gets one
            found.unknown.add(endpoint.snake)
        now = sources.known(endpoint)
        changed = dict.fromkeys(c for source in known if source and now for c in now.changes_since(source))
        if changed:
            found.names.add(endpoint.snake)
            by_change.setdefault(_listed(changed), []).append(endpoint.path)
    found.told = " " + "; ".join(
        f"{_named(paths)}: {change}: full refresh" for change, paths in by_change.items()
    )
    return found


def forget_changed(job: Job, lease: Lease, sources: Sources, endpoints: Iterable[Endpoint]) -> frozenset[str]:
    """Forget the watermarks that are of another source, in one transaction, and say so in one warning.

    What is stored under a former name of an endpoint is found first. Returns the names whose rows are of another ODS.
    """
    with job.warehouse.connected() as connection:
        noted = ledger.noted_sources(connection, job.pair)
        standard = job.session.settings.extract.data_standard
        for sentence in move_renamed(
            connection, lease, noted, endpoints_of(job.platform, job.pair), standard
        ):
            job.warn(sentence)
            noted = ledger.noted_sources(connection, job.pair)
        found = changes(noted.active, sources, endpoints)
        if found.names:
            job.warn(f"{job.pair}{found.told}")
            _forget(connection, lease, found.names)
    if found.unknown:
        job.tell(
            f"{job.pair}: {len(found.unknown)} endpoints were loaded before their source was noted (by an earlier version or "
            "by Airflow); they go on from their change versions, and from now on a changed source is noticed"
        )
    return of_other_ods(noted, sources)


def of_other_ods(noted: ledger.Noted, sources: Sources) -> frozenset[str]:
    """The names whose latest rows came from another ODS."""
    return frozenset(name for name, source in noted.latest.items() if source and source.ods != sources.ods)


def _forget(connection: Connection, lease: Lease, names: set[str]) -> None:
    with connection.transaction():
        lease.check(connection)
        ledger.deactivate(connection, lease.pair, sorted(names))


def _listed(changed: Iterable[str]) -> str:
    return " and ".join(changed)


def _named(paths: list[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return f"{', '.join(paths[:_NAMED])}{more}"
