"""A session for questions: it gives up after seconds where a pull would wait, and asks what a key may do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from edfi_dagster.config import Platform, TenantYear
from edfi_dagster.ods.answers import Answer, Transient, check_status, json_object
from edfi_dagster.ods.errors import OdsUnreachable, RequestRefused, UnusableBody
from edfi_dagster.ods.oauth import FORM
from edfi_dagster.ods.session import OdsSession
from edfi_dagster.ods.token import Token

# For a connection, for the next bytes of an answer, and for one question with all its retries.
CONNECT_SECONDS, READ_SECONDS, QUESTION_SECONDS = 3.0, 10.0, 8.0
_LONGEST_NAP_SECONDS = 0.3
_FIRST_WITH_TOKEN_INFO = (3, 0)


@dataclass(frozen=True)
class Organization:
    """An education organization that a key belongs to; ``above`` are the ids of those it is part of."""

    id: int
    name: str
    above: frozenset[int]

    def __str__(self) -> str:
        return f"{self.id} {self.name}".strip()


@dataclass(frozen=True)
class TokenInfo:
    """What an ODS tells of a key (api.md section 2).

    ``operations`` maps a lower-case path to what the key may do there (``Read``, ``ReadChanges`` among it), empty where
    the ODS does not say: it does from 7.3 on.
    """

    organizations: tuple[Organization, ...]
    claim_set: str
    profiles: tuple[str, ...]
    operations: Mapping[str, frozenset[str]]


class Patience:
    """Naps instead of the long pauses between retries, and gives up when a question has taken too long."""

    def __init__(self, pair: TenantYear) -> None:
        self._pair = pair
        self.begin()

    def begin(self, seconds: float | None = None) -> None:
        """To be told of every new question, or of several that may take so many seconds together."""
        self._seconds = QUESTION_SECONDS if seconds is None else seconds
        self._until = time.monotonic() + self._seconds

    def end(self) -> None:
        """Let no question begin or be asked again."""
        self._until = time.monotonic()

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until

    def __call__(self, seconds: float) -> None:
        """Raises OdsUnreachable."""
        if self.is_over:
            raise OdsUnreachable(
                f"no usable answer within {self._seconds:.0f} s; it may be starting or overloaded: ask again, or look at "
                "base_url, network and proxy",
                pair=self._pair,
            )
        time.sleep(min(seconds, _LONGEST_NAP_SECONDS))


class ProbedOds(OdsSession):
    """The ODS of one pair, asked by one who does not wait."""

    def __init__(self, platform: Platform, pair: TenantYear, base_url: str) -> None:
        self.patience = Patience(pair)
        super().__init__(
            platform.ods(pair),
            pair,
            base_url=base_url,
            timeouts=(CONNECT_SECONDS, READ_SECONDS),
            sleep=self.patience,
        )

    def token_info(self) -> TokenInfo | None:
        """What the key may do; None where the ODS does not tell. Asks for a token in any case, and so raises WrongCredentials."""
        if self.discovery.version < _FIRST_WITH_TOKEN_INFO:
            self._token_lease().get()
            return None
        url = f"{self.url('oauth')}_info"
        try:
            return self._retries.persist(
                lambda _: self._with_token(lambda token, __: read_token_info(self._introspect(url, token))),
                retries=1,
            )
        except (RequestRefused, UnusableBody):
            return None

    def _introspect(self, url: str, token: Token) -> Answer:
        headers = {
            "Accept": "application/json",
            "Content-Type": FORM,
            "Authorization": f"Bearer {token.value}",
        }
        answer = self._send("POST", url, headers, "", body=urlencode({"token": token.value}).encode())
        try:
            check_status(answer, self.pair, None, url, url)
        except Transient as error:
            if (
                error.remedy
            ):  # something in front of the ODS answered, and without this help a run works as well
                raise UnusableBody(error.reason) from None
            raise
        return answer


@contextmanager
def probed(platform: Platform, pair: TenantYear, base_url: str) -> Iterator[ProbedOds]:
    ods = ProbedOds(platform, pair, base_url)
    try:
        yield ods
    finally:
        ods.close()


def read_token_info(answer: Answer) -> TokenInfo:
    """Raises UnusableBody."""
    document = json_object(answer)
    try:
        return TokenInfo(
            tuple(map(_organization, document.get("education_organizations") or ())),
            str((document.get("claim_set") or {}).get("name") or ""),
            tuple(map(str, document.get("assigned_profiles") or ())),
            {
                str(resource["resource"]).strip("/").lower(): frozenset(map(str, resource["operations"]))
                for resource in document.get("resources") or ()
            },
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise UnusableBody("the body is no description of a token") from None


def _organization(row: Mapping[str, Any]) -> Organization:
    own = int(row["education_organization_id"])
    above = {value for name, value in row.items() if name.endswith("_id") and isinstance(value, int)}
    return Organization(own, str(row.get("name_of_institution") or ""), frozenset(above - {own}))
