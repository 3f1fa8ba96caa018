"""The configuration that ``init`` writes: its text, and what the ODSs tell of their data standard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import quote

import yaml

from edfi_dagster.cli.new_files import SCHEMA_HINT
from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.config.environment import variable_names
from edfi_dagster.health.probe import probed
from edfi_dagster.ods.catalogue import nearest_standard, without_catalogue
from edfi_dagster.ods.errors import EdFiError

DEFAULT_STANDARD = "5.2"
_ASKED_AT_ONCE = 16
_TAKE_THE_REST = "edfi-dagster discover --yaml lists what only the ODS has"


@dataclass(frozen=True)
class Offered:
    """The data standard to pull an ODS by, and what to say if that is not its own."""

    standard: str
    lacking: str = ""


@dataclass(frozen=True)
class Start:
    """What a new configuration is made of; ``base_url`` may hold ``{tenant}`` and ``{year}``."""

    tenants: tuple[str, ...]
    years: tuple[int, ...]
    base_url: str
    bucket: str | None = None
    account: str | None = None
    user: str = "EDFI_LOADER"
    standards: Mapping[TenantYear, Offered] = field(default_factory=dict)

    def pairs(self) -> Iterator[TenantYear]:
        return (TenantYear(code, year) for code in self.tenants for year in self.years)

    def url_of(self, pair: TenantYear) -> str:
        return self.base_url.replace("{tenant}", quote(pair.tenant, safe="")).replace(
            "{year}", str(pair.year)
        )


def text_of(start: Start) -> str:
    """The configuration file. What it is given is quoted, and not judged: the models do that."""
    first = next(iter(start.standards.values()), Offered(DEFAULT_STANDARD))
    return "\n".join([*_stores(start), *_extract(first), *_tenants(start, first.standard)]) + "\n"


def ask_standards(
    platform: Platform, tell: Callable[[str], None], warn: Callable[[str], None]
) -> dict[TenantYear, Offered]:
    """The data standard of every ODS that answers within seconds; its root document asks for no key.

    ``warn`` hears of those that do not answer, or have a standard that there is no catalogue of.
    """
    with ThreadPoolExecutor(_ASKED_AT_ONCE, "init") as threads:
        answers = threads.map(lambda pair: (pair, _ask(platform, pair)), platform.pairs())
        return dict(_standards(answers, tell, warn))


def _ask(platform: Platform, pair: TenantYear) -> tuple[str, str] | EdFiError:
    """Versions of ODS/API and of the data model, or why they are not known."""
    try:
        with probed(platform, pair, platform.ods(pair).base_url) as ods:
            return ods.discovery.ods_version, ods.discovery.data_model_version
    except EdFiError as error:
        return error


def _standards(
    answers: Iterator[tuple[TenantYear, tuple[str, str] | EdFiError]],
    tell: Callable[[str], None],
    warn: Callable[[str], None],
) -> Iterator[tuple[TenantYear, Offered]]:
    for pair, answer in answers:
        if isinstance(answer, EdFiError):
            warn(f"{answer}; its data_standard is written as a guess")
            continue
        version, model = answer
        try:
            offered = Offered(nearest_standard(model), without_catalogue(model))
        except ValueError:
            warn(
                f"{pair}: ODS/API {version} has data model {model}, of which there is no catalogue; write data_standard"
            )
            continue
        if offered.lacking:
            warn(f"{pair}: ODS/API {version}, {offered.lacking}; {_TAKE_THE_REST}")
        else:
            tell(f"{pair}: ODS/API {version}, data standard {offered.standard}")
        yield pair, offered


def _stores(start: Start) -> Iterator[str]:
    yield SCHEMA_HINT
    yield "# Every key, its default and its meaning: edfi-dagster config reference. Secrets are {env: NAME} or {file: PATH}."
    yield "# The configuration with all defaults: edfi-dagster config show. Would a run work? edfi-dagster check."
    yield ""
    yield "# Where pulled files are kept, as the API sent them."
    if start.bucket is None:
        yield "lake: {kind: local, root: data/lake}"
        yield "# lake: {kind: s3, bucket: my-lake, prefix: edfi, region: us-east-2}      # without keys: the machine's role"
    else:
        yield f"lake: {{kind: s3, bucket: {_scalar(start.bucket)}, prefix: edfi}}      # without keys: the machine's role"
    yield ""
    yield "# Where the raw tables are kept, which dbt reads."
    if start.account is None:
        yield "warehouse: {kind: duckdb, path: data/warehouse.duckdb, schema: edfi3}"
    else:
        yield from _snowflake(start.account, start.user)
    yield ""
    yield "# One message for each failed run, and for a tenant and year that becomes late."
    yield '# slack: {token: {env: SLACK_TOKEN}, channel: "#edfi", events: [failure, late]}'
    yield ""
    yield "# Time zone of all schedules. Schedules are off until you turn them on in the UI."
    yield "timezone: UTC"


def _snowflake(account: str, user: str) -> Iterator[str]:
    yield "warehouse:"
    yield "  kind: snowflake"
    yield f"  account: {_scalar(account)}"
    yield f"  user: {_scalar(user)}"
    yield "  private_key: {env: SNOWFLAKE_PRIVATE_KEY}      # or private_key_path, password, oauth_token"
    yield "  # role: EDFI_LOADER"
    yield "  # warehouse: LOADING"
    yield "  database: raw"
    yield "  schema: edfi3"
    yield "  stage: raw.util.airflow_stage                  # an external stage at the lake's root; unused with a local lake"


def _extract(first: Offered) -> Iterator[str]:
    yield ""
    yield "extract:"
    if first.lacking:
        yield f"  # {first.lacking}; {_TAKE_THE_REST}"
    yield f'  data_standard: "{first.standard}"          # which endpoints "all" means'
    yield "  max_concurrent_requests: 8    # in flight to one ODS, over all endpoints"
    yield '  resources: all                # or {"*": {}, studentSectionAssociations: {page_size: 250}, studentHealths: {enabled: false}}'
    yield "  descriptors: all"


def _tenants(start: Start, standard: str) -> Iterator[str]:
    yield ""
    yield "tenants:"
    prefixes = variable_names(start.pairs())
    for code in start.tenants:
        yield f"  {_scalar(code)}:"
        yield "    # education_organization_id: 255901      # check compares it with the key's"
        yield "    years:"
        for year in start.years:
            pair = TenantYear(code, year)
            yield from _year(start, pair, prefixes[pair], standard)


def _year(start: Start, pair: TenantYear, variable: str, standard: str) -> Iterator[str]:
    yield f"      {pair.year}:"
    yield f"        base_url: {_scalar(start.url_of(pair))}"
    yield f"        client_id: {{env: {variable}_KEY}}"
    yield f"        client_secret: {{env: {variable}_SECRET}}"
    yield '        # schedule: "0 2 * * *"                 # every night at two'
    own = start.standards.get(pair, Offered(standard))
    if own.standard != standard:
        if own.lacking:
            yield f"        # {own.lacking}; {_TAKE_THE_REST}"
        yield f'        extract: {{data_standard: "{own.standard}"}}'


def _scalar(value: str) -> str:
    """Text as YAML that is read as the same text, also where it looks like something else (``NO``, ``2025``)."""
    quoted = yaml.safe_dump(value, width=10_000, allow_unicode=True, default_style=None)
    return quoted.removesuffix("\n").removesuffix("...").strip()
