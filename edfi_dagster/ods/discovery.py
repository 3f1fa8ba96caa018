"""The root document of an ODS: which version it is, and where its parts stand.

Versions differ in where tenant, instance and year go (api.md section 1). Ed-Fi 2 has no root document. In 5.x and
6.x the mode decides, and instance and year come after ``/data/v3``; the document names the calendar year of the
server and ``{instance}``, so the addresses are built here. From 7.0 on they come before the area and are part of
``base_url``; the Data Management Service (8.x) is like 7.x without the ``v3``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from edfi_dagster.config import OdsSettings
from edfi_dagster.config.errors import printable

Area = Literal["dataManagementApi", "changeQueries", "oauth", "openApiMetadata"]
AREAS: tuple[Area, ...] = get_args(Area)

OLDEST_VERSION = (5, 0)
_LONGEST_LABEL = 100
_DMS = (8, 0)
_PREFIXED = (7, 0)
_ED_FI_2 = "2"
_STANDARD_PATHS: Mapping[Area, str] = {
    "dataManagementApi": "/data/v3",
    "changeQueries": "/changeQueries/v1",
    "oauth": "/oauth/token",
    "openApiMetadata": "/metadata",
}
_DMS_PATHS: Mapping[Area, str] = {
    **_STANDARD_PATHS,
    "dataManagementApi": "/data",
    "openApiMetadata": "/metadata/specifications",
}
_MODES = {"sandbox", "shared_instance", "district_specific", "year_specific", "instance_year_specific"}
# ``…/data/v3/{instance}/2025``, as a proxy may write it that knows the instance.
_INSTANCE_AND_YEAR = re.compile(r"/data/v3/([A-Za-z0-9_-]+)/\d{4}/?$", re.IGNORECASE)


# No placeholder, and nothing that leads out of our path again.
_PLAIN_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9_.~-]*)+")


@dataclass(frozen=True)
class Discovery:
    """What the root document says. ``data_model_version`` is Ed-Fi's own, e.g. ``5.2.0``.

    ``api_mode`` is None where no mode is told: from 7.0 on there is none. ``instance`` is known only where the mode
    asks for it.
    """

    version: tuple[int, int]
    ods_version: str
    data_model_version: str
    urls: Mapping[str, str]
    api_mode: str | None = None
    instance: str | None = None


def undocumented(settings: OdsSettings) -> Discovery | None:
    """What is known without asking: all of Ed-Fi 2 where the configuration says it is one, else None.

    Raises ValueError like ``read_discovery``.
    """
    if settings.api_version is None or settings.api_version.partition(".")[0] != _ED_FI_2:
        return None
    mode = settings.api_mode or "year_specific"
    return _with_instance(Discovery((2, 0), "ED-FI2", "ED-FI2", {}, mode), settings)


def read_discovery(document: Mapping[str, Any], settings: OdsSettings) -> Discovery:
    """What the document says, and the configuration where it says otherwise.

    Raises ValueError, saying what is wrong, for a foreign document or a version that cannot be pulled.
    """
    try:
        models = {str(model["name"]).lower(): str(model["version"]) for model in document["dataModels"]}
        told = document.get("apiMode")
        found = Discovery(
            version=_version(settings.api_version or str(document["version"])),
            ods_version=_label(document.get("informationalVersion") or document["version"]),
            data_model_version=_label(models["ed-fi"]),
            urls={str(area): str(url) for area, url in (document.get("urls") or {}).items()},
            api_mode=settings.api_mode or (_mode(told) if told else None),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            "is no Ed-Fi discovery document (version, or Ed-Fi among its dataModels, is missing); check base_url"
        ) from None
    if found.version < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise ValueError(
            f'is ODS/API {found.ods_version}; only {oldest} and later can be pulled, and Ed-Fi 2 with api_version: "2"'
        )
    if found.version >= _PREFIXED:
        return found
    if found.api_mode not in {None, *_MODES}:
        raise ValueError(
            f"is in a mode that is not known; write api_mode ({', '.join(sorted(_MODES))}) in the configuration"
        )
    return _with_instance(found, settings)


def addresses(base_url: str, discovery: Discovery, year: int) -> Mapping[Area, str]:
    """The URL of each part of the ODS, without a slash at its end.

    ``openApiMetadata`` is the folder of the documents: ``{url}/resources/swagger.json``, for the Data Management
    Service ``{url}/resources-spec.json``.
    """
    if discovery.version >= _PREFIXED:
        return _prefixed(base_url, discovery)
    places = _segments(discovery, year)
    if discovery.version < OLDEST_VERSION:
        return {
            "dataManagementApi": f"{base_url}/api/v2.0{places}",
            "changeQueries": f"{base_url}/changeQueries/v1",
            "oauth": f"{base_url}/oauth/token",
            "openApiMetadata": f"{base_url}/metadata",
        }
    instance = f"/{discovery.instance}" if discovery.instance else ""
    return {
        "dataManagementApi": f"{base_url}/data/v3{places}",
        "changeQueries": f"{base_url}/changeQueries/v1{places}",
        "oauth": f"{base_url}{instance}/oauth/token",
        "openApiMetadata": f"{base_url}/metadata/data/v3{places}",
    }


def _label(told: object) -> str:
    """A version as people and tables are told it."""
    return printable(str(told))[:_LONGEST_LABEL]


def _version(text: str) -> tuple[int, int]:
    major, minor = f"{text}.0".split(".")[:2]
    return int(major), int(minor)


def _mode(told: object) -> str:
    return re.sub(r"[\s_-]+", "_", str(told).strip().lower())


def _with_instance(found: Discovery, settings: OdsSettings) -> Discovery:
    if found.api_mode != "instance_year_specific":
        return found
    written = _INSTANCE_AND_YEAR.search(found.urls.get("dataManagementApi", ""))
    instance = settings.instance_code or (written.group(1) if written else None)
    if instance is None:
        raise ValueError(
            "has an instance and a year in its addresses; write instance_code, the part before the year, "
            "beside base_url"
        )
    return replace(found, instance=instance)


def _segments(discovery: Discovery, year: int) -> str:
    if discovery.api_mode == "instance_year_specific":
        return f"/{discovery.instance}/{year}"
    return f"/{year}" if discovery.api_mode == "year_specific" else ""


def _prefixed(base_url: str, discovery: Discovery) -> Mapping[Area, str]:
    standard = _DMS_PATHS if discovery.version >= _DMS else _STANDARD_PATHS
    found = {area: _address(base_url, discovery.urls.get(area, ""), standard[area]) for area in AREAS}
    if discovery.version < _DMS:
        found["openApiMetadata"] += "/data/v3"
    return found


def _address(base_url: str, told: str, standard: str) -> str:
    """The URL of a part of the ODS.

    Scheme and host are always those of ``base_url``, for the document may name an internal host and the token
    goes nowhere else. Its path counts only where it stands below ours and holds no placeholder; and where
    neither host nor a path of ours vouches for it, a proxy may have added or taken its first part.
    """
    base = urlsplit(base_url)
    host, path = _host_and_path(told)
    below = path.lower().startswith(f"{base.path}/".lower())
    vouched = bool(base.path) or host == base.hostname
    if below and vouched and _PLAIN_PATH.fullmatch(path):
        return f"{base.scheme}://{base.netloc}{path}".rstrip("/")
    return base_url + standard


def _host_and_path(url: str) -> tuple[str | None, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None, ""
    return parts.hostname, parts.path
