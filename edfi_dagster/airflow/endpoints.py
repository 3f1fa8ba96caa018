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
_SECRET_WORDS = ("key", "secret", "token", "password")
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

    def add(self, entries: object, kind: EndpointKind, path: str, file: str | None = None) -> None:
        """Add the endpoints at ``path`` of a file; those that were added before stay as they are."""
        self._given.add(kind)
        for name, options in self._entries(entries, path, file):
            found = self._found[_kind_of(name)]
            key = _key(name)
            if key not in found or (options.get("enabled", True) and not found[key][1].get("enabled", True)):
                found[key] = name, options

    def differing(self, entries: object, path: str) -> dict[str, dict[str, Options]]:
        """What one tenant's own list says otherwise than all of them together, for its year."""
        own: dict[str, dict[str, Options]] = {kind: {} for kind in ENDPOINT_KINDS}
        for name, options in self._entries(entries, path, None):
            kind = _kind_of(name)
            common = {**self.defaults, **self._found[kind][_key(name)][1]}
            given = {key: value for key, value in options.items() if common.get(key, _usual(key)) != value}
            if given.pop("enabled", True) is False:
                self._report.remark(
                    "an endpoint that is off for one tenant and on for another is pulled for all: assets are shared. An"
                    " ODS that does not offer or permit it skips it",
                    f"{path}.{name}",
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

    def _entries(self, entries: object, path: str, file: str | None) -> Iterator[tuple[str, Options]]:
        """(name with its namespace, options that say something) of a mapping, or of a list of (endpoint, namespace)."""
        if isinstance(entries, list):
            entries = dict(_listed(entry) for entry in entries)
        if not isinstance(entries, Mapping):
            self._report.leave("endpoints", "are no list of endpoints; write them by hand", path, file)
            return
        for name, given in _flat(entries):
            options = mapping(given)
            if given and "enabled" not in options and "namespace" in options and len(options) > 1:
                self._report.remark(
                    "endpoints that do not say enabled are pulled; a DAG file of the template skips them",
                    path,
                )
            for key in sorted(map(str, options.keys() - EndpointOptions.model_fields.keys())):
                self._report.leave(
                    key,
                    "not known to the project or here; see the configuration reference",
                    f"{path}.{name}",
                    file,
                )
            if not isinstance(options.get("namespace") or "", str):
                self._report.leave(
                    "namespace", "is not a name; write it before the endpoint's", f"{path}.{name}", file
                )
            for key in _secret_parameters(options):
                self._report.leave(
                    f"query_parameters.{key}", "may be a secret; write it by hand", f"{path}.{name}", file
                )
            yield _named(name, options), _telling(name, options)


def _flat(entries: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Endpoints and what is given for each, also of a mapping of namespaces to their endpoints."""
    for name, given in entries.items():
        if _holds_endpoints(given):
            for inner, options in mapping(given).items():
                yield str(inner), {**mapping(options), "namespace": str(name)}
        else:
            yield str(name), given


def _holds_endpoints(given: Any) -> bool:
    return (
        isinstance(given, Mapping)
        and bool(given)
        and not given.keys() & EndpointOptions.model_fields.keys()
        and all(item is None or isinstance(item, Mapping) for item in given.values())
    )


def _listed(entry: object) -> tuple[str, Options]:
    """An endpoint, or an endpoint and its namespace in either order."""
    if isinstance(entry, list | tuple) and len(entry) == 2:
        name, namespace = map(str, entry)
        if _is_default(name):
            name, namespace = namespace, name
        return name, {"namespace": namespace}
    return str(entry), {}


def _named(name: str, options: Mapping[str, Any]) -> str:
    namespace = options.get("namespace")
    return f"{namespace}/{name}" if isinstance(namespace, str) and not _is_default(namespace) else name


def _is_default(namespace: str) -> bool:
    """Whether it is ``ed-fi`` in any spelling."""
    return normalise_endpoint(namespace, "") == normalise_endpoint(DEFAULT_NAMESPACE, "")


def _secret_parameters(options: Mapping[str, Any]) -> list[str]:
    named = map(str, mapping(options.get("query_parameters")))
    return sorted(name for name in named if any(word in name.lower() for word in _SECRET_WORDS))


def _telling(name: str, options: Mapping[str, Any]) -> Options:
    """The options without those that mean what holds anyway."""
    kept = {
        key: str(value) if isinstance(value, Interval) else value
        for key, value in options.items()
        if key in EndpointOptions.model_fields
    }
    told = {key: value for key, value in kept.items() if key in _COMMON or value not in (None, _usual(key))}
    told.pop("namespace", None)
    if secrets := _secret_parameters(options):
        given = mapping(told["query_parameters"])
        told["query_parameters"] = {key: value for key, value in given.items() if key not in secrets}
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
