"""The way to S3: one client for all threads of a process, which waits out what passes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import boto3
import botocore.session
from boto3.exceptions import RetriesExceededError
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnection

from edfi_dagster.config.lake import S3Lake as S3Settings

ATTEMPTS = 3
PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds at most, half of it at least, between rounds of ``ATTEMPTS``."""

_CONNECTIONS = 64
_PASSING_CODES = {"RequestTimeout", "BadDigest", "OperationAborted", "ConditionalRequestConflict"}
# A role's keys last for hours, and where they come from may be out of reach when new ones are due.
_CUT = (HTTPClientError, NoConnection, IncompleteReadError, RetriesExceededError, CredentialRetrievalError)
_METADATA_ATTEMPTS = "metadata_service_num_attempts"


class S3Client:
    """botocore's client of S3, opened at its first use; ``client.put_object(…)`` and all others wait out what passes.

    botocore's own retries are quick and share a budget, which a second without S3 uses up when many requests are on
    their way. A service that has never answered, or not for all those pauses, is not waited for: it fails at once.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._opening = threading.Lock()
        self._opened: Any = None
        self._answers = False

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        if operation.startswith("_"):
            raise AttributeError(operation)
        return partial(self.lasting, getattr(self.at_once, operation))

    @property
    def at_once(self) -> Any:
        """The client that waits for nothing."""
        with self._opening:
            if self._opened is None:
                self._opened = _connect(self._settings)
            return self._opened

    def lasting(self, call: Callable[..., Any], **parameters: Any) -> Any:
        """What ``call`` returns, called again after a pause while it fails for a reason that may pass."""
        for pause in PAUSES:
            try:
                return self._told(call, **parameters)
            except (ClientError, *_CUT) as error:
                if not self._may_pass(error):
                    raise
            time.sleep(pause * random.uniform(0.5, 1))
        try:
            return self._told(call, **parameters)
        except _CUT:
            self._answers = False
            raise

    def _told(self, call: Callable[..., Any], **parameters: Any) -> Any:
        try:
            found = call(**parameters)
        except ClientError:
            self._answers = True
            raise
        self._answers = True
        return found

    def _may_pass(self, error: Exception) -> bool:
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return status >= 500 or status == 429 or error.response["Error"].get("Code") in _PASSING_CODES
        return self._answers and not isinstance(error, SSLError)


def _connect(settings: S3Settings) -> Any:
    keys = {}
    if settings.access_key_id is not None and settings.secret_access_key is not None:
        keys["aws_access_key_id"] = settings.access_key_id.read()
        keys["aws_secret_access_key"] = settings.secret_access_key.read()
    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        # We send MD5, as every service knows it; the newer checksums are refused by many.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return _session().client(
        "s3", region_name=settings.region, endpoint_url=settings.endpoint_url, config=config, **keys
    )


def _session() -> boto3.session.Session:
    """A session of its own: boto3's default one is not made for threads."""
    session = botocore.session.get_session()
    if session.get_config_variable(_METADATA_ATTEMPTS) == 1:
        # A machine whose runs all start in one minute is turned away by the service that has its role's keys.
        session.set_config_variable(_METADATA_ATTEMPTS, 3)
    return boto3.session.Session(botocore_session=session)
