"""What hosts do that others do not, found before a run finds it.

Profiles, useless /partitions, odd and repeated rows, and natural keys that are not those of the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edfi_dagster.config import OdsSettings
from edfi_dagster.health.findings import Finding, failed, ok, some, warning
from edfi_dagster.health.probe import ProbedOds
from edfi_dagster.ods.catalogue import Endpoint
from edfi_dagster.ods.changes import EVERYTHING
from edfi_dagster.ods.errors import EdFiError, OdsUnreachable, RequestRefused
from edfi_dagster.ods.pages import DELETES, KEY_CHANGES, Collection, Page, RecordKind

# In which most districts have most rows, and of whose keys duplicates are known (ODS-5090).
_LARGE = ("studentSectionAssociations", "studentSchoolAssociations", "students")

# Megabytes, which an ODS that has just started first has to write.
_DOCUMENT_SECONDS = 60.0


def accept_of(ods: ProbedOds, endpoint: Endpoint, profile: str | None) -> str:
    """The content type by which a run reads the endpoint's records."""
    return (ods.published.content_type(endpoint.path, profile) if profile else None) or "application/json"


def profiles_named(
    ods: ProbedOds, assigned: Sequence[str], wanted: Mapping[Endpoint, str | None]
) -> Finding | None:
    """Whether the records of endpoints under a profile are asked for by one. ``wanted``: what is configured for each.

    An ODS need not say which profiles it assigned; then a few usual endpoints are asked.
    """
    question = "profiles"
    covered = [e for e in wanted if any(ods.published.content_type(e.path, name) for name in assigned)]
    usual = [e for e in wanted if e.name in _LARGE] if ods.abilities.namespaces else []
    for endpoint in covered or usual:
        try:
            Collection(ods, endpoint, retries=0, accept=accept_of(ods, endpoint, wanted[endpoint])).count(
                EVERYTHING
            )
        except RequestRefused as error:
            if "profile" in error.reason:
                found, _, remedy = error.reason.partition("; ")
                return failed(question, f"{endpoint}: {found}", remedy)
        except OdsUnreachable:
            return None
    configured = sorted({name for name in wanted.values() if name})
    return ok(question, f"records are read by {some(configured)}") if configured else None


def contradicted_keys(ods: ProbedOds, endpoints: Sequence[Endpoint], settings: OdsSettings) -> Finding | None:
    """Whether the ODS marks another natural key than our catalogue of its own data standard has."""
    standard = settings.extract.data_standard
    if not f"{ods.discovery.data_model_version}.".startswith(f"{standard}."):
        return None  # then runs take the keys that the ODS publishes
    ods.patience.begin(_DOCUMENT_SECONDS)
    keyed = [e for e in endpoints if e.key and not e.is_descriptor]
    found = {e: key for e in keyed if (key := ods.published.better_key(e.path, e.key))}
    if not found:
        return None
    told = [f"{e} by {', '.join(key)} (here: {', '.join(e.key)})" for e, key in found.items()]
    return warning(
        "natural keys",
        f"the ODS tells records apart otherwise than the catalogue of {standard}: {some(told)}",
        "no row is lost, for runs ask the ODS by id; tell who keeps edfi-dagster, and check the keys that dbt uses",
    )


def first_page(
    ods: ProbedOds,
    sample: Endpoint,
    endpoints: Sequence[Endpoint],
    wanted: Mapping[Endpoint, str | None],
    size: int,
) -> Finding | None:
    """Whether the rows of one page are strict JSON and come once."""
    question = "rows"
    endpoint = _large(endpoints) or sample
    accept = accept_of(ods, endpoint, wanted[endpoint])
    try:
        page = Collection(ods, endpoint, page_size=size, retries=0, accept=accept).first_page(EVERYTHING)
    except EdFiError:
        return None  # other questions tell of what is refused
    if page.lines.odd:
        return warning(
            question,
            f"{endpoint}: {len(page.lines.odd)} of {len(page)} rows are not strict JSON: {some(sorted(page.lines.odd))}",
            "they are kept as sent and loaded with U+FFFD or null there; have them corrected in the ODS",
        )
    return _repeats(question, endpoint, page)


def _repeats(question: str, endpoint: Endpoint, page: Page) -> Finding | None:
    distinct = len(set(page.ids))
    if distinct == len(page):
        return None
    return warning(
        question,
        f"{endpoint}: {len(page)} rows of {distinct} distinct ids in one page, as ODS/API 5.1 and 5.2 count and serve them",
        "each is taken once, after two walks that agree; have its host update the ODS/API",
    )


def partitions(ods: ProbedOds, sample: Endpoint, endpoints: Sequence[Endpoint]) -> Finding | None:
    """Whether an ODS that pages by token gives the tokens of ranges side by side."""
    if not ods.abilities.cursor:
        return None
    said: list[str] = []
    endpoint = _large(endpoints) or sample
    asked = Collection(ods, endpoint, retries=0, warn_once=lambda _, sentence: said.append(sentence))
    tokens = asked.partitions(EVERYTHING, 1)
    if tokens or not said:
        return None
    found = said[0].partition(": ")[2].partition("; ")[0]
    return warning(
        "partitions",
        f"{endpoint}/partitions: {found}",
        "nothing is lost, but large endpoints are read page by page; have its host open /partitions or make it faster",
    )


def snapshot_changes(
    ods: ProbedOds, endpoint: Endpoint, *, deletes: bool, key_changes: bool
) -> Finding | None:
    """Whether deletes and key changes can be read from the snapshot that was started."""
    kinds: list[tuple[RecordKind, str]] = [(DELETES, "fetch_deletes: false")] if deletes else []
    kinds += [(KEY_CHANGES, "get_key_changes: false")] if key_changes else []
    for kind, key in kinds:
        changes = Collection(ods, endpoint, kind, retries=0)
        try:
            changes.page_at(EVERYTHING, 0)
        except (OdsUnreachable, RequestRefused) as error:
            return failed(
                "snapshot",
                f"{changes.label} cannot be read from a snapshot: {error.reason}",
                f"write use_snapshot: false, or {key}",
            )
    return None


def _large(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    return next((e for name in _LARGE for e in endpoints if e.name == name), None)
