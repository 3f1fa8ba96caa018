"""``{tenant}``, ``{year}``, ``{grain}``, ``{file}`` and what hooks return, put into configured values."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

from edfi_dagster.earthbeam.errors import BundleError


class Lenient(dict[str, str]):
    """Names that are not known yet stay as they are written."""

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"

    def __or__(self, other: Mapping[str, str]) -> Lenient:  # type: ignore[override]
        return Lenient({**self, **other})


def fill(template: str, values: Mapping[str, str]) -> str:
    """``template`` with its placeholders filled in. Raises BundleError for one that nothing fills in."""
    try:
        return Formatter().vformat(template, (), values)
    except KeyError as error:
        name = error.args[0]
        raise BundleError(
            f"nothing fills in {{{name}}} of {template!r}; let the preprocess hook return {name}"
        ) from None


def fill_path(template: str, values: Mapping[str, str]) -> str:
    """A filled path. A placeholder that is an absolute path of its own, as a hook returns, replaces what stands before it."""
    _, double, after = fill(template, values).rpartition("//")
    return f"/{after}" if double else after
