"""An object in the making: sent part by part while more of it comes, never touching the disk.

An object holds no more memory than it has been given, and at most two parts: one that fills and one on its way.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from base64 import b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from edfi_dagster.lake.s3_client import S3Client

PART_BYTES = 8 * 1024 * 1024
SENDERS = 8

# A part has at least this share of what was sent before it: the 10,000 parts that S3 takes then reach the 5 TiB that
# it takes, and all parts but the last are of one size (as some other services want it) below 10 GB.
_SHARE = 1_250
_LAST_PART_SECONDS = 60.0

Part = dict[str, Any]


class Senders:
    """The threads that send parts for all objects of a lake together."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(SENDERS, "s3-part")
        self._room = threading.BoundedSemaphore(2 * SENDERS)

    def send(self, task: Callable[[int, bytearray], Part], number: int, body: bytearray) -> Future[Part]:
        """Have a part sent; waits while too many of other objects do."""
        self._room.acquire()
        try:
            sending = self._threads.submit(task, number, body)
        except BaseException:
            self._room.release()
            raise
        sending.add_done_callback(lambda _: self._room.release())
        return sending


def part_size(sent: int) -> int:
    """Bytes of the next part, after ``sent`` bytes of the object."""
    return max(PART_BYTES, sent // _SHARE)


class Upload:
    """A stream to one object, which is there once ``finish`` has returned. Raises botocore's errors.

    ``client`` and ``senders`` are shared between threads, the upload itself belongs to one. ``target`` and ``sealed``
    are the parameters that name the object and its encryption. A small object is one request.
    """

    def __init__(
        self, client: S3Client, senders: Senders, target: Mapping[str, str], sealed: Mapping[str, str]
    ) -> None:
        self._client = client
        self._senders = senders
        self._object = target
        self._sealed = sealed
        self._mark = uuid.uuid4().hex
        self._upload: dict[str, str] | None = None
        self._held = bytearray()
        self._sent = 0
        self._parts: list[Part] = []
        self._sending: Future[Part] | None = None
        self._sha256 = hashlib.sha256()
        self.etag = ""

    @property
    def digest(self) -> str:
        """The sha256 of what was written, in hex."""
        return self._sha256.hexdigest()

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        rest = memoryview(data)
        while rest:
            size = part_size(self._sent)
            taken = rest[: size - len(self._held)]
            self._held += taken
            rest = rest[len(taken) :]
            if len(self._held) == size:
                self._send()
        return len(data)

    def flush(self) -> None:
        """A part goes when it is full, and what is left with ``finish``."""

    def finish(self) -> None:
        """Make the object exist, whole, in place of any earlier one; ``etag`` is then its version."""
        if self._upload is None:
            body = self._held
            put = self._client.put_object(**self._object, **self._sealed, Body=body, ContentMD5=_md5(body))
            self.etag = put["ETag"]
            return
        if self._held:
            self._send()
        self._settle()
        try:
            made = self._client.complete_multipart_upload(
                **self._upload, MultipartUpload={"Parts": self._parts}
            )
            self.etag = made["ETag"]
        except ClientError as error:
            # The answer to a first request was lost, and the one that was sent again found nothing left to do.
            if error.response["Error"].get("Code") != "NoSuchUpload" or not self._is_there():
                raise

    def abort(self) -> None:
        """Take back what was sent, as far as the service can be reached: the error that led here is the one to tell."""
        self._held = bytearray()
        if self._sending is not None and not self._sending.cancel():
            wait([self._sending], _LAST_PART_SECONDS)  # a part that arrived after the abort would stay
        if self._upload is not None:
            with suppress(BotoCoreError, ClientError):
                self._client.at_once.abort_multipart_upload(**self._upload)

    def _send(self) -> None:
        self._settle()
        if self._upload is None:
            begun = self._client.create_multipart_upload(
                **self._object, **self._sealed, Metadata={"upload": self._mark}
            )
            self._upload = {**self._object, "UploadId": begun["UploadId"]}
        body, self._held = self._held, bytearray()
        self._sent += len(body)
        self._sending = self._senders.send(self._send_part, len(self._parts) + 1, body)

    def _settle(self) -> None:
        """Wait for the part on its way. One that failed stays, so that nothing later can make the object exist."""
        if self._sending is not None:
            self._parts.append(self._sending.result())
            self._sending = None

    def _send_part(self, number: int, body: bytearray) -> Part:
        assert self._upload is not None
        sent = self._client.upload_part(**self._upload, PartNumber=number, Body=body, ContentMD5=_md5(body))
        return {"PartNumber": number, "ETag": sent["ETag"]}

    def _is_there(self) -> bool:
        found = self._client.head_object(**self._object)
        self.etag = found["ETag"]
        return bool(found["Metadata"].get("upload") == self._mark)


def _md5(body: bytearray) -> str:
    """The checksum that every service of this protocol knows, and that buckets under a retention rule insist on."""
    return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
