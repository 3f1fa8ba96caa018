"""The values a configuration is made of: partitions, identifiers, paths, schedules."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, NamedTuple
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
)

from edfi_dagster.config.cron import check_cron

_YEARS = range(1900, 2101)
_PIECE = re.compile(r"[A-Za-z0-9_.-]+")
_EIGHT_DIGITS = re.compile(r"[0-9]{8}")
# Partition keys of Dagster, paths, patterns, placeholders and shells read these as something else.
_NOT_IN_TENANT_CODES = frozenset('|,[]/\\:*?{}"<>$;`~%')
_LONGEST_NAME, _LONGEST_FOLDER = 63, 200
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,254}")
_OWNER = re.compile(r"team:[A-Za-z0-9_.-]+|[^@\s:]+@[^@\s]+\.[A-Za-z]{2,}")
_PROFILE = re.compile(r"[A-Za-z0-9_-]{1,200}")
_LABEL = re.compile(r"[\w-]{1,63}")
_NESTED_API = re.compile(r"/(data/v3|oauth|metadata)(/|$)", re.IGNORECASE)


class Model(BaseModel):
    """Base of every block: frozen, unknown keys refused, the input never repeated in an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class TenantYear(NamedTuple):
    """The partition of every asset: one tenant in one school year (2025 is 2024-25)."""

    tenant: str
    year: int

    def __str__(self) -> str:
        return f"{self.tenant}/{self.year}"


def check_path_piece(text: str, what: str) -> str:
    """Return `text` if it can stand in a lake path as it is.

    Raises ValueError. Eight digits in a row are refused because loaders other than ours may read the
    date of a file as the first eight digits of its path.
    """
    if not text:
        raise ValueError(f"{what} is empty; give it a name of letters, digits, _, . or -")
    wrong = sorted(set(_PIECE.sub("", text)))
    if wrong:
        raise ValueError(
            f"{what} {text!r} holds {' '.join(map(repr, wrong))}, which breaks paths or partition keys;"
            " use letters, digits, _, . and - only"
        )
    if ".." in text:
        raise ValueError(f"{what} {text!r} holds '..', which leads out of the lake; use single dots")
    if text[0] in ".-":
        raise ValueError(f"{what} {text!r} begins with {text[0]!r}; begin with a letter, a digit or _")
    if _EIGHT_DIGITS.search(text):
        raise ValueError(
            f"{what} {text!r} holds eight digits in a row, which would be read as the date of every file;"
            " break them up, for example with _"
        )
    if len(text) > _LONGEST_NAME:
        raise ValueError(f"{what} is {len(text)} characters long; use at most {_LONGEST_NAME}")
    return text


def check_tenant_code(code: str) -> str:
    """Return `code` if it can be a tenant: a value of tenant_code, a partition key and, by `tenant_folder`, a folder.

    So names as people have them are allowed: `Grand Bend`, `48227901`, `St. Mary's`, `Cañon City`. Raises ValueError.
    """
    if not code:
        raise ValueError("tenant code is empty; write the code that the tables' tenant_code holds")
    if code != code.strip():
        raise ValueError(f"tenant code {code!r} begins or ends with a space; take the space out")
    unseen = [c for c in code if unicodedata.category(c)[0] in "CZ" and c != " "]
    if unseen:
        named = " ".join(f"U+{ord(c):04X}" for c in dict.fromkeys(unseen))
        raise ValueError(f"tenant code {code!r} holds {named}, which cannot be seen; take it out")
    if wrong := sorted(_NOT_IN_TENANT_CODES & set(code)):
        raise ValueError(
            f"tenant code {code!r} holds {' '.join(map(repr, wrong))}, which breaks paths or partition keys;"
            " use letters, digits, spaces and _ . - ' & ( ) only"
        )
    if ".." in code:
        raise ValueError(f"tenant code {code!r} holds '..', which leads out of the lake; use single dots")
    if code[0] in ".-":
        raise ValueError(f"tenant code {code!r} begins with {code[0]!r}; begin with a letter, a digit or _")
    if len(code) > _LONGEST_NAME or len(tenant_folder(code)) > _LONGEST_FOLDER:
        raise ValueError(
            f"tenant code is {len(code)} characters long; use at most {_LONGEST_NAME}, and fewer if they are not ASCII"
        )
    return code


