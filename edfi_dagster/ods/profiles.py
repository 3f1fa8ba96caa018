"""Profiles: under which content type an ODS gives the records of an endpoint (api.md section 7).

    application/vnd.ed-fi.<resource>.<profile>.readable+json

``resource`` is the item's own name (``student``), both in lower case. A key that has several profiles must name one;
deletes and key changes know none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edfi_dagster.ods.errors import UnusableBody

_CONTENT_TYPE = re.compile(
    r"application/vnd\.ed-fi\.(?:[\w-]+\.)?\w+\.([\w-]+)\.readable\+json", re.IGNORECASE
)
INCORRECT_USAGE = "urn:ed-fi:api:security:data-policy:incorrect-usage"


def content_type(name: str, profile: str) -> str:
    """What is accepted of the endpoint called ``name`` by a profile, by the rule of the ODS."""
    return f"application/vnd.ed-fi.{_singular(name).lower()}.{profile.lower()}.readable+json"


def content_types(body: bytes) -> Mapping[str, str]:
    """Lower-case path of an endpoint → content type, from a profile's OpenAPI document. Raises UnusableBody."""
    try:
        return dict(_read(json.loads(body)))
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UnusableBody("the body is no OpenAPI document") from None


def profiles_in(text: str) -> list[str]:
    """The profiles whose content types a text names, sorted."""
    return sorted({found[1] for found in _CONTENT_TYPE.finditer(text)})


def _read(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Swagger 2.0 lists what an operation produces, OpenAPI 3 the contents of its answers."""
    for path, item in document.get("paths", {}).items():
        parts = path.strip("/").split("/")
        get = item.get("get", {})
        told = [*get.get("produces", ()), *get.get("responses", {}).get("200", {}).get("content", ())]
        found = next((kind for kind in told if _CONTENT_TYPE.fullmatch(str(kind))), None)
        if len(parts) == 2 and found:
            yield "/".join(parts).lower(), str(found)


def _singular(name: str) -> str:
    if name == "people":
        return "person"
    return f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")
