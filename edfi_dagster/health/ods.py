"""Whether the ODS of one pair can be pulled as the configuration says, question by question.

An answer that cannot be had ends the questions only where nothing behind it could be answered either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from edfi_dagster.config import ConfigError, OdsSettings, Platform, ResolvedOptions, TenantYear
from edfi_dagster.health import oddities
from edfi_dagster.health.findings import Block, Finding, State, explained, failed, ok, some, warning
from edfi_dagster.health.probe import Organization, ProbedOds, TokenInfo, probed
from edfi_dagster.ods.answers import Answer
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of, nearest_standard, without_catalogue
from edfi_dagster.ods.errors import (
    EdFiError,
    NotOffered,
    NotPermitted,
    OdsNotReady,
    OdsUnreachable,
    RequestRefused,
    WrongCredentials,
)

READ, READ_CHANGES = "Read", "ReadChanges"
_REACHABLE, _TOKEN = "reachable", "token"
# Endpoints of few rows that nearly every key may read, to be asked first.
_SAMPLES = ("schools", "localEducationAgencies", "students", "gradeLevelDescriptors")
_MOST_SAMPLES = 6
# Beyond the last row of any endpoint: the size of a page is judged, and no row is sent.
_BEYOND = 2_000_000_000
_NO_ANSWER = "check base_url, the way there (network, proxy, firewall), and with its host that it runs"
_SWITCH_ON_CHANGES = (
    "have its host switch change queries on, or write use_change_version: false; without them records "
    "deleted in the ODS stay in the warehouse"
)
_GRANT_CHANGES = (
    "have the key's claim set allow ReadChanges; without it records deleted in the ODS stay in the warehouse"
)


@dataclass
class _Examination:
    """One pair's ODS while it is asked."""

    ods: ProbedOds
    pair: TenantYear
    settings: OdsSettings
    endpoints: Sequence[Endpoint]
    options: Mapping[Endpoint, ResolvedOptions]
    info: TokenInfo | None = None

    @property
    def page_size(self) -> int:
        return max((option.page_size for option in self.options.values()), default=500)

    @property
    def takes_deletes(self) -> bool:
        return any(option.fetch_deletes for option in self.options.values())

    @property
    def has_changes(self) -> bool:
        return self.ods.abilities.change_versions and self.settings.extract.use_change_version

    @cached_property
    def sample(self) -> Endpoint | None:
        """A declared endpoint that the key can read, records and not only by its claims. Raises EdFiError."""
        candidates = sorted(
            self.endpoints, key=lambda e: _SAMPLES.index(e.name) if e.name in _SAMPLES else 99
        )
        if allowed := [e for e in candidates if READ in self.allowed(e)]:
            candidates = allowed
        for endpoint in candidates[:_MOST_SAMPLES]:
            try:
                self.ask(endpoint, {"limit": "1"})
            except (NotOffered, NotPermitted):
                continue
            except RequestRefused as error:
                if error.status != 403:  # one that must be read by a profile has a question of its own
                    raise
                continue
            return endpoint
        return None

    @property
    def wanted_profiles(self) -> Mapping[Endpoint, str | None]:
        return {endpoint: option.profile for endpoint, option in self.options.items()}

    def allowed(self, endpoint: Endpoint) -> frozenset[str]:
        """What the claims allow at an endpoint; nothing where the ODS does not tell its claims."""
        return self.info.operations.get(endpoint.path.lower(), frozenset()) if self.info else frozenset()

    def ask(self, endpoint: Endpoint, params: Mapping[str, str], suffix: str = "") -> None:
        """One GET of which only the status counts. Raises EdFiError."""
        path = endpoint.path if self.ods.abilities.namespaces else endpoint.name
        url = f"{self.ods.url('dataManagementApi')}/{path}{suffix}"
        accept = oddities.accept_of(self.ods, endpoint, None if suffix else self.options[endpoint].profile)
        self.ods.get(url, params, _unread, endpoint=f"{endpoint.path}{suffix}", retries=1, accept=accept)


