"""Trying again what may pass, and what it is called when it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from edfi_dagster.config import TenantYear
from edfi_dagster.ods.answers import NO_CONNECTION, Oversized, Transient, seconds_before_retry
from edfi_dagster.ods.errors import (
    EdFiError,
    OdsDown,
    OdsNotReady,
    OdsUnreachable,
    RequestRefused,
    TooHeavy,
    UnusableBody,
)
from edfi_dagster.ods.network import ProxyFailure
from edfi_dagster.ods.transport import Untrusted

T = TypeVar("T")

DEFAULT_RETRIES = 5
# Of time-outs and 504s of one request: the second shows that it is the request.
_HEAVY_ATTEMPTS = 2


class Retries:
    """For the requests to one ODS. ``sleep`` waits between them, and no place in flight is held meanwhile."""

    def __init__(self, base_url: str, pair: TenantYear, sleep: Callable[[float], None]) -> None:
        self._base = base_url
        self._pair = pair
        self._sleep = sleep

    def persist(
        self,
        attempt: Callable[[bool], T],
        *,
        retries: int | None = None,
        endpoint: str | None = None,
        wanted: str = "",
        lighter: bool = False,
    ) -> T:
        """What ``attempt`` returns, tried again while it fails in a way that may pass; its argument says if it is a retry.

        ``wanted`` begins the message of what is given up; ``lighter`` as in ``OdsSession.get``.
        """
        retries = DEFAULT_RETRIES if retries is None else retries
        failures = heavy = 0
        while True:
            try:
                return attempt(failures > 0)
            except Oversized as error:
                raise self._too_large(error, endpoint, failures + 1, lighter, wanted) from None
            except Untrusted as error:
                raise self._untrusted(error) from None
            except ProxyFailure as error:
                raise OdsNotReady(error.sentence, pair=self._pair) from None
            except (Transient, UnusableBody) as error:
                failures += 1
                heavy = heavy + 1 if isinstance(error, Transient) and error.heavy else 0
                if lighter and heavy and (heavy == _HEAVY_ATTEMPTS or failures > retries):
                    raise self._error(TooHeavy, error.reason, endpoint, failures) from None
                if failures > retries:
                    raise self._given_up(error, endpoint, failures, wanted) from None
                told = error.wait if isinstance(error, Transient) else 0.0
            self._sleep(seconds_before_retry(failures, told))

    def _given_up(
        self, error: Transient | UnusableBody, endpoint: str | None, attempts: int, wanted: str
    ) -> EdFiError:
        # Never UnusableBody for a token: the request that waits for it would try all of this again.
        kind: type[EdFiError] = OdsDown if error.reason == NO_CONNECTION else OdsUnreachable
        if isinstance(error, UnusableBody) and not wanted:
            kind = UnusableBody
        whom = error.whom if isinstance(error, Transient) else ""
        return self._error(
            kind, f"{wanted}{error.reason}", endpoint, attempts, whom=whom, remedy=error.remedy
        )

    def _too_large(
        self, error: Oversized, endpoint: str | None, attempts: int, lighter: bool, wanted: str
    ) -> EdFiError:
        if lighter:
            return self._error(TooHeavy, error.reason, endpoint, attempts)
        if wanted:  # not the answer that was asked for, but what it takes to ask
            return OdsNotReady(f"{wanted}{error.reason}; check base_url", pair=self._pair)
        reason = f"{error.reason}; write a smaller page_size" if endpoint else error.reason
        return RequestRefused(reason, status=error.status, pair=self._pair, endpoint=endpoint)

    def _untrusted(self, error: Untrusted) -> EdFiError:
        return OdsNotReady(
            f"{self._base} is not trusted: {error.reason}; have this machine trust its issuer "
            "(REQUESTS_CA_BUNDLE), or write verify_ssl: false",
            pair=self._pair,
        )

    def _error(
        self,
        kind: type[EdFiError],
        reason: str,
        endpoint: str | None,
        attempts: int,
        *,
        whom: str = "",
        remedy: str = "",
    ) -> EdFiError:
        times = f"{attempts} attempts" if attempts > 1 else "1 attempt"
        whom = whom or urlsplit(self._base).netloc.rpartition("@")[2]
        said = f"{reason} from {whom}, {times}{f'; {remedy}' if remedy else ''}"
        return kind(said, pair=self._pair, endpoint=endpoint)
