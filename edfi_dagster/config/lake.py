"""The lake: where the pulled files are kept."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictStr, model_validator

from edfi_dagster.config.secrets import Secret
from edfi_dagster.config.values import ConfigPath, Model, Text, Url, check_path_piece, says_kind

Compression = Literal["zstd", "gzip"]
Encryption = Literal["AES256", "aws:kms"]
# Buckets of before March 2018 may have capitals, underscores and up to 255 characters; botocore addresses them by path.
_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value) or ".." in value:
        raise ValueError("is not a bucket's name; write the name alone, without s3:// and without a folder")
    return value


def _prefix(value: str) -> str:
    prefix = value.strip("/")
    for piece in prefix.split("/") if prefix else ():
        check_path_piece(piece, "folder")
    return prefix


class LocalLake(Model):
    """A folder on this machine, or on a volume that every machine mounts."""

    kind: Literal["local"]
    """A folder."""
    root: ConfigPath
    """The folder; a relative one starts from the configuration's own."""
    compression: Compression = "zstd"
    """How files are compressed."""


class S3Lake(Model):
    """A bucket of S3 or of a service that speaks its protocol. Without keys the machine's role is used.

    Without `encryption` the bucket's own default holds; without `kms_key_id`, `aws:kms` takes AWS's own key for S3.
    """

    kind: Literal["s3"]
    """S3, or a service that speaks its protocol."""
    bucket: Annotated[StrictStr, AfterValidator(_bucket)]
    """The bucket's name alone."""
    prefix: Annotated[StrictStr, AfterValidator(_prefix)] = ""
    """The folder in the bucket under which everything lies."""
    region: Text | None = None
    """The bucket's region; else the machine's."""
    endpoint_url: Url | None = None
    """Address of a service other than AWS's."""
    access_key_id: Secret | None = None
    """Without keys the machine's role is used."""
    secret_access_key: Secret | None = None
    """Goes with access_key_id."""
    encryption: Encryption | None = None
    """Without it the bucket's own default holds."""
    kms_key_id: Text | None = None
    """Key for aws:kms; without it AWS's own key for S3."""
    compression: Compression = "zstd"
    """How files are compressed."""

    @model_validator(mode="after")
    def _both_keys_or_none(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError(
                "access_key_id and secret_access_key go together; give both, or neither to use the"
                " machine's role"
            )
        return self

    @model_validator(mode="after")
    def _key_of_an_encryption(self) -> Self:
        if self.kms_key_id is not None and self.encryption != "aws:kms":
            raise ValueError(
                "kms_key_id is of no use without encryption: aws:kms; write that, or take it out"
            )
        return self


Lake = Annotated[LocalLake | S3Lake, Field(discriminator="kind"), says_kind("local", "s3")]