def examine(platform: Platform, pair: TenantYear, base_url: str) -> Block:
    """Everything that can be told of one pair's ODS by about ten requests; never raises for what is wrong with it."""
    return Block("ods", base_url, tuple(_findings(platform, pair, base_url)), pair)


def _findings(platform: Platform, pair: TenantYear, base_url: str) -> Iterator[Finding]:
    try:
        endpoints = endpoints_of(platform, pair)
    except ConfigError as error:
        yield explained("endpoints", str(error), "correct extract.resources and extract.descriptors")
        endpoints = ()
    settings = platform.ods(pair)
    options = {
        e: platform.endpoint_options(
            pair, e.namespace, e.name, "descriptors" if e.is_descriptor else "resources"
        )
        for e in endpoints
    }
    with probed(platform, pair, base_url) as ods:
        yield from _answers(_Examination(ods, pair, settings, endpoints, options))


def _answers(examined: _Examination) -> Iterator[Finding]:
    for question, (ask, otherwise) in _QUESTIONS.items():
        examined.ods.patience.begin()
        try:
            if found := ask(examined):
                yield found
        except ConfigError as error:
            yield explained(question, str(error), otherwise)
            return
        except OdsUnreachable as error:
            yield explained(question, _named(error), _NO_ANSWER)
            return
        except EdFiError as error:
            yield explained(question, _named(error), otherwise)
            if isinstance(error, WrongCredentials) or (
                question == _REACHABLE and isinstance(error, OdsNotReady)
            ):
                return


def _named(error: EdFiError) -> str:
    return f"{error.endpoint}: {error.reason}" if error.endpoint else error.reason


def _reachable(examined: _Examination) -> Finding:
    began = time.monotonic()
    discovery = examined.ods.discovery
    return ok(_REACHABLE, f"ODS/API {discovery.ods_version}, answered in {time.monotonic() - began:.2f} s")


def _data_standard(examined: _Examination) -> Finding:
    offered, declared = examined.ods.discovery.data_model_version, examined.settings.extract.data_standard
    if f"{offered}.".startswith(f"{declared}."):
        return ok("data standard", f"{offered}, declared is {declared}")
    if not examined.ods.abilities.namespaces:
        return ok("data standard", f"not told by Ed-Fi 2, declared is {declared}")
    lacking = without_catalogue(offered)
    near = nearest_standard(offered) if lacking else ".".join(offered.split(".")[:2])
    if near == declared:
        return warning(
            "data standard",
            f"{lacking}, declared is {declared}",
            "take what only the ODS has: edfi-dagster discover --yaml",
        )
    return warning(
        "data standard",
        f"{offered} is offered, {declared} is declared{f'; {lacking}' if lacking else ''}",
        f'write data_standard: "{near}", for this year under its extract; what only {declared} has is skipped',
    )


def _mode(examined: _Examination) -> Finding:
    discovery, year = examined.ods.discovery, examined.pair.year
    untold = "tenant and year are in base_url or in the key" if discovery.version >= (7, 0) else "none told"
    instance = f", instance {discovery.instance}" if discovery.instance else ""
    several = f", several school years of which {year} is taken" if examined.settings.multiyear else ""
    return ok("mode", f"{discovery.api_mode or untold}{instance}{several}")


def _token(examined: _Examination) -> Finding:
    examined.info = examined.ods.token_info()
    if examined.info is None:
        return ok(_TOKEN, "the key and secret are taken; the ODS does not tell what they may do")
    claims = (
        f"claim set {examined.info.claim_set}" if examined.info.claim_set else "the key and secret are taken"
    )
    if examined.info.profiles:
        return warning(
            _TOKEN,
            f"{claims}, bound to {some(examined.info.profiles)}",
            "a profile may leave fields out; have a key without one made for pulling",
        )
    return ok(_TOKEN, claims)


def _organization(examined: _Examination) -> Finding | None:
    wanted, question = examined.settings.education_organization_id, "education org."
    if examined.info is None:
        if wanted is None:
            return None
        return warning(question, f"{wanted} is declared, but this ODS has no token_info to compare it with")
    found = examined.info.organizations
    told = some(map(str, found)) or "none"
    if wanted is None:
        return ok(question, f"{told} (none is declared to compare it with)")
    if any(organization.id == wanted for organization in found):
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        return ok(question, f"{next(o for o in found if o.id == wanted)}, as declared{more}")
    return _other_organization(question, wanted, found, told)


