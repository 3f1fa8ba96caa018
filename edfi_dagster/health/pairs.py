"""Which endpoints a question is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edfi_dagster.config import ConfigError, Platform, TenantYear
from edfi_dagster.ods.catalogue import Endpoint, endpoints_of, find_endpoints


def chosen_endpoints(
    platform: Platform, pairs: Sequence[TenantYear], names: Sequence[str]
) -> Mapping[TenantYear, Sequence[Endpoint]]:
    """The endpoints of each pair, or those of them that are called ``names``; a pair may lack one that another has.

    Raises ConfigError for a name that no pair has.
    """
    declared = {pair: endpoints_of(platform, pair) for pair in pairs}
    if not names:
        return declared
    found: dict[TenantYear, dict[Endpoint, None]] = {pair: {} for pair in pairs}
    for name in names:
        missing: ConfigError | None = None
        has_any = False
        for pair, endpoints in declared.items():
            try:
                found[pair] |= dict.fromkeys(find_endpoints([name], endpoints))
                has_any = True
            except ConfigError as error:
                missing = error
        if missing is not None and not has_any:
            raise missing
    return {pair: tuple(endpoints) for pair, endpoints in found.items()}
