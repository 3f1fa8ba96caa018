"""Runway's external API, version 1: token, job, upload, start, output sets.

It runs bundles elsewhere. It has no address for a job's state: only the output set of a run that went well shows
(Runway, ``app/api/src/external-api/README.md``).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import msgspec

from edfi_dagster.config import ConfigError
from edfi_dagster.config.earthbeam import Runway
from edfi_dagster.config.secrets import Secret
from edfi_dagster.earthbeam.runway_errors import (
    RunwayError,
    RunwayRefused,
    RunwayUnreachable,
    RunwayUnsure,
    UploadExpired,
    WrongRunwayCredentials,
)
from edfi_dagster.earthbeam.runway_http import ATTEMPTS, Asking, Http, Reply, Stream
from edfi_dagster.ods.errors import UnusableBody
from edfi_dagster.ods.token import Token, read_token

_API = "/api/v1"
_API_PATH = re.compile(r"/api/v\d+$")
_UID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_UPLOAD_SECONDS = 3600.0
# Shorter values of an address are its version, its age or the like.
_SHORTEST_PERMISSION = 12
_CHANGED = "the file changed while it was sent; send it when it is complete"
_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class RunwayService:
    """Where Runway is, and who we are there."""

    base_url: str
    token_url: str
    audience: str
    partner: str
    client_id: Secret
    client_secret: Secret

    @property
    def scope(self) -> str:
        return f"create:jobs read:jobs partner:{self.partner}"


def service_of(config: Runway | None, source: str, *, partner: str | None = None) -> RunwayService:
    """The service of an ``earthbeam.runway`` block; ``partner`` stands above the configured one.

    The API is under ``/api/v1`` of a ``base_url`` without a path, and the audience, if none is configured, the
    address without it: Runway expects its own address. Raises ConfigError, naming what is not configured.
    """
    if config is None:
        raise ConfigError(f"{source}: there is no earthbeam.runway; write it to send files to Runway")
    needed = {
        "base_url": config.base_url,
        "token_url": config.token_url,
        "partner": partner or config.partner,
        "client_id": config.client_id,
        "client_secret": config.client_secret,
    }
    missing = [f"earthbeam.runway.{name}" for name, value in needed.items() if value is None]
    if missing:
        raise ConfigError(f"{source}: {', '.join(missing)} not given; Runway cannot be reached without")
    assert config.base_url and config.token_url and config.client_id and config.client_secret
    root = _API_PATH.sub("", config.base_url)
    has_path = "/" in root.partition("://")[2] or root != config.base_url
    return RunwayService(
        base_url=config.base_url if has_path else root + _API,
        token_url=config.token_url,
        audience=config.audience or root,
        partner=str(needed["partner"]),
        client_id=config.client_id,
        client_secret=config.client_secret,
    )


class OutputSet(msgspec.Struct, frozen=True, rename="camel"):
    """What a run of a job that went well left in Runway. ``created_at`` is as Runway writes it."""

    uid: str
    job_uid: str
    files: tuple[str, ...] = ()
    sent_to_ods: bool = False
    created_at: str = ""


@dataclass(frozen=True)
class NewJob:
    """A job that waits for its files: variable → the address that takes the file, for an hour, from whoever has it."""

    uid: str
    upload_urls: Mapping[str, str] = field(repr=False)


class RunwayClient:
    """One client at one Runway; not for several threads. Every method raises RunwayError."""

    def __init__(self, service: RunwayService, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.service = service
        self._http = Http(sleep=sleep)
        self._token: Token | None = None
        # What an answer may repeat and no error may: tokens, and what permits an upload.
        self._hidden: set[str] = set()

    def create_job(
        self, tenant: str, year: int, bundle: str, files: Mapping[str, str], params: Mapping[str, str]
    ) -> NewJob:
        """A job for ``files`` (variable → name). Asked for again only after what shows that none was made.

        Raises RunwayUnsure where one may have been made.
        """
        wanted = {
            "partner": self.service.partner,
            "tenant": tenant,
            "bundle": bundle,
            "schoolYear": str(year),
            "files": dict(files),
            **({"params": dict(params)} if params else {}),
        }
        try:
            reply = self._authorised("POST", "jobs", body=wanted, repeat_unsure=False)
        except RunwayUnreachable as error:
            if error.unsure:
                raise _unsure(error.reason) from None
            raise
        if not reply.is_good:
            raise self._refused(reply)
        try:
            return _new_job(reply.json(), files)
        except RunwayError as error:
            raise _unsure(error.reason) from None

    def upload(self, url: str, file: Path, sha256: str, *, age: float = 0.0) -> None:
        """Send the file's bytes, without the token. ``age`` is how long ago, in seconds, Runway gave the address.

        Raises UploadExpired for an address that is too old, and RunwayError for a file that is not what it was.
        """
        self._hidden |= _permissions(url)
        if self.service.base_url.startswith("https:") and not url.lower().startswith("https:"):
            raise RunwayError(
                "the upload address is not https, and would show the file to others; tell who runs Runway"
            )
        sent: list[_HashedFile] = []

        def opened() -> Stream:
            sent.append(_HashedFile(file))
            return sent[-1]

        headers = {"Content-Type": "application/octet-stream"}
        try:
            reply = self._http.ask(Asking("PUT", url, headers, body=opened, secret_address=True))
        except OSError as error:
            raise RunwayError(f"cannot be read ({error.strerror or type(error).__name__})") from None
        finally:
            for stream in sent:
                stream.close()
        if reply.status in {400, 401, 403} and age > _UPLOAD_SECONDS / 2:
            raise UploadExpired(f"HTTP {reply.status}: the upload addresses have expired")
        if not reply.is_good:
            raise reply.refusal("the file store did not take the file", hidden=self._hidden)
        if sent[-1].sha256 != sha256:
            raise RunwayError(_CHANGED)

    def start(self, uid: str) -> None:
        """Have a job run; asked once. Raises RunwayRefused with status 400 also for one that runs already."""
        reply = self._authorised("POST", f"jobs/{uid}/start", attempts=1)
        if not reply.is_good:
            raise self._refused(reply)

    def output_sets(self, tenant: str, year: int, created_after: datetime) -> list[OutputSet]:
        """The output sets of a tenant's school year since ``created_after``, oldest first, of whatever job."""
        params = {
            "partner": self.service.partner,
            "tenant": tenant,
            "schoolYear": str(year),
            "createdAfter": created_after.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        reply = self._authorised("GET", "output-sets", params=params)
        if not reply.is_good:
            raise self._refused(reply)
        found = reply.json()
        # Some versions wrap the list.
        rows = found.get("data") if isinstance(found, dict) else found
        try:
            return msgspec.convert(rows, list[OutputSet])
        except msgspec.ValidationError:
            raise RunwayError("the list of output sets is not what Runway's API promises") from None

    def _refused(self, reply: Reply) -> RunwayRefused:
        return reply.refusal(_remedy(reply, self.service), hidden=self._hidden)

    def _authorised(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        repeat_unsure: bool = True,
        attempts: int = ATTEMPTS,
    ) -> Reply:
        """An answer to a request with a token; after a 401 there is one more, with a new token."""
        content = json.dumps(body).encode() if body is not None else b""
        for _ in range(2):
            token = self._good_token()
            headers = {"Authorization": f"Bearer {token.value}", "Accept": _JSON, "Content-Type": _JSON}
            url = f"{self.service.base_url}/{path}"
            asking = Asking(
                method, url, headers, params, body=(lambda: content) if method == "POST" else None
            )
            reply = self._http.ask(asking, repeat_unsure=repeat_unsure, attempts=attempts)
            if reply.status != 401:
                return reply
            self._token = None
        raise WrongRunwayCredentials(
            "HTTP 401, also with a new token; check earthbeam.runway.audience, which must be Runway's own address",
            status=401,
        )

    # -- token ------------------------------------------------------------------------------------------------

    def _good_token(self) -> Token:
        if self._token is None or not self._token.is_good(time.time()):
            try:
                self._token = self._new_token()
            except RunwayUnreachable as error:
                # Whatever became of the token request: what the token is for was not asked.
                raise RunwayUnreachable(error.reason).during("token") from None
            except RunwayError as error:
                raise error.during("token") from None
            except UnusableBody as error:
                raise RunwayError(error.reason).during("token") from None
            self._hidden.add(self._token.value)
        return self._token

    def _new_token(self) -> Token:
        asked = time.time()
        wanted = {
            "grant_type": "client_credentials",
            "client_id": self.service.client_id.read(),
            "client_secret": self.service.client_secret.read(),
            "audience": self.service.audience,
            "scope": self.service.scope,
        }
        reply = self._ask_issuer(_JSON, json.dumps(wanted).encode())
        if reply.status in {400, 415}:
            # Issuers that keep to the letter of OAuth take a form only.
            reply = self._ask_issuer(_FORM, urlencode(wanted).encode())
        if reply.status in {400, 401, 403}:
            raise WrongRunwayCredentials(
                f"HTTP {reply.status} from the token address; check client_id, client_secret, audience and partner "
                "of earthbeam.runway",
                status=reply.status,
            )
        if not reply.is_good:
            raise RunwayRefused(
                f"HTTP {reply.status} from the token address; check earthbeam.runway.token_url",
                status=reply.status,
            )
        found = reply.json()
        return read_token(found if isinstance(found, dict) else {}, asked)

    def _ask_issuer(self, kind: str, body: bytes) -> Reply:
        headers = {"Content-Type": kind, "Accept": _JSON}
        return self._http.ask(Asking("POST", self.service.token_url, headers, body=lambda: body))


class _HashedFile:
    """A file's bytes on their way, and the SHA-256 of those that went."""

    def __init__(self, path: Path) -> None:
        self._size = path.stat().st_size
        self._file = path.open("rb")
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(1 << 16):
            yield piece

    def read(self, size: int = -1) -> bytes:
        # Never more than was announced: what is appended meanwhile would be taken for the next request.
        left = self._size - self._file.tell()
        piece = self._file.read(left if size < 0 else min(size, left))
        if left and size and not piece:
            raise RunwayError(_CHANGED)
        self._sha256.update(piece)
        return piece

    def close(self) -> None:
        self._file.close()


def _unsure(reason: str) -> RunwayUnsure:
    return RunwayUnsure(
        f"{reason}: Runway may have made a job whose id was lost. It has no files and does nothing; look in Runway, and "
        "send the file again with force: true"
    )


def _new_job(found: Any, files: Mapping[str, str]) -> NewJob:
    uid = found.get("uid") if isinstance(found, dict) else None
    urls = found.get("uploadUrls") if isinstance(found, dict) else None
    if not isinstance(uid, str) or not _UID.fullmatch(uid) or not isinstance(urls, dict):
        raise RunwayError("the answer has no uid and uploadUrls")
    if set(urls) != set(files) or not all(isinstance(url, str) for url in urls.values()):
        raise RunwayError("the answer's uploadUrls are not for the files that were named")
    return NewJob(uid, urls)


def _permissions(url: str) -> set[str]:
    """What stands in an address of an upload and permits it, as it is written there and as it is meant."""
    values = {value for part in re.split(r"[?&]", url)[1:] if (value := part.partition("=")[2])}
    return {text for value in values for text in (value, unquote(value)) if len(text) >= _SHORTEST_PERMISSION}


def _remedy(reply: Reply, service: RunwayService) -> str:
    if reply.status == 403:
        return f"the token must have the scopes {service.scope}"
    if reply.status == 404:
        return "check partner, tenant and earthbeam.runway.base_url, which ends in /api/v1"
    if 300 <= reply.status < 400:
        return "it redirects elsewhere; write the final address as earthbeam.runway.base_url"
    return ""
