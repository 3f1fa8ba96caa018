"""What some hosts' ODSs do and most do not: records counted twice, half characters, profiles, switched-off features.

A test sets the fields of ``store.oddities``; another process posts them to ``/{ods}/_control/oddities``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import msgspec
from starlette.responses import Response

from edfi_dagster.sandbox import errors
from edfi_dagster.sandbox.model import Endpoint

_PROFILE_TYPE = re.compile(r"application/vnd\.ed-fi\.(\w+)\.([\w-]+)\.readable\+json", re.IGNORECASE)
_KEPT = {"id", "_etag", "_lastModifiedDate"}


@dataclass
class Oddities:
    """The oddities of one ODS; as made, there are none.

    ``repeated``: ids of rows that are counted and served twice, next to each other, as ODS/API 5.1 and 5.2 do
    (ODS-5090). ``spellings``: text → what stands in its place in records, deletes and key changes, also what is no
    JSON. ``mark``: what stands before every JSON answer, such as a byte order mark. ``change_queries``: whether they are
    switched on. ``snapshot_changes``: whether ``/deletes`` and ``/keyChanges`` can be read from a snapshot; else they
    answer 500. ``profiles``: name → endpoint's path → the fields that it leaves beside the key; the key has them all.
    ``data_model``: the version of the data standard that discovery tells; ``endpoints``: path of an endpoint → the path
    by which it is known here instead.
    """

    repeated: set[str] = field(default_factory=set)
    spellings: dict[str, str] = field(default_factory=dict)
    mark: bytes = b""
    change_queries: bool = True
    snapshot_changes: bool = True
    profiles: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    data_model: str = ""
    endpoints: dict[str, str] = field(default_factory=dict)

    def clear(self) -> None:
        """Make the ODS an ordinary one again."""
        self.set({each.name: getattr(Oddities(), each.name) for each in fields(self)})

    def set(self, values: Mapping[str, Any]) -> None:
        """Set some fields. Raises ValueError for one that there is not."""
        unknown = values.keys() - {each.name for each in fields(self)}
        if unknown:
            raise ValueError(f"unknown oddity {', '.join(sorted(unknown))}")
        for name, value in values.items():
            if name == "repeated":
                value = set(value)
            elif name == "mark" and isinstance(value, str):
                value = value.encode()
            setattr(self, name, value)

    def spelled(self, text: bytes) -> bytes:
        for plain, odd in self.spellings.items():
            text = text.replace(plain.encode(), odd.encode("utf-8", "surrogateescape"))
        return text

    def marked(self, response: Response) -> Response:
        """The answer with the mark before its body."""
        if not self.mark or not response.body:
            return response
        kept = {k: v for k, v in response.headers.items() if k.lower() != "content-length"}
        return Response(self.mark + bytes(response.body), response.status_code, headers=kept)

    def known_as(self, path: str) -> str:
        """The path of an endpoint of the data standard that is known here by another."""
        lower = path.lower()
        return next((own for own, here in self.endpoints.items() if here.lower() == lower), path)

    def profile(self, endpoint: Endpoint, accept: str, *, implicit: bool) -> str | None:
        """The profile by which a request reads an endpoint; None for none. Raises ApiError.

        ``implicit``: where one profile covers the endpoint, it need not be named (7.0 and later).
        """
        covering = sorted(name for name, kept in self.profiles.items() if endpoint.path in kept)
        named = _PROFILE_TYPE.search(accept)
        if named is None:
            if not covering:
                return None
            if implicit and len(covering) == 1:
                return covering[0]
            raise errors.profile_wanted(content_types(endpoint, covering))
        if named[1].lower() != endpoint.singular.lower():
            raise errors.wrong_profile("The resource in the content type is not the resource of the request.")
        found = next((name for name in self.profiles if name.lower() == named[2].lower()), None)
        if found is not None and found not in covering:
            raise errors.wrong_profile(f"The resource is not accessible through the '{named[2]}' profile.")
        if found is None:
            raise errors.profile_wanted(content_types(endpoint, covering))
        return found

    def shaped(self, endpoint: Endpoint, profile: str, text: bytes) -> bytes:
        """Records, one or a list of them, with only the fields that a profile leaves."""
        wanted = {*self.profiles[profile][endpoint.path], *(part.path[0] for part in endpoint.key), *_KEPT}
        found = msgspec.json.decode(text, type=list[dict[str, Any]] | dict[str, Any])
        rows = found if isinstance(found, list) else [found]
        shaped = [{name: value for name, value in row.items() if name in wanted} for row in rows]
        return msgspec.json.format(msgspec.json.encode(shaped if isinstance(found, list) else shaped[0]))


def content_types(endpoint: Endpoint, profiles: Sequence[str]) -> list[str]:
    """What a request for an endpoint by some profiles accepts."""
    return [
        f"application/vnd.ed-fi.{endpoint.singular.lower()}.{name.lower()}.readable+json" for name in profiles
    ]
