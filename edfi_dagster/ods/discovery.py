"""The root document of an ODS: which version it is, and where its parts stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

OLDEST_VERSION = (7, 3)

Area = Literal["dataManagementApi", "changeQueries", "oauth", "openApiMetadata"]
_STANDARD_PATHS: Mapping[Area, str] = {
    "dataManagementApi": "/data/v3",
    "changeQueries": "/changeQueries/v1",
    "oauth": "/oauth/token",
    "openApiMetadata": "/metadata",
}


@dataclass(frozen=True)
class Discovery:
    """What the root document says. ``data_model_version`` is Ed-Fi's own, e.g. ``5.2.0``."""

    version: tuple[int, int]
    ods_version: str
    data_model_version: str
    urls: Mapping[str, str]


def read_discovery(document: Mapping[str, Any]) -> Discovery:
    """Raises ValueError, saying what is wrong, for a foreign document or a version that cannot be pulled."""
    try:
        major, minor = (str(document["version"]) + ".0").split(".")[:2]
        models = {str(model["name"]).lower(): str(model["version"]) for model in document["dataModels"]}
        found = Discovery(
            version=(int(major), int(minor)),
            ods_version=str(document.get("informationalVersion") or document["version"]),
            data_model_version=models["ed-fi"],
            urls={str(area): str(url) for area, url in (document.get("urls") or {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            "is no Ed-Fi discovery document (version, or Ed-Fi among its dataModels, is missing)"
        ) from None
    if found.version < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise ValueError(f"is ODS/API {found.ods_version}; only {oldest} and later can be pulled")
    return found


def address(base_url: str, urls: Mapping[str, str], area: Area) -> str:
    """The URL of a part of the ODS, without a slash at its end.

    Scheme and host are always those of ``base_url``, for the document may name an internal host and the token
    goes nowhere else. Its path counts only where it stands below ours and holds no placeholder; and where
    neither host nor a path of ours vouches for it, a proxy may have added or taken its first part.
    """
    base = urlsplit(base_url)
    host, path = _host_and_path(urls.get(area, ""))
    below = path.lower().startswith(f"{base.path}/".lower())
    vouched = bool(base.path) or host == base.hostname
    if below and vouched and "{" not in path:
        return f"{base.scheme}://{base.netloc}{path}".rstrip("/")
    return base_url + _STANDARD_PATHS[area]


def _host_and_path(url: str) -> tuple[str | None, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None, ""
    return parts.hostname, parts.path
