"""The ODSs whose address begins with ``sandbox://``: one sandbox serves them all, for as long as somebody uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from edfi_dagster.config import Platform, TenantYear

SANDBOX_SCHEME = "sandbox://"


@contextmanager
def open_sandbox(platform: Platform) -> Iterator[str]:
    """The URL of the sandbox that serves every ``sandbox://`` ODS of the platform; starts it when nobody runs it."""
    from edfi_dagster.sandbox.shared import shared_sandbox  # a server, which few platforms need

    urls = [platform.ods(pair).base_url for pair in platform.pairs()]
    ods = [url.removeprefix(SANDBOX_SCHEME) for url in urls if url.startswith(SANDBOX_SCHEME)]
    with shared_sandbox(platform.folder / ".dagster" / "embedded" / "sandbox", ods) as url:
        yield url


@contextmanager
def base_urls(platform: Platform, pairs: Sequence[TenantYear]) -> Iterator[Mapping[TenantYear, str]]:
    """Where each pair's ODS is; the sandbox that serves ``sandbox://`` ones runs for as long as the block."""
    urls = {pair: platform.ods(pair).base_url for pair in pairs}
    embedded = [pair for pair, url in urls.items() if url.startswith(SANDBOX_SCHEME)]
    if not embedded:
        yield urls
        return
    with open_sandbox(platform) as root:
        yield urls | {pair: f"{root}/{urls[pair].removeprefix(SANDBOX_SCHEME)}" for pair in embedded}
