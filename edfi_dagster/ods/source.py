"""What decides which rows an address gives: the source of an endpoint's rows, kept with every watermark and manifest.

A watermark counts change versions of one ODS, read with one key and one filter. With another source the same number
means nothing. A source is small and readable, and holds neither the key nor a filter's value, only their digests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

import msgspec

from edfi_dagster.config import ConfigError, OdsSettings, normalise_endpoint
from edfi_dagster.ods.discovery import Discovery, addresses

# ``v6.1`` and ``v3`` in ``/v6.1/api/data/v3``: an upgrade of the API changes these and nothing else.
_VERSION = re.compile(r"v\d{1,2}(\.\d+)*|\d+(\.\d+)+")
_YEAR = re.compile(r"\d{4}")
_USUAL_PORTS = {80, 443}
SCHOOL_YEAR = "schoolYear"
"""The filter that keeps other school years out."""


class Ods(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of a source that all endpoints of a tenant and year share.

    ``address`` is host and path of the data, without API versions; ``key`` a digest of the key; ``year`` the only school
    year that is read of an ODS with several (None: whatever is there); ``snapshot`` whether snapshots are read.
    """

    address: str = ""
    key: str = ""
    year: int | None = None
    snapshot: bool = False


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the rows of one endpoint come from.

    ``filters`` maps each query parameter, in lower case, to a digest of its value. ``profile`` is the API profile.
    """

    ods: Ods
    endpoint: str
    filters: dict[str, str] = {}
    profile: str = ""

    def encode(self) -> str:
        """Text for the ledger; the same source always has the same text."""
        return msgspec.json.encode(self, order="sorted").decode()

    @staticmethod
    def decode(text: str) -> Source | None:
        """The source that ``encode`` wrote; None for any other text, which then counts as not noted."""
        try:
            return msgspec.json.decode(text, type=Source)
        except msgspec.DecodeError:
            return None

    def of_endpoint(self) -> dict[str, object]:
        """The part that is the endpoint's own, but for its path; empty for most."""
        own = {"filters": self.filters, "profile": self.profile}
        return {name: value for name, value in own.items() if value}

    def changes_since(self, earlier: Source) -> list[str]:
        """What changed since ``earlier``, in words that hold no key and no filter's value; empty if nothing did."""
        return [*ods_changes(earlier.ods, self.ods), *_endpoint_changes(earlier, self)]


def ods_of(settings: OdsSettings, discovery: Discovery) -> Ods:
    """The pair's part of a source, as a run reads it. Raises ConfigError for a key that cannot be read."""
    return Ods(
        address=_address_of(settings, discovery),
        key=digest(settings.client_id.read()),
        year=settings.pair.year if settings.multiyear else None,
        snapshot=settings.extract.use_snapshot,
    )


def _address_of(settings: OdsSettings, discovery: Discovery) -> str:
    """The base URL and, where the ODS is asked for an instance or a year beyond that, these.

    Any other path that the root document names changes with an upgrade or a move of the host, and leads to the same ODS.
    """
    base = normal_address(settings.base_url)
    told = addresses(settings.base_url.rstrip("/"), discovery, settings.pair.year)
    whole = normal_address(told["dataManagementApi"])
    return whole if any(map(_YEAR.fullmatch, _steps_beyond(base, whole))) else base


def _steps_beyond(base: str, address: str) -> list[str]:
    return [step for step in address.removeprefix(base).split("/") if step]


def digests(filters: Mapping[str, str]) -> dict[str, str]:
    """Query parameters as a source holds them."""
    return {name.lower(): digest(value) for name, value in sorted(filters.items())}


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:12]