def tenant_folder(code: str) -> str:
    """Return the folder of a tenant in the lake: the code, with `=` and two hexadecimal digits for each byte of a
    character that is not a letter, a digit, `_`, `.` or `-` of ASCII.

    `Grand Bend` → `Grand=20Bend`. So a path needs no quotes in S3, in a stage of Snowflake or in a pattern of DuckDB,
    and two codes never share a folder.
    """
    return "".join(c if _PIECE.fullmatch(c) else "".join(f"={byte:02X}" for byte in c.encode()) for c in code)


def _tenant_code(value: object) -> str:
    if isinstance(value, bool):
        raise ValueError(
            "a tenant code must be text, but YAML reads yes, no, on, off, true and false as booleans;"
            ' write it in quotes ("NO":)'
        )
    if not isinstance(value, str):
        raise ValueError('a tenant code must be text, but this is not; write it in quotes ("123":)')
    return check_tenant_code(value)


def _year(value: object) -> int:
    if isinstance(value, str):
        raise ValueError("a school year is a number; write it without quotes, for example 2025")
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a school year is a whole number, for example 2025")
    if value not in _YEARS:
        raise ValueError(
            f"{value} is not a school year from {_YEARS[0]} to {_YEARS[-1]}; 2024-25 is written 2025"
        )
    return value


def _identifier(value: str) -> str:
    if not _IDENTIFIER.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a name for a table or schema; use letters, digits and _, not beginning with a"
            " digit"
        )
    return value


def _profile(value: str) -> str:
    if not _PROFILE.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a profile's name; use letters, digits, _ and -, as its content types do"
        )
    return value


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):
        raise ValueError(f'{value!r} is not a time zone; write for example "America/Chicago"') from None
    return value


def _owner(value: str) -> str:
    if not _OWNER.fullmatch(value):
        raise ValueError(f'{value!r} is not an owner; write "team:data" or an e-mail address')
    return value


def _split(url: str) -> SplitResult:
    # The text of urllib's own error repeats the URL.
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("is not a URL; check its brackets and its host") from None


def _url(value: str) -> str:
    value = value.strip()
    if any(letter.isspace() for letter in value):
        raise ValueError("is not a URL: it holds a blank; take it out")
    parts = _split(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "the URL holds a user or password; take them out and write client_id and client_secret"
            " as {env: NAME}"
        )
    if parts.scheme not in {"http", "https"} or not _is_host(parts.hostname or ""):
        raise ValueError("is not a URL; write it in full, for example https://ods.example.org/v7.3/api")
    if parts.query or parts.fragment:
        raise ValueError("the URL ends in ?… or #…; leave that out")
    try:
        parts.port  # noqa: B018  (reading it is what checks it)
    except ValueError:
        raise ValueError("the URL's port is not a number from 0 to 65535") from None
    return value.rstrip("/")


def _is_host(name: str) -> bool:
    """Whether it is a name or an address that a connection can be made to; urllib lets nearly anything pass."""
    return ":" in name or all(_LABEL.fullmatch(label) for label in name.removesuffix(".").split("."))


def _base_url(value: str) -> str:
    if value.strip().startswith("sandbox://"):
        return _sandbox_url(value.strip())
    url = _url(value)
    nested = _NESTED_API.search(urlsplit(url).path)
    if nested:
        raise ValueError(
            f"the URL goes below the API's root; end it before {nested.group(0).rstrip('/')!r},"
            " as in https://ods.example.org/v7.3/api"
        )
    return url