def _other_organization(question: str, wanted: int, found: Sequence[Organization], told: str) -> Finding:
    parts = [organization for organization in found if wanted in organization.above]
    if parts:
        return warning(
            question,
            f"the key belongs to {some(map(str, parts))}, parts of {wanted}",
            f"other parts of {wanted} will not be pulled; take a key of the whole",
        )
    return failed(
        question,
        f"expected {wanted}, the key belongs to {told}",
        "take this tenant's own key, or correct education_organization_id",
    )


def _change_queries(examined: _Examination) -> Finding | None:
    question = "change queries"
    if not examined.settings.extract.use_change_version:
        return ok(question, "not used (use_change_version: false), so each run pulls everything")
    if not examined.ods.abilities.change_versions:
        return ok(question, "none in this version, so each run pulls everything")
    return ok(question, f"newest change version {examined.ods.newest_change_version():,}")


def _permissions(examined: _Examination) -> Finding | None:
    question = "permissions"
    if not examined.endpoints:
        return None
    if asked := _claimable(examined):
        return _claims(question, examined, asked)
    if examined.sample is None:
        return failed(
            question,
            f"none of {_MOST_SAMPLES} endpoints tried can be read",
            "have the key's claim set allow Read, and check its education organizations",
        )
    return ok(
        question, f"{examined.sample} can be read; {examined.ods.discovery.ods_version} does not tell of all"
    )


def _claimable(examined: _Examination) -> list[Endpoint]:
    """The endpoints that the ODS's list of claims is about: a kind it never mentions is not refused by it."""
    operations = examined.info.operations if examined.info else {}
    mentioned = {name.endswith("descriptors") for name in operations}
    return [e for e in examined.endpoints if e.is_descriptor in mentioned]


def _claims(question: str, examined: _Examination, asked: Sequence[Endpoint]) -> Finding:
    refused = [e for e in asked if READ not in examined.allowed(e)]
    told = f"{len(asked) - len(refused)} of {len(asked)} endpoints can be read"
    if len(refused) == len(asked):
        return failed(question, told, "have the key's claim set allow Read")
    if refused:
        return warning(
            question,
            f"{told}; not {some(map(str, refused))}",
            "they are skipped; have the claim set allow Read, or take them out of the configuration",
        )
    if examined.sample is None:
        return failed(
            question,
            f"{told} by the claims, but none of those tried",
            "check the key's education organizations",
        )
    return ok(question, told)


def _read_changes(examined: _Examination) -> Finding | None:
    if not examined.has_changes or not (examined.takes_deletes or examined.settings.extract.get_key_changes):
        return None
    sample, claimed = examined.sample, None
    if examined.info and examined.info.operations:
        claimed = _claimed_changes(examined, [e for e in examined.endpoints if e.has_changes])
        if claimed is None or claimed.state == State.FAILED:
            return claimed
        sample = sample if sample and READ_CHANGES in examined.allowed(sample) else None
    if sample is None or not sample.has_changes:
        return claimed
    # Also where the claims allow it: a gateway that lets only some addresses through is not among them.
    told = _asked_changes(examined, sample)
    return claimed if claimed and told.state == State.OK else told


def _asked_changes(examined: _Examination, sample: Endpoint) -> Finding:
    kinds = ["/deletes", "/keyChanges"] if examined.ods.abilities.key_changes else ["/deletes"]
    try:
        for kind in kinds:
            examined.ask(sample, {"limit": "1"}, kind)
    except NotPermitted as error:
        return failed(READ_CHANGES, f"{error.endpoint}: {error.reason}", _GRANT_CHANGES)
    except NotOffered as error:
        return failed(READ_CHANGES, f"{error.endpoint}: {error.reason}", _SWITCH_ON_CHANGES)
    return ok(READ_CHANGES, f"{' and '.join(kinds)} of {sample} can be read")


