"""What all answers share: indented JSON, as the API writes every document, and the ETag of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from edfi_dagster.sandbox.database import Row

JSON = {"content-type": "application/json; charset=utf-8"}


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = msgspec.json.format(msgspec.json.encode(content), indent=2)
    return Response(text, status, headers={**JSON, **(headers or {})})


def etag(row: Row) -> str:
    return str(msgspec.json.decode(row.text)["_etag"])
