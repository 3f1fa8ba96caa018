"""The warehouse: where the raw tables are kept, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, model_validator

from edfi_dagster.config.errors import Problems
from edfi_dagster.config.secrets import Secret
from edfi_dagster.config.values import ConfigPath, Identifier, Model, Text, says_kind

_PLAIN = re.compile(r"[A-Za-z0-9_.$@+-]+")
# A name that Snowflake takes unquoted; one that is quoted as it stands; one that stands in quotes already.
UNQUOTED = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_NAME = re.compile(r"""\w(?:[\w$ -]{0,253}[\w$-])?|"[^"'\\]{1,255}\"""")
_PARTS = re.compile(r"""(?:"[^"]*"|[^".]*)(?:\.|$)""")
_RESERVED_PREFIXES = frozenset({"earthbeam", "ed_fi", "health"})
STATEMENT_TIMEOUT = "STATEMENT_TIMEOUT_IN_SECONDS"
# Our SQL relies on these, so each session sets them itself.
_OWN_PARAMETERS = frozenset(
    {"AUTOCOMMIT", "QUOTED_IDENTIFIERS_IGNORE_CASE", "TIMESTAMP_TYPE_MAPPING", "TIMEZONE"}
)


def _plain(value: str) -> str:
    if not _PLAIN.fullmatch(value):
        raise ValueError("holds characters that Snowflake names do not have; use letters, digits, _, - and .")
    return value


def _account(value: str) -> str:
    if "://" in value or value.endswith(".snowflakecomputing.com"):
        raise ValueError(
            "is an address; write the account's identifier alone, as in myorg-myaccount (host is a key of its"
            " own)"
        )
    return _plain(value)


def _is_name(value: str) -> bool:
    return value.isprintable() and _NAME.fullmatch(value) is not None


def _snowflake_name(value: str) -> str:
    if not _is_name(value):
        raise ValueError(
            f"{value!r} is not a name for a database or schema; use letters, digits, _, - and spaces, or write a name in"
            " double quotes as it is spelled"
        )
    return value


def stage_parts(stage: str) -> list[str]:
    """Return the names in `database.schema.stage`, of which one in double quotes may hold a dot. Raises ValueError."""
    parts = [part.removesuffix(".") for part in _PARTS.findall(stage) if part]
    if not 1 <= len(parts) <= 3 or ".".join(parts) != stage or not all(map(_is_name, parts)):
        raise ValueError("is not a stage's name; write database.schema.stage, as in raw.util.airflow_stage")
    return parts


def _stage(value: str) -> str:
    return ".".join(stage_parts(value.removeprefix("@")))


def _database_file(value: object) -> object:
    if isinstance(value, str) and value.startswith(":memory:"):
        raise ValueError("a database in memory is lost after each transaction; give the path of a file")
    return value


def _session_value(value: object) -> object:
    if not isinstance(value, str | int | float | bool):
        raise ValueError("must be text, a number, true or false")
    return value


def _parameter_name(value: str) -> str:
    name = value.upper()
    if name in _OWN_PARAMETERS:
        raise ValueError("is set by every session itself; take it out")
    return name


def _time_out(parameters: Mapping[str, str | int | float | bool]) -> Mapping[str, str | int | float | bool]:
    seconds = parameters.get(STATEMENT_TIMEOUT, 1)
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 1 <= seconds <= 604800:
        raise ValueError(f"{STATEMENT_TIMEOUT} must be a number of seconds between 1 and 604800")
    return parameters


ParameterName = Annotated[Identifier, AfterValidator(_parameter_name)]
SessionValue = Annotated[str | int | float | bool, BeforeValidator(_session_value)]
Plain = Annotated[StrictStr, AfterValidator(_plain)]
SnowflakeName = Annotated[StrictStr, AfterValidator(_snowflake_name)]


class DuckDBWarehouse(Model):
    """A DuckDB file."""

    kind: Literal["duckdb"]
    """A DuckDB file."""
    # The validator that sees the text first stands last.
    path: Annotated[ConfigPath, BeforeValidator(_database_file)]
    """The file; it is made when it is not there."""
    schema_name: Identifier = Field(default="edfi3", alias="schema")
    """Schema of the raw tables."""