def normal_address(url: str) -> str:
    """Host and path of a URL, without what does not decide which rows it gives.

    ``https://ODS.example.org:443/v6.1/api/data/v3/2025/`` → ``ods.example.org/api/2025``. Raises nothing for a
    configured address, which has been checked.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = f":{parts.port}" if parts.port and parts.port not in _USUAL_PORTS else ""
    steps = [step for step in parts.path.lower().split("/") if step and not _VERSION.fullmatch(step)]
    return "/".join([f"{host}{port}", *(step for step in steps if step != "data")])


def ods_changes(earlier: Ods, now: Ods) -> list[str]:
    """What changed of the ODS itself."""
    return [
        *(
            [f"the address was {earlier.address} and is {now.address}"]
            if earlier.address != now.address
            else []
        ),
        *(["the key (client_id) was changed"] if earlier.key != now.key else []),
        *([f"multiyear was turned {_on(now.year)}"] if earlier.year != now.year else []),
        *([f"use_snapshot was turned {_on(now.snapshot)}"] if earlier.snapshot != now.snapshot else []),
    ]


def _on(value: object) -> str:
    return "on" if value else "off"


def _endpoint_changes(earlier: Source, now: Source) -> Iterator[str]:
    if not same_endpoint(earlier.endpoint, now.endpoint):
        yield f"the name stood for {earlier.endpoint}"
    for name in sorted(earlier.filters.keys() | now.filters.keys()):
        was, is_now = earlier.filters.get(name), now.filters.get(name)
        if was != is_now:
            done = "added" if was is None else "removed" if is_now is None else "changed"
            yield f"query parameter `{name}` was {done}"
    if earlier.profile != now.profile:
        yield f"the profile was {earlier.profile or 'none'} and is {now.profile or 'none'}"


def same_endpoint(one: str, other: str) -> bool:
    """Whether two paths, ``ed-fi/students``, are of one endpoint in whatever spelling."""
    return normal_path(one) == normal_path(other)


def normal_path(path: str) -> str:
    namespace, _, name = path.partition("/")
    return normalise_endpoint(namespace, name)


class Configured:
    """The sources that the configuration allows, as far as can be told without asking the ODS.

    The ODS itself tells whether year and instance follow its address, and which endpoints have a school year.
    """

    def __init__(self, settings: OdsSettings) -> None:
        try:
            key = digest(settings.client_id.read())
        except ConfigError:  # who only loads what the lake holds needs no key
            key = ""
        self.pair = settings.pair
        self._settings = settings
        self._ods = Ods(
            address=normal_address(settings.base_url),
            key=key,
            year=settings.pair.year if settings.multiyear else None,
            snapshot=settings.extract.use_snapshot,
        )

    def digest(self, of_endpoints: Iterable[Mapping[str, object]]) -> str:
        """One for all that the configuration says of the sources; ``of_endpoints`` are their parts, by ``of_endpoint``."""
        told = (self._ods, self._settings.instance_code, self._settings.api_mode, list(of_endpoints))
        return digest(msgspec.json.encode(told, order="sorted").decode())

    def ods_changes_since(self, earlier: Ods) -> list[str]:
        """Why ``earlier`` cannot be the configured ODS; empty if it can."""
        address = self._ods.address if self._may_be_at(earlier.address) else earlier.address
        key = earlier.key if self._ods.key else ""
        return ods_changes(msgspec.structs.replace(earlier, address=address, key=key), self._ods)

    def changes_since(
        self, earlier: Source, endpoint: str, filters: Mapping[str, str], profile: str = ""
    ) -> list[str]:
        """Why ``earlier`` cannot be the configured source of ``endpoint``; empty if it can."""
        mine = digests(filters)
        of_year = SCHOOL_YEAR.lower()
        if earlier.ods.year is not None and of_year in earlier.filters:
            mine.setdefault(of_year, earlier.filters[of_year])
        now = Source(earlier.ods, endpoint, mine, profile)
        return [*self.ods_changes_since(earlier.ods), *now.changes_since(earlier)]

    def _may_be_at(self, address: str) -> bool:
        """Whether it is the configured one, or that with an instance and the year behind it."""
        base, year = self._ods.address, str(self._settings.pair.year)
        if address == base:
            return True
        *instance, last = _steps_beyond(base, address) or [""]
        code = (self._settings.instance_code or "").lower()
        return (
            address.startswith(f"{base}/")
            and last == year
            and len(instance) <= 1
            and not (code and instance and instance != [code])
        )
