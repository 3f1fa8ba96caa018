"""What can go wrong between us and an ODS, and whose fault it is.

EdFiError                   names tenant, year and endpoint; never a student's value, token or secret
├── OdsUnreachable          no answer, or only failing ones, after every retry            (transient)
│   ├── OdsDown             nobody answers at its address
│   └── TooHeavy            more than the ODS can give at once: ask for less
├── WrongCredentials        the token request was refused: stops the tenant-year          (permanent)
├── OdsNotReady             the discovery document is missing, foreign or unusable         (permanent)
├── RequestRefused          any other answer that is not 2xx                              (permanent)
│   ├── NotPermitted        403
│   └── NotOffered          404
├── SnapshotGone            the snapshot that is being read is no longer there: begin again
├── UnusableBody            2xx, but the body is cut, or is not what the protocol says    (transient)
├── IncompletePull          fewer distinct ids than the ODS counts, after three re-pulls
└── OdsRestored             the ODS went back in time: everything must be read again
"""

from __future__ import annotations

from edfi_dagster.config import TenantYear
from edfi_dagster.config.errors import printable


class EdFiError(Exception):
    """A failure in one tenant-year, usually at one endpoint.

    ``reason`` is the sentence without the names in front of it. What an ODS put into it cannot begin a line of a log
    nor speak to a terminal.
    """

    def __init__(self, reason: str, *, pair: TenantYear | None = None, endpoint: str | None = None) -> None:
        self.reason = reason = printable(reason)
        self.pair = pair
        self.endpoint = endpoint
        place = " ".join(str(part) for part in (pair, endpoint) if part)
        super().__init__(f"{place}: {reason}" if place else reason)


class OdsUnreachable(EdFiError):
    """Nothing usable came back after every retry."""


class OdsDown(OdsUnreachable):
    """No connection at all, after every retry: the other endpoints would find the same."""


class TooHeavy(OdsUnreachable):
    """The ODS cannot give this much in one answer; raised only where the caller said it could ask for less."""


class WrongCredentials(EdFiError):
    """The ODS refused the key and secret; nothing else of this tenant-year can work."""


class OdsNotReady(EdFiError):
    """The base URL does not answer like an Ed-Fi API, or not as the configuration expects of it."""


class RequestRefused(EdFiError):
    """A permanent, non-2xx answer. ``status`` is the HTTP status."""

    def __init__(
        self, reason: str, *, status: int, pair: TenantYear | None = None, endpoint: str | None = None
    ) -> None:
        self.status = status
        super().__init__(reason, pair=pair, endpoint=endpoint)


class NotPermitted(RequestRefused):
    """403: the key's claim set does not cover this."""


class NotOffered(RequestRefused):
    """404: this ODS has no such endpoint."""


class SnapshotGone(EdFiError):
    """The snapshot was taken away while it was read: what was read of it cannot be continued."""


class UnusableBody(EdFiError):
    """A 2xx answer whose body is cut, is not JSON, or is not the JSON the protocol promises.

    ``remedy`` is what to do if it stays.
    """

    remedy = ""


class IncompletePull(EdFiError):
    """The ODS counts more records than it gave, after every re-pull."""


class OdsRestored(EdFiError):
    """The ODS was restored to an earlier state: what was committed before cannot be continued."""
