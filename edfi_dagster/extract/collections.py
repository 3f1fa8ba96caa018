"""The collections of one ODS as the configuration wants them read: page sizes, retries, filters, the school year."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from edfi_dagster.config import EndpointKind, Platform, ResolvedOptions
from edfi_dagster.ods.catalogue import RESOURCE, Endpoint
from edfi_dagster.ods.errors import OdsNotReady
from edfi_dagster.ods.oauth import JSON
from edfi_dagster.ods.pages import RECORDS, Collection, RecordKind
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.ods.source import SCHOOL_YEAR


class Collections:
    """Opens collections of the ODS behind ``session``; threads may share it.

    ``tell`` hears what a person should know, ``warn`` what somebody should act on.
    """

    def __init__(
        self,
        platform: Platform,
        session: OdsSession,
        tell: Callable[[str], None],
        warn: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.published = session.published
        self._platform = platform
        self._session = session
        self._tell = tell
        self._warn = warn
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def reads_deletes(self, endpoint: Endpoint) -> bool:
        """Whether tombstones of the endpoint are to be read; the ODS may still refuse them."""
        return endpoint.has_changes and self._options(endpoint).fetch_deletes

    def may_lose_rows(self, endpoint: Endpoint) -> bool:
        """Whether a record may leave the collection without a tombstone, also where the ODS lets them be read.

        It does when the value of a filter changes. For a part of the natural key that is a key change, which is read.
        And an ODS with key changes hides the tombstone of a record whose key lives again: without its key, nothing tells
        of that. An older ODS hides none.
        """
        if endpoint.is_descriptor:
            return False  # read whole whenever their count differs
        is_key_known = bool(endpoint.key) and (
            not endpoint.key_can_change or self.reads_key_changes(endpoint)
        )
        hides_tombstones = self._has_key_changes(endpoint) and not is_key_known
        if hides_tombstones or not self.reads_deletes(endpoint):
            return True
        told = {name.lower() for name in endpoint.key} if is_key_known else set()
        return any(name.lower() not in told for name in self.filters(endpoint))

    def reads_key_changes(self, endpoint: Endpoint) -> bool:
        """Whether key changes of the endpoint are to be read."""
        if not endpoint.has_changes or not self._session.settings.extract.get_key_changes:
            return False
        return self._has_key_changes(endpoint)

    def _has_key_changes(self, endpoint: Endpoint) -> bool:
        return self._session.abilities.key_changes or bool(self.published.has_key_changes(endpoint.path))

    def open(self, endpoint: Endpoint, kind: RecordKind = RECORDS) -> Collection:
        """Raises OdsNotReady where nobody knows how an endpoint of a multiyear ODS can be filtered."""
        options = self._options(endpoint)
        of_year = self._of_year(endpoint) if kind == RECORDS else {}
        if kind == RECORDS and self._session.settings.multiyear and not (of_year or endpoint.is_descriptor):
            self._tell(f"{self._session.pair} {endpoint.path}: has no school year and comes whole")
        return Collection(
            self._session,
            endpoint,
            kind,
            page_size=options.page_size,
            retries=options.num_retries,
            filters={**options.query_parameters, **of_year},
            deepest=options.change_version_step_size,
            accept=self._accept(endpoint, options.profile) if kind == RECORDS else JSON,
            warn_once=self._warn_once,
        )

    def _accept(self, endpoint: Endpoint, profile: str | None) -> str:
        """The content type of the records; that of a profile only where it covers the endpoint."""
        return (self.published.content_type(endpoint.path, profile) if profile else None) or JSON

    def filters(self, endpoint: Endpoint) -> Mapping[str, str]:
        """The query parameters of every request for the endpoint's records. Raises OdsNotReady as ``open`` does."""
        return {**self._options(endpoint).query_parameters, **self._of_year(endpoint)}

    def profile(self, endpoint: Endpoint) -> str:
        """The profile configured for the endpoint's records, in lower case; "" for none."""
        return (self._options(endpoint).profile or "").lower()

    def _options(self, endpoint: Endpoint) -> ResolvedOptions:
        kind: EndpointKind = "descriptors" if endpoint.is_descriptor else "resources"
        return self._platform.endpoint_options(self._session.pair, endpoint.namespace, endpoint.name, kind)

    def _warn_once(self, topic: str, sentence: str) -> None:
        with self._lock:
            is_new = topic not in self._warned
            self._warned.add(topic)
        if is_new:
            self._warn(sentence)

    def _of_year(self, endpoint: Endpoint) -> Mapping[str, str]:
        """What keeps the other school years of a multiyear ODS out; nothing where the endpoint has no school year.

        Deletes and key changes take no filter: those of other years find no row to apply to.
        """
        pair = self._session.pair
        if not self._session.settings.multiyear or endpoint.is_descriptor:
            return {}
        return {SCHOOL_YEAR: str(pair.year)} if self._has_year(endpoint) else {}

    def _has_year(self, endpoint: Endpoint) -> bool:
        """Whether the collection can be asked for one school year, as the ODS's OpenAPI says, else the data standard.

        An ODS ignores parameters it does not know and would send the records of every year (api.md section 3.4).
        """
        if self.published.lists(RESOURCE):
            return SCHOOL_YEAR in self.published.filters(endpoint.path)
        if not endpoint.fields:
            raise OdsNotReady(
                "this ODS holds several school years, and without its OpenAPI document nobody knows whether this endpoint "
                "of an extension has one; have its host publish it, or write multiyear: false",
                pair=self._session.pair,
                endpoint=endpoint.path,
            )
        return SCHOOL_YEAR in endpoint.key or "schoolYearTypeReference" in endpoint.fields