def _sandbox_url(value: str) -> str:
    parts = _split(value)
    year = parts.path.removeprefix("/")
    if parts.netloc and not parts.query and year.isdecimal() and int(year) in _YEARS:
        check_path_piece(parts.netloc, "tenant code")
        return value
    raise ValueError(
        "is not a sandbox address; write sandbox://<tenant>/<year>, as in sandbox://lakeview/2025"
    )


def folder_of(info: ValidationInfo) -> Path:
    """The folder that relative paths start from: the configuration file's, else the working directory."""
    context = info.context if isinstance(info.context, Mapping) else {}
    folder: Path = context.get("folder") or Path.cwd()
    return folder


def absolute(path: str | Path, info: ValidationInfo) -> str:
    """Return `path` as seen from the configuration file's folder, `~` and `..` resolved, links kept."""
    return os.path.abspath(folder_of(info) / os.path.expanduser(path))  # noqa: PTH100, PTH111  (keep links)


def _config_path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("must be a path, written as text")
    if "://" in str(value):
        raise ValueError("is a URL, but a path on this machine is meant")
    return Path(absolute(value, info))


def placeholders(template: str) -> frozenset[str]:
    """Return the names in braces of `template`, `{year}` → `year`. Raises ValueError on stray braces."""
    try:
        names = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError:
        raise ValueError("has a brace without its partner; write {year}, or {{ and }} for braces") from None
    if not all(name.isidentifier() for name in names):
        raise ValueError("has braces that hold no name; write {year}, or {{ and }} for braces")
    return frozenset(names)


def path_template(value: object, info: ValidationInfo) -> str:
    """Return a path that may hold `{year}` and the like, made absolute. Raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a path, written as text")
    placeholders(value)
    folder = str(folder_of(info).absolute()).replace("{", "{{").replace("}", "}}")
    return os.path.abspath(os.path.join(folder, os.path.expanduser(value)))  # noqa: PTH100, PTH111, PTH118


def _command(value: str, info: ValidationInfo) -> str:
    return absolute(value, info) if os.sep in value else value


def says_kind(*kinds: str) -> BeforeValidator:
    """Return a validator that asks a block for its `kind` before its other keys are looked at."""

    def check(value: object) -> object:
        if isinstance(value, Mapping) and value.get("kind") is None:
            raise ValueError(f"says not which kind it is; add kind: {' or kind: '.join(kinds)}")
        return value

    return BeforeValidator(check)


def scalar_text(value: object) -> object:
    """Return a whole number or decimal as the text it would be sent as; all else unchanged."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def not_blank(value: str) -> str:
    """Return `value` if it holds anything but spaces. Raises ValueError."""
    if not value.strip():
        raise ValueError("is empty")
    return value


TenantCode = Annotated[str, BeforeValidator(_tenant_code)]
Year = Annotated[int, BeforeValidator(_year)]
Profile = Annotated[StrictStr, AfterValidator(_profile)]
Text = Annotated[StrictStr, AfterValidator(not_blank)]
ScalarText = Annotated[
    StrictStr, BeforeValidator(scalar_text), WithJsonSchema({"type": ["string", "number"]})
]
Identifier = Annotated[StrictStr, AfterValidator(_identifier)]
Cron = Annotated[StrictStr, AfterValidator(check_cron)]
Timezone = Annotated[StrictStr, AfterValidator(_timezone)]
Owner = Annotated[StrictStr, AfterValidator(_owner)]
Url = Annotated[StrictStr, AfterValidator(_url)]
BaseUrl = Annotated[StrictStr, AfterValidator(_base_url)]
ConfigPath = Annotated[Path, BeforeValidator(_config_path)]
PathTemplate = Annotated[str, BeforeValidator(path_template)]
Command = Annotated[Text, AfterValidator(_command)]
Count = Annotated[int, Field(strict=True, ge=1)]
CountOrZero = Annotated[int, Field(strict=True, ge=0)]
Flag = Annotated[bool, Field(strict=True)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Duration = Annotated[float, Field(strict=True, gt=0)]
