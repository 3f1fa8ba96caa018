"""The lake in a bucket of S3, or of a service that speaks its protocol."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from boto3.s3.transfer import TransferConfig

from edfi_dagster.config.lake import S3Lake as S3Settings
from edfi_dagster.lake.s3_client import S3Client
from edfi_dagster.lake.s3_errors import explained
from edfi_dagster.lake.s3_upload import Senders, Upload
from edfi_dagster.lake.store import LakeError, below_root

_COPIED_AT_ONCE = 8
_CHUNK = 1 << 20
# What came and is not on the disk yet: 4 ranges and 16 pieces of 256 KiB for each file that is copied.
_COPYING = TransferConfig(max_concurrency=4, max_io_queue=16, preferred_transfer_client="classic")


class S3Lake:
    """Objects below one prefix of a bucket. One store serves all threads of a process.

    Nothing is contacted and no secret read before the first use. An object appears whole or not at all; what a killed
    process leaves is an incomplete multipart upload, which nobody sees but which is stored until the bucket's lifecycle
    rule (AbortIncompleteMultipartUpload) takes it away.
    """

    def __init__(self, settings: S3Settings, tmp_dir: Path | None = None) -> None:
        self._settings = settings
        self._tmp_dir = tmp_dir
        self._client = S3Client(settings)
        self._senders = Senders()
        self._digests: dict[str, tuple[str, str]] = {}  # path → ETag and sha256 of what was sent or read
        chosen = {"ServerSideEncryption": settings.encryption, "SSEKMSKeyId": settings.kms_key_id}
        self._sealed = {name: value for name, value in chosen.items() if value is not None}

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        with self._explained(path):
            upload = Upload(self._client, self._senders, self._object(path), self._sealed)
            try:
                yield cast(BinaryIO, upload)
                upload.finish()
                self._digests[path] = upload.etag, upload.digest
            except BaseException:
                upload.abort()
                raise

    def read(self, path: str) -> bytes:
        wanted = self._object(path)

        def content() -> bytes:
            return bytes(self._client.at_once.get_object(**wanted)["Body"].read())

        with self._explained(path):
            return bytes(self._client.lasting(content))

    def digest(self, path: str) -> str:
        wanted = self._object(path)

        def read() -> tuple[str, str]:
            found, digest = self._client.at_once.get_object(**wanted), hashlib.sha256()
            for chunk in found["Body"].iter_chunks(_CHUNK):
                digest.update(chunk)
            return str(found["ETag"]), digest.hexdigest()

        with self._explained(path):
            known = self._digests.get(path)
            if known is None or self._client.head_object(**wanted)["ETag"] != known[0]:
                known = self._digests[path] = self._client.lasting(read)
        return known[1]

    def exists(self, path: str) -> bool:
        key = self._key(path)
        with self._explained(path):
            # A HEAD request would not say why it was refused. The key itself comes before all that begin with it.
            found = self._client.list_objects_v2(Bucket=self._settings.bucket, Prefix=key, MaxKeys=1)
        return any(item["Key"] == key for item in found.get("Contents", ()))

    def children(self, folder: str) -> list[str]:
        key = self._key(folder)
        asked = {"Bucket": self._settings.bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/"}
        found: set[str] = set()
        with self._explained(folder):
            while True:
                page = self._client.list_objects_v2(**asked)
                found.update(item["Prefix"] for item in page.get("CommonPrefixes", ()))
                found.update(item["Key"] for item in page.get("Contents", ()))
                if "NextContinuationToken" not in page:
                    break
                asked["ContinuationToken"] = page["NextContinuationToken"]
        # A key may be an object and a folder at once.
        names = {name.removeprefix(asked["Prefix"]).rstrip("/") for name in found}
        return sorted(name for name in names if name and not name.startswith("."))

    def delete(self, path: str) -> None:
        with self._explained(path):
            self._client.delete_object(**self._object(path))

    def uri(self, path: str) -> str:
        return f"s3://{self._settings.bucket}/{self._key(path)}".rstrip("/")

    @contextmanager
    def local_files(self, paths: Sequence[str]) -> Iterator[list[Path]]:
        """As for every lake. The disk that ``tmp_dir``, or else the system's own, lies on needs room for them all."""
        with self._folder() as folder:
            copies = [folder / f"{number}-{Path(path).name}" for number, path in enumerate(paths)]
            with ThreadPoolExecutor(_COPIED_AT_ONCE, "s3-copy") as threads:
                copying = [
                    threads.submit(self._copy, path, copy) for path, copy in zip(paths, copies, strict=True)
                ]
                try:
                    for one in copying:
                        one.result()
                except BaseException:
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise
            yield copies

    def check_writable(self) -> None:
        with self.writing(".check") as stream:
            stream.write(b"")
        self.delete(".check")
        self.exists(".check")

    def _key(self, path: str) -> str:
        return "/".join(piece for piece in (self._settings.prefix, *below_root(path).parts) if piece)

    def _object(self, path: str) -> dict[str, str]:
        return {"Bucket": self._settings.bucket, "Key": self._key(path)}

    def _explained(self, path: str) -> AbstractContextManager[None]:
        return explained(self._settings, self.uri(path))

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        try:
            folder = tempfile.TemporaryDirectory(prefix="edfi_lake_", dir=self._tmp_dir)
        except OSError as error:
            raise self._no_room(error) from error
        with folder:
            yield Path(folder.name)

    def _copy(self, path: str, copy: Path) -> None:
        try:
            with self._explained(path):
                self._client.download_file(**self._object(path), Filename=str(copy), Config=_COPYING)
        except OSError as error:
            raise self._no_room(error) from error

    def _no_room(self, error: OSError) -> LakeError:
        return LakeError(
            f"lake {self.uri('')}: {error.strerror or type(error).__name__} while its files are copied to "
            f"{self._tmp_dir or tempfile.gettempdir()}; make room there, or set extract.tmp_dir"
        )