def _claimed_changes(examined: _Examination, resources: Sequence[Endpoint]) -> Finding | None:
    readable = [e for e in resources if READ in examined.allowed(e)]
    refused = [e for e in readable if READ_CHANGES not in examined.allowed(e)]
    if not readable:
        return None
    asked = len(readable)
    told = f"/deletes and /keyChanges of {asked - len(refused)} of {asked} resources can be read"
    if len(refused) == asked:
        return failed(READ_CHANGES, told, _GRANT_CHANGES)
    if refused:
        return warning(READ_CHANGES, f"{told}; not {some(map(str, refused))}", _GRANT_CHANGES)
    return ok(READ_CHANGES, told)


def _page_limit(examined: _Examination) -> Finding | None:
    """Asks for a page of the configured size beyond the last row."""
    size, largest = examined.page_size, examined.ods.abilities.largest_page
    if examined.sample is None:
        return None
    if largest is not None and size > largest:
        return ok(
            "page limit", f"{largest} rows in this version, so pages are of {largest} instead of {size}"
        )
    try:
        examined.ask(examined.sample, {"limit": str(size), "offset": str(_BEYOND)})
    except RequestRefused as error:
        found, _, remedy = error.reason.partition("; ")
        smaller = remedy or "write a smaller page_size"
        return warning(
            "page limit",
            f"pages of {size} rows: {found.rpartition(': ')[2]}",
            f"{smaller}; until then runs find out by themselves",
        )
    return ok("page limit", f"pages of {size} rows are taken")


def _snapshot(examined: _Examination) -> Finding | None:
    if not examined.settings.extract.use_snapshot:
        return None
    examined.ods.start_snapshot()
    if sample := examined.sample:
        endpoint = next((e for e in examined.endpoints if e.has_changes), sample)
        deletes = examined.takes_deletes and endpoint.has_changes
        reads = examined.settings.extract.get_key_changes and examined.ods.abilities.key_changes
        key_changes = reads and endpoint.has_changes
        if found := oddities.snapshot_changes(
            examined.ods, endpoint, deletes=deletes, key_changes=key_changes
        ):
            return found
    return ok("snapshot", f"there is one, of change version {examined.ods.newest_change_version():,}")


def _profiles(examined: _Examination) -> Finding | None:
    assigned = examined.info.profiles if examined.info else ()
    return oddities.profiles_named(examined.ods, assigned, examined.wanted_profiles)


def _rows(examined: _Examination) -> Finding | None:
    ods, sample, endpoints = examined.ods, examined.sample, examined.endpoints
    profiles, size = examined.wanted_profiles, examined.page_size
    return oddities.first_page(ods, sample, endpoints, profiles, size) if sample else None


def _natural_keys(examined: _Examination) -> Finding | None:
    return oddities.contradicted_keys(examined.ods, examined.endpoints, examined.settings)


def _partitions(examined: _Examination) -> Finding | None:
    sample = examined.sample
    return oddities.partitions(examined.ods, sample, examined.endpoints) if sample else None


def _unread(answer: Answer) -> None:
    """The body is not looked at."""


Question = Callable[[_Examination], Finding | None]
_QUESTIONS: Mapping[str, tuple[Question, str]] = {
    _REACHABLE: (_reachable, _NO_ANSWER),
    "data standard": (_data_standard, ""),
    "mode": (_mode, ""),
    _TOKEN: (_token, "check client_id and client_secret of this tenant and year"),
    "education org.": (_organization, ""),
    "change queries": (
        _change_queries,
        "have its host switch change queries on, or write use_change_version: false",
    ),
    "permissions": (_permissions, "have the key's claim set allow Read"),
    READ_CHANGES: (_read_changes, _GRANT_CHANGES),
    "page limit": (_page_limit, "check base_url"),
    "profiles": (_profiles, "write profile: NAME for this tenant's year or its endpoints"),
    "rows": (_rows, ""),
    "partitions": (_partitions, ""),
    "natural keys": (_natural_keys, ""),
    "snapshot": (_snapshot, "have its host take one before each pull, or write use_snapshot: false"),
}
