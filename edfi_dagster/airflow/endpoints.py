"""``edfi_resources.yml`` and ``edfi_descriptors.yml``, or the same as arguments of a DAG: which endpoints, and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from edfi_dagster.airflow.documents import Interval, mapping
from edfi_dagster.airflow.report import Report
from edfi_dagster.config import EndpointKind, normalise_endpoint
from edfi_dagster.config.extract import DEFAULT_NAMESPACE, ENDPOINT_KINDS, EndpointDefaults, EndpointOptions

Options = dict[str, Any]
_COMMON = ("page_size", "num_retries", "change_version_step_size")
_USUAL = EndpointDefaults()


class Endpoints:
    """Every endpoint that any tenant pulls, with its options, and what single tenants do otherwise.

    The project takes a list per tenant; here all share one set of assets, so the lists are united.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._found: dict[EndpointKind, dict[str, tuple[str, Options]]] = {
            kind: {} for kind in ENDPOINT_KINDS
        }
        self._given: set[EndpointKind] = set()
        self.defaults: Options = {}

    def add(self, entries: object, kind: EndpointKind, place: str) -> None:
        """Add the endpoints of a file or argument; those that were added before stay as they are."""
        self._given.add(kind)
        for name, options in self._entries(entries, place):
            found = self._found[_kind_of(name)]
            key = _key(name)
            if key not in found or (options.get("enabled", True) and not found[key][1].get("enabled", True)):
                found[key] = name, options

    def differing(self, entries: object, place: str) -> dict[str, dict[str, Options]]:
        """What one tenant's own list says otherwise than all of them together, for its year."""
        own: dict[str, dict[str, Options]] = {kind: {} for kind in ENDPOINT_KINDS}
        for name, options in self._entries(entries, place):
            kind = _kind_of(name)
            common = {**self.defaults, **self._found[kind][_key(name)][1]}
            given = {key: value for key, value in options.items() if common.get(key, _usual(key)) != value}
            if given.pop("enabled", True) is False:
                self._report.remark(
                    "an endpoint that is off for one tenant and on for another is pulled for all: assets are shared. An"
                    " ODS that does not offer or permit it skips it",
                    f"{place} {name}",
                )
            if given:
                own[kind][name] = given
        return {kind: named for kind, named in own.items() if named}

    def settle(self) -> None:
        """Make what most endpoints have the default of all."""
        options = [options for kind in ENDPOINT_KINDS for _, options in self._found[kind].values()]
        for key in _COMMON:
            values = (o.get(key, _usual(key)) for o in options if o.get("enabled", True))
            counted = Counter(value for value in values if isinstance(value, int))
            if counted and (most := counted.most_common(1)[0][0]) != _usual(key):
                self.defaults[key] = most
        for own in options:
            for key in _COMMON:
                if own.get(key, _usual(key)) == self.defaults.get(key, _usual(key)):
                    own.pop(key, None)
                else:
                    own.setdefault(key, _usual(key))

    def selection(self, kind: EndpointKind) -> str | dict[str, Options]:
        """The value of ``extract.resources`` or ``extract.descriptors``."""
        found = self._found[kind]
        if not found and kind not in self._given:
            self._report.remark(f"no list of {kind} was given: all of the data standard are pulled", kind)
            return "all"
        return dict(found.values()) or "none"

    def count(self, kind: EndpointKind) -> tuple[int, int]:
        """How many are on, and how many off."""
        options = [options for _, options in self._found[kind].values()]
        off = sum(not one.get("enabled", True) for one in options)
        return len(options) - off, off

    def _entries(self, entries: object, place: str) -> Iterator[tuple[str, Options]]:
        """(name with its namespace, options that say something) of a mapping, or of a list of (endpoint, namespace)."""
        if isinstance(entries, list):
            entries = dict(_listed(entry) for entry in entries)
        if not isinstance(entries, Mapping):
            self._report.remark("is no list of endpoints, and left out", place)
            return
        for name, given in entries.items():
            options = mapping(given)
            if given and "enabled" not in options and "namespace" in options and len(options) > 1:
                self._report.remark(
                    "endpoints that do not say enabled are pulled; a DAG file of the template skips them",
                    place,
                )
            unknown = options.keys() - EndpointOptions.model_fields.keys()
            for key in sorted(unknown):
                self._report.leave(
                    f"{key} of an endpoint", "not known to the project or here; see the reference", place
                )
            yield _named(str(name), options), _telling(str(name), options)


def _listed(entry: object) -> tuple[str, Options]:
    if isinstance(entry, list | tuple) and len(entry) == 2:
        return str(entry[0]), {"namespace": str(entry[1])}
    return str(entry), {}


def _named(name: str, options: Mapping[str, Any]) -> str:
    namespace = str(options.get("namespace") or DEFAULT_NAMESPACE)
    return name if namespace == DEFAULT_NAMESPACE else f"{namespace}/{name}"


def _telling(name: str, options: Mapping[str, Any]) -> Options:
    """The options without those that mean what holds anyway."""
    kept = {
        key: str(value) if isinstance(value, Interval) else value
        for key, value in options.items()
        if key in EndpointOptions.model_fields
    }
    told = {key: value for key, value in kept.items() if key in _COMMON or value not in (None, _usual(key))}
    told.pop("namespace", None)
    if _kind_of(name) == "descriptors":
        told.pop("fetch_deletes", None)  # descriptors have none, which the project's file says of each
    return {key: value for key, value in told.items() if value is not None}


def _usual(key: str) -> object:
    return True if key == "enabled" else getattr(_USUAL, key, None)


def _kind_of(name: str) -> EndpointKind:
    return "descriptors" if name.lower().replace("_", "").endswith("descriptors") else "resources"


def _key(name: str) -> str:
    namespace, _, endpoint = name.rpartition("/")
    return normalise_endpoint(namespace or DEFAULT_NAMESPACE, endpoint)
