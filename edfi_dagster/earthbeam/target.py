"""The ODS that records are sent to, as Lightbeam must be told of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from edfi_dagster.config import OdsSettings, TenantYear
from edfi_dagster.earthbeam.errors import EarthbeamError
from edfi_dagster.ods.discovery import Discovery
from edfi_dagster.ods.errors import OdsNotReady
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.ods.source import Ods, ods_of

_FIRST, _BEYOND = (5, 0), (8, 0)


@dataclass(frozen=True)
class Target:
    """One ODS. ``identity`` is its configured address, which stays the same where a sandbox takes another port. ``addresses`` is Lightbeam's ``edfi_api`` without where tokens come from; ``newest`` its newest change version, None where
    it tells none to this key; ``source`` its address and a digest of this key, which may lead to another ODS there.
    """

    identity: str
    base_url: str
    addresses: Mapping[str, Any]
    verify_ssl: bool
    ods_version: str
    data_model_version: str
    newest: int | None
    source: Ods

    @property
    def short(self) -> str:
        """Tells this ODS from others, in paths."""
        return hashlib.sha256(self.identity.encode()).hexdigest()[:12]


def sending_session(settings: OdsSettings, pair: TenantYear, *, base_url: str | None = None) -> OdsSession:
    """The pair's ODS, with the credentials for sending."""
    sending = replace(settings, client_id=settings.send.client_id, client_secret=settings.send.client_secret)
    return OdsSession(sending, pair, base_url=base_url)


def find_target(session: OdsSession, *, base_url: str | None = None) -> Target:
    """Ask the ODS of a ``sending_session`` what it is. Raises EdFiError; EarthbeamError for one Lightbeam cannot send to.

    Addresses are built from ``base_url``: the root document of an ODS behind a proxy may name others, and the secret goes
    nowhere else.
    """
    settings = session.settings
    base = (base_url or settings.base_url).rstrip("/")
    discovery = session.discovery
    if not _FIRST <= discovery.version < _BEYOND:
        raise EarthbeamError(
            f"{base} is Ed-Fi {discovery.ods_version}, which Lightbeam cannot send to; write destination: warehouse"
        )
    return Target(
        settings.base_url,
        base,
        _addresses(session, discovery, base),
        settings.verify_ssl,
        discovery.ods_version,
        discovery.data_model_version,
        newest_of(session),
        msgspec.structs.replace(ods_of(settings, discovery), year=None, snapshot=False),
    )


def newest_of(session: OdsSession) -> int | None:
    """The newest change version; None where this key may not ask. Signs in, so wrong credentials are known before Lightbeam."""
    try:
        return session.newest_change_version()
    except OdsNotReady:
        return None


def _addresses(session: OdsSession, discovery: Discovery, base: str) -> dict[str, Any]:
    metadata = session.url("openApiMetadata")
    return {
        "base_url": base,
        "version": 3,
        # From 7.0 on, tenant and year stand in the base URL itself.
        "mode": discovery.api_mode or "district_specific",
        "year": session.pair.year,
        **({"instance_code": discovery.instance} if discovery.instance else {}),
        "dependencies_url": f"{metadata}/dependencies",
        "open_api_metadata_url": metadata,
        "descriptors_swagger_url": f"{metadata}/descriptors/swagger.json",
        "resources_swagger_url": f"{metadata}/resources/swagger.json",
    }
