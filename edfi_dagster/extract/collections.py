"""The collections of one ODS as the configuration wants them read: page sizes, retries, filters, the school year."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from edfi_dagster.config import Platform
from edfi_dagster.ods.catalogue import RESOURCE, Endpoint
from edfi_dagster.ods.errors import OdsNotReady
from edfi_dagster.ods.pages import RECORDS, Collection, RecordKind
from edfi_dagster.ods.session import OdsSession


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

    def open(self, endpoint: Endpoint, kind: RecordKind = RECORDS) -> Collection:
        """Raises OdsNotReady where nobody knows how an endpoint of a multiyear ODS can be filtered."""
        options = self._platform.endpoint_options(
            self._session.pair,
            endpoint.namespace,
            endpoint.name,
            "descriptors" if endpoint.is_descriptor else "resources",
        )
        of_year = self._of_year(endpoint) if kind == RECORDS else {}
        return Collection(
            self._session,
            endpoint,
            kind,
            page_size=options.page_size,
            retries=options.num_retries,
            filters={**options.query_parameters, **of_year},
            deepest=options.change_version_step_size,
            warn_once=self._warn_once,
        )

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
        if self._has_year(endpoint):
            return {"schoolYear": str(pair.year)}
        self._tell(f"{pair} {endpoint.path}: has no school year and comes whole")
        return {}

    def _has_year(self, endpoint: Endpoint) -> bool:
        """Whether the collection can be asked for one school year, as the ODS's OpenAPI says, else the data standard.

        An ODS ignores parameters it does not know and would send the records of every year (api.md section 3.4).
        """
        if self.published.lists(RESOURCE):
            return "schoolYear" in self.published.filters(endpoint.path)
        if not endpoint.fields:
            raise OdsNotReady(
                "this ODS holds several school years, and without its OpenAPI document nobody knows whether this endpoint "
                "of an extension has one; have its host publish it, or write multiyear: false",
                pair=self._session.pair,
                endpoint=endpoint.path,
            )
        return "schoolYear" in endpoint.key or "schoolYearTypeReference" in endpoint.fields
