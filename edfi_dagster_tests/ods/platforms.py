"""Configurations of one tenant and year, and sessions that do not really sleep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edfi_dagster.config import Platform, TenantYear, parse_platform
from edfi_dagster.ods.catalogue import Endpoint, find_endpoints, standard_endpoints
from edfi_dagster.ods.pages import Page
from edfi_dagster.ods.session import OdsSession

PAIR = TenantYear("grand_bend", 2025)
KEY_VARIABLE, SECRET_VARIABLE = "ODS_KEY", "ODS_SECRET"


def platform_at(base_url: str, text: str = "", of_year: str = "") -> Platform:
    """One tenant's year at ``base_url``. ``text`` goes to the top of the file, ``of_year`` below the year."""
    lines = [
        *text.splitlines(),
        "tenants:",
        "  grand_bend:",
        "    years:",
        "      2025:",
        f"        base_url: {base_url}",
        f"        client_id: {{env: {KEY_VARIABLE}}}",
        f"        client_secret: {{env: {SECRET_VARIABLE}}}",
        *(f"        {line}" for line in of_year.splitlines()),
    ]
    return parse_platform("\n".join(lines), "agency.yaml", Path.cwd())


class Naps:
    """Stands for ``time.sleep``: notes how long it would have slept, and does ``then`` instead."""

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        self.seconds: list[float] = []
        self.then = then

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self.then is not None:
            self.then()


@contextmanager
def session_at(
    base_url: str,
    *,
    sleep: Naps | None = None,
    max_concurrent_requests: int = 8,
    timeouts: tuple[float, float] = (5.0, 10.0),
    of_year: str = "",
) -> Iterator[OdsSession]:
    """``of_year`` goes below the year."""
    platform = platform_at(
        base_url, f"extract: {{max_concurrent_requests: {max_concurrent_requests}}}", of_year
    )
    session = OdsSession(platform.ods(PAIR), PAIR, sleep=sleep or Naps(), timeouts=timeouts)
    try:
        yield session
    finally:
        session.close()


def endpoint(name: str) -> Endpoint:
    (found,) = find_endpoints([name], standard_endpoints("5.2"))
    return found


def rows_of(pages: Iterator[Page]) -> list[bytes]:
    return [row for page in pages for row in page.rows]