class SnowflakeWarehouse(Model):
    """A Snowflake account. Exactly one of private_key, private_key_path, password and oauth_token is given."""

    kind: Literal["snowflake"]
    """A Snowflake account."""
    account: Annotated[StrictStr, AfterValidator(_account)]
    """The account's identifier, as in myorg-myaccount."""
    user: Plain
    """The user who loads."""
    private_key: Secret | None = None
    """Private key of the user (PEM); the usual way to sign in."""
    private_key_path: ConfigPath | None = None
    """File of the private key."""
    private_key_passphrase: Secret | None = None
    """Passphrase of the private key, if it has one."""
    password: Secret | None = None
    """Password, where the account still allows one."""
    oauth_token: Secret | None = None
    """OAuth access token."""
    role: Plain | None = None
    """Role of the sessions; else the user's default."""
    warehouse: Plain | None = None
    """Virtual warehouse; else the user's default."""
    database: SnowflakeName = "raw"
    """Database of the raw tables. `raw` means RAW, as without quotes in SQL; `raw-prod` and `'"raw"'` mean what they say."""
    schema_name: SnowflakeName = Field(default="edfi3", alias="schema")
    """Schema of the raw tables, named as the database is."""
    stage: Annotated[StrictStr, AfterValidator(_stage)] = "raw.util.airflow_stage"
    """External stage at the lake's root; with a local lake files are PUT to an internal one."""
    host: Text | None = None
    """Another address than the account's, such as that of a private link."""
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = None
    """Another port than 443."""
    protocol: Literal["https", "http"] = "https"
    """http is for tests."""
    session_parameters: Annotated[Mapping[ParameterName, SessionValue], AfterValidator(_time_out)] = {}
    """Parameters of every session, such as STATEMENT_TIMEOUT_IN_SECONDS (600)."""

    @model_validator(mode="after")
    def _one_way_to_sign_in(self) -> Self:
        ways = ("private_key", "private_key_path", "password", "oauth_token")
        given = [way for way in ways if getattr(self, way) is not None]
        if len(given) != 1:
            found = " and ".join(given) + " are given" if given else "none is given"
            raise ValueError(f"signing in needs exactly one of {', '.join(ways)}, but {found}")
        if self.private_key_passphrase is not None and not given[0].startswith("private_key"):
            raise ValueError("private_key_passphrase goes with private_key or private_key_path; take it out")
        return self


Warehouse = Annotated[
    DuckDBWarehouse | SnowflakeWarehouse, Field(discriminator="kind"), says_kind("duckdb", "snowflake")
]


class TableNames(Model):
    """Names of the shared raw tables, and the first part of every table's asset key."""

    asset_prefix: Identifier = "raw_edfi_3"
    """First part of every table's asset key; the name of the dbt source."""
    change_versions: Identifier = "_meta_change_versions"
    """Watermarks."""
    deletes: Identifier = "_deletes"
    """Tombstones of all resources."""
    key_changes: Identifier = "_key_changes"
    """Key changes of all resources."""
    descriptors: Identifier = "_descriptors"
    """Records of all descriptors."""
    total_counts: Identifier = "_meta_total_counts"
    """The ODS's own counts."""
    run_log: Identifier = "_meta_run_log"
    """Runs of bundles."""
    student_id_match_rates: Identifier = "_meta_student_id_match_rates"
    """Match rates of assessment files."""

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        problems: list[tuple[tuple[str | int, ...], str]] = []
        holders: dict[str, str] = {}
        for field in type(self).model_fields:
            name: str = getattr(self, field)
            if field == "asset_prefix":
                if name.lower() in _RESERVED_PREFIXES:
                    problems.append(((field,), f"{name!r} is taken by other assets; choose another name"))
                continue
            if "$" in name:
                problems.append(((field,), f"{name!r} holds $, which asset keys do not allow; leave it out"))
            first = holders.setdefault(name.lower(), field)
            if first != field:
                problems.append(((field,), f"{name!r} is also the table of {first}; give each its own"))
        if problems:
            raise Problems(problems)
        return self
